//! Whatever a client sends, its channel leaves once and nothing of it is left behind.

use super::splits;
use crate::ids::UserId;
use crate::protocol::json::framing::Framer;
use crate::protocol::line::LineFramer;
use crate::testing::builders::SECOND_US;
use crate::testing::fake_socket::Client;
use crate::testing::fixtures::GRACE_US;
use crate::testing::server_harness::{ServerHarness, login};
use crate::worker::Codec;

/// Longer inputs take too long byte by byte.
const INPUT_MAX: usize = 2048;
/// Answers without a login are at most so much longer than what was sent: an error for `{}`.
const ANSWER_MAX: usize = 128;
/// Bytes that a client gets for nothing: a goodbye.
const GOODBYE_MAX: usize = 512;
/// Bytes that a client reads who soon reads no more.
const ROOM: usize = 300;

/// Who sends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Who {
    /// A client that speaks JSON.
    Stranger,
    /// The same, logged in.
    User,
    /// The same, who reads only a little.
    Deaf,
    /// A client that speaks lines.
    Liner,
}

pub(super) fn holds(input: &[u8]) {
    let input = &input[..input.len().min(INPUT_MAX)];
    // The ends alternate, and an input always meets the same.
    let resets = input.len() % 2 == 1;
    for who in [Who::Stranger, Who::User, Who::Deaf, Who::Liner] {
        let runs: Vec<Run> = splits(input).iter().map(|pieces| run(who, pieces, resets)).collect();
        if runs.iter().any(|run| run.sessions > 0) {
            // What is unsent when somebody logs out comes again with the next login, so a split may show.
            continue;
        }
        for run in &runs {
            assert_eq!(run.answers, runs[0].answers, "{who:?}");
            let bytes: usize = run.answers.iter().map(String::len).sum();
            assert!(bytes <= GOODBYE_MAX + ANSWER_MAX * input.len(), "{who:?}: {bytes} for {}", input.len());
        }
    }
}

/// What came of one split.
struct Run {
    /// Sorted, since answers may come in another order than requests.
    answers: Vec<String>,
    sessions: u64,
}

fn run(who: Who, pieces: &[&[u8]], resets: bool) -> Run {
    let mut server = ServerHarness::new();
    let user = server.user("ann");
    server.user("bob");
    let codec = match who {
        Who::Liner => Codec::Line(LineFramer::default()),
        _ => Codec::Json(Framer::default()),
    };
    let (_, client) = server.workers.accept_speaking(0, codec);
    if matches!(who, Who::User | Who::Deaf) {
        client.send(&login(user));
        server.run();
    }
    if who == Who::Deaf {
        client.take_only(ROOM);
    }
    for piece in pieces {
        client.send_bytes(piece);
        server.run();
    }
    if resets {
        client.reset();
    } else {
        client.end();
    }
    server.run();
    let heard = client.heard();
    let mut answers: Vec<String> = heard.split(['\0', '\n']).map(Into::into).collect();
    answers.sort_unstable();
    is_balanced(&mut server, &client, user, resets);
    Run { answers, sessions: server.workers.fixtures.metrics.logins.value() }
}

fn is_balanced(server: &mut ServerHarness, client: &Client, user: UserId, resets: bool) {
    let metrics = server.workers.fixtures.metrics.clone();
    assert_eq!(metrics.departures.value(), 1, "it has left, once");
    assert!(!server.is_online(user), "at once");
    assert_eq!(server.workers.fixtures.table.present(), 0);
    server.pass(GRACE_US / SECOND_US + 1);
    server.pass(1);
    assert!(client.is_closed());
    assert!(resets || client.sees_the_end() || client.heard().is_empty());
    let fixtures = &server.workers.fixtures;
    assert_eq!((metrics.accepted.value(), metrics.closed.value()), (1, 1));
    assert_eq!((fixtures.table.taken(), fixtures.table.connected()), (0, 0));
    assert!(fixtures.registry.is_empty() && fixtures.queue.is_empty());
    assert_eq!(metrics.logins.value(), metrics.sessions_ended.value());
    assert_eq!(server.disk.departures().len() as u64, metrics.logins.value(), "one row for each session");
}
