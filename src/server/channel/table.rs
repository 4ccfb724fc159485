//! What threads share of every channel: its state, its worker, its user. Fixed in size from the start.
//!
//! Any thread may read a slot. The accepting worker opens it, main frees it; see each field for who writes it.

use super::id::{ChannelId, SessionNo};
use super::state::{ChannelState, Closed, Stage};
use crate::ids::{Mid, UserId};
use crate::sync::{AtomicBool, AtomicI64, AtomicU32, AtomicUsize, Mutex, Ordering};

/// A slot without a user. SQLite numbers users from 1, and no user can log in with this number.
const NOBODY: i64 = i64::MIN;
/// No confirmation waits for main.
const NOTHING: i64 = i64::MIN;

#[derive(Debug, Default)]
struct Slot {
    state: ChannelState,
    /// The owning worker; written before the channel opens.
    worker: AtomicU32,
    /// Who is logged in; written by main around a session.
    user: AtomicI64,
    /// True exactly when the client has ended its side; written by the owning worker.
    ended: AtomicBool,
    /// The newest message that the client has confirmed and main has not taken; [`NOTHING`] where main has.
    confirmed: AtomicI64,
}

/// All channels by slot, and the pool of free ids.
#[derive(Debug)]
pub struct ChannelTable {
    slots: Box<[Slot]>,
    /// Free ids. Workers draw from it, only main gives back.
    pool: Mutex<Pool>,
    /// Channels that are open or live.
    present: AtomicUsize,
    /// Connections whose client is not gone; a stop waits for them.
    connected: AtomicUsize,
}

#[derive(Debug)]
struct Pool {
    /// Slots that were used before, with their next generation.
    returned: Vec<ChannelId>,
    /// Slots from here on were never used.
    fresh: u32,
}

impl ChannelTable {
    /// A table for `capacity` connections, lingering ones included.
    pub fn new(capacity: usize) -> Self {
        let mut slots = Vec::new();
        slots.resize_with(capacity, Slot::default);
        ChannelTable {
            slots: slots.into_boxed_slice(),
            pool: Mutex::new(Pool { returned: Vec::new(), fresh: 0 }),
            present: AtomicUsize::new(0),
            connected: AtomicUsize::new(0),
        }
    }

    /// How many connections fit, lingering ones included.
    pub fn capacity(&self) -> usize {
        self.slots.len()
    }

    /// How many names are in use, lingering ones included.
    pub fn taken(&self) -> usize {
        let pool = self.pool.lock();
        pool.fresh as usize - pool.returned.len()
    }

    /// How many slots were ever in use; those from there on are free.
    pub fn used(&self) -> u32 {
        self.pool.lock().fresh
    }

    /// The channel that has a slot now, unless it is free.
    pub fn occupant(&self, slot: u32) -> Option<ChannelId> {
        self.slots.get(slot as usize)?.state.occupant(slot)
    }

    /// How many channels are open or live.
    pub fn present(&self) -> usize {
        self.present.load(Ordering::Relaxed)
    }

    /// How many connections have a client at the other end, as far as their workers know.
    pub fn connected(&self) -> usize {
        self.connected.load(Ordering::Relaxed)
    }

    /// Notes that a connection's client has gone; by its worker, once.
    pub fn note_gone(&self) {
        self.connected.fetch_sub(1, Ordering::Relaxed);
    }

    /// Draws a free name and opens it for a worker. `None` when all are in use.
    pub fn open(&self, worker: usize) -> Option<ChannelId> {
        let id = self.draw()?;
        let slot = &self.slots[id.slot as usize];
        slot.worker.store(worker as u32, Ordering::Relaxed);
        slot.user.store(NOBODY, Ordering::Relaxed);
        slot.ended.store(false, Ordering::Relaxed);
        slot.confirmed.store(NOTHING, Ordering::Relaxed);
        self.present.fetch_add(1, Ordering::Relaxed);
        self.connected.fetch_add(1, Ordering::Relaxed);
        slot.state.open(id);
        Some(id)
    }

    fn draw(&self) -> Option<ChannelId> {
        let mut pool = self.pool.lock();
        if let Some(id) = pool.returned.pop() {
            return Some(id);
        }
        let slot = pool.fresh;
        ((slot as usize) < self.slots.len()).then(|| {
            pool.fresh += 1;
            ChannelId { slot, generation: 1 }
        })
    }

    /// Takes the one step from live to offline. `Some` for exactly one caller.
    pub fn leave(&self, id: ChannelId) -> Option<Closed> {
        let left = self.slot(id)?.state.leave(id)?;
        self.present.fetch_sub(1, Ordering::Relaxed);
        Some(left)
    }

    /// Takes the same step, only while that session lasts.
    pub fn leave_session(&self, id: ChannelId, session: SessionNo) -> Option<Closed> {
        if !self.slot(id)?.state.leave_session(id, session) {
            return None;
        }
        self.present.fetch_sub(1, Ordering::Relaxed);
        Some(Closed { session: Some(session) })
    }

    /// Takes the same step, only while no user is logged in. True for exactly one caller.
    pub fn leave_open(&self, id: ChannelId) -> bool {
        let left = self.slot(id).is_some_and(|slot| slot.state.leave_open(id));
        if left {
            self.present.fetch_sub(1, Ordering::Relaxed);
        }
        left
    }

    /// Begins a session, by main alone. `None` when the channel has left.
    pub fn begin_session(&self, id: ChannelId, user: UserId) -> Option<SessionNo> {
        let slot = self.slot(id)?;
        let session = slot.state.begin_session(id)?;
        slot.user.store(user.0, Ordering::Relaxed);
        Some(session)
    }

