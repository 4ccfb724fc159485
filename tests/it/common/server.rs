//! The real binary as a child process, and its admin side.
//!
//! One test owns a [`Server`]; two threads of its own drain the child's output. It never outlives its test.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use super::{Client, DEADLINE, Home, LineClient, POLL};

/// The binary under test.
pub(crate) const LINGER: &str = env!("CARGO_BIN_EXE_linger");

/// How long a server that is dropped may take to say what it has counted.
const LAST_ANSWER: Duration = Duration::from_millis(500);

/// What the log says of a difference.
pub(crate) const RECONCILED: &str = "reconciled: ";

/// What makes a server serve lines, on a free port.
pub(crate) const LINES: [&str; 2] = ["--line", "127.0.0.1:0"];

/// A running server.
pub(crate) struct Server {
    child: Option<Child>,
    /// The directory it runs on.
    pub(crate) home: Home,
    /// The first JSON address of the ready line.
    pub(crate) addr: SocketAddr,
    /// The ready line, without its end.
    pub(crate) ready: String,
    pid: u32,
    /// Behind a lock only so that threads of a test may share the server.
    lines: Mutex<Receiver<String>>,
    /// True exactly when the test lets others write to the rows of a running server.
    expects_differences: AtomicBool,
    /// True exactly when the test makes it panic.
    expects_panic: AtomicBool,
    log: Arc<Mutex<String>>,
    /// Disconnected when the log has ended.
    log_end: Mutex<Receiver<()>>,
}

