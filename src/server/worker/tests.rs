//! What a worker does with its channels, turn by turn, on made-up connections. The test plays main and the others.
//!
//! | file | guards |
//! |---|---|
//! | `ends` | how many ends of clients a turn handles, and in what order |
//! | `delivery_reports` | that what a session leaves unsent is reported once, and for its own user |
//! | `full_queue` | what a request gets that finds a queue full |
//! | `closing` | what becomes of a connection that cannot be registered, and that each end is counted once |
//! | `address_limits` | how many channels and registrations an address may have |
//! | `time_limits` | pings, user timeouts and the time to log in |

mod address_limits;
mod closing;
mod delivery_reports;
mod ends;
mod full_queue;
mod time_limits;

use crate::channel::{ChannelId, SessionNo};
use crate::ids::UserId;
use crate::message::request::Ask;
use crate::offline_queue::queue::ASKS_MAX;
use crate::protocol::msgid::Msgid;
use crate::testing::builders::reply_to;
use crate::testing::fake_socket::Client;
use crate::testing::worker_harness::WorkerHarness;

const ANN: UserId = UserId(1);
const BOB: UserId = UserId(2);
const NOBODY: UserId = UserId(9);

/// A user who is logged in and has the answer.
fn logged_in(harness: &mut WorkerHarness, user: UserId) -> (ChannelId, SessionNo, Client) {
    let (channel, client) = harness.accept();
    let session = harness.greet(channel, user);
    harness.turn();
    client.heard();
    harness.entries();
    (channel, session, client)
}

/// The same, with a message that the client has not read.
fn with_unsent(harness: &mut WorkerHarness, user: UserId, text: &str) -> (ChannelId, SessionNo, Client) {
    let (channel, session, client) = logged_in(harness, user);
    client.take_only(0);
    harness.chat(channel, session, user, text);
    harness.turn();
    (channel, session, client)
}

fn unsent(session: SessionNo, texts: &[&str]) -> (Option<SessionNo>, Vec<String>) {
    (Some(session), texts.iter().map(|text| (*text).into()).collect())
}

/// Fills main's queue with requests.
fn fill_queue(harness: &WorkerHarness, channel: ChannelId) {
    for _ in 0..ASKS_MAX {
        harness.fixtures.queue.ask(Ask::Fence { reply_to: reply_to(channel, Msgid::Logout, None) }).unwrap();
    }
}

/// Panics when the worker still counts a request or chat of the channel.
#[track_caller]
fn assert_nothing_under_way(harness: &mut WorkerHarness, channel: ChannelId) {
    let connection = harness.states[0].connection(channel).expect("it is still there");
    let under_way =
        (connection.is_logging_in(), connection.in_main, connection.trackers, connection.input.len());
    assert_eq!(under_way, (false, 0, 0, 0), "login, requests in main, tickets, waiting input");
}
