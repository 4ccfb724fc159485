//! Kicks visitors one after another, in a thread of its own: a kick with `wait` takes as long as a commit.

use std::sync::mpsc::{Receiver, Sender};
use std::time::{Duration, Instant};

use serde_json::json;

use super::super::error::StressError;
use super::super::probe::Probe;

/// What a kicked visitor is told.
pub(crate) const TEXT: &str = "linger stress";

/// A visitor who is to be kicked.
#[derive(Clone, Copy, Debug)]
pub(crate) struct KickOrder {
    pub(crate) who: usize,
    pub(crate) id: i64,
}

/// What came of it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct KickResult {
    pub(crate) who: usize,
    /// When it was asked for.
    pub(crate) at: Instant,
    pub(crate) answered: Duration,
    /// True exactly when the answer lists the visitor.
    pub(crate) is_listed: bool,
    /// True exactly when the database said online after the answer.
    pub(crate) is_online: bool,
}

/// The thread. It ends when nobody orders any more.
pub(crate) struct Kicker {
    pub(crate) probe: Probe,
    pub(crate) orders: Receiver<KickOrder>,
    pub(crate) results: Sender<Result<KickResult, StressError>>,
}

impl Kicker {
    pub(crate) fn run(self) {
        for order in &self.orders {
            // Whoever ordered has gone when this fails.
            let _ = self.results.send(self.kick(order));
        }
    }

    fn kick(&self, KickOrder { who, id }: KickOrder) -> Result<KickResult, StressError> {
        let request = json!({"cmd": "kick", "targets": [id.to_string()], "reason": TEXT, "wait": true});
        let at = Instant::now();
        // A wait that the server has given up answers with an error, and lists nobody.
        let answer = match self.probe.control().ask(&request) {
            Err(StressError::Answer { .. }) => serde_json::Value::Null,
            answer => answer?,
        };
        let answered = at.elapsed();
        let is_listed =
            answer["kicked"].as_array().is_some_and(|all| all.iter().any(|one| one["user"] == id));
        Ok(KickResult { who, at, answered, is_listed, is_online: self.probe.online_of(&[id])? > 0 })
    }
}
