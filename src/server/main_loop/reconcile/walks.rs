//! How far the comparing is: the way through the slots, the way through the users, and what was seen to differ.
//!
//! Plain data, owned by main.

use super::difference::{Difference, Suspects};
use crate::channel::{ChannelId, Stage};
use crate::ids::UserId;

/// How far the comparing is.
#[derive(Debug, Default)]
pub(in crate::main_loop) struct Reconciler {
    /// When the next step is due, on the monotonic clock.
    next_us: u64,
    /// Rounds in which everything was compared.
    rounds: u64,
    /// True exactly while everybody else is known to rest, so that one look is enough.
    at_rest: bool,
    pub(super) channels: ChannelWalk,
    pub(super) users: UserWalk,
}

/// The way through the slots.
#[derive(Debug, Default)]
pub(super) struct ChannelWalk {
    /// The first slot of the next step.
    next: u32,
    /// How each worker's slots stood when it was asked; none when it has answered.
    asked: Vec<Option<Vec<(ChannelId, Stage)>>>,
    suspects: Suspects,
}

/// The way through the users.
#[derive(Debug, Default)]
pub(super) struct UserWalk {
    /// The last row of the step before; none at the start of a round.
    after: Option<UserId>,
    suspects: Suspects,
}

impl Reconciler {
    /// When the next step is due, on the monotonic clock.
    pub(in crate::main_loop) fn due_us(&self) -> u64 {
        self.next_us
    }

    /// The next step is due then.
    pub(super) fn put_off(&mut self, until_us: u64) {
        self.next_us = until_us;
    }

    /// Begins anew where everybody else is known to rest.
    pub(super) fn begin_at_rest(&mut self) {
        (self.at_rest, self.users.after) = (true, None);
        (self.channels.next, self.channels.asked) = (0, Vec::new());
    }

    /// The server is no more known to rest.
    #[cfg(any(test, fuzzing))]
    pub(super) fn end_rest(&mut self) {
        self.at_rest = false;
    }

    /// Answers how many rounds have ended since it was asked last.
    pub(super) fn take_rounds(&mut self) -> u64 {
        let both = self.channels.suspects.rounds().min(self.users.suspects.rounds());
        let more = both.saturating_sub(self.rounds);
        self.rounds = self.rounds.max(both);
        more
    }

    /// Notes that something differs. True when that is sure, and so has to be repaired.
    pub(super) fn confirms(&mut self, difference: Difference, now_us: u64) -> bool {
        let suspects =
            if difference.is_of_user() { &mut self.users.suspects } else { &mut self.channels.suspects };
        self.at_rest || suspects.confirms(difference, now_us)
    }
}

impl ChannelWalk {
    /// Takes the next slots of so many that are used, from the first to before the last. None while an answer is due, or
    /// where there are no slots.
    pub(super) fn take_slots(&mut self, used: u32, max: u32) -> Option<(u32, u32)> {
        if self.asked.iter().any(Option::is_some) {
            return None;
        }
        if self.next >= used {
            self.next = 0;
            self.suspects.end_round();
        }
        let (from, to) = (self.next, self.next.saturating_add(max).min(used));
        self.next = to;
        (from < to).then_some((from, to))
    }

    /// Each worker is asked; its slots stand as its list says.
    pub(super) fn ask(&mut self, asked: Vec<Vec<(ChannelId, Stage)>>) {
        self.asked = asked.into_iter().map(Some).collect();
    }

    /// A worker has answered: how its slots stood when it was asked.
    pub(super) fn take_asked(&mut self, worker: usize) -> Option<Vec<(ChannelId, Stage)>> {
        self.asked.get_mut(worker)?.take()
    }
}

impl UserWalk {
    /// The last row of the step before; none at the start of a round.
    pub(super) fn after(&self) -> Option<UserId> {
        self.after
    }

    /// A step has ended with that row; none at the end of a round.
    pub(super) fn end_step(&mut self, last: Option<UserId>) {
        self.after = last;
        if last.is_none() {
            self.suspects.end_round();
        }
    }
}
