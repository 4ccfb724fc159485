//! The one atomic step from live to offline, and the smaller ones before and after it.
//!
//! A channel's state is one word, written by any thread. One thread wins the compare-and-swap and has taken the step;
//! all others find it taken. It holds no lock and never waits.
//!
//! ```text
//!             open              begin_session              leave
//!     free ─────────▶ open ◀─────────────────▶ live ─────────────────▶ offline
//!       ▲               │       end_session                              │ ▲
//!       │               └────────────────── leave ───────────────────────┼─┘
//!       └──────────────────────────────── free ──────────────────────────┘
//! ```

use super::id::{ChannelId, SessionNo};
use crate::sync::{AtomicU64, Ordering};

/// The two lowest bits of the word. The 30 above count sessions, the upper half is the generation.
const STAGE_BITS: u32 = 2;
const STAGE_MASK: u64 = (1 << STAGE_BITS) - 1;
const SESSION_BITS: u32 = 30;
const SESSION_MAX: u32 = (1 << SESSION_BITS) - 1;
const _: () = assert!(STAGE_BITS + SESSION_BITS == 32);

const FREE: u64 = 0;
const OPEN: u64 = 1;
const LIVE: u64 = 2;
const OFFLINE: u64 = 3;

/// The stage of a channel's life.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stage {
    /// True exactly when no connection has this slot.
    Free,
    /// True exactly while there is a connection and no user is logged in.
    Connected,
    /// True exactly while a user is logged in.
    LoggedIn(SessionNo),
    /// True exactly from the step until the fd is closed.
    Offline,
}

/// What [`ChannelState::leave`] ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Closed {
    /// The session that ended with the channel.
    pub session: Option<SessionNo>,
}

/// One channel's state word.
#[derive(Debug)]
pub struct ChannelState(AtomicU64);

#[derive(Clone, Copy)]
struct Word {
    generation: u32,
    session: u32,
    stage: u64,
}

impl Word {
    fn unpack(raw: u64) -> Self {
        Word { generation: (raw >> 32) as u32, session: (raw as u32) >> STAGE_BITS, stage: raw & STAGE_MASK }
    }

    fn pack(self) -> u64 {
        u64::from(self.generation) << 32 | u64::from(self.session) << STAGE_BITS | self.stage
    }
}

impl Default for ChannelState {
    fn default() -> Self {
        ChannelState(AtomicU64::new(Word { generation: 0, session: 0, stage: FREE }.pack()))
    }
}

impl ChannelState {
    /// Free to open: a connection takes the slot. Only by the worker that drew `id` from the pool.
    pub fn open(&self, id: ChannelId) {
        let word = Word { generation: id.generation, session: 0, stage: OPEN };
        // Release: pairs with the Acquire of a thread that reads the slot's fields after it has seen this generation.
        self.0.store(word.pack(), Ordering::Release);
    }

    /// Open to live, by main alone. `None` when the channel has left, or has a session, or had too many.
    pub fn begin_session(&self, id: ChannelId) -> Option<SessionNo> {
        self.step(|word| {
            let fits = word.generation == id.generation && word.stage == OPEN && word.session < SESSION_MAX;
            fits.then_some(Word { session: word.session + 1, stage: LIVE, ..word })
        })
        .map(|before| SessionNo(before.session + 1))
    }

    /// Live to open: the session ends, the channel stays. True for exactly one caller.
    pub fn end_session(&self, id: ChannelId, session: SessionNo) -> bool {
        self.step(|word| {
            let fits = word.generation == id.generation && word.stage == LIVE && word.session == session.0;
            fits.then_some(Word { stage: OPEN, ..word })
        })
        .is_some()
    }

    /// Open or live to offline: the one step. `Some` for exactly one caller in the life of a channel.
    pub fn leave(&self, id: ChannelId) -> Option<Closed> {
        self.step(|word| {
            let fits = word.generation == id.generation && matches!(word.stage, OPEN | LIVE);
            fits.then_some(Word { stage: OFFLINE, ..word })
        })
        .map(|before| Closed { session: (before.stage == LIVE).then_some(SessionNo(before.session)) })
    }

    /// The same step, only while that session lasts: a channel that has logged out meanwhile stays.
    pub fn leave_session(&self, id: ChannelId, session: SessionNo) -> bool {
        self.step(|word| {
            let fits = word.generation == id.generation && word.stage == LIVE && word.session == session.0;
            fits.then_some(Word { stage: OFFLINE, ..word })
        })
        .is_some()
    }

