//! The offline queue: main's one locked queue, and so the one order in which everything happens.
//!
//! First in, first out, with one exception: requests and what belongs to them go ahead of ends, so that a storm of lost
//! clients does not hold up those who stay. An end never goes ahead of a request. What a request finds it could find
//! without a storm too: from the step on a departure is under way, and a login waits for the delivery report.
//!
//! Workers, auth threads, the admin socket and signals push; main alone takes. A push never waits for room: departures,
//! delivery reports and sockets have their place reserved, for a channel has at most one of each; requests are refused
//! past a bound.

use crate::message::event::Event;
use crate::message::request::Ask;
use crate::shrink::Shrink;
use crate::sync::{Condvar, Mutex};
use std::collections::VecDeque;
use std::time::Duration;

/// Requests that may wait. Past it, clients get errno 18. Models reach their bound in a few steps.
pub const ASKS_MAX: usize = if cfg!(loom) { 2 } else { 65_536 };

/// The share of what main takes that is left to ends while requests wait, as a divisor.
const SHARE_OF_ENDS: usize = 4;

/// The queue. `S` is the type of a client's socket.
#[derive(Debug)]
pub struct OfflineQueue<S> {
    inner: Mutex<Inner<S>>,
    filled: Condvar,
}

#[derive(Debug)]
struct Inner<S> {
    /// Requests and what belongs to them, each with its number.
    urgent: VecDeque<(u64, Event<S>)>,
    /// Ends and all other events, each with its number.
    ends: VecDeque<(u64, Event<S>)>,
    /// The next number: events are numbered as they are pushed.
    next: u64,
    /// Requests among the events.
    asks: usize,
    /// Events for which main does not rest, the urgent ones among them.
    pressing: usize,
    /// Times at which departures among the ends were noticed, oldest first.
    departures: VecDeque<u64>,
    waiting: Waiting,
}

/// What main waits for, so that a push to a busy main costs no system call.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Waiting {
    /// Main does something else, or is being woken.
    No,
    /// Any event.
    ForAny,
    /// An event for which main does not rest: main rests, and ends gather meanwhile.
    ForPressing,
}

impl<S> Default for OfflineQueue<S> {
    fn default() -> Self {
        OfflineQueue {
            inner: Mutex::new(Inner {
                urgent: VecDeque::new(),
                ends: VecDeque::new(),
                next: 0,
                asks: 0,
                pressing: 0,
                departures: VecDeque::new(),
                waiting: Waiting::No,
            }),
            filled: Condvar::new(),
        }
    }
}

impl<S> OfflineQueue<S> {
    /// Pushes an event that has its place reserved. Never refused.
    pub fn push(&self, entry: Event<S>) {
        debug_assert!(!matches!(entry, Event::Ask(_)), "asks are bounded");
        let wake = {
            let mut inner = self.inner.lock();
            inner.append(entry);
            inner.is_to_wake()
        };
        self.wake_if(wake);
    }

    /// Pushes many events in order, requests among them. Requests past [`ASKS_MAX`] come back in `refused`.
    pub fn push_all(&self, entries: &mut Vec<Event<S>>, refused: &mut Vec<Ask>) {
        if entries.is_empty() {
            return;
        }
        let wake = {
            let mut inner = self.inner.lock();
            for entry in entries.drain(..) {
                match entry {
                    Event::Ask(ask) if inner.asks >= ASKS_MAX => refused.push(ask),
                    entry => inner.append(entry),
                }
            }
            inner.is_to_wake()
        };
        self.wake_if(wake);
    }

    /// Pushes one request.
    ///
    /// # Errors
    /// The request, when [`ASKS_MAX`] wait.
    pub fn ask(&self, ask: Ask) -> Result<(), Box<Ask>> {
        let wake = {
            let mut inner = self.inner.lock();
            if inner.asks >= ASKS_MAX {
                return Err(Box::new(ask));
            }
            inner.append(Event::Ask(ask));
            inner.is_to_wake()
        };
        self.wake_if(wake);
        Ok(())
    }

    /// Takes up to `max` events, urgent ones first, each kind oldest first; by main alone.
    pub fn pop_batch(&self, max: usize, into: &mut impl Extend<Event<S>>) {
        let mut inner = self.inner.lock();
        let urgent_max = max - max / SHARE_OF_ENDS;
        let mut urgent = 0;
        for _ in 0..inner.len().min(max) {
            let entry = if urgent < urgent_max || !inner.end_is_oldest() { inner.pop_urgent() } else { None };
            urgent += usize::from(entry.is_some());
            let Some(entry) = entry.or_else(|| inner.pop_end()) else { break };
            into.extend([entry]);
        }
    }

