//! The file in which a receiver process writes what it has received. It outlives a SIGKILL, and the scenario reads it. Each
//! chat is one line, appended before the chat is confirmed.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;

use super::chat_key::{Key, Origin};
use super::checker::Arrival;

/// A received chat.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct LogEntry {
    pub(super) arrival: Arrival,
    pub(super) mid: i64,
    pub(super) again: bool,
    pub(super) origin: Origin,
}

/// Reads a log while it grows.
#[derive(Debug)]
pub(super) struct LogReader {
    file: File,
    /// The beginning of a line whose end is not written yet.
    partial: Vec<u8>,
}

impl LogReader {
    /// The file must exist.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        Ok(Self { file: File::open(path)?, partial: Vec::new() })
    }

    /// The lines that were written since the last time.
    pub(super) fn read(&mut self) -> io::Result<Vec<LogEntry>> {
        self.file.read_to_end(&mut self.partial)?;
        let Some(end) = self.partial.iter().rposition(|byte| *byte == b'\n') else { return Ok(Vec::new()) };
        let rest = self.partial.split_off(end + 1);
        let whole = std::mem::replace(&mut self.partial, rest);
        let lines = String::from_utf8_lossy(&whole);
        lines
            .lines()
            .map(|line| parse(line).ok_or_else(|| io::Error::other(format!("no line of a log: {line:?}"))))
            .collect()
    }

    /// The writer was restarted and has removed a line without an end: forgets it too.
    pub(super) fn reset(&mut self) -> io::Result<()> {
        let behind = i64::try_from(self.partial.len()).unwrap_or(0);
        self.partial.clear();
        self.file.seek(SeekFrom::Current(-behind)).map(drop)
    }
}

/// Writes a log.
#[derive(Debug)]
pub(super) struct LogWriter {
    file: File,
    /// The highest number in it.
    pub(super) last: i64,
    /// The latest connection in it.
    pub(super) connection: u64,
}

impl LogWriter {
    /// Continues a log. Removes a line that a SIGKILL has cut off: its chat was not confirmed.
    pub(super) fn resume(path: &Path) -> io::Result<Self> {
        let mut file = OpenOptions::new().read(true).append(true).create(true).open(path)?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        file.set_len(whole as u64)?;
        let mut writer = Self { file, last: 0, connection: 0 };
        for line in String::from_utf8_lossy(&bytes[..whole]).lines().filter_map(parse) {
            writer.last = writer.last.max(line.mid);
            writer.connection = writer.connection.max(line.arrival.connection);
        }
        Ok(writer)
    }

    /// Appends chats. They are with the kernel when this returns.
    pub(super) fn append(&mut self, lines: &[LogEntry]) -> io::Result<()> {
        let mut text = String::new();
        for line in lines {
            self.last = self.last.max(line.mid);
            text.push_str(&write(line));
        }
        self.file.write_all(text.as_bytes())
    }
}

fn write(line: &LogEntry) -> String {
    let LogEntry { arrival: Arrival { connection, server_run, .. }, mid, again, origin } = line;
    let origin = match origin {
        Origin::Ours(Key { sender, receiver, serial }) => format!("{sender} {receiver} {serial}"),
        Origin::Foreign => "foreign".to_owned(),
        Origin::Damaged => "damaged".to_owned(),
    };
    format!("{connection} {server_run} {mid} {again} {origin}\n")
}

fn parse(line: &str) -> Option<LogEntry> {
    let mut words = line.split(' ');
    let (connection, server_run) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
    // A process has one connection at a time.
    let arrival = Arrival { connection, opened: connection, server_run };
    let (mid, again) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
    let origin = match words.next()? {
        "foreign" => Origin::Foreign,
        "damaged" => Origin::Damaged,
        sender => Origin::Ours(Key {
            sender: sender.parse().ok()?,
            receiver: words.next()?.parse().ok()?,
            serial: words.next()?.parse().ok()?,
        }),
    };
    Some(LogEntry { arrival, mid, again, origin })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(connection: u64, mid: i64, origin: Origin) -> LogEntry {
        LogEntry {
            arrival: Arrival { connection, opened: connection, server_run: 2 },
            mid,
            again: mid % 2 == 0,
            origin,
        }
    }

    #[test]
    fn what_is_written_is_read_and_a_line_that_was_cut_off_is_taken_out() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        let key = Key { sender: 1, receiver: 2, serial: 3 };
        let first = [line(4, 10, Origin::Ours(key)), line(5, 11, Origin::Foreign)];
        let mut writer = LogWriter::resume(&path).unwrap();
        let mut reader = LogReader::open(&path).unwrap();
        assert_eq!(reader.read().unwrap(), []);
        writer.append(&first).unwrap();
        writer.file.write_all(b"5 2 12 fal").unwrap();
        assert_eq!(reader.read().unwrap(), first);

        let mut writer = LogWriter::resume(&path).unwrap();
        assert_eq!((writer.last, writer.connection), (11, 5));
        reader.reset().unwrap();
        let second = [line(6, 12, Origin::Damaged)];
        writer.append(&second).unwrap();
        assert_eq!(reader.read().unwrap(), second);
        assert_eq!(reader.read().unwrap(), []);
    }
}
