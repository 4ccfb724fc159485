//! `linger chat` as a child process, in a pipe or in a pseudo-terminal, and a server that plays tricks on it.
//!
//! One test owns each; threads of its own drain what they print. None outlives its test.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Instant;

use pty_process::blocking as pty;
use rustix::process::{Pid, Signal, kill_process};
use rustix::termios::{LocalModes, tcgetattr};
use serde_json::{Value, json};

use super::server::LINGER;
use super::{DEADLINE, Finished, PASSWORD, Server, eventually, run};

/// The up arrow of a terminal.
pub(crate) const UP: &str = "\x1b[A";

/// A `linger chat` in a pipe.
pub(crate) struct Filter {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: Receiver<String>,
    stderr: Receiver<String>,
}

impl Filter {
    pub(crate) fn start(addr: SocketAddr, name: &str, flags: &[&str]) -> Filter {
        let mut child = chat(addr, name, flags)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        Filter {
            stdin: child.stdin.take(),
            stdout: lines(child.stdout.take().unwrap()),
            stderr: lines(child.stderr.take().unwrap()),
            child,
        }
    }

    /// One that is known to be logged in: it obeys no command before.
    #[track_caller]
    pub(crate) fn logged_in(server: &Server, name: &str) -> Filter {
        let mut filter = Filter::start(server.addr, name, &[]);
        filter.say("/friends");
        filter.answers("no friends");
        filter
    }

    pub(crate) fn say(&mut self, line: &str) {
        writeln!(self.stdin.as_mut().unwrap(), "{line}").unwrap();
    }

    #[track_caller]
    pub(crate) fn hears(&self, line: &str) {
        assert_eq!(self.stdout.recv_timeout(DEADLINE).as_deref(), Ok(line));
    }

    /// The next line on stderr is what a command answers.
    #[track_caller]
    pub(crate) fn answers(&self, part: &str) {
        let line = self.stderr.recv_timeout(DEADLINE).unwrap();
        assert!(line.contains(part), "{line:?}");
    }

    /// The next line on stderr is a complaint.
    #[track_caller]
    pub(crate) fn complains(&self, part: &str) {
        let line = self.stderr.recv_timeout(DEADLINE).unwrap();
        assert!(line.starts_with("linger: ") && line.contains(part), "{line:?}");
    }

    pub(crate) fn end_input(&mut self) {
        self.stdin = None;
    }

    /// Its exit code, and what was on stdout and stderr since; the input may still be open.
    #[track_caller]
    pub(crate) fn end(mut self) -> (Option<i32>, Vec<String>, Vec<String>) {
        let mut code = None;
        eventually("the chat ends", || {
            code = self.child.try_wait().unwrap();
            code.is_some()
        });
        (code.unwrap().code(), self.stdout.iter().collect(), self.stderr.iter().collect())
    }
}

impl Drop for Filter {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A `linger chat` in a pseudo-terminal.
pub(crate) struct Terminal {
    child: Child,
    keys: File,
    output: Receiver<Vec<u8>>,
    seen: String,
    /// What a test has looked at already.
    passed: usize,
}

impl Terminal {
    /// Starts it without a password in the environment.
    pub(crate) fn start(addr: SocketAddr, name: &str, flags: &[&str]) -> Terminal {
        Terminal::start_with(pty::Command::new(LINGER), addr, name, flags)
    }

    /// The same in a terminal in which signals are ignored.
    pub(crate) fn start_ignoring_signals(addr: SocketAddr, name: &str, flags: &[&str]) -> Terminal {
        let shell = pty::Command::new("sh").args(["-c", "trap '' HUP INT TERM; exec \"$0\" \"$@\"", LINGER]);
        Terminal::start_with(shell, addr, name, flags)
    }

    fn start_with(command: pty::Command, addr: SocketAddr, name: &str, flags: &[&str]) -> Terminal {
        let (master, slave) = pty::open().unwrap();
        master.resize(pty_process::Size::new(24, 80)).unwrap();
        let child = command
            .args(["chat", name, "--server", &addr.to_string()])
            .args(flags)
            .env_remove("LINGER_PASSWORD")
            .env("TERM", "xterm")
            .spawn(slave)
            .unwrap();
        let keys = File::from(OwnedFd::from(master));
        let mut screen = keys.try_clone().unwrap();
        let (give, output) = channel();
        thread::spawn(move || {
            let mut bytes = [0; 4096];
            // A terminal whose other end is closed answers with an error.
            while let Ok(count @ 1..) = screen.read(&mut bytes) {
                let _ = give.send(bytes[..count].to_vec());
            }
        });
        Terminal { child, keys, output, seen: String::new(), passed: 0 }
    }

