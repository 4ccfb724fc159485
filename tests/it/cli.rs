//! The `linger` command as scripts see it: exit codes, stdout, stderr. A thread plays the server.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::thread::{self, JoinHandle};

use tempfile::TempDir;

const KICKED: &str = r#"{"ok":true,"kicked":[{"channel":"7.3","user":13,"name":"zhang san","told_us":60,"shutdown_us":85,"offline_us":900}]}"#;
const USERS: &str = r#"{"ok":true,"users":[{"id":13,"name":"zhang\u001b[2J","channel":"7.3","peer":"127.0.0.1:4242","since_ms":1700000000000,"idle_ms":192000}]}"#;

/// Every flag of `linger serve` with its default, as in the contract.
const SERVE_FLAGS: [(&str, &str); 17] = [
    ("--config", ""),
    ("--data", "linger-data"),
    ("--listen", "127.0.0.1:6000"),
    ("--line", "off"),
    ("--workers", "auto"),
    ("--grace", "5s"),
    ("--duplicate", "takeover"),
    ("--durability", "full"),
    ("--max-channels", "auto"),
    ("--max-frame", "64KiB"),
    ("--out-limit", "1MiB"),
    ("--login-timeout", "5m"),
    ("--idle", "off"),
    ("--argon2", "19456,2,1"),
    ("--stop-drain", "2s"),
    ("--log", "info"),
    ("--log-format", "text"),
];

/// The command, in a directory of its own and without settings from outside.
fn linger(dir: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_linger"));
    command.current_dir(dir).env_clear().stdin(Stdio::null());
    command
}

fn run(dir: &Path, args: &[&str]) -> Output {
    linger(dir).args(args).output().unwrap()
}

/// A control socket in `DIR/linger-data` that gives one answer; its thread ends with the request line.
struct FakeServer {
    dir: TempDir,
    thread: JoinHandle<String>,
}

impl FakeServer {
    fn answering(answer: impl Into<String>) -> FakeServer {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("linger-data")).unwrap();
        let listener = UnixListener::bind(dir.path().join("linger-data/control.sock")).unwrap();
        let answer = answer.into();
        let thread = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = String::new();
            BufReader::new(&stream).read_line(&mut request).unwrap();
            // The command may have gone for its own reasons; its exit code tells.
            let _ = stream.write_all(answer.as_bytes());
            request
        });
        FakeServer { dir, thread }
    }

    /// Runs one command against it; its output and the request that it sent.
    fn run(self, args: &[&str]) -> (Output, String) {
        let output = run(self.dir.path(), args);
        (output, self.thread.join().unwrap())
    }
}

#[track_caller]
fn assert_fails(output: &Output, code: i32, part: &str) {
    let stderr = String::from_utf8(output.stderr.clone()).unwrap();
    assert_eq!(output.status.code(), Some(code), "{stderr}");
    assert!(output.stdout.is_empty());
    assert!(stderr.starts_with("linger: ") && stderr.contains(part), "{stderr}");
    assert_eq!(stderr.matches('\n').count(), 1, "{stderr}");
}

fn stdout(output: &Output) -> &str {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(output.stderr.is_empty());
    std::str::from_utf8(&output.stdout).unwrap()
}

#[test]
fn kick_sends_the_contracts_line_and_says_who_went() {
    let server = FakeServer::answering(format!("{KICKED}\n"));
    let (output, request) = server.run(&["kick", "13", "--reason", "spam", "--wait"]);
    assert_eq!(request, "{\"cmd\":\"kick\",\"targets\":[\"13\"],\"reason\":\"spam\",\"wait\":true}\n");
    let expected = "#7.3  user 13 zhang san  told after 60us  shut down after 85us  offline after 900us\n";
    assert_eq!(stdout(&output), expected);
}

#[test]
fn json_is_the_answer_without_ok() {
    let (output, _) = FakeServer::answering(format!("{KICKED}\n")).run(&["kick", "13", "--json"]);
    assert_eq!(stdout(&output), KICKED.replace("\"ok\":true,", "") + "\n");
    let stats = "{\"ok\":true,\"zeta\":1,\"alpha\":0.5}\n";
    let (output, _) = FakeServer::answering(stats).run(&["stats", "--json"]);
    assert_eq!(stdout(&output), "{\"zeta\":1,\"alpha\":0.5}\n");
}

