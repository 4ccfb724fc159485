//! Lines to thousands of receivers: the same one again and again, and different ones that nobody knows.
//!
//! A line of 64 KiB may name 17,000 receivers. Refused or not, it must not cost more than its bytes and a few receivers.
//! One sender asks, with blocking calls, and waits behind each line for one to itself.

use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use super::super::error::{Failure, StressError};
use super::super::login::Names;
use super::super::report::Report;
use super::Server;
use super::args::FloodArgs;

/// The longest line that is sent, in bytes: below the server's default frame limit.
const LINE_BYTES: usize = 65_000;

/// How often the same receiver is named in a line.
const SAME: usize = 17_000;

/// The receiver who is named so often, by a name that is short for that.
const RECEIVER: &str = "fl";

/// How long an answer is waited for.
const ANSWER_WITHIN: Duration = Duration::from_secs(if cfg!(test) { 5 } else { 60 });

pub(super) struct Receivers {
    sender: Line,
    /// Is online and does not read.
    _receiver: Line,
    same: String,
    different: String,
    answered: u64,
    errors: u64,
    wrong: Option<String>,
}

impl Receivers {
    pub(super) fn prepare(args: &FloodArgs, server: &Server, names: &Names) -> Result<Self, StressError> {
        let line =
            server.line.ok_or_else(|| StressError::Server("no --line, which lines need".to_owned()))?;
        let sender = Line::log_in(line, format!("{}sender", names.0))?;
        let receiver = Line::log_in(line, RECEIVER.to_owned())?;
        let same = vec![RECEIVER; SAME].join(",");
        let text = "x".repeat(LINE_BYTES.saturating_sub(same.len()));
        let mut different = String::new();
        for at in 0.. {
            let next = format!("{}{at}", names.0);
            if different.len() + next.len() > LINE_BYTES {
                break;
            }
            different = different + if at > 0 { "," } else { "" } + &next;
        }
        Ok(Self {
            sender,
            _receiver: receiver,
            same: format!("{same}: {text}"),
            different: format!("{different}: x"),
            answered: 0,
            errors: 0,
            wrong: (args.lines == 0).then(|| "no lines were to be sent".to_owned()),
        })
    }

    pub(super) fn send(&mut self, args: &FloodArgs) {
        for at in 0..2 * args.lines {
            let line = if at % 2 == 0 { &self.same } else { &self.different };
            match self.sender.say(line) {
                Ok(errors) => {
                    self.answered += 1;
                    self.errors += errors;
                }
                Err(error) => {
                    self.wrong = Some(format!("line {at}: {error}"));
                    return;
                }
            }
        }
    }

    pub(super) fn judge(self, report: &mut Report) {
        report.count("lines", self.answered);
        report.count("error_lines", self.errors);
        if let Some(example) = self.wrong {
            report.fail(Failure::Errors { count: 1, example });
        }
    }
}

/// A client that speaks lines.
struct Line {
    stream: BufReader<TcpStream>,
    name: String,
    said: u64,
}

impl Line {
    fn log_in(target: SocketAddr, name: String) -> Result<Self, StressError> {
        let failed = StressError::io("cannot connect to --line");
        let stream = TcpStream::connect_timeout(&target, ANSWER_WITHIN).map_err(failed)?;
        let failed = || StressError::io("cannot set a timeout");
        stream.set_read_timeout(Some(ANSWER_WITHIN)).map_err(failed())?;
        stream.set_write_timeout(Some(ANSWER_WITHIN)).map_err(failed())?;
        let mut line = Self { stream: BufReader::new(stream), name, said: 0 };
        let logged_in = line.write(&line.name.clone()).and_then(|()| line.fence());
        match logged_in {
            Ok(0) => Ok(line),
            Ok(_) => Err(line.refused(target, "an error line")),
            Err(error) => Err(line.refused(target, &error.to_string())),
        }
    }

    fn refused(&self, target: SocketAddr, why: &str) -> StressError {
        StressError::Login { name: self.name.clone(), target, why: why.to_owned() }
    }

    /// Says it, and waits until it has taken effect. Answers how many error lines came.
    fn say(&mut self, line: &str) -> std::io::Result<u64> {
        self.write(line)?;
        self.fence()
    }

    fn write(&mut self, line: &str) -> std::io::Result<()> {
        self.stream.get_mut().write_all(format!("{line}\n").as_bytes())
    }

    /// A line to oneself comes back when all before it has taken effect.
    fn fence(&mut self) -> std::io::Result<u64> {
        self.said += 1;
        let text = format!("fence {}", self.said);
        self.write(&format!("{}: {text}", self.name))?;
        let mut errors = 0;
        loop {
            let mut line = String::new();
            if self.stream.read_line(&mut line)? == 0 {
                return Err(ErrorKind::UnexpectedEof.into());
            }
            if line.trim_end() == format!("from {}: {text}", self.name) {
                return Ok(errors);
            }
            errors += u64::from(line.starts_with("error: "));
        }
    }
}