    /// Waits until there is an event, for `timeout` at most; by main alone. Ends do not count before `rest` is over,
    /// unless they fill a batch. May return without an event.
    pub fn wait(&self, timeout: Option<Duration>, rest: Duration) {
        let mut inner = self.inner.lock();
        if inner.ends_a_rest() || rest.is_zero() && inner.len() > 0 {
            return;
        }
        if inner.len() == 0 {
            inner.give_room_back();
        }
        let limit = if rest.is_zero() {
            inner.waiting = Waiting::ForAny;
            timeout
        } else {
            inner.waiting = Waiting::ForPressing;
            Some(timeout.map_or(rest, |timeout| timeout.min(rest)))
        };
        // A poisoned guard is as good as any: see `Mutex`.
        match limit {
            Some(limit) => drop(self.filled.wait_timeout(inner, limit)),
            None => drop(self.filled.wait(inner)),
        }
    }

    /// Departures among the ends, and when the oldest of them was noticed.
    pub fn departures(&self) -> (usize, Option<u64>) {
        let inner = self.inner.lock();
        (inner.departures.len(), inner.departures.front().copied())
    }

    /// Events that wait.
    pub fn len(&self) -> usize {
        self.inner.lock().len()
    }

    /// True exactly when nothing waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn wake_if(&self, wake: bool) {
        if wake {
            self.filled.notify_one();
        }
    }
}

impl<S> Inner<S> {
    /// What a flood has needed is not kept for the next one. While one goes on, each turn would copy what waits.
    fn give_room_back(&mut self) {
        self.urgent.shrink();
        self.ends.shrink();
        self.departures.shrink();
    }

    /// True exactly when main waits for what has just been pushed. It is woken once.
    fn is_to_wake(&mut self) -> bool {
        let wake = match self.waiting {
            Waiting::No => false,
            Waiting::ForAny => true,
            Waiting::ForPressing => self.ends_a_rest(),
        };
        if wake {
            self.waiting = Waiting::No;
        }
        wake
    }

    /// True exactly when main may not rest any longer.
    fn ends_a_rest(&self) -> bool {
        self.pressing > 0 || self.len() >= BATCH_MAX
    }

    fn append(&mut self, entry: Event<S>) {
        let number = self.next;
        self.next += 1;
        self.asks += usize::from(matches!(entry, Event::Ask(_)));
        self.pressing += usize::from(entry.is_pressing());
        if entry.is_urgent() {
            self.urgent.push_back((number, entry));
            return;
        }
        if let Event::Departure(departure) = &entry {
            self.departures.push_back(departure.noticed_us);
        }
        self.ends.push_back((number, entry));
    }

    fn len(&self) -> usize {
        self.urgent.len() + self.ends.len()
    }

    /// True exactly when an end was pushed before everything that is urgent.
    fn end_is_oldest(&self) -> bool {
        match (self.urgent.front(), self.ends.front()) {
            (Some((urgent, _)), Some((end, _))) => end < urgent,
            (None, Some(_)) => true,
            (_, None) => false,
        }
    }

    fn pop_urgent(&mut self) -> Option<Event<S>> {
        let (_, entry) = self.urgent.pop_front()?;
        self.asks -= usize::from(matches!(entry, Event::Ask(_)));
        self.pressing -= usize::from(entry.is_pressing());
        Some(entry)
    }

    fn pop_end(&mut self) -> Option<Event<S>> {
        let (_, entry) = self.ends.pop_front()?;
        self.pressing -= usize::from(entry.is_pressing());
        if matches!(entry, Event::Departure(_)) {
            self.departures.pop_front();
        }
        Some(entry)
    }
}

