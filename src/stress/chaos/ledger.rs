//! What was sent, what was confirmed to its sender, what its receiver has taken, and what does not fit together.
//!
//! Plain data, without sockets and without a clock: times come in. A receiver goes by the chats' numbers: what is not
//! above the last one it took, it has. It is the only memory that outlives a receiver's connection.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::time::Duration;

use super::text::Key;

/// What has become of a chat, as its sender knows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Fate {
    /// Not answered yet.
    Open,
    /// Confirmed: it is the server's from now on.
    Accepted,
    /// Answered by an error. It is not sent again.
    Refused,
    /// Its sender was killed before an answer came, and has forgotten it. It may come once or not at all.
    GivenUp,
}

/// A chat, at its sender.
#[derive(Clone, Debug)]
struct Sent {
    receiver: usize,
    fate: Fate,
    tries: u32,
    first: Duration,
    answered: Option<Duration>,
    /// True exactly when it counts among those that its receiver waits for.
    awaited: bool,
}

/// A chat, at its receiver.
#[derive(Clone, Copy, Debug)]
struct Taken {
    mid: i64,
    /// When it was taken.
    at: Duration,
    /// How it was heard last.
    heard: Hearing,
}

/// On which connection something was heard, and when, by connections.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Hearing {
    /// Connections that are opened later have higher numbers.
    pub(super) connection: u64,
    /// The latest connection that had been opened by then.
    pub(super) opened: u64,
    /// In which run of the server the connection was opened.
    pub(super) server_run: u32,
}

/// What one receiver has.
#[derive(Debug, Default)]
struct Shelf {
    /// The number of the newest it took.
    last: i64,
    taken: HashMap<(usize, u64), Taken>,
    /// The newest serial of each sender.
    newest: HashMap<usize, u64>,
    /// Sent to it, neither taken nor known not to come.
    awaited: usize,
    /// True exactly when a sender has heard that a chat to it was refused.
    has_refused: bool,
}

/// How many of what.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Counts {
    pub(super) sent: u64,
    pub(super) accepted: u64,
    pub(super) refused: u64,
    pub(super) given_up: u64,
    /// Sent again after a reconnect.
    pub(super) repeated: u64,
    /// Chats that came, each time counted.
    pub(super) received: u64,
    /// Of those, known by their number and dropped.
    pub(super) dropped: u64,
    /// Of those, marked `again`.
    pub(super) marked: u64,
    /// Of those that came, taken.
    pub(super) taken: u64,
}

/// What must not happen to a chat.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Wrong {
    /// Confirmed to its sender, never taken by its receiver.
    Missing,
    /// Taken twice: it came under two numbers.
    Doubled,
    /// It came after one of the same sender that was sent later.
    Overtaken,
    /// It came under a number below one that had come, so that its receiver drops it.
    Lowered,
    /// It came again, on a connection that was opened after it had come, without `again`, and the server had not crashed meanwhile.
    Unmarked,
    /// It came although its only try was refused, or to somebody else, or is none that was sent.
    Uncalled,
    /// Its sender never got an answer.
    Unanswered,
    /// It was confirmed and came again at the end.
    Forgotten,
}

/// One of these, and which chat it was.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Finding {
    pub(super) wrong: Wrong,
    pub(super) key: Key,
    pub(super) at: Duration,
    /// What the numbers say.
    pub(super) detail: String,
}

/// All of it.
#[derive(Debug)]
pub(super) struct Ledger {
    sent: Vec<Vec<Sent>>,
    shelves: Vec<Shelf>,
    pub(super) counts: Counts,
    findings: Vec<Finding>,
    /// True exactly when all is confirmed, so that nothing may come again.
    closed: bool,
}

impl Ledger {
    pub(super) fn new(senders: usize, receivers: usize) -> Self {
        Self {
            sent: vec![Vec::new(); senders],
            shelves: (0..receivers).map(|_| Shelf::default()).collect(),
            counts: Counts::default(),
            findings: Vec::new(),
            closed: false,
        }
    }