#[test]
fn a_kick_that_matches_nothing_ends_with_3_and_as_json_with_an_empty_list() {
    let nothing = || FakeServer::answering("{\"ok\":true,\"kicked\":[]}\n");
    let (output, _) = nothing().run(&["kick", "13", "#7.3"]);
    assert_fails(&output, 3, "nothing matched 13 #7.3");
    let (output, _) = nothing().run(&["kick", "13", "#7.3", "--json"]);
    assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(3), &b"{\"kicked\":[]}\n"[..]));
}

#[test]
fn nobody_online_is_no_failure() {
    let (output, request) = FakeServer::answering("{\"ok\":true,\"users\":[]}\n").run(&["who", "--json"]);
    assert_eq!((stdout(&output), request.as_str()), ("{\"users\":[]}\n", "{\"cmd\":\"who\"}\n"));
}

#[test]
fn tables_are_short_and_hide_no_escape_sequences() {
    let (output, _) = FakeServer::answering(format!("{USERS}\n")).run(&["who"]);
    let text = stdout(&output);
    assert!(text.starts_with("id  name"), "{text}");
    for part in ["zhang\\u{1b}[2J", "#7.3", "127.0.0.1:4242", "3m12s"] {
        assert!(text.contains(part), "{text}");
    }
    let channels = "{\"ok\":true,\"channels\":[{\"channel\":\"7.3\",\"state\":\"new\",\"worker\":0,\"user\":null,\
        \"name\":null,\"peer\":\"[::1]:9\",\"bytes_in\":1,\"bytes_out\":2,\"queued\":0,\"age_ms\":5,\"idle_ms\":5}]}\n";
    let (output, _) = FakeServer::answering(channels).run(&["channels"]);
    let rows: Vec<_> =
        stdout(&output).lines().map(|line| line.split_whitespace().collect::<Vec<_>>()).collect();
    assert_eq!(rows[1], ["#7.3", "new", "0", "-", "-", "[::1]:9", "1", "2", "0", "5ms", "5ms"]);
    let queue = "{\"ok\":true,\"depth\":0,\"oldest_ms\":0,\"lingering\":2,\"drained\":9}\n";
    let (output, _) = FakeServer::answering(queue).run(&["queue"]);
    assert_eq!(stdout(&output), "depth  oldest  lingering  drained\n0      0ms     2          9\n");
}

#[test]
fn a_failure_of_the_server_is_one_line_and_1() {
    let answer = "{\"ok\":false,\"error\":\"gave up after 10 s: offline is missing\"}\n";
    for args in [vec!["kick", "13", "--wait"], vec!["kick", "13", "--wait", "--json"]] {
        assert_fails(&FakeServer::answering(answer).run(&args).0, 1, "offline is missing");
    }
    for answer in [
        "",
        "{\"ok\":true}\n",
        "not json\n",
        "{\"ok\":true,\"users\":[",
        "{\"ok\":false,\"error\":\"a\\nb\"}\n",
    ] {
        assert_fails(&FakeServer::answering(answer).run(&["who", "--json"]).0, 1, "");
    }
}

#[test]
fn no_server_is_said_with_what_to_start() {
    let dir = tempfile::tempdir().unwrap();
    for command in ["who", "channels", "queue", "stats", "bans"] {
        assert_fails(&run(dir.path(), &[command, "--json"]), 1, "`linger serve --data linger-data`");
        assert_fails(&run(dir.path(), &[command, "--data", "elsewhere"]), 1, "--data elsewhere");
    }
    let output = linger(dir.path()).arg("who").env("LINGER_DATA", "from-env").output().unwrap();
    assert_fails(&output, 1, "--data from-env");
    let output = linger(dir.path()).arg("who").env("LINGER_DATA", "").output().unwrap();
    assert_fails(&output, 1, "--data linger-data");
    let both =
        linger(dir.path()).args(["who", "--data", "flag"]).env("LINGER_DATA", "from-env").output().unwrap();
    assert_fails(&both, 1, "--data flag");
}

