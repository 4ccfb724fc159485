//! Log lines on their way to stderr: every thread hands them over, and one thread writes them.
//!
//! No thread that serves ever waits for the other end of stderr, be it a full pipe, a stopped terminal or a full disk.
//! Lines keep their order. A line that finds too many others waiting, or that stderr refuses, is dropped and counted.
//! `tracing-appender` bounds the number of lines but not their bytes, does not count refused ones, and prints to stdout
//! when its queue is full at the end.

use crossbeam_channel::{Receiver, Sender};
use rustix::event::{PollFd, PollFlags, poll};
use std::io::{self, ErrorKind, Write};
use std::iter;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;
use tracing_subscriber::fmt::MakeWriter;

/// Log lines that may wait to be written, in bytes. The line that reaches the bound is still taken.
const LOG_QUEUE_BYTES: usize = 4 << 20;
/// Lines that go to stderr in one write, in bytes. The line that reaches the bound is still taken.
const WRITE_BYTES: usize = 64 << 10;
/// What a waiting line costs beside its text, in bytes.
const LINE_COST: usize = 64;
/// How long the end of the process waits for what is still to be written to stderr.
const LAST_LINES: Duration = Duration::from_secs(1);

/// The way to stderr. Its clones share one queue and one count.
#[derive(Clone, Debug)]
pub struct Logs {
    queue: Sender<Item>,
    counts: Arc<Counts>,
}

/// Not of `crate::sync`, because no model looks at these counts. Nothing is published by them.
#[derive(Debug, Default)]
struct Counts {
    waiting_bytes: AtomicUsize,
    dropped: AtomicU64,
}

enum Item {
    Line(Vec<u8>),
    /// Dropped when all lines before it have been written.
    Flush(Sender<()>),
}

impl Logs {
    /// Starts the thread that writes to stderr.
    ///
    /// # Errors
    /// When the system has no thread for it.
    pub fn start() -> io::Result<Logs> {
        Logs::to(io::stderr())
    }

    fn to(out: impl Write + AsFd + Send + 'static) -> io::Result<Logs> {
        let (queue, items) = crossbeam_channel::unbounded();
        let counts = Arc::<Counts>::default();
        let logs = Logs { queue, counts: Arc::clone(&counts) };
        std::thread::Builder::new().name("log".into()).spawn(move || write_lines(out, &items, &counts))?;
        Ok(logs)
    }

    /// How many lines have been dropped since the start.
    pub fn dropped(&self) -> u64 {
        self.counts.dropped.load(Ordering::Relaxed)
    }

    /// Waits until the lines so far are written, but not for a stderr that takes nothing.
    pub fn flush(&self) {
        let (told, written) = crossbeam_channel::bounded(0);
        // The thread that writes lives as long as the process.
        let _ = self.queue.send(Item::Flush(told));
        let _ = written.recv_timeout(LAST_LINES);
    }
}

/// Ends the process with that code in a second, whatever it waits for then: a last sentence to a stderr that takes
/// nothing would keep it for ever.
pub fn end_soon(code: u8) {
    let end = move || {
        std::thread::sleep(LAST_LINES);
        std::process::exit(code.into());
    };
    // Without a thread the process ends when stderr takes what is said.
    let _ = std::thread::Builder::new().name("end".into()).spawn(end);
}

/// Writes all of it. Whoever shares the open file may have made it non-blocking; then this waits for room.
///
/// # Errors
/// When the file refuses.
pub fn write_whole(mut out: impl Write + AsFd, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match out.write(bytes) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(count) => bytes = &bytes[count..],
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                match poll(&mut [PollFd::new(&out, PollFlags::OUT)], None) {
                    Ok(_) | Err(rustix::io::Errno::INTR) => {}
                    Err(errno) => return Err(errno.into()),
                }
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Writes what waits, in as few writes as there can be: after a storm of ends there are thousands of lines.
fn write_lines(mut out: impl Write + AsFd, items: &Receiver<Item>, counts: &Counts) {
    let mut said = 0;
    while let Ok(first) = items.recv() {
        let (mut text, mut lines, mut flushes) = (Vec::new(), 0, Vec::new());
        for item in iter::once(first).chain(items.try_iter()) {
            match item {
                Item::Line(line) => {
                    text.extend(line);
                    lines += 1;
                }
                Item::Flush(told) => flushes.push(told),
            }
            if text.len() >= WRITE_BYTES {
                break;
            }
        }
        let written = write_whole(&mut out, &text);
        counts.waiting_bytes.fetch_sub(text.len() + lines * LINE_COST, Ordering::Relaxed);
        if written.is_err() {
            counts.dropped.fetch_add(lines as u64, Ordering::Relaxed);
            continue;
        }
        let log_dropped = counts.dropped.load(Ordering::Relaxed);
        if log_dropped > said {
            said = log_dropped;
            // It goes the way of every line, and where it is dropped too the next one says so.
            tracing::warn!(
                log_dropped,
                "stderr did not take all log lines; so many were dropped since the start"
            );
        }
    }
}

/// One event of the log.
#[derive(Debug)]
pub struct Line<'a>(&'a Logs);

