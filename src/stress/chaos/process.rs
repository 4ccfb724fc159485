//! A receiver in a process of its own: the scenario's side. Starts it, kills it with SIGKILL, reads its diary.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use super::diary::{Line, Reader};
use super::receive::Where;
use crate::fault::StressError;

/// A directory for diaries that goes with this value.
#[derive(Debug)]
pub(super) struct Scratch(PathBuf);

impl Scratch {
    pub(super) fn new(run: &str) -> Result<Self, StressError> {
        let path = std::env::temp_dir().join(format!("linger-chaos-{run}"));
        fs::create_dir(&path).map_err(StressError::io("cannot make a directory for diaries"))?;
        Ok(Self(path))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// What does not change from one life of a receiver to the next.
#[derive(Clone, Debug)]
pub(super) struct Role {
    pub(super) name: String,
    pub(super) run: String,
    pub(super) slow_ms: usize,
    pub(super) seed: u64,
}

/// The process. It never outlives this value.
#[derive(Debug)]
pub(super) struct Process {
    role: Role,
    diary: PathBuf,
    reader: Reader,
    child: Child,
    lives: u64,
}

impl Process {
    /// Starts it.
    pub(super) fn start(role: Role, scratch: &Scratch, place: Where) -> Result<Self, StressError> {
        let diary = scratch.0.join(&role.name);
        fs::write(&diary, "").map_err(StressError::io("cannot make a diary"))?;
        let reader = Reader::open(&diary).map_err(StressError::io("cannot read a diary"))?;
        let child = spawn(&role, &diary, 0, place)?;
        Ok(Self { role, diary, reader, child, lives: 0 })
    }

    /// Tells it where the server is now.
    pub(super) fn tell(&mut self, place: Where) -> Result<(), StressError> {
        tell(&mut self.child, place)
    }

    /// What it has heard since the last time. Fails where it has ended of itself.
    pub(super) fn read(&mut self) -> Result<Vec<Line>, StressError> {
        if let Ok(Some(status)) = self.child.try_wait() {
            return Err(StressError::Process(format!("{}: ended of itself: {status}", self.role.name)));
        }
        self.reader.read().map_err(StressError::io("cannot read a diary"))
    }

    /// Kills it with SIGKILL and answers what it heard to the last; then it begins anew with its diary.
    pub(super) fn kill(&mut self, place: Where) -> Result<Vec<Line>, StressError> {
        end(&mut self.child);
        let lines = self.reader.read().map_err(StressError::io("cannot read a diary"))?;
        self.reader.begin_anew().map_err(StressError::io("cannot read a diary"))?;
        self.lives += 1;
        self.child = spawn(&self.role, &self.diary, self.lives, place)?;
        Ok(lines)
    }

    /// Lets it end in order, and answers what it heard to the last.
    pub(super) fn finish(mut self) -> Result<Vec<Line>, StressError> {
        drop(self.child.stdin.take());
        let ended = self.child.wait().map_err(StressError::io("cannot wait for a receiver's process"))?;
        if !ended.success() {
            return Err(StressError::Process(format!("{}: {ended}", self.role.name)));
        }
        self.reader.read().map_err(StressError::io("cannot read a diary"))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        end(&mut self.child);
    }
}

fn spawn(role: &Role, diary: &Path, life: u64, place: Where) -> Result<Child, StressError> {
    let program = std::env::current_exe().map_err(StressError::io("cannot find this program"))?;
    let mut child = Command::new(program)
        .args(["stress", "receive", "--name", &role.name, "--run", &role.run])
        .args(["--slow-ms", &role.slow_ms.to_string()])
        .args(["--seed", &role.seed.wrapping_add(life).to_string()])
        .arg("--diary")
        .arg(diary)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .map_err(StressError::io("cannot start a receiver's process"))?;
    tell(&mut child, place)?;
    Ok(child)
}

fn tell(child: &mut Child, place: Where) -> Result<(), StressError> {
    let stdin = child.stdin.as_mut().expect("stdin is piped");
    stdin.write_all(place.line().as_bytes()).map_err(StressError::io("cannot speak to a receiver's process"))
}

fn end(child: &mut Child) {
    // Both fail only for a child that has ended.
    let _ = child.kill();
    let _ = child.wait();
}
