//! What must hold of messages, from everything that was sent and written, and without looking into the server.
//!
//! Each text is one message. A message is promised to its receivers when its sender is told so; it is theirs when it
//! is written to one who does not confirm, and when one who confirms has read it.

use super::sim_link::ReceivedChat;
use crate::ids::UserId;
use crate::store::DEDUP_WINDOW_US;
use std::collections::{BTreeMap, BTreeSet};

/// Who gets a message.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum To {
    One(UserId),
    /// Members of the group besides the sender.
    Group(Vec<UserId>),
}

impl To {
    fn users(&self) -> Vec<UserId> {
        match self {
            To::One(user) => vec![*user],
            To::Group(users) => users.clone(),
        }
    }
}

/// A message that a client has sent.
#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "independent facts, each said to hold exactly when")]
pub(super) struct Message {
    pub(super) from: UserId,
    pub(super) to: To,
    /// The request, to be repeated.
    pub(super) request: Option<String>,
    /// True exactly when its sender wants an answer.
    pub(super) has_seq: bool,
    /// True exactly when there was one, of either kind.
    is_answered: bool,
    /// The connections that it was sent on, by number.
    pub(super) sent_on: Vec<usize>,
    pub(super) sent_us: u64,
    /// Crashes before it was sent.
    crashes: u64,
    /// True exactly when its sender was told that it succeeded.
    pub(super) is_promised: bool,
    /// True exactly when its sender was told that nothing was accepted.
    is_refused: bool,
    owed: BTreeSet<UserId>,
}

/// How a message came first.
#[derive(Clone, Copy, Debug)]
struct Written {
    mid: Option<i64>,
    /// When its first byte did. What begins first may be whole last.
    began: u64,
    /// Crashes before it.
    crashes: u64,
}

/// A confirmation that was answered: all up to a number is confirmed.
#[derive(Clone, Copy, Debug)]
struct Confirmed {
    upto: i64,
    /// When the first byte of the answer came.
    began: u64,
    /// Crashes before it: one may undo it.
    crashes: u64,
}

/// What one user has been written.
#[derive(Debug, Default)]
struct Inbox {
    /// What came, by message.
    written: BTreeMap<usize, Written>,
    /// The numbers of what came for the first time, by when.
    firsts: BTreeMap<(u64, usize), i64>,
    by_mid: BTreeMap<i64, usize>,
    /// What the server has taken note of having been confirmed.
    confirmed: Option<Confirmed>,
    /// What the client has read, where it confirms; and the highest number of it.
    read: BTreeSet<usize>,
    highest_read: i64,
    /// First bytes in order, by sender and by the connection of the sender.
    order: BTreeMap<(UserId, usize), BTreeMap<(u64, usize), usize>>,
    /// Messages whose beginning was all that came.
    partial: usize,
    /// The numbers of the messages that a torn login answer may have brought.
    torn_below: usize,
}

/// All messages of a run, crashes included.
#[derive(Debug, Default)]
pub(super) struct Oracle {
    pub(super) messages: Vec<Message>,
    inboxes: BTreeMap<UserId, Inbox>,
    pub(super) confirming: BTreeSet<UserId>,
    /// Users whose box was full at a time: what came then was refused, which a sender without `seq` may not hear.
    pub(super) overfull: BTreeSet<UserId>,
    /// Those who are offline with a full box, by since when.
    closed: BTreeMap<UserId, u64>,
    /// The simulated time.
    pub(super) now_us: u64,
    crashes: u64,
    promises: u64,
}

/// What the texts of this simulation look like.
pub(super) fn text(number: usize) -> String {
    format!("m{number}")
}

fn number(text: &str) -> usize {
    text[1..].parse().expect("a text of ours")
}

impl Oracle {
    pub(super) fn crashed(&mut self) {
        self.crashes += 1;
    }

    pub(super) fn promises(&self) -> u64 {
        self.promises
    }

    /// A box takes nothing after a commit, or does.
    pub(super) fn note_box(&mut self, user: UserId, takes_nothing: bool, now_us: u64) {
        if takes_nothing {
            self.closed.entry(user).or_insert(now_us);
        } else {
            self.closed.remove(&user);
        }
    }

    /// Somebody says something new.
    pub(super) fn said(&mut self, from: UserId, to: To, on: usize, at_us: u64) -> usize {
        self.messages.push(Message {
            from,
            to,
            request: None,
            has_seq: false,
            is_answered: false,
            sent_on: vec![on],
            sent_us: at_us,
            crashes: self.crashes,
            is_promised: false,
            is_refused: false,
            owed: BTreeSet::new(),
        });
        self.messages.len() - 1
    }

    /// The same is said once more.
    pub(super) fn repeated(&mut self, n: usize, on: usize) {
        let message = &mut self.messages[n];
        message.sent_on.push(on);
        message.is_refused = false;
    }

