//! `linger chat` as people and scripts meet it: through pipes, and through a pseudo-terminal.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use pty_process::blocking as pty;
use rustix::process::{Pid, Signal, kill_process};
use rustix::termios::{LocalModes, tcgetattr};
use serde_json::{Value, json};

use common::{Client, DEADLINE, Finished, Home, PASSWORD, Server, eventually, one_line, run};

/// The binary under test.
const LINGER: &str = env!("CARGO_BIN_EXE_linger");

/// The up arrow of a terminal.
const UP: &str = "\x1b[A";

/// A `linger chat` in a pipe.
struct Filter {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: Receiver<String>,
    stderr: Receiver<String>,
}

impl Filter {
    fn start(addr: SocketAddr, name: &str, flags: &[&str]) -> Filter {
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
    fn logged_in(server: &Server, name: &str) -> Filter {
        let mut filter = Filter::start(server.addr, name, &[]);
        filter.say("/friends");
        assert!(filter.stderr.recv_timeout(DEADLINE).unwrap().contains("no friends"));
        filter
    }

    fn say(&mut self, line: &str) {
        writeln!(self.stdin.as_mut().unwrap(), "{line}").unwrap();
    }

    #[track_caller]
    fn hears(&self, line: &str) {
        assert_eq!(self.stdout.recv_timeout(DEADLINE).as_deref(), Ok(line));
    }

    /// The next line on stderr.
    #[track_caller]
    fn complains(&self, part: &str) {
        let line = self.stderr.recv_timeout(DEADLINE).unwrap();
        assert!(line.starts_with("linger: ") && line.contains(part), "{line:?}");
    }

    fn end_input(&mut self) {
        self.stdin = None;
    }

    /// Its exit code, and what was on stdout and stderr since; the input may still be open.
    #[track_caller]
    fn end(mut self) -> (Option<i32>, Vec<String>, Vec<String>) {
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
struct Terminal {
    child: Child,
    keys: File,
    output: Receiver<Vec<u8>>,
    seen: String,
    /// What a test has looked at already.
    passed: usize,
}

impl Terminal {
    /// Starts it without a password in the environment.
    fn start(addr: SocketAddr, name: &str, flags: &[&str]) -> Terminal {
        let (master, slave) = pty::open().unwrap();
        master.resize(pty_process::Size::new(24, 80)).unwrap();
        let child = pty::Command::new(LINGER)
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
    fn with_password(addr: SocketAddr, name: &str, flags: &[&str]) -> Terminal {
        let mut terminal = Terminal::start(addr, name, flags);
        terminal.shows("Password");
        eventually("the terminal does not echo", || !terminal.has_modes(LocalModes::ECHO));
        terminal.types(&format!("{PASSWORD}\r"));
        terminal
    }

    /// One that is logged in, with its prompt on the screen.
    fn logged_in(addr: SocketAddr, name: &str, flags: &[&str]) -> Terminal {
        let mut terminal = Terminal::with_password(addr, name, flags);
        terminal.shows("* logged in");
        terminal.shows("> ");
        terminal
    }

    fn has_modes(&self, modes: LocalModes) -> bool {
        tcgetattr(&self.keys).unwrap().local_modes.contains(modes)
    }

    fn types(&mut self, keys: &str) {
        self.keys.write_all(keys.as_bytes()).unwrap();
    }

    /// Waits for that text behind what was waited for before.
    #[track_caller]
    fn shows(&mut self, text: &str) {
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
    fn end(&mut self) -> Option<i32> {
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
struct Scripted {
    stream: BufReader<TcpStream>,
}

impl Scripted {
    fn accept(listener: &TcpListener) -> Scripted {
        let (stream, _) = listener.accept().unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        Scripted { stream: BufReader::new(stream) }
    }

    /// Takes a login and grants it.
    fn admit(listener: &TcpListener) -> Scripted {
        let mut server = Scripted::accept(listener);
        let login = server.hear();
        assert_eq!((&login["msgid"], &login["name"]), (&json!(1), &json!("alice")), "{login}");
        assert_eq!(login["caps"], json!(["ack", "presence", "ping"]));
        server.say(&json!({"msgid": 2, "errno": 0, "id": 1, "name": "alice"}));
        server
    }

    #[track_caller]
    fn hear(&mut self) -> Value {
        let mut line = String::new();
        self.stream.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line:?}"))
    }

    fn say(&mut self, object: &Value) {
        writeln!(self.stream.get_mut(), "{object}").unwrap();
    }
}

/// The command, with the usual password.
fn chat(addr: SocketAddr, name: &str, flags: &[&str]) -> Command {
    let mut command = Command::new(LINGER);
    command.args(["chat", name, "--server", &addr.to_string()]).args(flags).env("LINGER_PASSWORD", PASSWORD);
    command
}

/// A chat whose input has ended before it began.
fn glance(addr: SocketAddr, name: &str) -> Finished {
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

fn listener() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    (listener, addr)
}

// Through pipes.

#[test]
fn two_filters_talk() {
    let server = Server::start(&[]);
    let [alice, bob] = server.absent(["alice", "bob"]);
    let mut one = Filter::start(server.addr, "alice", &[]);
    let mut other = Filter::start(server.addr, "bob", &[]);
    one.say(&format!("{bob}: hello: bob"));
    other.hears("alice: hello: bob");
    // By name, because she has written.
    other.say("alice: hello");
    one.hears("bob: hello");
    other.say(&format!("/to {alice}"));
    other.say("bob: is no address now");
    one.hears("bob: bob: is no address now");
    for mut filter in [one, other] {
        filter.end_input();
        assert_eq!(filter.end(), (Some(0), vec![], vec![]));
    }
}

#[test]
fn a_filter_registers_and_creates_and_joins_groups() {
    let server = Server::start(&[]);
    let mut one = Filter::start(server.addr, "alice", &["--register"]);
    one.say("/create the team");
    let created = one.stderr.recv_timeout(DEADLINE).unwrap();
    assert!(created.contains("created group the team (1)"), "{created}");
    let mut other = Filter::start(server.addr, "bob", &["--register"]);
    other.say("/join 1");
    let joined = other.stderr.recv_timeout(DEADLINE).unwrap();
    assert!(joined.contains("joined group 1"), "{joined}");
    other.say("@1: hello all");
    one.hears("bob@the team: hello all");
    one.say("/group the team");
    one.say("welcome");
    other.hears("alice@1: welcome");
}

#[test]
fn what_was_kept_comes_at_the_next_glance() {
    let server = Server::start(&[]);
    let (mut alice, _) = server.user("alice");
    let [bob] = server.absent(["bob"]);
    for text in ["one", "two\nlines \u{1b}[2J"] {
        alice.chat(bob, text);
    }
    alice.quiet();
    let seen = glance(server.addr, "bob");
    assert_eq!(seen.stdout, "alice: one\nalice: two\\u{a}lines \\u{1b}[2J\n");
    assert_eq!((seen.code, seen.stderr.as_str()), (Some(0), ""));
    assert_eq!(glance(server.addr, "bob").stdout, "");
}

#[test]
fn all_that_was_sent_has_arrived_when_a_filter_has_ended() {
    let server = Server::start(&[]);
    let [_, bob] = server.absent(["alice", "bob"]);
    let mut filter = Filter::start(server.addr, "alice", &[]);
    let count = 800;
    for n in 0..count {
        filter.say(&format!("{bob}: {n}"));
    }
    filter.end_input();
    assert_eq!(filter.end(), (Some(0), vec![], vec![]));
    let texts: Vec<String> = glance(server.addr, "bob").stdout.lines().map(str::to_owned).collect();
    assert_eq!(texts, (0..count).map(|n| format!("alice: {n}")).collect::<Vec<_>>());
}

#[test]
fn lines_that_fail_are_told_and_make_the_run_a_failure() {
    let server = Server::start(&[]);
    server.absent(["alice"]);
    let mut filter = Filter::start(server.addr, "alice", &[]);
    filter.say("carol: hello");
    filter.complains("no id known for carol; use /to ID or /add ID");
    filter.say("99: hello");
    filter.complains("not delivered to 99");
    filter.say("hello");
    filter.complains("to whom?");
    filter.say("/dance");
    filter.complains("there is no command /dance");
    filter.end_input();
    let (code, stdout, stderr) = filter.end();
    assert_eq!((code, stdout.len()), (Some(1), 0));
    assert_eq!(stderr, ["linger: lines that failed: 4"]);
}

#[test]
fn a_refused_login_is_one_line_and_code_1() {
    let server = Server::start(&[]);
    server.absent(["alice"]);
    let mut wrong = chat(server.addr, "alice", &[]);
    wrong.env("LINGER_PASSWORD", "wrong");
    one_line(&run(wrong), 1);
    one_line(&glance(server.addr, "nobody"), 1);
    one_line(&run(chat(server.addr, "alice", &["--register"])), 1);
}

#[test]
fn a_server_that_is_not_there_is_one_line_and_code_1() {
    let (listener, addr) = listener();
    drop(listener);
    let done = glance(addr, "alice");
    one_line(&done, 1);
    assert!(done.stderr.contains(&addr.to_string()), "{done:?}");
}

#[test]
fn a_kick_is_told_with_its_reason_and_the_filter_comes_back() {
    let server = Server::start(&[]);
    let [alice] = server.absent(["alice"]);
    let mut filter = Filter::logged_in(&server, "alice");
    assert_eq!(server.cli(&["kick", "alice", "--reason", "lunch break", "--wait"]).code, Some(0));
    filter.complains("sent away: kicked: lunch break");
    filter.complains("trying again in ");
    filter.say(&format!("{alice}: to myself"));
    filter.hears("alice: to myself");
}

#[test]
fn a_filter_outlives_a_crash_of_the_server() {
    let server = Server::start(&[]);
    let [alice] = server.absent(["alice"]);
    let addr = server.addr;
    let mut filter = Filter::logged_in(&server, "alice");
    let home = server.crash();
    filter.complains("trying again in ");
    filter.say(&format!("{alice}: while nobody was there"));
    let server = Server::start_at(&home, &["--listen", &addr.to_string()]);
    filter.hears("alice: while nobody was there");
    filter.end_input();
    assert_eq!(filter.end().0, Some(0));
    drop(server);
}

#[test]
fn a_takeover_ends_the_older_one_for_good() {
    let server = Server::start(&[]);
    let [alice] = server.absent(["alice"]);
    let older = Filter::logged_in(&server, "alice");
    let mut newer = Filter::start(server.addr, "alice", &[]);
    let (code, _, stderr) = older.end();
    assert_eq!(code, Some(1));
    assert!(stderr.len() == 1 && stderr[0].starts_with("linger: sent away: replaced: "), "{stderr:?}");
    newer.say(&format!("{alice}: still here"));
    newer.hears("alice: still here");
}

// Against a server that plays tricks.

#[test]
fn what_was_not_answered_is_sent_again_under_the_same_seq() {
    let (listener, addr) = listener();
    let mut filter = Filter::start(addr, "alice", &[]);
    let mut server = Scripted::admit(&listener);
    filter.say("2: hello");
    filter.end_input();
    let first = server.hear();
    assert_eq!((&first["toid"], &first["msg"]), (&json!(2), &json!("hello")));
    drop(server);
    filter.complains("trying again in ");
    let mut server = Scripted::admit(&listener);
    assert_eq!(server.hear(), first);
    server.say(&json!({"msgid": 0, "errno": 0, "seq": first["seq"], "re": 6}));
    assert_eq!(filter.end().0, Some(0));
}

#[test]
fn nobody_comes_back_before_the_time_that_a_goodbye_names() {
    let (listener, addr) = listener();
    let filter = Filter::start(addr, "alice", &[]);
    let mut server = Scripted::admit(&listener);
    let asked_ms = 1_200;
    server.say(&json!({"msgid": 20, "reason": "banned", "errmsg": "spam", "advice": "retry_after", "retry_after_ms": asked_ms}));
    let told = Instant::now();
    drop(server);
    filter.complains("sent away: banned: spam");
    filter.complains("trying again in 1.");
    Scripted::admit(&listener);
    assert!(told.elapsed() >= Duration::from_millis(asked_ms), "after {:?}", told.elapsed());
}

#[test]
fn a_chat_with_a_number_is_confirmed_and_shown_once() {
    let (listener, addr) = listener();
    let filter = Filter::start(addr, "alice", &[]);
    let mut server = Scripted::admit(&listener);
    let mut letter = json!({"msgid": 6, "id": 2, "name": "bob", "msg": "once", "mid": 7});
    server.say(&letter);
    filter.hears("bob: once");
    assert_eq!(server.hear(), json!({"msgid": 24, "mid": 7}));
    drop(server);
    let mut server = Scripted::admit(&listener);
    letter["again"] = json!(true);
    server.say(&letter);
    assert_eq!(server.hear(), json!({"msgid": 24, "mid": 7}));
    letter["mid"] = json!(8);
    letter["msg"] = json!("twice");
    server.say(&letter);
    filter.hears("bob: twice");
}

#[test]
fn a_ping_of_the_server_is_answered() {
    let (listener, addr) = listener();
    let _filter = Filter::start(addr, "alice", &[]);
    let mut server = Scripted::admit(&listener);
    server.say(&json!({"msgid": 22}));
    server.hear();
}

#[test]
fn a_message_that_ends_connections_is_given_up() {
    let (listener, addr) = listener();
    let mut filter = Filter::start(addr, "alice", &[]);
    let mut server = Scripted::admit(&listener);
    filter.say(&format!("2: {}", "x".repeat(5_000)));
    server.hear();
    server.say(
        &json!({"msgid": 20, "reason": "frame_too_large", "errmsg": "too large", "advice": "reconnect"}),
    );
    drop(server);
    filter.complains("sent away: frame_too_large");
    filter.complains("not delivered to 2: it is larger than the server takes");
    filter.complains("trying again in ");
    filter.say("2: short");
    assert_eq!(Scripted::admit(&listener).hear()["msg"], "short");
}

// In a terminal.

#[test]
fn the_password_is_asked_for_and_never_shown() {
    let server = Server::start(&[]);
    let mut terminal = Terminal::logged_in(server.addr, "alice", &["--register"]);
    terminal.types("/quit\r");
    assert_eq!(terminal.end(), Some(0));
    assert!(terminal.seen.contains("Password of alice: "), "{:?}", terminal.seen);
    assert!(!terminal.seen.contains(PASSWORD), "{:?}", terminal.seen);
}

#[test]
fn friends_and_groups_are_shown_with_their_state_after_the_login() {
    let server = Server::start(&[]);
    let (mut alice, _) = server.user("alice");
    let (_bob, bob) = server.user("bob");
    let [carol] = server.absent(["carol"]);
    for friend in [bob, carol] {
        alice.ask(&json!({"msgid": 7, "friendid": friend, "seq": friend}));
    }
    alice.ask(&json!({"msgid": 8, "groupname": "team", "groupdesc": "", "seq": 0}));
    drop(alice);
    let mut terminal = Terminal::with_password(server.addr, "alice", &[]);
    terminal.shows(&format!("* friends: bob ({bob}) online, carol ({carol}) offline"));
    terminal.shows("* group team (1): alice online");
}

#[test]
fn an_incoming_message_leaves_a_half_typed_line_whole() {
    let server = Server::start(&[]);
    let (mut bob, bob_id) = server.user("bob");
    let mut terminal = Terminal::logged_in(server.addr, "alice", &["--register"]);
    let alice = server.home.db().query_row("SELECT id FROM user WHERE name = 'alice'", [], |row| row.get(0));
    terminal.types(&format!("/to {bob_id}\r"));
    terminal.shows(&format!("{bob_id}> "));
    terminal.types("half a li");
    terminal.shows("half a li");
    bob.chat(alice.unwrap(), "hello \u{1b}[2Jalice");
    // The message ends its line, and the input line is drawn again below it.
    terminal.shows("bob: hello \\u{1b}[2Jalice\r\n");
    terminal.shows(&format!("{bob_id}> half a li"));
    terminal.types("ne\r");
    assert_eq!(bob.hear()["msg"], "half a line");
    // By now the name is known.
    terminal.shows("bob> ");
}

#[test]
fn the_up_arrow_brings_the_last_line_back() {
    let server = Server::start(&[]);
    let (mut bob, bob_id) = server.user("bob");
    let mut terminal = Terminal::logged_in(server.addr, "alice", &["--register"]);
    terminal.types(&format!("/to {bob_id}\r"));
    terminal.shows(&format!("{bob_id}> "));
    terminal.types("say it again\r");
    assert_eq!(bob.hear()["msg"], "say it again");
    terminal.shows(&format!("{bob_id}> "));
    terminal.types(UP);
    terminal.shows("say it again");
    terminal.types("!\r");
    assert_eq!(bob.hear()["msg"], "say it again!");
}

#[test]
fn quit_leaves_and_the_user_is_offline() {
    let server = Server::start(&[]);
    let mut terminal = Terminal::logged_in(server.addr, "alice", &["--register"]);
    terminal.types("/help\r");
    terminal.shows("/friends");
    terminal.shows("> ");
    terminal.types("/quit\r");
    assert_eq!(terminal.end(), Some(0));
    eventually("alice is offline", || server.home.online() == 0);
    assert_eq!(server.home.reasons(1), ["peer_closed"]);
}

#[test]
fn the_end_of_the_input_leaves_too() {
    let server = Server::start(&[]);
    let mut terminal = Terminal::logged_in(server.addr, "alice", &["--register"]);
    terminal.types("\x04");
    assert_eq!(terminal.end(), Some(0));
}

#[test]
fn a_kick_is_shown_above_the_line_and_the_session_goes_on() {
    let server = Server::start(&[]);
    let mut terminal = Terminal::logged_in(server.addr, "alice", &["--register"]);
    terminal.types("half");
    terminal.shows("half");
    server.cli(&["kick", "alice", "--reason", "lunch break"]);
    terminal.shows("! sent away: kicked: lunch break");
    terminal.shows("trying again in ");
    terminal.shows("> half");
    terminal.shows("* logged in again as alice");
    terminal.shows("> half");
}

#[test]
fn advice_to_stop_ends_a_terminal_in_the_middle_of_a_line() {
    let server = Server::start(&[]);
    let mut terminal = Terminal::logged_in(server.addr, "alice", &["--register"]);
    terminal.types("half");
    terminal.shows("half");
    let mut newer = Client::connect(&server);
    newer.login_as("alice");
    assert_eq!(terminal.end(), Some(1));
    assert!(terminal.seen.contains("linger: sent away: replaced: "), "{:?}", terminal.seen);
}

#[test]
fn all_that_came_before_the_end_is_on_the_screen() {
    let (listener, addr) = listener();
    let mut terminal = Terminal::with_password(addr, "alice", &[]);
    let mut server = Scripted::admit(&listener);
    terminal.shows("> ");
    terminal.types("half");
    terminal.shows("half");
    let count = 300;
    for n in 0..count {
        server.say(&json!({"msgid": 6, "id": 2, "name": "bob", "msg": format!("letter {n}")}));
    }
    server.say(&json!({"msgid": 20, "reason": "replaced", "errmsg": "elsewhere", "advice": "stop"}));
    drop(server);
    assert_eq!(terminal.end(), Some(1));
    for n in 0..count {
        terminal.shows(&format!("bob: letter {n}\r\n"));
    }
    terminal.shows("linger: sent away: replaced: elsewhere");
}

#[test]
fn a_signal_ends_a_terminal_in_order() {
    let server = Server::start(&[]);
    let mut terminal = Terminal::logged_in(server.addr, "alice", &["--register"]);
    kill_process(Pid::from_child(&terminal.child), Signal::TERM).unwrap();
    assert_eq!(terminal.end(), Some(0));
}

#[test]
fn people_talk_after_a_crash_of_the_server_too() {
    let home = Home::new();
    let server = Server::start_at(&home, &[]);
    let addr = server.addr;
    let mut terminal = Terminal::logged_in(addr, "alice", &["--register"]);
    server.crash();
    terminal.shows("trying again in ");
    let server = Server::start_at(&home, &["--listen", &addr.to_string()]);
    terminal.shows("* logged in again as alice");
    terminal.types("1: to myself\r");
    terminal.shows("alice: to myself");
    terminal.types("/quit\r");
    assert_eq!(terminal.end(), Some(0));
    drop(server);
}
