//! What a receiver in a process of its own has heard, in a file: its memory beyond a SIGKILL, and what the scenario
//! reads. One line a chat, appended before the chat is confirmed.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;

use super::ledger::Hearing;
use super::text::{Key, Told};

/// A chat, as it was heard.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Line {
    pub(super) heard: Hearing,
    pub(super) mid: i64,
    pub(super) again: bool,
    pub(super) told: Told,
}

/// Reads a diary, on and on.
#[derive(Debug)]
pub(super) struct Reader {
    file: File,
    /// The beginning of a line whose end is not written yet.
    partial: Vec<u8>,
}

impl Reader {
    /// The diary must be there already.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        Ok(Self { file: File::open(path)?, partial: Vec::new() })
    }

    /// The lines that were written since the last time.
    pub(super) fn read(&mut self) -> io::Result<Vec<Line>> {
        self.file.read_to_end(&mut self.partial)?;
        let Some(end) = self.partial.iter().rposition(|byte| *byte == b'\n') else { return Ok(Vec::new()) };
        let rest = self.partial.split_off(end + 1);
        let whole = std::mem::replace(&mut self.partial, rest);
        let lines = String::from_utf8_lossy(&whole);
        lines
            .lines()
            .map(|line| parse(line).ok_or_else(|| io::Error::other(format!("no line of a diary: {line:?}"))))
            .collect()
    }

    /// A writer has begun anew: a line without an end is no more.
    pub(super) fn begin_anew(&mut self) -> io::Result<()> {
        let behind = i64::try_from(self.partial.len()).unwrap_or(0);
        self.partial.clear();
        self.file.seek(SeekFrom::Current(-behind)).map(drop)
    }
}

/// Writes a diary.
#[derive(Debug)]
pub(super) struct Writer {
    file: File,
    /// The highest number in it.
    pub(super) last: i64,
    /// The latest connection in it.
    pub(super) connection: u64,
}

impl Writer {
    /// Goes on with a diary. A line that a SIGKILL has cut off is taken out: its chat was not confirmed.
    pub(super) fn go_on(path: &Path) -> io::Result<Self> {
        let mut file = OpenOptions::new().read(true).append(true).create(true).open(path)?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        file.set_len(whole as u64)?;
        let mut writer = Self { file, last: 0, connection: 0 };
        for line in String::from_utf8_lossy(&bytes[..whole]).lines().filter_map(parse) {
            writer.last = writer.last.max(line.mid);
            writer.connection = writer.connection.max(line.heard.connection);
        }
        Ok(writer)
    }

    /// Appends chats. They are with the kernel when this returns.
    pub(super) fn append(&mut self, lines: &[Line]) -> io::Result<()> {
        let mut text = String::new();
        for line in lines {
            self.last = self.last.max(line.mid);
            text.push_str(&write(line));
        }
        self.file.write_all(text.as_bytes())
    }
}

fn write(line: &Line) -> String {
    let Line { heard: Hearing { connection, server_run, .. }, mid, again, told } = line;
    let told = match told {
        Told::Ours(Key { sender, receiver, serial }) => format!("{sender} {receiver} {serial}"),
        Told::Foreign => "foreign".to_owned(),
        Told::Damaged => "damaged".to_owned(),
    };
    format!("{connection} {server_run} {mid} {again} {told}\n")
}

fn parse(line: &str) -> Option<Line> {
    let mut words = line.split(' ');
    let (connection, server_run) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
    // A process has one connection at a time.
    let heard = Hearing { connection, opened: connection, server_run };
    let (mid, again) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
    let told = match words.next()? {
        "foreign" => Told::Foreign,
        "damaged" => Told::Damaged,
        sender => Told::Ours(Key {
            sender: sender.parse().ok()?,
            receiver: words.next()?.parse().ok()?,
            serial: words.next()?.parse().ok()?,
        }),
    };
    Some(Line { heard, mid, again, told })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(connection: u64, mid: i64, told: Told) -> Line {
        Line {
            heard: Hearing { connection, opened: connection, server_run: 2 },
            mid,
            again: mid % 2 == 0,
            told,
        }
    }

    #[test]
    fn what_is_written_is_read_and_a_line_that_was_cut_off_is_taken_out() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("diary");
        let key = Key { sender: 1, receiver: 2, serial: 3 };
        let first = [line(4, 10, Told::Ours(key)), line(5, 11, Told::Foreign)];
        let mut writer = Writer::go_on(&path).unwrap();
        let mut reader = Reader::open(&path).unwrap();
        assert_eq!(reader.read().unwrap(), []);
        writer.append(&first).unwrap();
        writer.file.write_all(b"5 2 12 fal").unwrap();
        assert_eq!(reader.read().unwrap(), first);

        let mut writer = Writer::go_on(&path).unwrap();
        assert_eq!((writer.last, writer.connection), (11, 5));
        reader.begin_anew().unwrap();
        let second = [line(6, 12, Told::Damaged)];
        writer.append(&second).unwrap();
        assert_eq!(reader.read().unwrap(), second);
        assert_eq!(reader.read().unwrap(), []);
    }
}
