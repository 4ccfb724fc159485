//! Brings a whole fleet online: each user logs in, and registers first where the login finds no such user.
//!
//! Runs on the scenario's thread. Only so many logins are under way at once: hashing passwords is the server's
//! dearest work, and its queue for it is bounded.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::client::{self, Heard, errno};
use super::fault::StressError;
use super::fleet::{Fleet, News, What};
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
    fleet: &mut Fleet,
    names: &Names,
    progress: &mut Progress,
) -> Result<Vec<i64>, StressError> {
    let size = fleet.size();
    let mut ids = vec![0; size];
    let mut registering = vec![false; size];
    let mut retries = vec![0; size];
    let (mut next, mut online, mut later) = (0, 0, VecDeque::<(Instant, usize)>::new());
    let mut last_login = Instant::now();
    let mut news = Vec::new();
    progress.phase("log in", size as u64);
    while online < size {
        while next < size && next - online < WINDOW {
            fleet.connect(next)?;
            fleet.send(next, &client::login(&names.name(next)));
            next += 1;
        }
        while let Some((_, who)) = later.pop_front_if(|(when, _)| *when <= Instant::now()) {
            fleet.send(who, &client::login(&names.name(who)));
        }
        fleet.turn(TURN, &mut news)?;
        for News { who, at, what } in news.drain(..) {
            match what {
                // Chats: what an earlier run has left in the box.
                What::Connected | What::Heard(Heard::Other | Heard::Chat(_)) => {}
                What::Heard(Heard::LoggedIn { id, .. }) => {
                    ids[who] = id;
                    online += 1;
                    last_login = at;
                }
                What::Heard(Heard::LoginRefused { errno: errno::WRONG, .. }) if !registering[who] => {
                    registering[who] = true;
                    fleet.send(who, &client::register(&names.name(who)));
                }
                What::Heard(Heard::Registered) => fleet.send(who, &client::login(&names.name(who))),
                What::Heard(
                    Heard::LoginRefused { errno: errno::BUSY | errno::ONLINE, .. }
                    | Heard::RegisterRefused { errno: errno::BUSY, .. },
                ) if retries[who] < RETRIES => {
                    // A registration is asked again by way of the login, which finds no such user.
                    registering[who] = false;
                    retries[who] += 1;
                    later.push_back((at + RETRY_AFTER, who));
                }
                other => {
                    let (name, target) = (names.name(who), fleet.target());
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
pub(super) fn told(what: &What) -> String {
    match what {
        What::Connected => "connected".to_owned(),
        What::Heard(
            Heard::LoginRefused { errno, text }
            | Heard::RegisterRefused { errno, text }
            | Heard::Error { errno, text, .. },
        ) => format!("errno {errno} ({text})"),
        What::Heard(Heard::Goodbye { reason, text }) => format!("goodbye {reason} ({text})"),
        What::Heard(other) => format!("{other:?}"),
        What::Ended(None) => "the stream ended".to_owned(),
        What::Ended(Some(error)) => error.to_string(),
    }
}