/// Entries that one batch takes at most.
pub const BATCH_MAX: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::channel::ChannelId;
    use crate::channel::Reason;
    use crate::message::disconnect::Departure;
    use crate::message::disconnect::{CloseInfo, CloseWatcher};
    use crate::message::reply_to::ReplyTo;
    use crate::protocol::msgid::Msgid;
    use crate::shrink::ROOM_KEPT;
    use crate::sync::Arc;

    fn nothing() -> Ask {
        let channel = ChannelId { slot: 0, generation: 1 };
        Ask::Fence { reply_to: ReplyTo { channel, re: Msgid::Logout, seq: None } }
    }

    #[test]
    fn asks_are_bounded_and_everything_else_has_its_place() {
        let queue = OfflineQueue::<()>::default();
        for _ in 0..ASKS_MAX {
            queue.ask(nothing()).unwrap();
        }
        assert!(queue.ask(nothing()).is_err());
        queue.push(Event::Stop);
        let mut refused = Vec::new();
        queue.push_all(&mut vec![Event::Ask(nothing()), Event::Stop], &mut refused);
        assert_eq!((queue.len(), refused.len()), (ASKS_MAX + 2, 1));
        queue.pop_batch(1, &mut Vec::new());
        assert!(queue.ask(nothing()).is_ok(), "a taken ask leaves room for another");
    }

    fn end(socket: u32) -> Event<u32> {
        Event::HandBack { channel: ChannelId { slot: 0, generation: 1 }, socket: Some(socket), partial: None }
    }

    /// What is taken, in order: ends by number, requests as `None`.
    fn taken(queue: &OfflineQueue<u32>, max: usize) -> Vec<Option<u32>> {
        let mut entries = Vec::new();
        queue.pop_batch(max, &mut entries);
        let number = |entry: &Event<u32>| match entry {
            Event::HandBack { socket, .. } => *socket,
            _ => None,
        };
        entries.iter().map(number).collect()
    }

    #[test]
    fn a_request_goes_ahead_of_ends_that_wait_and_leaves_them_a_share() {
        let queue = OfflineQueue::default();
        (0..10).for_each(|number| queue.push(end(number)));
        (0..20).for_each(|_| queue.ask(nothing()).unwrap());
        let mut expected = vec![None; 6];
        expected.extend([Some(0), Some(1)]);
        assert_eq!(taken(&queue, 8), expected);
        assert_eq!(taken(&queue, 4), [None, None, None, Some(2)]);
        assert_eq!(taken(&queue, 100).len(), 18, "all are taken in the end");
        assert!(queue.is_empty());
    }

    #[test]
    fn room_that_a_flood_has_needed_is_given_back_when_main_waits() {
        let queue = OfflineQueue::default();
        (0..4 * ROOM_KEPT as u32).for_each(|number| queue.push(end(number)));
        taken(&queue, usize::MAX);
        queue.wait(Some(Duration::ZERO), Duration::ZERO);
        assert!(queue.inner.lock().ends.capacity() < 2 * ROOM_KEPT);
    }

    #[test]
    fn while_main_rests_only_what_presses_wakes_it() {
        let queue = OfflineQueue::default();
        let waiting = || queue.inner.lock().waiting;
        queue.inner.lock().waiting = Waiting::ForPressing;
        queue.push(end(0));
        queue.push_all(&mut vec![end(1)], &mut Vec::new());
        assert_eq!(waiting(), Waiting::ForPressing);
        queue.ask(nothing()).unwrap();
        assert_eq!(waiting(), Waiting::No);
        queue.inner.lock().waiting = Waiting::ForPressing;
        queue.push(end(2));
        assert_eq!(waiting(), Waiting::No, "a request waits");
        queue.push(Event::Stop);
        assert_eq!(taken(&queue, 9).len(), 5);
        queue.inner.lock().waiting = Waiting::ForPressing;
        queue.push(end(3));
        assert_eq!(waiting(), Waiting::ForPressing, "nothing presses any more");
        (5..4 + BATCH_MAX as u32).for_each(|number| queue.push(end(number)));
        assert_eq!(waiting(), Waiting::No, "there are as many as one batch takes");
    }

    #[test]
    fn an_end_never_goes_ahead_of_a_request() {
        let queue = OfflineQueue::default();
        (0..20).for_each(|_| queue.ask(nothing()).unwrap());
        queue.push(end(0));
        assert_eq!(taken(&queue, 8), [None; 8]);
        assert_eq!(taken(&queue, 8), [None; 8]);
        assert_eq!(taken(&queue, 8), [None, None, None, None, Some(0)]);
    }

    #[test]
    fn a_logout_goes_with_the_requests_of_its_channel_and_a_kick_that_is_waited_for_ahead_of_ends() {
        let queue = OfflineQueue::default();
        let departure = |stays, watcher| Departure {
            channel: ChannelId { slot: 0, generation: 1 },
            session: None,
            stays,
            noticed_us: 5,
            queued_us: 5,
            at_ms: 0,
            close_info: CloseInfo { watcher, ..CloseInfo::new(Reason::Kicked) },
        };
        let (to, _from) = crossbeam_channel::unbounded();
        queue.push(Event::Departure(departure(false, None)));
        let watcher = Arc::new(CloseWatcher { channel: None, began_us: 0, to });
        queue.push(Event::Departure(departure(false, Some(watcher))));
        queue.push(Event::Departure(departure(true, None)));
        queue.ask(nothing()).unwrap();
        let mut entries = Vec::<Event<u32>>::new();
        queue.pop_batch(4, &mut entries);
        let kinds: Vec<_> = entries
            .iter()
            .map(|entry| match entry {
                Event::Departure(d) if d.stays => "logout",
                Event::Departure(d) if d.close_info.watcher.is_some() => "kick",
                Event::Departure(_) => "loss",
                _ => "ask",
            })
            .collect();
        assert_eq!(kinds, ["kick", "logout", "ask", "loss"]);
        assert_eq!(queue.departures(), (0, None));
    }

    #[test]
    fn entries_come_out_in_the_order_they_went_in() {
        let queue = OfflineQueue::<u8>::default();
        let channel = ChannelId { slot: 0, generation: 1 };
        for socket in 0..3 {
            queue.push(Event::HandBack { channel, socket: Some(socket), partial: None });
        }
        let mut taken = Vec::new();
        queue.pop_batch(2, &mut taken);
        queue.pop_batch(2, &mut taken);
        let order: Vec<_> = taken
            .iter()
            .map(|entry| match entry {
                Event::HandBack { socket, .. } => socket.unwrap_or(u8::MAX),
                _ => u8::MAX,
            })
            .collect();
        assert_eq!(order, [0, 1, 2]);
    }
}