/// A process that has ended.
#[derive(Debug)]
pub(crate) struct Finished {
    /// Its exit code; none when a signal ended it.
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Server {
    /// A server on a fresh home.
    pub(crate) fn start(flags: &[&str]) -> Server {
        Server::start_at(&Home::new(), flags)
    }

    /// A server on that home.
    pub(crate) fn start_at(home: &Home, flags: &[&str]) -> Server {
        let mut command = Command::new(LINGER);
        command.args(serve_arguments(home, flags));
        Server::launch(command, home)
    }

    /// A server on a fresh home that serves lines too.
    pub(crate) fn with_lines(flags: &[&str]) -> Server {
        Server::start(&[flags, &LINES].concat())
    }

    /// A server on a fresh home that may have `fds` open files, soft and hard.
    pub(crate) fn start_with_fds(fds: u32, flags: &[&str]) -> Server {
        let home = Home::new();
        let mut command = Command::new("sh");
        command.arg("-c").arg(format!("ulimit -n {fds} && exec \"$0\" \"$@\"")).arg(LINGER);
        command.args(serve_arguments(&home, flags));
        Server::launch(command, &home)
    }

    /// Starts `command`, which ends up as a server on `home`, and waits for its ready line.
    pub(crate) fn launch(mut command: Command, home: &Home) -> Server {
        let mut child = without_settings(&mut command)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let log = Arc::new(Mutex::new(String::new()));
        let log_end = Mutex::new(drain_log(&mut child, &log));
        let lines = lines_of(child.stdout.take().unwrap());
        let Ok(ready) = lines.recv_timeout(DEADLINE) else {
            let _ = child.kill();
            let status = child.wait().unwrap();
            panic!("no ready line; {status}; its log:\n{}", log.lock().unwrap());
        };
        let addr = ready_field(&ready, "json").split(',').next().unwrap().parse().unwrap();
        let pid = child.id();
        Server {
            child: Some(child),
            home: home.clone(),
            addr,
            ready,
            pid,
            lines: Mutex::new(lines),
            expects_differences: AtomicBool::new(false),
            expects_panic: AtomicBool::new(false),
            log,
            log_end,
        }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.pid
    }

    /// How many differences its reconciler has found.
    pub(crate) fn reconciled(&self) -> u64 {
        let stats = self.control(&json!({"cmd": "stats"}));
        stats["reconciled"].as_u64().unwrap_or_else(|| panic!("no count of differences in {stats}"))
    }

    /// The test itself makes the reconciler find something.
    pub(crate) fn expects_differences(&self) {
        self.expects_differences.store(true, Ordering::Relaxed);
    }

    /// The test itself makes it panic.
    pub(crate) fn expects_panic(&self) {
        self.expects_panic.store(true, Ordering::Relaxed);
    }

    /// All that it has logged so far.
    pub(crate) fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    /// A field of the ready line.
    pub(crate) fn ready_field(&self, key: &str) -> &str {
        ready_field(&self.ready, key)
    }

    /// The address of the line protocol in the ready line.
    #[track_caller]
    pub(crate) fn line_addr(&self) -> SocketAddr {
        let addr = self.ready_field("line");
        addr.parse().unwrap_or_else(|_| panic!("no address of the line protocol: {addr:?}"))
    }

    /// How many files it has open.
    pub(crate) fn fds(&self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.pid)).unwrap().count()
    }

    /// A new connection with a user who is registered and logged in on it.
    pub(crate) fn user(&self, name: &str) -> (Client, i64) {
        let mut client = Client::connect(self);
        let id = client.register(name);
        client.login(id);
        (client, id)
    }

    /// A new connection of the line protocol with that guest on it, who has nothing kept for him.
    #[track_caller]
    pub(crate) fn guest(&self, name: &str) -> (LineClient, i64) {
        let mut guest = LineClient::connect(self);
        guest.login(name);
        (guest, self.home.id_of(name).expect("a guest has a row"))
    }

    /// A new connection on which that user logs in.
    pub(crate) fn back(&self, id: i64) -> Client {
        let mut client = Client::connect(self);
        client.login(id);
        client
    }

    /// Registers users who are not online.
    pub(crate) fn absent<const N: usize>(&self, names: [&str; N]) -> [i64; N] {
        let mut client = Client::connect(self);
        names.map(|name| client.register(name))
    }

    /// Runs an admin command on this server's data directory.
    pub(crate) fn cli(&self, args: &[&str]) -> Finished {
        let data = self.home.data_arg();
        linger(&[args, &["--data", &data]].concat())
    }

    /// Runs an admin command with `--json` that must succeed.
    #[track_caller]
    pub(crate) fn cli_json(&self, args: &[&str]) -> Value {
        let done = self.cli(&[args, &["--json"]].concat());
        assert_eq!(done.code, Some(0), "{args:?}: {done:?}");
        serde_json::from_str(&done.stdout).unwrap_or_else(|error| panic!("{error} in {done:?}"))
    }

    /// One request to the control socket, and its answer.
    pub(crate) fn control(&self, request: &Value) -> Value {
        self.control_bytes(format!("{request}\n").as_bytes())
    }

    /// Those bytes to the control socket, and the line that comes back.
    pub(crate) fn control_bytes(&self, bytes: &[u8]) -> Value {
        let mut stream = UnixStream::connect(self.home.control_socket()).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        stream.write_all(bytes).unwrap();
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error} in the control answer {line:?}"))
    }

    /// Kicks through the control socket, without waiting; true when something matched.
    pub(crate) fn kick(&self, target: &str) -> bool {
        let answer = self.control(&json!({"cmd": "kick", "targets": [target]}));
        assert_eq!(answer["ok"], true, "{answer}");
        !answer["kicked"].as_array().unwrap().is_empty()
    }

    /// Every channel, as `channels` lists them.
    pub(crate) fn channels(&self) -> Vec<Value> {
        let answer = self.control(&json!({"cmd": "channels"}));
        assert_eq!(answer["ok"], true, "{answer}");
        answer["channels"].as_array().unwrap().clone()
    }

    /// The entry of the live channel on which that user is, where there is one.
    pub(crate) fn live_channel(&self, user: i64) -> Option<Value> {
        self.channels().into_iter().find(|entry| entry["user"] == user && entry["state"] == "live")
    }

    /// The id, such as `7.3`, of the channel on which that user is.
    pub(crate) fn channel_of(&self, user: i64) -> String {
        let entry = self.live_channel(user).unwrap_or_else(|| panic!("user {user} is on no channel"));
        entry["channel"].as_str().unwrap().to_owned()
    }

    /// The entry of the channel with this client at its other end.
    pub(crate) fn channel_with(&self, client: &Client) -> Option<Value> {
        let peer = client.local_addr().to_string();
        self.channels().into_iter().find(|entry| entry["peer"] == peer.as_str())
    }

    /// True when the server has read all that this client sent.
    pub(crate) fn has_read_all_of(&self, client: &Client) -> bool {
        self.channel_with(client).is_some_and(|entry| entry["bytes_in"] == client.sent_bytes())
    }

    /// True when there is unsent output for that user.
    pub(crate) fn has_output_for(&self, user: i64) -> bool {
        self.live_channel(user).is_some_and(|entry| entry["queued"].as_u64().is_some_and(|queued| queued > 0))
    }

    /// True while the server has the socket with this client at its other end open. Only for IPv4.
    pub(crate) fn holds_socket_of(&self, client: &Client) -> bool {
        let ports =
            [client.peer_addr().port(), client.local_addr().port()].map(|port| format!(":{port:04X}"));
        let table = fs::read_to_string("/proc/net/tcp").unwrap();
        let inode = table.lines().find_map(|line| {
            let fields: Vec<_> = line.split_whitespace().collect();
            (fields[1].ends_with(&ports[0]) && fields[2].ends_with(&ports[1])).then(|| fields[9].to_owned())
        });
        let Some(inode) = inode else { return false };
        let socket = format!("socket:[{inode}]");
        fs::read_dir(format!("/proc/{}/fd", self.pid))
            .unwrap()
            .filter_map(|entry| fs::read_link(entry.unwrap().path()).ok())
            .any(|target| target.as_os_str() == socket.as_str())
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_raw(self.pid as i32).unwrap(), signal).unwrap();
    }

    /// Waits for its end; answers the exit code, and what came on stdout after the ready line.
    pub(crate) fn end(mut self) -> Finished {
        self.finish()
    }

    /// An orderly stop, which must succeed; gives the home back for the next run.
    pub(crate) fn stop(self) -> Home {
        self.signal(Signal::TERM);
        let home = self.home.clone();
        let done = self.end();
        assert_eq!(done.code, Some(0), "an orderly stop failed: {done:?}");
        home
    }

    /// A kill -9; gives the home back for the next run.
    pub(crate) fn crash(self) -> Home {
        self.signal(Signal::KILL);
        let home = self.home.clone();
        self.end();
        home
    }

    /// The same of a server that may not answer any more, unless the test expects some.
    fn counted_differences(&self) -> Option<u64> {
        if self.expects_differences.load(Ordering::Relaxed) {
            return None;
        }
        let mut stream = UnixStream::connect(self.home.control_socket()).ok()?;
        stream.set_read_timeout(Some(LAST_ANSWER)).ok()?;
        stream.write_all(b"{\"cmd\":\"stats\"}\n").ok()?;
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line).ok()?;
        serde_json::from_str::<Value>(&line).ok()?["reconciled"].as_u64()
    }

    /// Each difference that the reconciler counts is in the log, so a server that has ended can still be judged; an
    /// orderly stop has looked at everything a last time.
    fn expect_no_differences(&self) {
        // The log's end is the end of the process, so this waits for what is in the pipe.
        let ended = self.log_end.lock().unwrap().recv_timeout(DEADLINE);
        assert_ne!(ended, Err(RecvTimeoutError::Timeout), "stderr is still open after the end");
        let log = self.log();
        assert!(
            self.expects_differences.load(Ordering::Relaxed) || !log.contains(RECONCILED),
            "the reconciler found what differs:\n{log}"
        );
    }

    fn finish(&mut self) -> Finished {
        let mut child = self.child.take().expect("a server ends once");
        let status = wait(&mut child);
        let mut stdout = String::new();
        loop {
            match self.lines.lock().unwrap().recv_timeout(DEADLINE) {
                Ok(line) => stdout.push_str(&line),
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => panic!("stdout is still open after the end"),
            }
        }
        let code =
            status.unwrap_or_else(|| panic!("still running after {DEADLINE:?}; log:\n{}", self.log())).code();
        self.expect_no_differences();
        Finished { code, stdout, stderr: self.log() }
    }
}

