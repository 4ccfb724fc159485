//! Logs all clients of a pool in. A user that does not exist yet is registered first.
//!
//! Runs on the scenario's thread. Only so many logins are under way at once: hashing passwords is the server's
//! dearest work, and its queue for it is bounded.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::client::{self, ServerMessage, errno};
use super::client_pool::{ClientEvent, ClientPool, EventKind};
use super::error::StressError;
use super::progress::Progress;

/// Logins under way at once.
const WINDOW: usize = 256;

/// Without any login for so long there is no point in waiting on.
const STUCK_AFTER: Duration = Duration::from_mins(1);

/// How often one user asks again when the server is busy, or still holds a session of an earlier run.
const RETRIES: u32 = 200;

/// The pause before asking again.
const RETRY_AFTER: Duration = Duration::from_millis(50);

/// A turn's longest wait.
const TURN: Duration = Duration::from_millis(20);

/// The users of a scenario: `PREFIX-SCENARIO-NUMBER`.
#[derive(Clone, Debug)]
pub(super) struct Names(pub(super) String);

impl Names {
    pub(super) fn name(&self, who: usize) -> String {
        format!("{}{who}", self.0)
    }
}

/// Logs everybody in and answers their user ids, by client.
pub(super) fn log_all_in(
    pool: &mut ClientPool,
    names: &Names,
    progress: &mut Progress,
) -> Result<Vec<i64>, StressError> {
    let size = pool.size();
    let mut ids = vec![0; size];
    let mut registering = vec![false; size];
    let mut retries = vec![0; size];
    let (mut next, mut online, mut later) = (0, 0, VecDeque::<(Instant, usize)>::new());
    let mut last_login = Instant::now();
    let mut events = Vec::new();
    progress.phase("log in", size as u64);
    while online < size {
        while next < size && next - online < WINDOW {
            pool.connect(next)?;
            pool.send(next, &client::login(&names.name(next)));
            next += 1;
        }
        while let Some((_, who)) = later.pop_front_if(|(when, _)| *when <= Instant::now()) {
            pool.send(who, &client::login(&names.name(who)));
        }
        pool.turn(TURN, &mut events)?;
        for ClientEvent { who, at, kind } in events.drain(..) {
            match kind {
                // Chats: what an earlier run has left in the box.
                EventKind::Connected | EventKind::Message(ServerMessage::Other | ServerMessage::Chat(_)) => {}
                EventKind::Message(ServerMessage::LoggedIn { id, .. }) => {
                    ids[who] = id;
                    online += 1;
                    last_login = at;
                }
                EventKind::Message(ServerMessage::LoginRefused { errno: errno::WRONG, .. })
                    if !registering[who] =>
                {
                    registering[who] = true;
                    pool.send(who, &client::register(&names.name(who)));
                }
                EventKind::Message(ServerMessage::Registered) => {
                    pool.send(who, &client::login(&names.name(who)));
                }
                EventKind::Message(
                    ServerMessage::LoginRefused { errno: errno::BUSY | errno::ONLINE, .. }
                    | ServerMessage::RegisterRefused { errno: errno::BUSY, .. },
                ) if retries[who] < RETRIES => {
                    // A registration is asked again by way of the login, which finds no such user.
                    registering[who] = false;
                    retries[who] += 1;
                    later.push_back((at + RETRY_AFTER, who));
                }
                other => {
                    let (name, target) = (names.name(who), pool.target());
                    return Err(StressError::Login { name, target, why: told(&other) });
                }
            }
        }
        if last_login.elapsed() > STUCK_AFTER {
            return Err(StressError::Stuck(online, size, STUCK_AFTER));
        }
        progress.set(online as u64);
    }
    progress.done();
    Ok(ids)
}

/// What a client was told or what became of it, in words.
pub(super) fn told(kind: &EventKind) -> String {
    match kind {
        EventKind::Connected => "connected".to_owned(),
        EventKind::Message(
            ServerMessage::LoginRefused { errno, text }
            | ServerMessage::RegisterRefused { errno, text }
            | ServerMessage::Error { errno, text, .. },
        ) => format!("errno {errno} ({text})"),
        EventKind::Message(ServerMessage::Goodbye { reason, text }) => {
            format!("goodbye {reason} ({text})")
        }
        EventKind::Message(other) => format!("{other:?}"),
        EventKind::Closed(None) => "the stream ended".to_owned(),
        EventKind::Closed(Some(error)) => error.to_string(),
    }
}