    /// The server has answered a chat with `seq`.
    pub(super) fn answered(&mut self, seq: i64, errno: i64, full: &[UserId]) {
        let Some(message) = self.messages.get_mut(seq as usize) else { return };
        let once = message.sent_on.len() == 1;
        message.is_answered = true;
        if errno == 0 {
            assert!(!(once && (message.is_promised || message.is_refused)), "m{seq} is answered once");
            let is_closed =
                |user: &UserId| self.closed.get(user).is_some_and(|at_us| *at_us < message.sent_us);
            let fits =
                !once || !message.to.users().iter().any(|user| is_closed(user) && !full.contains(user));
            assert!(fits, "m{seq} is taken for a box that is full");
            message.is_promised = true;
            self.promises += 1;
            // A server that was killed since does not know whose boxes were full.
            let may_be_full = |user: &UserId| !once && self.overfull.contains(user);
            let users = message.to.users().into_iter();
            let users = users.filter(|user| !full.contains(user) && !may_be_full(user));
            message.owed.extend(users);
            return;
        }
        assert!(!(once && (message.is_promised || message.is_refused)), "m{seq} is answered once");
        if once && matches!(message.to, To::One(_)) {
            message.is_refused = true;
            for user in message.to.users() {
                let written =
                    self.inboxes.get(&user).is_some_and(|i| i.written.contains_key(&(seq as usize)));
                assert!(!written, "m{seq} is refused with {errno} and yet was written to {user}");
            }
        }
    }

    /// The server has answered a confirmation; the answer's first byte came then.
    pub(super) fn confirmed(&mut self, user: UserId, upto: i64, began: u64) {
        let confirmed = &mut self.inboxes.entry(user).or_default().confirmed;
        if confirmed.is_none_or(|before| before.crashes < self.crashes || before.upto < upto) {
            *confirmed = Some(Confirmed { upto, began, crashes: self.crashes });
        }
    }

    /// The server has written a chat to a user; its first byte came then.
    pub(super) fn written(&mut self, user: UserId, chat: &ReceivedChat, began: u64) {
        let n = number(&chat.text);
        let message = &self.messages[n];
        let what = &chat.text;
        assert_eq!(chat.from, message.from, "{what} carries its true sender");
        assert!(message.to.users().contains(&user), "{what} is not for {user}");
        assert!(!message.is_refused, "{what} was refused and comes all the same");
        let confirms = self.confirming.contains(&user);
        assert_eq!(confirms, chat.mid.is_some(), "{what} has a number for those who confirm");
        let inbox = self.inboxes.entry(user).or_default();
        let is_confirmed = inbox.confirmed.is_some_and(|confirmed| {
            let is_late = confirmed.crashes == self.crashes && began > confirmed.began;
            is_late && chat.mid.is_some_and(|mid| mid <= confirmed.upto)
        });
        assert!(!is_confirmed, "{what} was confirmed and comes again");
        let known = inbox.written.get(&n).copied();
        if let Some(first) = known {
            // A repetition that was long under way is not known as one any more.
            let is_late = self.now_us > message.sent_us + DEDUP_WINDOW_US;
            let is_new = message.sent_on.len() > 1 && is_late;
            if confirms {
                let (one, other) = (first.mid, chat.mid);
                assert!(is_new || one == other, "{what} comes under {one:?} and {other:?}");
                let is_excused = began < first.began || is_new;
                assert!(chat.again || is_excused, "{what} is marked when it comes again");
            } else {
                // Where it failed for others of the group, main knows whose boxes have a copy, and not whose kernels.
                let may_have_failed = message.sent_on.len() > 1 && matches!(message.to, To::Group(_));
                let excused = is_new || first.crashes < self.crashes || may_have_failed;
                assert!(excused, "{what} is written to {user} a second time");
            }
        } else if let Some(mid) = chat.mid {
            let place = (began, inbox.firsts.len());
            let before = inbox.firsts.range(..place).next_back().is_none_or(|(_, before)| *before < mid);
            let after = inbox.firsts.range(place..).next().is_none_or(|(_, after)| *after > mid);
            assert!(before && after, "{what} to {user}: number {mid} does not rise");
            inbox.firsts.insert(place, mid);
        }
        if let Some(mid) = chat.mid {
            let other = *inbox.by_mid.entry(mid).or_insert(n);
            assert_eq!(other, n, "two messages are both {mid}");
        }
        let (began_first, crashes) =
            known.map_or((began, self.crashes), |first| (first.began.min(began), self.crashes));
        let written = Written { mid: chat.mid, began: began_first, crashes };
        if inbox.written.insert(n, written).is_none()
            && message.sent_on.len() == 1
            && message.crashes == self.crashes
        {
            let order = inbox.order.entry((message.from, message.sent_on[0])).or_default();
            // One login answer brings several.
            let place = (began, order.len());
            let before = order.range(..place).next_back().map(|(_, n)| *n);
            let after = order.range(place..).next().map(|(_, n)| *n);
            assert!(before.is_none_or(|before| before < n), "{what} to {user} comes behind m{before:?}");
            assert!(after.is_none_or(|after| after > n), "{what} to {user} comes before m{after:?}");
            order.insert(place, n);
        }
    }