    /// A new chat.
    pub(super) fn send(&mut self, sender: usize, receiver: usize, at: Duration) -> Key {
        let serial = self.sent[sender].len() as u64;
        self.sent[sender].push(Sent {
            receiver,
            fate: Fate::Open,
            tries: 1,
            first: at,
            answered: None,
            awaited: true,
        });
        self.shelves[receiver].awaited += 1;
        self.counts.sent += 1;
        Key { sender, receiver, serial }
    }

    /// The same chat once more.
    pub(super) fn repeat(&mut self, sender: usize, serial: u64) -> Key {
        self.counts.repeated += 1;
        let sent = &mut self.sent[sender][serial as usize];
        sent.tries += 1;
        Key { sender, receiver: sent.receiver, serial }
    }

    /// The sender hears what has become of a chat; true when it had not heard so before.
    pub(super) fn answer(&mut self, sender: usize, serial: u64, accepted: bool, at: Duration) -> bool {
        let Some(sent) = self.sent[sender].get_mut(serial as usize).filter(|sent| sent.fate == Fate::Open)
        else {
            return false;
        };
        sent.fate = if accepted { Fate::Accepted } else { Fate::Refused };
        sent.answered = Some(at);
        if accepted {
            self.counts.accepted += 1;
        } else {
            self.counts.refused += 1;
            self.shelves[sent.receiver].has_refused = true;
            self.await_no_longer(sender, serial);
        }
        true
    }

    /// The sender is killed and forgets a chat.
    pub(super) fn give_up(&mut self, sender: usize, serial: u64) {
        let sent = &mut self.sent[sender][serial as usize];
        if sent.fate == Fate::Open {
            sent.fate = Fate::GivenUp;
            self.counts.given_up += 1;
            self.await_no_longer(sender, serial);
        }
    }

    /// How many chats are on their way to a receiver, as far as is known outside the server.
    pub(super) fn awaited(&self, receiver: usize) -> usize {
        self.shelves[receiver].awaited
    }

    /// Accepted chats that no receiver has taken yet.
    pub(super) fn missing(&self) -> usize {
        let accepted = |sent: &&Sent| sent.awaited && sent.fate == Fate::Accepted;
        self.sent.iter().flatten().filter(accepted).count()
    }

    /// The number of the newest chat that a receiver has taken, which it confirms.
    pub(super) fn last(&self, receiver: usize) -> i64 {
        self.shelves[receiver].last
    }

    /// A receiver hears a chat.
    pub(super) fn hear(
        &mut self,
        receiver: usize,
        key: Option<Key>,
        (mid, again): (i64, bool),
        heard: Hearing,
        at: Duration,
    ) {
        self.counts.received += 1;
        self.counts.marked += u64::from(again);
        let known = |key: &Key| {
            let sent = self.sent.get(key.sender).and_then(|sent| sent.get(key.serial as usize));
            key.receiver == receiver && sent.is_some_and(|sent| sent.receiver == receiver)
        };
        let Some(key) = key.filter(known) else {
            let key = Key { receiver, ..key.unwrap_or(Key { sender: 0, receiver, serial: 0 }) };
            return self.find(Wrong::Uncalled, key, at, format!("receiver {receiver} heard it as mid {mid}"));
        };
        let name = (key.sender, key.serial);
        let shelf = &mut self.shelves[receiver];
        let before = shelf.taken.get_mut(&name);
        if mid <= shelf.last {
            self.counts.dropped += 1;
            let last = shelf.last;
            match before {
                Some(taken) if taken.mid == mid => {
                    let earlier = std::mem::replace(&mut taken.heard, heard);
                    let same_run = earlier.server_run == heard.server_run;
                    if same_run && earlier.opened < heard.connection && !again {
                        self.find(Wrong::Unmarked, key, at, format!("mid {mid}, taken before"));
                    }
                    if self.closed {
                        self.find(Wrong::Forgotten, key, at, format!("mid {mid}"));
                    }
                }
                Some(taken) => {
                    let first = taken.mid;
                    self.find(Wrong::Doubled, key, at, format!("as mid {first} and as mid {mid}"));
                }
                None => self.find(Wrong::Lowered, key, at, format!("as mid {mid} after mid {last}")),
            }
            return;
        }
        shelf.last = mid;
        self.counts.taken += 1;
        if let Some(taken) = before {
            let first = taken.mid;
            return self.find(Wrong::Doubled, key, at, format!("as mid {first} and as mid {mid}"));
        }
        shelf.taken.insert(name, Taken { mid, at, heard });
        let newest = shelf.newest.entry(key.sender).or_insert(key.serial);
        let overtaken_by = (*newest > key.serial).then_some(*newest);
        *newest = key.serial.max(*newest);
        self.await_no_longer(key.sender, key.serial);
        if let Some(newer) = overtaken_by {
            let by = self.place(receiver, (key.sender, newer));
            self.find(Wrong::Overtaken, key, at, format!("as mid {mid} after seq {newer}, {by}"));
        }
    }