impl Write for Line<'_> {
    /// Takes the line or drops it, at once in either case.
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        let Counts { waiting_bytes, dropped } = &*self.0.counts;
        let line = one_line(text);
        let cost = line.len() + LINE_COST;
        if waiting_bytes.fetch_add(cost, Ordering::Relaxed) >= LOG_QUEUE_BYTES
            || self.0.queue.send(Item::Line(line)).is_err()
        {
            waiting_bytes.fetch_sub(cost, Ordering::Relaxed);
            dropped.fetch_add(1, Ordering::Relaxed);
        }
        Ok(text.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Logs {
    type Writer = Line<'a>;

    fn make_writer(&'a self) -> Line<'a> {
        Line(self)
    }
}

/// The text with line ends inside it escaped: a path or an error of the system may have some.
fn one_line(text: &[u8]) -> Vec<u8> {
    let (body, end) = text.strip_suffix(b"\n").map_or((text, &b""[..]), |body| (body, b"\n"));
    let mut line = Vec::with_capacity(text.len());
    for piece in body.split_inclusive(|byte| b"\r\n".contains(byte)) {
        match piece.split_last() {
            Some((b'\n', text)) => line.extend([text, b"\\n"].concat()),
            Some((b'\r', text)) => line.extend([text, b"\\r"].concat()),
            _ => line.extend(piece),
        }
    }
    line.extend(end);
    line
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{PipeReader, Read};

    /// A way to a pipe that nobody reads yet.
    fn piped() -> (Logs, PipeReader) {
        let (reader, writer) = io::pipe().unwrap();
        (Logs::to(writer).unwrap(), reader)
    }

    fn say(logs: &Logs, text: &str) {
        logs.make_writer().write_all(text.as_bytes()).unwrap();
    }

    #[test]
    fn lines_come_out_in_order_and_a_flush_has_written_them() {
        let (logs, mut reader) = piped();
        let lines: Vec<_> = (0..100).map(|n| format!("line {n}\n")).collect();
        for line in &lines {
            say(&logs, line);
        }
        logs.flush();
        drop(logs);
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        assert_eq!(text, lines.concat());
    }

    #[test]
    fn a_full_pipe_holds_up_nobody_and_what_it_does_not_take_is_bounded_and_counted() {
        let (logs, mut reader) = piped();
        let line = "x".repeat(64 * 1024) + "\n";
        let lines = 3 * LOG_QUEUE_BYTES / line.len();
        for _ in 0..lines {
            say(&logs, &line);
        }
        let dropped = logs.dropped() as usize;
        assert!(dropped > lines / 3, "{dropped} of {lines}");
        assert!(logs.counts.waiting_bytes.load(Ordering::Relaxed) < LOG_QUEUE_BYTES + line.len() + LINE_COST);
        logs.flush();
        drop(logs);
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        assert_eq!(text.len(), (lines - dropped) * line.len(), "what was taken comes whole");
    }

    #[test]
    fn a_line_that_is_refused_is_counted() {
        let (reader, writer) = io::pipe().unwrap();
        drop(reader);
        let logs = Logs::to(writer).unwrap();
        say(&logs, "to nobody\n");
        logs.flush();
        assert_eq!(logs.dropped(), 1);
        assert_eq!(logs.counts.waiting_bytes.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn a_pipe_that_somebody_has_made_non_blocking_takes_lines_whole() {
        let (mut reader, writer) = io::pipe().unwrap();
        rustix::io::ioctl_fionbio(&writer, true).unwrap();
        let logs = Logs::to(writer).unwrap();
        let line = "y".repeat(200 * 1024) + "\n";
        say(&logs, &line);
        drop(logs);
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        assert_eq!(text, line);
    }

    #[test]
    fn an_event_is_one_line_whatever_is_in_it() {
        assert_eq!(one_line(b"a\nb\r\nc\n"), b"a\\nb\\r\\nc\n");
        assert_eq!(one_line(b"plain\n"), b"plain\n");
        assert_eq!(one_line(b""), b"");
    }
}