    /// A client that confirms has read a chat.
    pub(super) fn read(&mut self, user: UserId, chat: &ReceivedChat) {
        let inbox = self.inboxes.entry(user).or_default();
        inbox.read.insert(number(&chat.text));
        inbox.highest_read = inbox.highest_read.max(chat.mid.unwrap_or(0));
    }

    /// The highest number that a user's client has read.
    pub(super) fn highest_read(&self, user: UserId) -> i64 {
        self.inboxes.get(&user).map_or(0, |inbox| inbox.highest_read)
    }

    /// A connection of a user is gone with the beginning of an object on it: to one who does not confirm it counts as
    /// handed over.
    pub(super) fn partial(&mut self, user: UserId, beginning: &[u8]) {
        let said = self.messages.len();
        let inbox = self.inboxes.entry(user).or_default();
        // Too little of it to tell may be either.
        if beginning.starts_with(br#"{"msgid":2,"#) || beginning.len() <= 10 {
            inbox.torn_below = said;
        } else {
            inbox.partial += 1;
        }
    }

    /// At the very end: every promise is kept.
    pub(super) fn is_kept(&self) {
        let owed = |n: usize| self.messages[n].owed.iter().map(move |user| (n, *user));
        self.all_came((0..self.messages.len()).flat_map(owed), "was promised");
    }

    /// At the end of a calm run: so did everything else that the server took. It takes what comes on a connection in
    /// order, so it has taken what was said before something that came.
    pub(super) fn is_complete(&self) {
        let mut latest: BTreeMap<usize, usize> = BTreeMap::new();
        let came = self.inboxes.values().flat_map(|inbox| inbox.written.keys().copied());
        let promised = (0..self.messages.len()).filter(|n| self.messages[*n].is_promised);
        for n in came.chain(promised).filter(|n| self.messages[*n].sent_on.len() == 1) {
            let latest = latest.entry(self.messages[n].sent_on[0]).or_default();
            *latest = n.max(*latest);
        }
        let taken = self.messages.iter().enumerate().filter_map(|(n, message)| {
            let once = message.sent_on.len() == 1 && !message.is_refused;
            let is_taken = once && latest.get(&message.sent_on[0]).is_some_and(|latest| n < *latest);
            match message.to {
                To::One(user) if is_taken && !self.overfull.contains(&user) => Some((n, user)),
                _ => None,
            }
        });
        self.all_came(taken, "was taken");
    }

    /// At the end of any run: of what was said on a connection since the last crash, all was answered that had a `seq`,
    /// and all else came but for so many, of which its sender was told.
    pub(super) fn is_complete_but_for(&self, link: usize, complaints: usize) {
        for (n, message) in self.messages.iter().enumerate() {
            let waits = message.sent_on == [link] && message.crashes == self.crashes && message.has_seq;
            assert!(
                !waits || message.is_answered,
                "m{n} with seq was taken on #{link} and is never answered"
            );
        }
        let is_lost = |(n, message): &(usize, &Message)| {
            let To::One(user) = message.to else { return false };
            let is_due = message.sent_on == [link] && message.crashes == self.crashes && !message.has_seq;
            let inbox = self.inboxes.get(&user);
            let may_be_torn = inbox.is_some_and(|i| i.partial > 0 || *n < i.torn_below);
            let came = inbox.is_some_and(|inbox| {
                if self.confirming.contains(&user) {
                    inbox.read.contains(n)
                } else {
                    inbox.written.contains_key(n)
                }
            });
            is_due
                && !came
                && !self.overfull.contains(&user)
                && (self.confirming.contains(&user) || !may_be_torn)
        };
        let lost: Vec<String> = self
            .messages
            .iter()
            .enumerate()
            .filter(is_lost)
            .map(|(n, m)| format!("m{n} to {:?}", m.to))
            .collect();
        let all = lost.join(", ");
        assert!(
            lost.len() <= complaints,
            "{all} was taken on #{link} and is lost to them but for {complaints}"
        );
    }

    fn all_came(&self, messages: impl Iterator<Item = (usize, UserId)>, why: &str) {
        let mut missing: BTreeMap<UserId, usize> = BTreeMap::new();
        for (n, user) in messages {
            let inbox = self.inboxes.get(&user);
            if self.confirming.contains(&user) {
                let read = inbox.is_some_and(|inbox| inbox.read.contains(&n));
                assert!(read, "m{n} {why} and is lost to {user}, who confirms");
            } else if !inbox.is_some_and(|i| i.written.contains_key(&n) || n < i.torn_below) {
                let missing = missing.entry(user).or_default();
                *missing += 1;
                let partial = inbox.map_or(0, |inbox| inbox.partial);
                assert!(*missing <= partial, "m{n} {why} and is lost to {user}");
            }
        }
    }
}