    /// A receiver hears a chat of somebody else, which it confirms like any other.
    pub(super) fn pass_over(&mut self, receiver: usize, mid: i64) {
        let shelf = &mut self.shelves[receiver];
        shelf.last = shelf.last.max(mid);
    }

    /// From now on nothing may come that was taken before: all is confirmed.
    pub(super) fn close(&mut self) {
        self.closed = true;
    }

    /// All that was wrong: what was found on the way, and what the books say at the end.
    pub(super) fn judge(&self) -> Vec<Finding> {
        let mut findings = self.findings.clone();
        findings.retain(|finding| finding.wrong != Wrong::Overtaken || !self.may_come_late(finding.key));
        for (sender, letters) in self.sent.iter().enumerate() {
            for (serial, sent) in letters.iter().enumerate() {
                let key = Key { sender, receiver: sent.receiver, serial: serial as u64 };
                let is_taken = self.shelves[sent.receiver].taken.contains_key(&(sender, key.serial));
                let wrong = match sent.fate {
                    Fate::Open => Some(Wrong::Unanswered),
                    Fate::Accepted if !is_taken => Some(Wrong::Missing),
                    // An earlier try may have been accepted without an answer.
                    Fate::Refused if is_taken && sent.tries == 1 => Some(Wrong::Uncalled),
                    _ => None,
                };
                if let Some(wrong) = wrong {
                    let detail = String::new();
                    findings.push(Finding { wrong, key, at: sent.first, detail });
                }
            }
        }
        findings.sort_by_key(|finding| (finding.wrong, finding.at));
        findings
    }

    /// Its first try may have been refused while its sender was away, and its second accepted behind newer ones: then
    /// it was sent later than they were.
    fn may_come_late(&self, Key { sender, receiver, serial }: Key) -> bool {
        self.shelves[receiver].has_refused && self.sent[sender][serial as usize].tries > 1
    }

    /// What the books say of a chat, for people.
    pub(super) fn story(&self, finding: &Finding) -> String {
        let Finding { key, detail, .. } = finding;
        let Key { sender, receiver, serial } = *key;
        let mut story = format!("sender {sender} to receiver {receiver}, seq {serial}: ");
        match self.sent.get(sender).and_then(|sent| sent.get(serial as usize)) {
            None => story.push_str("never sent"),
            Some(sent) => {
                let first = seconds(sent.first);
                let _ = write!(story, "sent at {first}, {} tries, {:?}", sent.tries, sent.fate);
                if let Some(at) = sent.answered {
                    let _ = write!(story, " at {}", seconds(at));
                }
                let _ = write!(story, "; {}", self.place(receiver, (sender, serial)));
                if let Some(after) = self.after(key) {
                    let place = self.place(receiver, (sender, after));
                    let _ = write!(story, "; the next of the pair, seq {after}, {place}");
                }
            }
        }
        if !detail.is_empty() {
            let _ = write!(story, "; found at {}: {detail}", seconds(finding.at));
        }
        story
    }

