//! The vocabulary of the black-box tests: the real binary, real sockets, the real database.
//!
//! Every test has its own server and its own directory, so they run side by side. Nothing here sleeps for
//! luck: each wait names a condition and fails after [`DEADLINE`].
//!
//! | word | what it does |
//! |---|---|
//! | [`Home`] | a directory of its own with the data directory inside; `at` paths, `db` read-only, `departures`, `state` |
//! | [`Server::start`] | starts `linger serve` on a fresh home with a free port and cheap hashes, waits for the ready line |
//! | [`Server::start_at`] | the same on a home that is there already, for a second run |
//! | [`Server::start_with_fds`] | the same under a lowered fd limit |
//! | [`Server::start_faulty`] | the same, and reading or writing fails where the bytes say so |
//! | [`Server::with_fault`] | the disk, the clock or the connections of such a server are broken for a while |
//! | [`Server::expects_panic`] | the test makes the server panic |
//! | [`Server::with_few_fds`] | the running server may open hardly any file more |
//! | [`Server::stop`], [`Server::crash`] | an orderly stop by a signal; a kill -9. Both give the home back |
//! | [`Server::user`] | a connection, registered and logged in: the usual first line of a test |
//! | [`Server::cli`] | runs an admin command against this server |
//! | [`Server::control`] | one line to the control socket, one line back |
//! | [`Server::channel_of`], [`Server::channels`] | what `channels` says |
//! | [`Server::has_read_all_of`], [`Server::has_output_for`] | a client's requests are in; a user's messages are not all out |
//! | [`Server::holds_socket_of`] | the fd of a client's connection is still open |
//! | [`Server::reconciled`], [`Server::expects_differences`] | what the reconciler has counted; the test makes it count |
//! | [`serve`], [`linger`] | runs the binary to its end, for starts that must fail and for plain commands |
//! | [`Client::say`], [`Client::say_bytes`] | sends one object with the client's terminator; sends bytes as they are |
//! | [`Client::hear`], [`Client::ask`] | the next object; say, then hear |
//! | [`Client::login`], [`Client::register`] | the dialogue that every test needs, asserted |
//! | [`Client::quiet`] | proves that nothing else was under way: a chat to oneself is the next thing heard |
//! | [`Client::hear_nothing_until`] | proves that nothing arrives before a condition holds |
//! | [`Client::expect_goodbye`], [`Client::expect_end`] | the next object is that goodbye; the stream ends without a reset |
//! | [`Client::hear_to_the_end`] | all objects up to the end of the stream |
//! | [`Client::end_input`], [`Client::reset`], dropping | half-close; RST; an ordinary close |
//! | [`Server::with_lines`], [`Server::guest`] | a server with `--line`; a guest who is logged in there |
//! | [`LineClient`] | the same words for lines: `say`, `hear`, `login`, `quiet`, `expect_goodbye`, `expect_end` |
//! | [`LineClient::hear_error`], [`LineClient::expect_refused`] | the next line is an error; it is one, and then the end |
//! | [`unpack`], [`numbers`] | the arrays of strings in a login answer; the extra field `n` of messages |
//! | [`chat::Filter`], [`chat::Terminal`] | `linger chat` in a pipe, and in a pseudo-terminal |
//! | [`chat::Scripted`] | a server that does what the test wants |
//! | [`eventually`] | waits for a condition |
//! | [`offline`], [`fill`] | waits until a user is offline in the database; until a receiver's kernel takes no more |
//! | [`one_line`] | a start or a command failed with that exit code and one line on stderr |
//! | [`expect_error`] | an answer of section 2.1, with or without `re` |
//!
//! A server that ends badly, panics, or whose reconciler has counted anything, fails its test when it is dropped, and its log is shown with the
//! failure of any test.

pub(crate) mod chat;
mod client;
pub(crate) mod faulty_server;
mod home;
mod line_client;
mod server;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::Value;

pub(crate) use client::{Client, numbers, unpack};
pub(crate) use home::Home;
pub(crate) use line_client::LineClient;
pub(crate) use server::{Finished, LINES, LINGER, RECONCILED, Server, linger, run, run_within, serve};

/// How long any single condition may take before the test has failed.
pub(crate) const DEADLINE: Duration = Duration::from_secs(10);

/// The pause between two looks at a condition.
const POLL: Duration = Duration::from_millis(3);

/// The password of every user, where a test does not say otherwise.
pub(crate) const PASSWORD: &str = "correct horse";

/// A grace that no test lives to see the end of.
pub(crate) const ENDLESS_GRACE: [&str; 2] = ["--grace", "1h"];

/// So long after the first signal, another one ends the server at once.
pub(crate) const IMPATIENT_AFTER: Duration = Duration::from_secs(1);

/// The frame limit before a login, in bytes.
pub(crate) const EARLY_FRAME_BYTES: usize = 8 * 1024;

/// The default frame limit after a login, in bytes.
pub(crate) const FRAME_BYTES: usize = 64 * 1024;

/// The text of a message that fills buffers soon.
pub(crate) const BULK_BYTES: usize = 8 * 1024;

/// `ECONNRESET` on Linux.
pub(crate) const ECONNRESET: i64 = 104;

/// Waits until `holds`, and fails with `what` when it does not in time.
#[track_caller]
pub(crate) fn eventually(what: &str, holds: impl FnMut() -> bool) {
    eventually_within(DEADLINE, what, holds);
}

/// [`eventually`] with a deadline of its own.
#[track_caller]
pub(crate) fn eventually_within(deadline: Duration, what: &str, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + deadline;
    while !holds() {
        assert!(Instant::now() < end, "not within {deadline:?}: {what}");
        std::thread::sleep(POLL);
    }
}

/// Waits until that user is offline in the database.
#[track_caller]
pub(crate) fn offline(server: &Server, user: i64) {
    eventually("the user is offline in the database", || server.home.state(user) == "offline");
}

/// Waits until all that `from` said is in, and some of it cannot go out to `to`.
#[track_caller]
pub(crate) fn fill(server: &Server, from: &Client, to: i64) {
    eventually("all is read", || server.has_read_all_of(from));
    eventually("the receiver's kernel takes no more", || server.has_output_for(to));
}

/// Who may do what with that file.
pub(crate) fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

/// Asserts the general error answer of section 2.1: msgid 0, that errno, a text, and `re` as given.
#[track_caller]
pub(crate) fn expect_error(answer: &Value, errno: i64, re: Option<i64>) {
    assert_eq!(answer["msgid"], 0, "not an error answer: {answer}");
    assert_eq!(answer["errno"], errno, "another errno: {answer}");
    assert!(answer["errmsg"].as_str().is_some_and(|text| !text.is_empty()), "no errmsg: {answer}");
    match re {
        Some(re) => assert_eq!(answer["re"], re, "wrong re: {answer}"),
        None => assert!(answer.get("re").is_none(), "re without a msgid: {answer}"),
    }
}

/// A start or a command that failed as it should: that code, one line on stderr, nothing on stdout.
#[track_caller]
pub(crate) fn one_line(done: &Finished, code: i32) {
    assert_eq!(done.code, Some(code), "{done:?}");
    assert_eq!(done.stdout, "", "{done:?}");
    assert!(done.stderr.starts_with("linger: ") && done.stderr.ends_with('\n'), "{done:?}");
    assert_eq!(done.stderr.lines().count(), 1, "one line: {done:?}");
}
