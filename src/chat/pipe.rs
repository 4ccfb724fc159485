//! Input and output for scripts: lines come from stdin, each message goes to stdout as one line, `name: text`.
//!
//! The session's thread writes; a thread of its own reads stdin. Answers and errors go to stderr, notices nowhere.

use std::io::{self, BufRead, ErrorKind, Read, Write};
use std::thread;

use crossbeam_channel::{Receiver, Sender, bounded};

use super::event_loop::{Input, View};
use super::render;
use super::session::Output;
use linger_server::escape::shown;

/// Lines that are read ahead of the session.
const AHEAD_MAX: usize = 64;

/// The longest line, in bytes.
const LINE_MAX_BYTES: usize = 64 << 10;

/// Writes a session's output to stdout and stderr.
pub(super) struct Pipe;

impl View for Pipe {
    fn show(&mut self, output: &Output) -> io::Result<bool> {
        match output {
            Output::Chat { from, group, text, .. } => {
                still_read(put(&mut io::stdout().lock(), &render::chat(from, group.as_deref(), text)))
            }
            Output::Answer(text) => still_read(put(&mut io::stderr().lock(), &shown(text))),
            Output::Error(text) => {
                still_read(put(&mut io::stderr().lock(), &format!("linger: {}", shown(text)))).map(|_| true)
            }
            Output::Notice(_) => Ok(true),
        }
    }
}

/// Starts to read stdin.
pub(super) fn read_stdin() -> io::Result<Receiver<Input>> {
    let (give, take) = bounded(AHEAD_MAX);
    thread::Builder::new().name("stdin".into()).spawn(move || read(&mut io::stdin().lock(), &give))?;
    Ok(take)
}

fn put(to: &mut impl Write, line: &str) -> io::Result<()> {
    to.write_all(format!("{line}\n").as_bytes())?;
    to.flush()
}

/// False when the reader has closed the pipe, which is not an error.
fn still_read(result: io::Result<()>) -> io::Result<bool> {
    match result {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(error),
    }
}

/// Reads lines until the end of the input or of the session. A line that is too long is skipped without being kept.
fn read(from: &mut impl BufRead, give: &Sender<Input>) {
    loop {
        let mut line = Vec::new();
        let input = match from.by_ref().take(LINE_MAX_BYTES as u64 + 1).read_until(b'\n', &mut line) {
            Err(error) => Input::Failed(error),
            Ok(0) => Input::End,
            Ok(_) if line.len() > LINE_MAX_BYTES && line.last() != Some(&b'\n') => {
                match from.skip_until(b'\n') {
                    Ok(_) => Input::Unusable("a line is too long"),
                    Err(error) => Input::Failed(error),
                }
            }
            Ok(_) => String::from_utf8(line).map_or(Input::Unusable("a line is not UTF-8"), Input::Line),
        };
        let last = matches!(input, Input::End | Input::Failed(_));
        if give.send(input).is_err() || last {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_that_cannot_be_used_do_not_spoil_the_others() {
        let mut bytes = b"one\r\n\xff\n".to_vec();
        bytes.extend(vec![b'x'; 3 * LINE_MAX_BYTES]);
        bytes.extend(b"\nlast");
        let (give, take) = bounded(10);
        read(&mut &bytes[..], &give);
        let came: Vec<String> = take
            .try_iter()
            .map(|input| match input {
                Input::Line(line) => line,
                Input::Unusable(why) => why.into(),
                Input::End => "end".into(),
                Input::Failed(error) => error.to_string(),
            })
            .collect();
        assert_eq!(came, ["one\r\n", "a line is not UTF-8", "a line is too long", "last", "end"]);
    }
}
