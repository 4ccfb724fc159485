//! What is outside the process and may stop or fool it: the other ends of stdout and stderr, signals and terminals, the
//! service manager, and the files in the data directory.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Instant;

use crate::common::faulty_server::{LIES_ABOUT_READING, make_faulty};
use crate::common::{
    Client, DEADLINE, Home, IMPATIENT_AFTER, LINGER, Server, eventually, linger, mode, one_line, run, serve,
};
use pty_process::blocking as pty;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// `O_NONBLOCK` on Linux.
const NONBLOCK: i32 = 0o4000;
/// A command that runs `linger serve` on that home behind a line of shell, which finds it in `"$@"`.
fn shell(home: &Home, line: &str) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", line, "sh", LINGER, "serve", "--data", &home.data_arg()]);
    command.args(["--listen", "127.0.0.1:0", "--argon2", "8,1,1"]).current_dir(home.path());
    command
}

/// A server whose output goes where its test says. It does not outlive the test.
struct Mute {
    child: Child,
    home: Home,
}

impl Mute {
    fn start(home: &Home, line: &str) -> Mute {
        Mute::start_to(home, line, Stdio::null(), Stdio::null())
    }

    fn start_to(home: &Home, line: &str, stdout: impl Into<Stdio>, stderr: impl Into<Stdio>) -> Mute {
        Mute::launch(shell(home, line), home, stdout, stderr)
    }

    fn launch(mut command: Command, home: &Home, stdout: impl Into<Stdio>, stderr: impl Into<Stdio>) -> Mute {
        let child = command.stdin(Stdio::null()).stdout(stdout).stderr(stderr).spawn().unwrap();
        let mute = Mute { child, home: home.clone() };
        mute.answers();
        mute
    }

    /// Waits until it answers a command.
    #[track_caller]
    fn answers(&self) {
        eventually("it answers", || self.ask("queue").is_some());
    }

    /// What a command with `--json` says.
    fn ask(&self, command: &str) -> Option<Value> {
        let done = linger(&[command, "--json", "--data", &self.home.data_arg()]);
        serde_json::from_str(&done.stdout).ok()
    }

    fn dropped(&self) -> u64 {
        self.ask("stats").unwrap()["log_dropped"].as_u64().unwrap()
    }