#[test]
fn what_makes_no_sense_is_2() {
    let dir = tempfile::tempdir().unwrap();
    let lines: [&[&str]; 14] = [
        &[],
        &["dance"],
        &["kick"],
        &["kick", "#x"],
        &["kick", "ip:foo"],
        &["kick", "idle:"],
        &["kick", ""],
        &["kick", "13", "--reason", "a\nb"],
        &["kick", "13", "--ban", "0s"],
        &["unban"],
        &["unban", "#7.3"],
        &["who", "--nonsense"],
        &["serve", "--grace"],
        &["serve", "--grace", "1s", "--grace", "2s"],
    ];
    for args in lines {
        let output = run(dir.path(), args);
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        assert!(output.stdout.is_empty() && !output.stderr.is_empty(), "{args:?}");
    }
    assert_fails(&run(dir.path(), &["serve", "--grace", "2h"]), 2, "--grace: \"2h\"");
}

#[test]
fn a_wrong_setting_is_one_line_wherever_it_came_from() {
    let dir = tempfile::tempdir().unwrap();
    let output = linger(dir.path()).arg("serve").env("LINGER_WORKERS", "0").output().unwrap();
    assert_fails(&output, 2, "LINGER_WORKERS");
    std::fs::write(dir.path().join("l.toml"), "max_fram = 4096\n").unwrap();
    assert_fails(&run(dir.path(), &["serve", "--config", "l.toml"]), 2, "\"max-frame\"");
    assert_fails(&run(dir.path(), &["serve", "--config", "absent.toml"]), 1, "absent.toml");
}

#[test]
fn help_goes_to_stdout_and_names_every_option() {
    let dir = tempfile::tempdir().unwrap();
    for help in ["--help", "-h"] {
        let output = run(dir.path(), &["serve", help]);
        let text = stdout(&output);
        for (flag, default) in SERVE_FLAGS {
            let env = format!("LINGER_{}", flag[2..].replace('-', "_").to_uppercase());
            assert!(text.contains(&format!("{flag} <")) && text.contains(&env), "{flag}\n{text}");
            let joined = text.split_whitespace().collect::<Vec<_>>().join(" ");
            assert!(
                default.is_empty() || joined.contains(&format!("[default: {default}] [env: {env}]")),
                "{flag}\n{text}"
            );
        }
    }
    let output = run(dir.path(), &["--help"]);
    let all = ["serve", "kick", "who", "channels", "queue", "stats", "why", "drain", "bans", "unban"];
    for command in all {
        assert!(stdout(&output).contains(&format!("\n  {command} ")), "{command}");
        let output = run(dir.path(), &[command, "--help"]);
        assert!(stdout(&output).contains("Examples:"), "{command}");
        assert!(command == "serve" || stdout(&output).contains("--json"), "{command}");
    }
}

#[test]
fn a_reader_who_has_seen_enough_is_no_failure() {
    // More than a pipe holds, so that the write certainly meets the closed end.
    let user = r#"{"id":1,"name":"n","channel":"7.3","peer":"p","since_ms":0,"idle_ms":0}"#;
    let answer = format!("{{\"ok\":true,\"users\":[{}]}}\n", vec![user; 5_000].join(","));
    for arg in ["who --json", "who", "--help"] {
        let server = FakeServer::answering(answer.clone());
        let mut command = linger(server.dir.path());
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let output = command.args(arg.split(' ')).stdout(writer).stderr(Stdio::piped()).output().unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stderr), "", "{arg}");
        assert_eq!(output.status.code(), Some(0), "{arg}");
        if arg != "--help" {
            server.thread.join().unwrap();
        }
    }
}

#[test]
fn a_disk_that_is_full_is_a_failure() {
    let server = FakeServer::answering(format!("{USERS}\n"));
    let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
    let output = linger(server.dir.path()).arg("who").stdout(full).stderr(Stdio::piped()).output().unwrap();
    assert_fails(&output, 1, "cannot write to stdout");
    server.thread.join().unwrap();
}