    /// One that has asked for the password, and got it as soon as it does not echo.
    pub(crate) fn with_password(addr: SocketAddr, name: &str, flags: &[&str]) -> Terminal {
        let mut terminal = Terminal::start(addr, name, flags);
        terminal.gives_password();
        terminal
    }

    /// Gives the password as soon as the terminal does not echo.
    #[track_caller]
    pub(crate) fn gives_password(&mut self) {
        self.shows("Password");
        eventually("the terminal does not echo", || !self.has_modes(LocalModes::ECHO));
        self.types(&format!("{PASSWORD}\r"));
    }

    /// One that is logged in, with its prompt on the screen.
    pub(crate) fn logged_in(addr: SocketAddr, name: &str, flags: &[&str]) -> Terminal {
        let mut terminal = Terminal::with_password(addr, name, flags);
        terminal.shows("* logged in");
        terminal.shows("> ");
        terminal
    }

    /// All that was on the screen, as it was written.
    pub(crate) fn seen(&self) -> &str {
        &self.seen
    }

    /// Tells it to end, as a system does that goes down.
    pub(crate) fn terminate(&self) {
        kill_process(Pid::from_child(&self.child), Signal::TERM).unwrap();
    }

    fn has_modes(&self, modes: LocalModes) -> bool {
        tcgetattr(&self.keys).unwrap().local_modes.contains(modes)
    }

    pub(crate) fn types(&mut self, keys: &str) {
        self.keys.write_all(keys.as_bytes()).unwrap();
    }

    /// Waits for that text behind what was waited for before.
    #[track_caller]
    pub(crate) fn shows(&mut self, text: &str) {
        let end = Instant::now() + DEADLINE;
        loop {
            if let Some(at) = self.seen[self.passed..].find(text) {
                self.passed += at + text.len();
                return;
            }
            let left = end.saturating_duration_since(Instant::now());
            let Ok(bytes) = self.output.recv_timeout(left) else {
                panic!("{text:?} is not in {:?}", &self.seen[self.passed..]);
            };
            self.seen.push_str(&String::from_utf8_lossy(&bytes));
        }
    }

    /// Waits for the end, which must leave the terminal as it was; the exit code.
    #[track_caller]
    pub(crate) fn end(&mut self) -> Option<i32> {
        let mut code = None;
        eventually("the chat ends", || {
            code = self.child.try_wait().unwrap();
            code.is_some()
        });
        while let Ok(bytes) = self.output.recv_timeout(DEADLINE) {
            self.seen.push_str(&String::from_utf8_lossy(&bytes));
        }
        assert!(
            self.has_modes(LocalModes::ECHO | LocalModes::ICANON | LocalModes::ISIG),
            "not left as it was"
        );
        code.unwrap().code()
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// One connection of a server that does what a test wants it to.
pub(crate) struct Scripted {
    stream: BufReader<TcpStream>,
}

impl Scripted {
    #[track_caller]
    pub(crate) fn accept(listener: &TcpListener) -> Scripted {
        listener.set_nonblocking(true).unwrap();
        let mut accepted = None;
        eventually("somebody connects", || {
            accepted = listener.accept().ok();
            accepted.is_some()
        });
        let (stream, _) = accepted.unwrap();
        stream.set_nonblocking(false).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        Scripted { stream: BufReader::new(stream) }
    }

    /// Takes a login and grants it.
    pub(crate) fn admit(listener: &TcpListener) -> Scripted {
        let mut server = Scripted::accept(listener);
        let login = server.hear();
        assert_eq!((&login["msgid"], &login["name"]), (&json!(1), &json!("alice")), "{login}");
        assert_eq!(login["caps"], json!(["ack", "presence", "ping", "resume"]));
        server.say(&json!({"msgid": 2, "errno": 0, "id": 1, "name": "alice"}));
        server
    }

    #[track_caller]
    pub(crate) fn hear(&mut self) -> Value {
        let mut line = String::new();
        self.stream.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line:?}"))
    }

    pub(crate) fn say(&mut self, object: &Value) {
        writeln!(self.stream.get_mut(), "{object}").unwrap();
    }
}

/// The command, with the usual password.
pub(crate) fn chat(addr: SocketAddr, name: &str, flags: &[&str]) -> Command {
    let mut command = Command::new(LINGER);
    command.args(["chat", name, "--server", &addr.to_string()]).args(flags).env("LINGER_PASSWORD", PASSWORD);
    command
}

/// A chat whose input has ended before it began.
pub(crate) fn glance(addr: SocketAddr, name: &str) -> Finished {
    run(chat(addr, name, &[]))
}

fn lines(from: impl Read + Send + 'static) -> Receiver<String> {
    let (give, take) = channel();
    thread::spawn(move || {
        for line in BufReader::new(from).lines().map_while(Result::ok) {
            let _ = give.send(line);
        }
    });
    take
}

pub(crate) fn listener() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    (listener, addr)
}