impl Drop for Server {
    /// Stops the server if the test has not, and holds it to an orderly end.
    #[expect(clippy::print_stderr, reason = "the log belongs to the failure of the test")]
    fn drop(&mut self) {
        let counted = if self.child.is_some() { self.counted_differences() } else { None };
        if let Some(child) = &mut self.child {
            let _ = kill_process(Pid::from_child(child), Signal::TERM);
            let failed = thread::panicking();
            let outcome = wait(child);
            if !failed {
                let code = outcome.and_then(|status| status.code());
                assert_eq!(code, Some(0), "the server did not stop in order; its log:\n{}", self.log());
                assert!(counted.is_none_or(|count| count == 0), "{counted:?} differences:\n{}", self.log());
                self.expect_no_differences();
            }
        }
        let log = self.log();
        if thread::panicking() {
            eprintln!("--- the server's log ---\n{log}");
        } else {
            let expected = self.expects_panic.load(Ordering::Relaxed);
            assert!(expected || !log.contains("panicked at"), "the server panicked:\n{log}");
        }
    }
}

/// Runs the binary to its end.
pub(crate) fn linger(args: &[&str]) -> Finished {
    let mut command = Command::new(LINGER);
    command.args(args);
    run(command)
}

/// Runs `linger serve` on that home to its end, for starts that must fail.
pub(crate) fn serve(home: &Home, flags: &[&str]) -> Finished {
    let mut command = Command::new(LINGER);
    command.args(serve_arguments(home, flags));
    run(command)
}

