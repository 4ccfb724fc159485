//! A receiver in a process of its own: the scenario's side. Starts it, kills it with SIGKILL, reads its log.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use super::receiver_log::{LogEntry, LogReader};
use super::receiver_process::ServerAddress;
use crate::error::StressError;

/// A directory for logs, removed when this value is dropped.
#[derive(Debug)]
pub(super) struct ScratchDir(PathBuf);

impl ScratchDir {
    pub(super) fn new(run: &str) -> Result<Self, StressError> {
        let path = std::env::temp_dir().join(format!("linger-chaos-{run}"));
        fs::create_dir(&path).map_err(StressError::io("cannot make a directory for diaries"))?;
        Ok(Self(path))
    }
}

impl Drop for ScratchDir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// What stays the same when a receiver is restarted.
#[derive(Clone, Debug)]
pub(super) struct Role {
    pub(super) name: String,
    pub(super) run: String,
    pub(super) slow_ms: usize,
    pub(super) seed: u64,
}

/// The process. It never outlives this value.
#[derive(Debug)]
pub(super) struct ReceiverHandle {
    role: Role,
    log: PathBuf,
    reader: LogReader,
    child: Child,
    lives: u64,
}

impl ReceiverHandle {
    /// Starts it.
    pub(super) fn start(
        role: Role,
        scratch: &ScratchDir,
        server: ServerAddress,
    ) -> Result<Self, StressError> {
        let log = scratch.0.join(&role.name);
        fs::write(&log, "").map_err(StressError::io("cannot make a diary"))?;
        let reader = LogReader::open(&log).map_err(StressError::io("cannot read a diary"))?;
        let child = spawn(&role, &log, 0, server)?;
        Ok(Self { role, log, reader, child, lives: 0 })
    }

    /// Tells it where the server is now.
    pub(super) fn tell(&mut self, server: ServerAddress) -> Result<(), StressError> {
        tell(&mut self.child, server)
    }

    /// What it has received since the last call. Fails where the process has ended by itself.
    pub(super) fn read(&mut self) -> Result<Vec<LogEntry>, StressError> {
        if let Ok(Some(status)) = self.child.try_wait() {
            return Err(StressError::Process(format!("{}: ended of itself: {status}", self.role.name)));
        }
        self.reader.read().map_err(StressError::io("cannot read a diary"))
    }

    /// Kills it with SIGKILL, starts it again with its log, and returns what it had received until then.
    pub(super) fn kill(&mut self, server: ServerAddress) -> Result<Vec<LogEntry>, StressError> {
        end(&mut self.child);
        let entries = self.reader.read().map_err(StressError::io("cannot read a diary"))?;
        self.reader.reset().map_err(StressError::io("cannot read a diary"))?;
        self.lives += 1;
        self.child = spawn(&self.role, &self.log, self.lives, server)?;
        Ok(entries)
    }

    /// Ends it in order, and returns what it had received until then.
    pub(super) fn finish(mut self) -> Result<Vec<LogEntry>, StressError> {
        drop(self.child.stdin.take());
        let ended = self.child.wait().map_err(StressError::io("cannot wait for a receiver's process"))?;
        if !ended.success() {
            return Err(StressError::Process(format!("{}: {ended}", self.role.name)));
        }
        self.reader.read().map_err(StressError::io("cannot read a diary"))
    }
}

impl Drop for ReceiverHandle {
    fn drop(&mut self) {
        end(&mut self.child);
    }
}

fn spawn(role: &Role, log: &Path, life: u64, server: ServerAddress) -> Result<Child, StressError> {
    let program = std::env::current_exe().map_err(StressError::io("cannot find this program"))?;
    let mut child = Command::new(program)
        .args(["stress", "receive", "--name", &role.name, "--run", &role.run])
        .args(["--slow-ms", &role.slow_ms.to_string()])
        .args(["--seed", &role.seed.wrapping_add(life).to_string()])
        .arg("--log")
        .arg(log)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .map_err(StressError::io("cannot start a receiver's process"))?;
    tell(&mut child, server)?;
    Ok(child)
}

fn tell(child: &mut Child, server: ServerAddress) -> Result<(), StressError> {
    let stdin = child.stdin.as_mut().expect("stdin is piped");
    stdin.write_all(server.line().as_bytes()).map_err(StressError::io("cannot speak to a receiver's process"))
}

fn end(child: &mut Child) {
    // Both fail only for a child that has ended.
    let _ = child.kill();
    let _ = child.wait();
}