    /// The next chat of the same pair that was taken.
    fn after(&self, key: &Key) -> Option<u64> {
        let shelf = &self.shelves[key.receiver];
        let later = self.sent[key.sender].len() as u64;
        (key.serial + 1..later).find(|serial| shelf.taken.contains_key(&(key.sender, *serial)))
    }

    fn place(&self, receiver: usize, name: (usize, u64)) -> String {
        match self.shelves[receiver].taken.get(&name) {
            None => "never taken".to_owned(),
            Some(taken) => format!("taken as mid {} at {}", taken.mid, seconds(taken.at)),
        }
    }

    fn await_no_longer(&mut self, sender: usize, serial: u64) {
        let sent = &mut self.sent[sender][serial as usize];
        if std::mem::replace(&mut sent.awaited, false) {
            self.shelves[sent.receiver].awaited -= 1;
        }
    }

    fn find(&mut self, wrong: Wrong, key: Key, at: Duration, detail: String) {
        self.findings.push(Finding { wrong, key, at, detail });
    }
}

fn seconds(at: Duration) -> String {
    format!("{:.3} s", at.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Duration = Duration::from_secs(1);

    /// One sender, one receiver, and the numbers of connections and of runs of the server.
    struct Pair {
        ledger: Ledger,
        connection: u64,
        opened: u64,
        server_run: u32,
    }

    impl Pair {
        fn new() -> Self {
            Self { ledger: Ledger::new(1, 1), connection: 1, opened: 1, server_run: 1 }
        }

        fn accepted(&mut self) -> u64 {
            let Key { serial, .. } = self.ledger.send(0, 0, NOW);
            assert!(self.ledger.answer(0, serial, true, NOW));
            serial
        }

        fn hear(&mut self, serial: u64, mid: i64, again: bool) {
            let key = Key { sender: 0, receiver: 0, serial };
            let heard =
                Hearing { connection: self.connection, opened: self.opened, server_run: self.server_run };
            self.ledger.hear(0, Some(key), (mid, again), heard, NOW);
        }

        fn wrongs(&mut self) -> Vec<(Wrong, u64)> {
            self.ledger.judge().iter().map(|finding| (finding.wrong, finding.key.serial)).collect()
        }
    }

    #[test]
    fn what_comes_once_in_order_and_again_with_its_mark_is_right() {
        let mut pair = Pair::new();
        let (first, second) = (pair.accepted(), pair.accepted());
        pair.hear(first, 5, false);
        pair.hear(second, 9, false);
        pair.connection += 1;
        pair.hear(first, 5, true);
        pair.hear(second, 9, true);
        assert_eq!(pair.wrongs(), []);
        let counts = pair.ledger.counts;
        assert_eq!((counts.received, counts.dropped, counts.marked, counts.taken), (4, 2, 2, 2));
        assert_eq!((pair.ledger.awaited(0), pair.ledger.missing(), pair.ledger.last(0)), (0, 0, 9));
    }

    #[test]
    fn a_lost_chat_is_found_and_its_story_names_it() {
        let mut pair = Pair::new();
        let (lost, next) = (pair.accepted(), pair.accepted());
        pair.hear(next, 7, false);
        assert_eq!(pair.ledger.missing(), 1);
        let findings = pair.ledger.judge();
        assert_eq!((findings[0].wrong, findings[0].key.serial, findings.len()), (Wrong::Missing, lost, 1));
        let story = pair.ledger.story(&findings[0]);
        assert_eq!(
            story,
            "sender 0 to receiver 0, seq 0: sent at 1.000 s, 1 tries, Accepted at 1.000 s; never taken; \
             the next of the pair, seq 1, taken as mid 7 at 1.000 s"
        );
    }

    #[test]
    fn a_chat_under_two_numbers_is_doubled() {
        let mut pair = Pair::new();
        let chat = pair.accepted();
        pair.hear(chat, 5, false);
        pair.hear(chat, 6, false);
        assert_eq!(pair.wrongs(), [(Wrong::Doubled, chat)]);
        pair.hear(chat, 4, false);
        assert_eq!(pair.wrongs(), [(Wrong::Doubled, chat); 2]);
    }

    #[test]
    fn swapped_chats_are_found_by_their_order_and_by_their_numbers() {
        let mut pair = Pair::new();
        let (first, second, third) = (pair.accepted(), pair.accepted(), pair.accepted());
        pair.hear(second, 5, false);
        pair.hear(first, 6, false);
        pair.hear(third, 4, false);
        assert_eq!(
            pair.wrongs(),
            [(Wrong::Missing, third), (Wrong::Overtaken, first), (Wrong::Lowered, third)]
        );
    }

    #[test]
    fn a_repetition_without_a_mark_is_wrong_unless_the_server_has_crashed_or_the_connection_stood_already() {
        let mut pair = Pair::new();
        let chat = pair.accepted();
        (pair.connection, pair.opened) = (4, 5);
        pair.hear(chat, 5, true);
        pair.connection = 5;
        pair.hear(chat, 5, false);
        (pair.connection, pair.opened, pair.server_run) = (6, 6, 2);
        pair.hear(chat, 5, false);
        assert_eq!(pair.wrongs(), []);
        pair.connection = 7;
        pair.hear(chat, 5, false);
        assert_eq!(pair.wrongs(), [(Wrong::Unmarked, chat)]);
    }

    #[test]
    fn what_is_refused_must_not_come_and_what_is_given_up_may() {
        let mut pair = Pair::new();
        let refused = pair.ledger.send(0, 0, NOW).serial;
        pair.ledger.answer(0, refused, false, NOW);
        let given_up = pair.ledger.send(0, 0, NOW).serial;
        pair.ledger.give_up(0, given_up);
        assert!(!pair.ledger.answer(0, given_up, true, NOW));
        assert_eq!(pair.ledger.awaited(0), 0);
        pair.hear(refused, 1, false);
        pair.hear(given_up, 2, false);
        assert_eq!(pair.wrongs(), [(Wrong::Uncalled, refused)]);
    }

    #[test]
    fn a_repetition_may_come_late_where_a_full_box_may_have_refused_its_first_try() {
        let mut pair = Pair::new();
        let (first, second) = (pair.accepted(), pair.accepted());
        pair.ledger.repeat(0, first);
        pair.hear(second, 1, false);
        pair.hear(first, 2, false);
        assert_eq!(pair.wrongs(), [(Wrong::Overtaken, first)]);
        let refused = pair.ledger.send(0, 0, NOW).serial;
        pair.ledger.answer(0, refused, false, NOW);
        assert_eq!(pair.wrongs(), []);
    }

    #[test]
    fn a_chat_that_nobody_sent_or_that_is_somebody_elses_is_uncalled_and_one_without_an_answer_is_named() {
        let mut ledger = Ledger::new(1, 2);
        let Key { serial, .. } = ledger.send(0, 0, NOW);
        let heard = Hearing { connection: 1, opened: 1, server_run: 1 };
        for key in
            [None, Some(Key { sender: 0, receiver: 0, serial }), Some(Key { sender: 7, receiver: 1, serial })]
        {
            ledger.hear(1, key, (1, false), heard, NOW);
        }
        let wrongs: Vec<_> = ledger.judge().iter().map(|finding| finding.wrong).collect();
        assert_eq!(wrongs, [Wrong::Uncalled, Wrong::Uncalled, Wrong::Uncalled, Wrong::Unanswered]);
    }

    #[test]
    fn what_was_confirmed_must_not_come_again_at_the_end() {
        let mut pair = Pair::new();
        let chat = pair.accepted();
        pair.hear(chat, 1, false);
        pair.ledger.close();
        pair.connection += 1;
        pair.hear(chat, 1, true);
        assert_eq!(pair.wrongs(), [(Wrong::Forgotten, chat)]);
    }
}