/// Runs a command to its end, which must come within the deadline.
pub(crate) fn run(command: Command) -> Finished {
    run_within(DEADLINE, command)
}

/// [`run`] with a deadline of its own.
pub(crate) fn run_within(deadline: Duration, mut command: Command) -> Finished {
    let mut child = without_settings(&mut command)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let stdout = text_of(child.stdout.take().unwrap());
    let stderr = text_of(child.stderr.take().unwrap());
    let status = wait_within(deadline, &mut child);
    let (stdout, stderr) = (stdout.join().unwrap(), stderr.join().unwrap());
    let Some(status) = status else { panic!("{command:?} does not end: {stdout}{stderr}") };
    Finished { code: status.code(), stdout, stderr }
}

/// `serve` with a data directory, a free port and cheap hashes, each unless the flags name it.
pub(super) fn serve_arguments(home: &Home, flags: &[&str]) -> Vec<String> {
    let mut args = vec!["serve".to_owned()];
    let mut unless_named = |flag: &str, value: &str| {
        if !flags.contains(&flag) {
            args.extend([flag.to_owned(), value.to_owned()]);
        }
    };
    unless_named("--data", &home.data_arg());
    unless_named("--listen", "127.0.0.1:0");
    unless_named("--argon2", "8,1,1");
    args.extend(flags.iter().map(|&flag| flag.to_owned()));
    args
}

/// Takes settings out of the environment, so that only the test decides.
fn without_settings(command: &mut Command) -> &mut Command {
    let set: Vec<_> = command.get_envs().map(|(key, _)| key.to_owned()).collect();
    for (key, _) in std::env::vars_os() {
        if key.to_string_lossy().starts_with("LINGER_") && !set.contains(&key) {
            command.env_remove(key);
        }
    }
    command
}

/// The end of a process; none, after a kill, when it did not come in time.
fn wait(child: &mut Child) -> Option<ExitStatus> {
    wait_within(DEADLINE, child)
}

/// [`wait`] with a deadline of its own.
fn wait_within(deadline: Duration, child: &mut Child) -> Option<ExitStatus> {
    let end = Instant::now() + deadline;
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return Some(status);
        }
        if Instant::now() >= end {
            let _ = child.kill();
            let _ = child.wait();
            return None;
        }
        thread::sleep(POLL);
    }
}

fn ready_field<'a>(ready: &'a str, key: &str) -> &'a str {
    ready
        .split(' ')
        .find_map(|word| word.strip_prefix(key)?.strip_prefix('='))
        .unwrap_or_else(|| panic!("no {key}= in {ready:?}"))
}

fn drain_log(child: &mut Child, log: &Arc<Mutex<String>>) -> Receiver<()> {
    let stderr = child.stderr.take().expect("stderr is piped");
    let log = Arc::clone(log);
    let (ended, end) = channel::<()>();
    thread::spawn(move || {
        // Dropped with the thread.
        let _ended = ended;
        for line in BufReader::new(stderr).split(b'\n').map_while(Result::ok) {
            let mut log = log.lock().unwrap();
            log.push_str(&String::from_utf8_lossy(&line));
            log.push('\n');
        }
    });
    end
}

fn lines_of(stdout: ChildStdout) -> Receiver<String> {
    let (give, take) = channel();
    thread::spawn(move || {
        for line in BufReader::new(stdout).lines().map_while(Result::ok) {
            if give.send(line).is_err() {
                return;
            }
        }
    });
    take
}

fn text_of(mut from: impl Read + Send + 'static) -> thread::JoinHandle<String> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        from.read_to_end(&mut bytes).unwrap();
        String::from_utf8_lossy(&bytes).into_owned()
    })
}