    /// The same step, only while no user is logged in.
    pub fn leave_open(&self, id: ChannelId) -> bool {
        self.step(|word| {
            let fits = word.generation == id.generation && word.stage == OPEN;
            fits.then_some(Word { stage: OFFLINE, ..word })
        })
        .is_some()
    }

    /// Offline to free, by main alone, after the fd is closed.
    pub fn free(&self, id: ChannelId) {
        let word = Word { generation: id.generation, session: 0, stage: FREE };
        debug_assert_eq!(self.stage(id), Stage::Offline, "only a channel that has left is freed");
        // Release: pairs with the Acquire in `step` and `stage`.
        self.0.store(word.pack(), Ordering::Release);
    }

    /// The channel's stage; that of a stale id is [`Stage::Free`].
    pub fn stage(&self, id: ChannelId) -> Stage {
        // Acquire: pairs with the Release side of `step`.
        let word = Word::unpack(self.0.load(Ordering::Acquire));
        if word.generation != id.generation {
            return Stage::Free;
        }
        match word.stage {
            OPEN => Stage::Connected,
            LIVE => Stage::LoggedIn(SessionNo(word.session)),
            OFFLINE => Stage::Offline,
            _ => Stage::Free,
        }
    }

    /// True exactly while that session lasts.
    pub fn is_live(&self, id: ChannelId, session: SessionNo) -> bool {
        self.stage(id) == Stage::LoggedIn(session)
    }

    /// The channel that has the slot now, unless it is free.
    pub fn occupant(&self, slot: u32) -> Option<ChannelId> {
        // Acquire: pairs with the Release in `open`.
        let word = Word::unpack(self.0.load(Ordering::Acquire));
        (word.stage != FREE).then_some(ChannelId { slot, generation: word.generation })
    }

    fn step(&self, change: impl Fn(Word) -> Option<Word>) -> Option<Word> {
        // AcqRel: the winner sees all that happened before the state that it ends, and a thread that reads the new
        // state sees what the winner did before. Acquire on failure: the loser may act on what it finds.
        self.0
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |raw| {
                change(Word::unpack(raw)).map(Word::pack)
            })
            .ok()
            .map(Word::unpack)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: ChannelId = ChannelId { slot: 4, generation: 9 };

    fn opened() -> ChannelState {
        let state = ChannelState::default();
        state.open(ID);
        state
    }

    #[test]
    fn a_channel_leaves_once() {
        let state = opened();
        assert_eq!(state.leave(ID), Some(Closed { session: None }));
        assert_eq!(state.leave(ID), None);
        assert_eq!(state.stage(ID), Stage::Offline);
    }

    #[test]
    fn leaving_says_which_session_it_ended() {
        let state = opened();
        let session = state.begin_session(ID).unwrap();
        assert_eq!(state.leave(ID), Some(Closed { session: Some(session) }));
    }

    #[test]
    fn a_session_ends_once_and_the_next_has_another_number() {
        let state = opened();
        let first = state.begin_session(ID).unwrap();
        assert!(state.begin_session(ID).is_none(), "one at a time");
        assert!(state.end_session(ID, first));
        assert!(!state.end_session(ID, first));
        let second = state.begin_session(ID).unwrap();
        assert_ne!(first, second);
        assert!(!state.end_session(ID, first), "a late end of an older session changes nothing");
        assert!(state.is_live(ID, second));
    }

    #[test]
    fn a_channel_that_has_logged_out_is_not_sent_away_for_its_old_session() {
        let state = opened();
        let session = state.begin_session(ID).unwrap();
        state.end_session(ID, session);
        assert!(!state.leave_session(ID, session));
        let next = state.begin_session(ID).unwrap();
        assert!(!state.leave_session(ID, session));
        assert!(state.leave_session(ID, next));
        assert!(!state.leave_session(ID, next));
    }

    #[test]
    fn a_stale_name_hits_nothing() {
        let state = opened();
        state.leave(ID);
        state.free(ID);
        let next = ID.next_use();
        state.open(next);
        assert_eq!(state.leave(ID), None);
        assert_eq!(state.begin_session(ID), None);
        assert_eq!(state.stage(ID), Stage::Free);
        assert_eq!(state.stage(next), Stage::Connected);
    }

    #[test]
    fn nobody_logs_in_on_a_channel_that_has_left() {
        let state = opened();
        state.leave(ID);
        assert_eq!(state.begin_session(ID), None);
    }
}
