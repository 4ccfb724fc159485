//! Servers whose machine lets them down: calls that fail or lie, clocks that jump, and fds that run out.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit};

use super::server::{LINGER, serve_arguments};
use super::{Home, Server};

/// What makes reading from a connection fail, in [`Server::start_faulty`].
pub(crate) const FAILS_TO_READ: &str = "fail-to-read";
/// What makes writing to a connection fail there.
pub(crate) const FAILS_TO_WRITE: &str = "fail-to-write";
/// What makes the kernel say there that it has read more than there was room for; a worker that believes it panics.
pub(crate) const LIES_ABOUT_READING: &str = "lie-about-reading";
/// The error of the first two.
pub(crate) const EIO: i64 = 5;

/// The library that is preloaded; it names the same words.
const FAULTY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/common/faulty.c");

/// While it lives, a server may open hardly any file more.
pub(crate) struct FewFds {
    pid: Pid,
    before: Rlimit,
}

impl Server {
    /// A server on a fresh home on which reading and writing fail where the bytes say so.
    pub(crate) fn start_faulty(flags: &[&str]) -> Server {
        Server::start_faulty_at(&Home::new(), flags)
    }

    /// The same on that home.
    pub(crate) fn start_faulty_at(home: &Home, flags: &[&str]) -> Server {
        let mut command = Command::new(LINGER);
        command.args(serve_arguments(home, flags));
        make_faulty(&mut command, home);
        Server::launch(command, home)
    }

    /// From now on, until it is dropped, that fault of `faulty.c` is there.
    pub(crate) fn with_fault(&self, name: &str, what: &str) -> Broken {
        let path = self.home.path().join(name);
        // Whole at once: the server may look at any time.
        let ready = self.home.path().join("fault");
        fs::write(&ready, what).unwrap();
        fs::rename(&ready, &path).unwrap();
        Broken(path)
    }

    /// Lowers the fd limit of the running server to what it has open, but for gaps.
    pub(crate) fn with_few_fds(&self) -> FewFds {
        let highest: u64 = fs::read_dir(format!("/proc/{}/fd", self.pid()))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().to_str().unwrap().parse().unwrap())
            .max()
            .unwrap();
        let limit = highest + 1;
        let pid = Pid::from_raw(self.pid() as i32).unwrap();
        let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
        let before = prlimit(Some(pid), Resource::Nofile, Rlimit { current: Some(limit), maximum }).unwrap();
        FewFds { pid, before }
    }
}

/// Has what that command starts meet the faults of `faulty.c`.
pub(crate) fn make_faulty(command: &mut Command, home: &Home) {
    let library = home.path().join("faulty.so");
    let mut compiler = Command::new("cc");
    compiler.args(["-shared", "-fPIC", "-o"]).arg(&library).arg(FAULTY).arg("-ldl");
    let done = super::run(compiler);
    assert_eq!(done.code, Some(0), "a C compiler is needed: {done:?}");
    command.env("LD_PRELOAD", &library).env("FAULTS", home.path());
}

/// While it lives, a fault of the machine is there.
pub(crate) struct Broken(PathBuf);

impl Drop for Broken {
    fn drop(&mut self) {
        // The home may be gone.
        let _ = fs::remove_file(&self.0);
    }
}

impl Drop for FewFds {
    fn drop(&mut self) {
        // The server may have ended.
        let _ = prlimit(Some(self.pid), Resource::Nofile, self.before);
    }
}