    /// Where it listens, by the table of the system.
    fn addr(&self) -> SocketAddr {
        listens(self.child.id()).expect("it listens")
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// The code with which it ends.
    #[track_caller]
    fn end(&mut self) -> Option<i32> {
        let mut status = None;
        eventually("it ends", || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        status.unwrap().code()
    }

    /// An orderly stop.
    #[track_caller]
    fn stop(mut self) {
        self.signal(Signal::TERM);
        assert_eq!(self.end(), Some(0));
        assert!(!self.home.control_socket().exists());
    }
}

impl Drop for Mute {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The address on which a process listens for IPv4.
fn listens(pid: u32) -> Option<SocketAddr> {
    let links = fs::read_dir(format!("/proc/{pid}/fd")).ok()?;
    let sockets: Vec<_> = links.filter_map(|entry| fs::read_link(entry.ok()?.path()).ok()).collect();
    let table = fs::read_to_string("/proc/net/tcp").unwrap();
    table.lines().skip(1).find_map(|line| {
        let fields: Vec<_> = line.split_whitespace().collect();
        let socket = PathBuf::from(format!("socket:[{}]", fields[9]));
        let port = u16::from_str_radix(fields[1].rsplit(':').next()?, 16).ok()?;
        (fields[3] == "0A" && sockets.contains(&socket)).then(|| SocketAddr::from(([127, 0, 0, 1], port)))
    })
}

/// A pipe with a name in that home that takes nothing more, and what was needed for it.
fn full_pipe(home: &Home, name: &str) -> (File, usize) {
    let mut pipe = empty_pipe(home, name);
    let mut filled = 0;
    loop {
        match pipe.write(&[b'.'; 4096]) {
            Ok(count) => filled += count,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return (pipe, filled),
            Err(error) => panic!("{error}"),
        }
    }
}

/// A pipe with a name in that home, both of whose ends the test holds.
fn empty_pipe(home: &Home, name: &str) -> File {
    let path = home.path().join(name);
    let mut mkfifo = Command::new("mkfifo");
    mkfifo.arg(&path);
    assert_eq!(run(mkfifo).code, Some(0));
    open_pipe(&path)
}

fn open_pipe(path: &Path) -> File {
    OpenOptions::new().read(true).write(true).custom_flags(NONBLOCK).open(path).unwrap()
}

/// Proves that logins, departures and chats go on.
#[track_caller]
fn all_is_well(addr: SocketAddr, home: &Home) {
    let mut ann = Client::to(addr);
    let ann_id = ann.register("ann");
    ann.login(ann_id);
    ann.quiet();
    let mut bob = Client::to(addr);
    let bob_id = bob.register("bob");
    bob.login(bob_id);
    ann.chat(bob_id, "hello");
    assert_eq!(bob.hear()["msg"], "hello");
    drop(bob);
    eventually("bob is offline", || home.state(bob_id) == "offline");
    drop(ann);
    eventually("ann is offline", || home.state(ann_id) == "offline");
}

#[test]
fn a_full_pipe_on_stderr_stops_nobody_and_no_orderly_stop() {
    let home = Home::new();
    let (_pipe, _) = full_pipe(&home, "log");
    let server = Mute::start(&home, r#"exec "$@" --log trace 2>log"#);
    all_is_well(server.addr(), &home);
    server.stop();
}

#[test]
fn a_full_pipe_on_stderr_does_not_keep_a_start_that_fails() {
    let held = Server::start(&[]);
    let (_pipe, _) = full_pipe(&held.home, "log");
    let mut command = shell(&held.home, r#"exec "$@" 2>log"#);
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let mut status = None;
    eventually("it ends", || {
        status = child.try_wait().unwrap();
        status.is_some()
    });
    assert_eq!(status.unwrap().code(), Some(1));
}

#[test]
fn a_full_pipe_on_stderr_keeps_neither_a_panic_nor_a_second_signal_from_ending_the_server() {
    let home = Home::new();
    let (_pipe, _) = full_pipe(&home, "log");
    let mut command = shell(&home, r#"exec "$@" 2>log"#);
    make_faulty(&mut command, &home);
    let mut server = Mute::launch(command, &home, Stdio::null(), Stdio::null());
    Client::to(server.addr()).try_say_bytes(LIES_ABOUT_READING.as_bytes());
    assert_eq!(server.end(), Some(1));

    let mut server = Mute::start(&home, r#"exec "$@" --stop-drain 8s 2>log"#);
    let mut ann = Client::to(server.addr());
    let id = ann.register("ann");
    ann.login(id);
    server.signal(Signal::TERM);
    ann.expect_goodbye("server_shutdown");
    thread::sleep(IMPATIENT_AFTER);
    server.signal(Signal::TERM);
    assert_eq!(server.end(), Some(1));
}

#[test]
fn log_lines_that_nobody_takes_are_counted_and_said_when_somebody_does() {
    let home = Home::new();
    let pipe = empty_pipe(&home, "log");
    // Its stderr is open for writing only, so that the test has the only reader.
    let server = Mute::start(&home, r#"exec "$@" --log info 2>log"#);
    drop(pipe);
    all_is_well(server.addr(), &home);
    eventually("lost lines are counted", || server.dropped() > 0);
    let mut pipe = open_pipe(&home.path().join("log"));
    drop(Client::to(server.addr()));
    let mut said = String::new();
    eventually("the log says so", || {
        let _ = pipe.read_to_string(&mut said);
        said.contains("stderr did not take all log lines") && said.contains("log_dropped=")
    });
    server.stop();
}

#[test]
fn a_full_disk_under_stderr_stops_nobody() {
    let home = Home::new();
    let server = Mute::start(&home, r#"exec "$@" --log debug 2>/dev/full"#);
    all_is_well(server.addr(), &home);
    assert!(server.dropped() > 0);
    server.stop();
}

#[test]
fn an_orderly_stop_has_logged_all_when_it_ends() {
    let server = Server::start(&[]);
    let clients: Vec<_> = (0..200).map(|n| server.user(&format!("user {n}"))).collect();
    server.signal(Signal::TERM);
    let done = server.end();
    assert_eq!(done.code, Some(0));
    assert!(done.stderr.ends_with("stopped\n"), "{}", done.stderr);
    assert_eq!(done.stderr.matches("reason=\"server_shutdown\"").count(), clients.len());
}

#[test]
fn a_full_pipe_on_stdout_keeps_the_ready_line_until_somebody_reads() {
    let home = Home::new();
    let (mut pipe, filled) = full_pipe(&home, "out");
    let server = Mute::start(&home, r#"exec "$@" >out"#);
    all_is_well(server.addr(), &home);
    let mut read = String::new();
    eventually("the ready line comes", || {
        let _ = pipe.read_to_string(&mut read);
        read.len() > filled && read.ends_with('\n')
    });
    let ready = &read[filled..];
    let expected = format!("linger ready pid={} json={} line=off ", server.child.id(), server.addr());
    assert!(ready.starts_with(&expected) && ready.lines().count() == 1, "{ready:?}");
    server.stop();
}

#[test]
fn nobody_on_stdout_or_stderr_and_none_of_the_three_open_stops_nobody() {
    let nobody = || {
        let (_, writer) = io::pipe().unwrap();
        writer
    };
    for line in [r#"exec "$@""#, r#"exec "$@" 0<&- 1>&- 2>&-"#, r#"exec "$@" >/dev/full 2>&1"#] {
        let home = Home::new();
        let server = Mute::start_to(&home, line, nobody(), nobody());
        all_is_well(server.addr(), &home);
        for fd in 0..3 {
            let open = fs::read_link(format!("/proc/{}/fd/{fd}", server.child.id())).unwrap();
            let kind = open.display().to_string();
            assert!(!kind.contains("socket:") && !kind.contains("linger.db"), "{fd} is {kind}");
        }
        server.stop();
    }
}

/// A command in a pseudo-terminal of its own, whose session it leads.
struct Tty {
    child: Child,
    /// None after the terminal has hung up.
    keys: Option<File>,
    output: Receiver<Vec<u8>>,
    seen: String,
    home: Home,
}

impl Tty {
    fn start(line: &str) -> Tty {
        let home = Home::new();
        let (master, slave) = pty::open().unwrap();
        let command = pty::Command::new("sh")
            .args(["-c", line, "sh", LINGER, "serve", "--data", &home.data_arg()])
            .args(["--listen", "127.0.0.1:0", "--argon2", "8,1,1"])
            .current_dir(home.path());
        let child = command.spawn(slave).unwrap();
        let keys = File::from(OwnedFd::from(master));
        let mut screen = keys.try_clone().unwrap();
        let (give, output) = channel();
        thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(count @ 1..) = screen.read(&mut bytes) {
                if give.send(bytes[..count].to_vec()).is_err() {
                    break;
                }
            }
        });
        Tty { child, keys: Some(keys), output, seen: String::new(), home }
    }

    /// The pid and the address in the ready line.
    #[track_caller]
    fn ready(&mut self) -> (u32, SocketAddr) {
        let end = Instant::now() + DEADLINE;
        loop {
            let line = self.seen.lines().find(|line| line.starts_with("linger ready "));
            if let Some(line) = line.filter(|_| self.seen.ends_with('\n')) {
                let field = |key: &str| {
                    line.split_whitespace().find_map(|word| word.strip_prefix(key)).unwrap().to_owned()
                };
                return (field("pid=").parse().unwrap(), field("json=").parse().unwrap());
            }
            let left = end.saturating_duration_since(Instant::now());
            let bytes = self.output.recv_timeout(left);
            let bytes = bytes.unwrap_or_else(|_| panic!("no ready line in {:?}", self.seen));
            self.seen.push_str(&String::from_utf8_lossy(&bytes));
        }
    }

    #[track_caller]
    fn end(&mut self) -> Option<i32> {
        let mut status = None;
        eventually("it ends", || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        status.unwrap().code()
    }
}

impl Drop for Tty {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn kill(pid: u32, signal: Signal) {
    kill_process(Pid::from_raw(pid as i32).unwrap(), signal).unwrap();
}

#[test]
fn a_terminal_that_is_stopped_stops_nobody() {
    let mut tty = Tty::start(r#"exec "$@" --log debug"#);
    let (pid, addr) = tty.ready();
    tty.keys.as_mut().unwrap().write_all(b"\x13").unwrap();
    all_is_well(addr, &tty.home);
    kill(pid, Signal::TERM);
    assert_eq!(tty.end(), Some(0));
}

#[test]
fn a_background_job_is_not_stopped_for_what_it_writes_to_its_terminal() {
    // The shell stays in the foreground until a line comes, and would leave a `wait` when its job is stopped.
    let mut tty = Tty::start(r#"set -m; stty tostop; "$@" & read line; wait $!"#);
    let (pid, addr) = tty.ready();
    all_is_well(addr, &tty.home);
    kill(pid, Signal::TERM);
    tty.keys.as_mut().unwrap().write_all(b"\n").unwrap();
    assert_eq!(tty.end(), Some(0));
}

/// A way to hang up on the process with that pid, which listens there.
type HangUp<'a> = &'a dyn Fn(&mut Tty, u32, SocketAddr);

#[test]
fn a_hang_up_of_the_terminal_that_a_server_runs_in_is_an_orderly_stop() {
    let by_signal = |_: &mut Tty, pid, _| kill(pid, Signal::HUP);
    let by_closing = |tty: &mut Tty, _, addr| {
        tty.keys = None;
        tty.output = channel().1;
        // What is logged of this one wakes the thread that reads the screen, which closes the last of the terminal.
        drop(Client::to(addr));
    };
    let hang_ups: [HangUp<'_>; 2] = [&by_signal, &by_closing];
    for hang_up in hang_ups {
        let mut tty = Tty::start(r#"exec "$@""#);
        let (pid, addr) = tty.ready();
        let mut ann = Client::to(addr);
        let id = ann.register("ann");
        ann.login(id);
        hang_up(&mut tty, pid, addr);
        ann.expect_goodbye("server_shutdown");
        ann.expect_end();
        assert_eq!(tty.end(), Some(0));
        assert_eq!(tty.home.state(id), "offline");
    }
}

#[test]
fn a_hang_up_that_is_ignored_at_the_start_stays_ignored() {
    let mut tty = Tty::start(r#"trap '' HUP; exec "$@""#);
    let (pid, addr) = tty.ready();
    kill(pid, Signal::HUP);
    tty.keys = None;
    tty.output = channel().1;
    all_is_well(addr, &tty.home);
    kill(pid, Signal::TERM);
    assert_eq!(tty.end(), Some(0));
}

/// A server in a process group of its own, so that no terminal in which the tests run has it in its foreground.
fn apart(line: &str) -> Server {
    let home = Home::new();
    let mut command = shell(&home, line);
    command.process_group(0);
    Server::launch(command, &home)
}

#[test]
fn a_sighup_that_is_no_hang_up_ends_nothing() {
    let server = apart(r#"exec "$@""#);
    let (mut ann, id) = server.user("ann");
    server.signal(Signal::HUP);
    eventually("the log says what it does", || server.log().contains("SIGHUP changes nothing"));
    ann.quiet();
    assert_eq!(server.home.state(id), "online");
    server.stop();
}

#[test]
fn only_a_hang_up_that_is_ignored_at_the_start_stays_ignored() {
    for signal in [Signal::INT, Signal::TERM] {
        let server = apart(r#"trap '' INT TERM HUP; exec "$@""#);
        let (mut ann, id) = server.user("ann");
        server.signal(Signal::HUP);
        // There is nothing to wait for: a stop would have begun by the end of these.
        assert_eq!(server.cli(&["who"]).code, Some(0));
        server.user("bob").0.quiet();
        ann.quiet();
        assert!(!server.log().contains("SIGHUP"), "{}", server.log());
        server.signal(signal);
        ann.expect_goodbye("server_shutdown");
        let home = server.home.clone();
        let done = server.end();
        assert_eq!(done.code, Some(0), "{signal:?}: {done:?}");
        assert_eq!(home.state(id), "offline");
    }
}

#[test]
fn signals_that_come_together_are_one_orderly_stop() {
    for signals in [[Signal::TERM, Signal::HUP], [Signal::HUP, Signal::TERM], [Signal::TERM, Signal::INT]] {
        let server = apart(r#"exec "$@""#);
        let (mut ann, id) = server.user("ann");
        for signal in signals {
            server.signal(signal);
        }
        ann.expect_goodbye("server_shutdown");
        let home = server.home.clone();
        let done = server.end();
        assert_eq!(done.code, Some(0), "{signals:?}: {done:?}");
        assert_eq!(home.state(id), "offline");
    }
}

#[test]
fn a_service_manager_that_takes_nothing_stops_nobody() {
    let home = Home::new();
    let path = home.path().join("notify");
    let manager = UnixDatagram::bind(&path).unwrap();
    let filler = UnixDatagram::unbound().unwrap();
    filler.connect(&path).unwrap();
    filler.set_nonblocking(true).unwrap();
    while filler.send(b"full").is_ok() {}
    let mut command = shell(&home, r#"WATCHDOG_PID=$$ exec "$@""#);
    command.env("NOTIFY_SOCKET", &path).env("WATCHDOG_USEC", "20000");
    let server = Server::launch(command, &home);
    all_is_well(server.addr, &home);
    server.stop();
    drop(manager);
}

#[test]
fn all_files_are_their_owners_alone_whatever_umask_and_directory_say() {
    for umask in ["0", "0777"] {
        let home = Home::new();
        fs::create_dir(home.data()).unwrap();
        fs::set_permissions(home.data(), fs::Permissions::from_mode(0o777)).unwrap();
        let server = Server::launch(shell(&home, &format!(r#"umask {umask}; exec "$@""#)), &home);
        server.user("ann").0.quiet();
        let found: Vec<_> = fs::read_dir(home.data()).unwrap().map(|entry| entry.unwrap().path()).collect();
        assert_eq!(found.len(), 4, "{found:?}");
        for file in found {
            assert_eq!(mode(&file), 0o600, "umask {umask}: {}", file.display());
        }
        server.stop();
    }
}

#[test]
fn files_that_others_may_read_are_narrowed_at_the_start() {
    let server = Server::start(&[]);
    server.user("ann").0.quiet();
    let home = server.crash();
    let names = ["linger.db", "linger.db-wal", "linger.db-shm"].map(|name| home.data().join(name));
    for name in &names {
        fs::set_permissions(name, fs::Permissions::from_mode(0o644)).unwrap();
    }
    let _server = Server::start_at(&home, &[]);
    assert_eq!(names.each_ref().map(|name| mode(name)), [0o600; 3]);
}

#[test]
fn a_server_whose_directory_was_moved_away_leaves_the_next_ones_control_socket_alone() {
    let first = Server::start(&[]);
    let (mut ann, _) = first.user("ann");
    let away = first.home.path().join("away");
    fs::rename(first.home.data(), &away).unwrap();
    let second = Server::start_at(&first.home, &[]);
    first.signal(Signal::TERM);
    ann.expect_goodbye("server_shutdown");
    first.end();
    assert!(!away.join("control.sock").exists(), "it took its own with it");
    assert_eq!(second.cli_json(&["stats"])["pid"], second.pid());
}

#[test]
fn a_control_socket_that_is_gone_is_said_and_comes_back() {
    let server = Server::start(&[]);
    fs::remove_file(server.home.control_socket()).unwrap();
    let done = server.cli(&["who"]);
    one_line(&done, 1);
    let expected = format!("the server with pid {} runs", server.pid());
    assert!(done.stderr.contains(&expected) && done.stderr.contains("control.sock is gone"), "{done:?}");
    eventually("it is there again", || server.cli(&["who"]).code == Some(0));
    assert_eq!(mode(&server.home.control_socket()), 0o600);
    assert!(server.log().contains("the control socket was gone"));
    server.stop();
}

#[test]
fn a_server_that_stands_still_holds_its_directory_and_the_next_one_says_who_it_is() {
    let server = Server::start(&[]);
    server.signal(Signal::STOP);
    let done = serve(&server.home, &[]);
    server.signal(Signal::CONT);
    one_line(&done, 1);
    assert!(done.stderr.contains(&format!("(pid {})", server.pid())), "{done:?}");
    server.user("ann").0.quiet();
}

#[test]
fn a_data_path_longer_than_a_sockets_name_serves_and_answers() {
    let home = Home::new();
    let data = home.path().join("a".repeat(120)).join("b".repeat(120));
    let data = data.to_str().unwrap();
    let mut command = Command::new(LINGER);
    command.args(["serve", "--data", data, "--listen", "127.0.0.1:0", "--argon2", "8,1,1"]);
    let server = Server::launch(command, &home);
    assert_eq!(server.ready_field("control"), format!("{data}/control.sock"));
    let done = linger(&["who", "--json", "--data", data]);
    assert_eq!((done.code, done.stdout.as_str()), (Some(0), "{\"users\":[]}\n"));
    server.signal(Signal::TERM);
    assert_eq!(server.end().code, Some(0));
    assert!(!Path::new(data).join("control.sock").exists());
}

#[test]
fn a_path_that_is_no_text_or_has_line_ends_serves_and_is_one_line_everywhere() {
    let name = || OsString::from_vec(b"da\xffta\n\x1b[2J".to_vec());
    for by_flag in [true, false] {
        let home = Home::new();
        let mut command = Command::new(LINGER);
        command.args(["serve", "--listen", "127.0.0.1:0", "--argon2", "8,1,1"]).current_dir(home.path());
        if by_flag {
            command.arg("--data").arg(name())
        } else {
            command.env("LINGER_DATA", name())
        };
        let server = Server::launch(command, &home);
        assert!(server.ready.ends_with("control=da\\xffta\\u{a}\\u{1b}[2J/control.sock"), "{}", server.ready);
        let ask = |flag: &str| {
            let mut who = Command::new(LINGER);
            who.args(["who", "--json"]).current_dir(home.path());
            if flag.is_empty() {
                who.env("LINGER_DATA", name())
            } else {
                who.arg(flag).arg(name())
            };
            run(who)
        };
        for flag in ["--data", ""] {
            assert_eq!(ask(flag).code, Some(0));
        }
        server.signal(Signal::TERM);
        let done = server.end();
        assert_eq!((done.code, done.stdout.as_str()), (Some(0), ""));
        one_line(&ask("--data"), 1);
    }
}

#[test]
fn a_working_directory_that_is_gone_matters_to_nobody_whose_data_directory_has_a_whole_path() {
    let home = Home::new();
    let server = Server::launch(shell(&home, r#"mkdir gone && cd gone && rmdir ../gone; exec "$@""#), &home);
    all_is_well(server.addr, &home);
    server.stop();
}

#[test]
fn addresses_that_others_reach_are_warned_of_in_one_line() {
    let warnings = |server: &Server| {
        let log = server.log();
        log.lines()
            .filter(|line| line.contains("passwords cross the network"))
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    let open = ["--listen", "0.0.0.0:0", "--listen", "127.0.0.1:0", "--line", "0.0.0.0:0"];
    let server = Server::start(&open);
    let json: Vec<_> = server.ready_field("json").split(',').collect();
    let said = warnings(&server);
    assert_eq!(said.len(), 1, "{said:?}");
    assert!(
        said[0].contains(" WARN ") && said[0].contains(json[0]) && !said[0].contains(json[1]),
        "{said:?}"
    );
    assert!(said[0].contains(&server.line_addr().to_string()), "{said:?}");
    let quiet = Server::with_lines(&["--listen", "127.0.0.2:0"]);
    assert_eq!(warnings(&quiet), Vec::<String>::new());
}
