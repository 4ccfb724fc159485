//! A server of one's own, to be killed with -9 and started again on the same data.
//!
//! A child process; one thread reads its stdout. It never outlives this value.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, TryRecvError, channel};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::error::StressError;

/// A start takes no longer, recovery after a crash included.
const READY_WITHIN: Duration = Duration::from_secs(30);

/// An orderly stop takes no longer.
const STOP_WITHIN: Duration = Duration::from_secs(20);

/// The pause between two looks at a child that ends.
const POLL: Duration = Duration::from_millis(5);

/// Where a server can be found, by its ready line.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Ready {
    pub(crate) target: SocketAddr,
    pub(crate) data: PathBuf,
    /// Where it speaks lines, if it does.
    pub(crate) line: Option<SocketAddr>,
}

/// A server process.
#[derive(Debug)]
pub(crate) struct ManagedServer {
    command: Vec<String>,
    child: Child,
    stdout: Receiver<String>,
    since: Instant,
}

impl ManagedServer {
    /// Starts it; it is not ready yet.
    pub(crate) fn start(command: &[String]) -> Result<Self, StressError> {
        Self::start_with(command, Stdio::inherit())
    }

    /// The same, with a pipe as its stderr that nobody reads.
    pub(crate) fn start_unread(command: &[String]) -> Result<Self, StressError> {
        Self::start_with(command, Stdio::piped())
    }

    /// Bytes that wait in the pipe that nobody reads.
    pub(crate) fn unread(&self) -> Result<u64, StressError> {
        let waiting = self.child.stderr.as_ref().map_or(Ok(0), rustix::io::ioctl_fionread);
        waiting.map_err(|errno| StressError::Io { doing: "cannot look at a pipe", source: errno.into() })
    }

    fn start_with(command: &[String], stderr: Stdio) -> Result<Self, StressError> {
        let [program, arguments @ ..] = command else {
            return Err(StressError::Server("no command to start it".to_owned()));
        };
        let spawned = Command::new(program)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(stderr)
            .spawn()
            .map_err(|error| StressError::Server(format!("{program}: {error}")))?;
        let mut child = spawned;
        let stdout = child.stdout.take().expect("stdout is piped");
        let (give, take) = channel();
        thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if give.send(line).is_err() {
                    return;
                }
            }
        });
        Ok(Self { command: command.to_vec(), child, stdout: take, since: Instant::now() })
    }

    /// Where it listens, once it does.
    pub(crate) fn ready(&mut self) -> Result<Option<Ready>, StressError> {
        match self.stdout.try_recv() {
            Ok(line) => {
                let ready = read_ready(&line);
                ready.map(Some).ok_or_else(|| StressError::Server(format!("no ready line, but {line:?}")))
            }
            Err(TryRecvError::Empty) if self.since.elapsed() < READY_WITHIN => Ok(None),
            Err(TryRecvError::Empty) => Err(StressError::Server("no ready line".to_owned())),
            Err(TryRecvError::Disconnected) => Err(StressError::Server(self.ended())),
        }
    }

    /// The same, and waits for it.
    pub(crate) fn wait_until_ready(&mut self) -> Result<Ready, StressError> {
        loop {
            if let Some(ready) = self.ready()? {
                return Ok(ready);
            }
            thread::sleep(POLL);
        }
    }

    /// Fails when it has ended of itself.
    pub(crate) fn check(&mut self) -> Result<(), StressError> {
        match self.child.try_wait() {
            Ok(None) => Ok(()),
            _ => Err(StressError::Server(self.ended())),
        }
    }

    /// Kills it with -9. Nothing of it runs on.
    pub(crate) fn kill(&mut self) -> Result<(), StressError> {
        self.check()?;
        self.child.kill().map_err(StressError::io("cannot kill the server"))?;
        self.child.wait().map_err(StressError::io("cannot wait for the server"))?;
        Ok(())
    }

    /// Starts it again after a kill.
    pub(crate) fn restart(&mut self) -> Result<(), StressError> {
        *self = Self::start(&self.command)?;
        Ok(())
    }

    /// Stops it in order; an error where it does not end with exit code 0 in time.
    pub(crate) fn stop(mut self) -> Result<(), StressError> {
        self.check()?;
        let told = kill_process(Pid::from_child(&self.child), Signal::TERM);
        told.map_err(|errno| StressError::Io { doing: "cannot stop the server", source: errno.into() })?;
        let asked = Instant::now();
        while asked.elapsed() < STOP_WITHIN {
            match self.child.try_wait() {
                Ok(None) => thread::sleep(POLL),
                Ok(Some(status)) if status.success() => return Ok(()),
                _ => return Err(StressError::Server(self.ended())),
            }
        }
        Err(StressError::Server(format!("no end within {} s of SIGTERM", STOP_WITHIN.as_secs())))
    }

    fn ended(&mut self) -> String {
        match self.child.wait() {
            Ok(status) => format!("it ended of itself: {status}"),
            Err(error) => error.to_string(),
        }
    }
}

