//! Asks a running server over its control socket: one JSON object a line out, one back.
//!
//! Each request has a connection of its own, so that none lingers among the fds that are counted.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::net::sockopt::socket_peercred;
use rustix::process::Pid;
use serde_json::Value;

use super::error::StressError;

/// Longer than a `kick` with `wait` takes to give up.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);

/// The largest answer that is read, in bytes.
const MAX_ANSWER_BYTES: u64 = 256 << 20;

/// A server's control socket.
#[derive(Clone, Debug)]
pub(super) struct Control {
    path: PathBuf,
}

impl Control {
    /// The socket in the server's data directory. Nothing is opened yet.
    pub(super) fn new(data: &Path) -> Self {
        Self { path: data.join("control.sock") }
    }

    /// Asks, waits, and answers what came back if it says `ok`.
    pub(super) fn ask(&self, request: &Value) -> Result<Value, StressError> {
        let line = self
            .exchange(request)
            .map_err(|source| StressError::Control { path: self.path.clone(), source })?;
        let wrong = |answer: String| StressError::Answer {
            cmd: request["cmd"].as_str().unwrap_or_default().to_owned(),
            answer,
        };
        let answer: Value = serde_json::from_slice(&line).map_err(|error| wrong(error.to_string()))?;
        if answer["ok"] == Value::Bool(true) {
            return Ok(answer);
        }
        Err(wrong(answer["error"].as_str().unwrap_or("neither ok nor an error").to_owned()))
    }

    /// The server's process, as the kernel knows it.
    pub(super) fn server(&self) -> Result<Pid, StressError> {
        let peer = UnixStream::connect(&self.path).and_then(|stream| Ok(socket_peercred(&stream)?.pid));
        peer.map_err(|source| StressError::Control { path: self.path.clone(), source })
    }

    fn exchange(&self, request: &Value) -> std::io::Result<Vec<u8>> {
        let mut stream = UnixStream::connect(&self.path)?;
        stream.set_read_timeout(Some(ANSWER_WITHIN))?;
        stream.set_write_timeout(Some(ANSWER_WITHIN))?;
        stream.write_all(format!("{request}\n").as_bytes())?;
        let mut line = Vec::new();
        BufReader::new(stream.take(MAX_ANSWER_BYTES)).read_until(b'\n', &mut line)?;
        Ok(line)
    }
}