    /// Ends a session on a channel that stays. True for exactly one caller.
    pub fn end_session(&self, id: ChannelId, session: SessionNo) -> bool {
        self.slot(id).is_some_and(|slot| slot.state.end_session(id, session))
    }

    /// Gives an id back with its next generation, by main alone, after the fd is closed.
    pub fn free(&self, id: ChannelId) {
        if let Some(slot) = self.slot(id) {
            slot.state.free(id);
            self.pool.lock().returned.push(id.next_use());
        }
    }

    /// A channel's stage; that of a stale id is [`Stage::Free`].
    pub fn stage(&self, id: ChannelId) -> Stage {
        self.slot(id).map_or(Stage::Free, |slot| slot.state.stage(id))
    }

    /// True exactly when a channel has left, or the id is stale.
    pub fn has_left(&self, id: ChannelId) -> bool {
        matches!(self.stage(id), Stage::Offline | Stage::Free)
    }

    /// True exactly while that session lasts.
    pub fn is_live(&self, id: ChannelId, session: SessionNo) -> bool {
        self.slot(id).is_some_and(|slot| slot.state.is_live(id, session))
    }

    /// The owning worker. Meaningful while the channel is not free.
    pub fn worker(&self, id: ChannelId) -> usize {
        self.slot(id).map_or(0, |slot| slot.worker.load(Ordering::Relaxed) as usize)
    }

    /// Who is logged in on a channel, as main wrote it last.
    pub fn user(&self, id: ChannelId) -> Option<UserId> {
        let user = self.slot(id)?.user.load(Ordering::Relaxed);
        (user != NOBODY).then_some(UserId(user))
    }

    /// Takes the user off a channel that stays; by main alone.
    pub fn forget_user(&self, id: ChannelId) {
        if let Some(slot) = self.slot(id) {
            slot.user.store(NOBODY, Ordering::Relaxed);
        }
    }

    /// Notes that the client has ended its side. Release: pairs with the Acquire in [`Self::has_ended`].
    pub fn mark_ended(&self, id: ChannelId) {
        if let Some(slot) = self.slot(id) {
            slot.ended.store(true, Ordering::Release);
        }
    }

    /// True exactly when the client has ended its side. Acquire: pairs with the Release in [`Self::mark_ended`].
    pub fn has_ended(&self, id: ChannelId) -> bool {
        self.slot(id).is_some_and(|slot| slot.ended.load(Ordering::Acquire))
    }

    /// Notes what the client has confirmed, by the owning worker. True exactly when the worker has to send an event: a
    /// channel has at most one under way, however fast its client confirms.
    pub fn confirm(&self, id: ChannelId, upto: Mid) -> bool {
        // Relaxed: the number is all that is passed on, and the queue orders it among the rest.
        let later = |waiting: i64| (upto.0 > waiting).then_some(upto.0);
        self.slot(id).is_some_and(|slot| {
            slot.confirmed.fetch_update(Ordering::Relaxed, Ordering::Relaxed, later) == Ok(NOTHING)
        })
    }

    /// Takes what the client has confirmed, by main alone.
    pub fn take_confirmed(&self, id: ChannelId) -> Option<Mid> {
        let upto = self.slot(id)?.confirmed.swap(NOTHING, Ordering::Relaxed);
        (upto != NOTHING).then_some(Mid(upto))
    }

    /// Every channel that is not free, at about this moment.
    pub fn occupants(&self) -> impl Iterator<Item = ChannelId> {
        self.slots.iter().enumerate().filter_map(|(slot, s)| s.state.occupant(slot as u32))
    }

    fn slot(&self, id: ChannelId) -> Option<&Slot> {
        self.slots.get(id.slot as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_never_given_twice() {
        let table = ChannelTable::new(2);
        let first = table.open(0).unwrap();
        let other = table.open(0).unwrap();
        assert!(table.open(0).is_none(), "full");
        table.leave(first).unwrap();
        assert!(table.open(0).is_none(), "a lingering channel keeps its slot");
        table.free(first);
        let again = table.open(1).unwrap();
        assert_eq!(again.slot, first.slot);
        assert_ne!(again, first);
        assert_ne!(again, other);
        assert_eq!(table.taken(), 2);
    }

    #[test]
    fn confirmations_wait_as_one_and_only_the_first_has_to_be_told() {
        let table = ChannelTable::new(1);
        let id = table.open(0).unwrap();
        assert!(table.confirm(id, Mid(4)));
        assert!(!table.confirm(id, Mid(9)));
        assert!(!table.confirm(id, Mid(7)), "they are cumulative");
        assert_eq!((table.take_confirmed(id), table.take_confirmed(id)), (Some(Mid(9)), None));
        assert!(table.confirm(id, Mid(7)));
    }

    #[test]
    fn a_channel_on_which_somebody_is_logged_in_does_not_leave_for_want_of_a_login() {
        let table = ChannelTable::new(1);
        let id = table.open(0).unwrap();
        let session = table.begin_session(id, UserId(1)).unwrap();
        assert!(!table.leave_open(id));
        assert!(table.end_session(id, session));
        assert!(table.leave_open(id) && !table.leave_open(id));
        assert_eq!((table.stage(id), table.present()), (Stage::Offline, 0));
    }

    #[test]
    fn the_count_of_those_present_follows_the_step() {
        let table = ChannelTable::new(2);
        let id = table.open(0).unwrap();
        assert_eq!(table.present(), 1);
        assert!(table.leave(id).is_some());
        assert!(table.leave(id).is_none());
        assert_eq!(table.present(), 0);
    }
}