impl Drop for ManagedServer {
    fn drop(&mut self) {
        // Both fail only for a child that has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// `linger ready pid=… json=ADDR[,ADDR…] line=… control=DIR/control.sock`.
fn read_ready(line: &str) -> Option<Ready> {
    let fields = line.strip_prefix("linger ready ")?;
    let field = |key: &str| {
        fields.split(' ').find_map(|word| word.strip_prefix(key)?.strip_prefix('=')).map(str::to_owned)
    };
    let target = field("json")?.split(',').next()?.parse().ok()?;
    // The last field, for a path may hold spaces.
    let (_, control) = fields.split_once(" control=")?;
    let line = field("line").and_then(|line| line.parse().ok());
    Some(Ready { target, data: PathBuf::from(control).parent()?.to_owned(), line })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> ManagedServer {
        ManagedServer::start(&["sh".to_owned(), "-c".to_owned(), script.to_owned()]).unwrap()
    }

    #[test]
    fn a_ready_line_says_where_the_server_is() {
        let line =
            "linger ready pid=1 json=127.0.0.1:6000,[::1]:6000 line=off control=/a b/data/control.sock";
        let target = "127.0.0.1:6000".parse().unwrap();
        let data = PathBuf::from("/a b/data");
        assert_eq!(read_ready(line), Some(Ready { target, data: data.clone(), line: None }));
        let with_lines = line.replace("json", "line=127.0.0.1:6001 json");
        let expected = Ready { target, data, line: "127.0.0.1:6001".parse().ok() };
        assert_eq!(read_ready(&with_lines), Some(expected));
        assert_eq!(read_ready("hello"), None);
        assert_eq!(read_ready("linger ready json=127.0.0.1:6000"), None);
    }

    #[test]
    fn a_server_that_ends_of_itself_or_says_something_else_is_an_error_that_tells_so() {
        let told = shell("exit 3").wait_until_ready().unwrap_err().to_string();
        assert!(told.contains("exit status: 3"), "{told}");
        let told = shell("echo hello; sleep 60").wait_until_ready().unwrap_err().to_string();
        assert!(told.contains("\"hello\""), "{told}");
        let missing = ManagedServer::start(&["/nonexistent".to_owned()]).unwrap_err().to_string();
        assert!(missing.contains("/nonexistent"), "{missing}");
    }

    #[test]
    fn a_kill_is_followed_by_a_start_with_the_same_command_and_a_stop_wants_exit_code_0() {
        const SERVE: &str = "trap 'exit 0' TERM; echo linger ready json=127.0.0.1:1 control=d/control.sock; \
            while :; do sleep 0.01; done";
        let mut server = shell(SERVE);
        let first = server.wait_until_ready().unwrap();
        server.kill().unwrap();
        server.restart().unwrap();
        assert_eq!(server.wait_until_ready().unwrap(), first);
        server.stop().unwrap();
        let mut server = shell(&SERVE.replace("exit 0", "exit 4"));
        server.wait_until_ready().unwrap();
        assert!(server.stop().unwrap_err().to_string().contains("exit status: 4"));
    }
}
