//! Kicks visitors one after another, in a thread of its own: a kick with `wait` takes as long as a commit.

use std::sync::mpsc::{Receiver, Sender};
use std::time::{Duration, Instant};

use serde_json::json;

use super::super::fault::StressError;
use super::super::view::View;

/// What a kicked visitor is told.
pub(super) const TEXT: &str = "linger stress storm";

/// A visitor who is to be kicked.
#[derive(Clone, Copy, Debug)]
pub(super) struct Order {
    pub(super) who: usize,
    pub(super) id: i64,
}

/// What came of it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Kicked {
    pub(super) who: usize,
    /// When it was asked for.
    pub(super) at: Instant,
    pub(super) answered: Duration,
    /// True exactly when the answer lists the visitor.
    pub(super) is_listed: bool,
    /// True exactly when the database said online after the answer.
    pub(super) is_online: bool,
}

/// The thread. It ends when nobody orders any more.
pub(super) struct Kicker {
    pub(super) view: View,
    pub(super) orders: Receiver<Order>,
    pub(super) told: Sender<Result<Kicked, StressError>>,
}

impl Kicker {
    pub(super) fn run(self) {
        for order in &self.orders {
            // Whoever ordered has gone when this fails.
            let _ = self.told.send(self.kick(order));
        }
    }

    fn kick(&self, Order { who, id }: Order) -> Result<Kicked, StressError> {
        let request = json!({"cmd": "kick", "targets": [id.to_string()], "reason": TEXT, "wait": true});
        let at = Instant::now();
        let answer = self.view.control().ask(&request)?;
        let answered = at.elapsed();
        let is_listed =
            answer["kicked"].as_array().is_some_and(|all| all.iter().any(|one| one["user"] == id));
        Ok(Kicked { who, at, answered, is_listed, is_online: self.view.online_of(&[id])? > 0 })
    }
}
