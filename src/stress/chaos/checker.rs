//! What was sent, what was confirmed to its sender, what its receiver has taken, and what does not fit together.
//!
//! Plain data, without sockets and without a clock: times are arguments. A receiver goes by the chats' numbers: it already
//! has a chat whose number is not above the last one it took. Only this number outlives a receiver's connection.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::time::Duration;

use super::chat_key::Key;

/// What the sender of a chat knows of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Fate {
    /// Not answered yet.
    Open,
    /// Confirmed: the server is responsible for it.
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
    /// How it arrived last.
    arrival: Arrival,
}

/// On which connection a chat arrived, and how many connections had been opened by then.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Arrival {
    /// Connections that are opened later have higher numbers.
    pub(super) connection: u64,
    /// The latest connection that had been opened by then.
    pub(super) opened: u64,
    /// In which run of the server the connection was opened.
    pub(super) server_run: u32,
}

/// The state of one receiver.
#[derive(Debug, Default)]
struct ReceiverState {
    /// The number of the newest it took.
    last: i64,
    taken: HashMap<(usize, u64), Taken>,
    /// The newest serial of each sender.
    newest: HashMap<usize, u64>,
    /// Sent to it, neither taken nor known not to come.
    awaited: usize,
    /// True exactly when a sender was told that a chat to it was refused.
    has_refused: bool,
}

/// Counts of the run.
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

/// Something that must not happen to a chat.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Violation {
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
    Unexpected,
    /// Its sender never got an answer.
    Unanswered,
    /// It was confirmed and came again at the end.
    Forgotten,
}

/// A violation, and its chat.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Finding {
    pub(super) violation: Violation,
    pub(super) key: Key,
    pub(super) at: Duration,
    /// Details, with the numbers.
    pub(super) detail: String,
}

/// Records all chats and finds violations.
#[derive(Debug)]
pub(super) struct Checker {
    sent: Vec<Vec<Sent>>,
    receivers: Vec<ReceiverState>,
    pub(super) counts: Counts,
    findings: Vec<Finding>,
    /// True exactly when all is confirmed, so that nothing may come again.
    closed: bool,
}

impl Checker {
    pub(super) fn new(senders: usize, receivers: usize) -> Self {
        Self {
            sent: vec![Vec::new(); senders],
            receivers: (0..receivers).map(|_| ReceiverState::default()).collect(),
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
        self.receivers[receiver].awaited += 1;
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

    /// The sender gets an answer about a chat; true when it is the first one.
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
            self.receivers[sent.receiver].has_refused = true;
            self.stop_awaiting(sender, serial);
        }
        true
    }

    /// The sender was killed and forgets a chat.
    pub(super) fn give_up(&mut self, sender: usize, serial: u64) {
        let sent = &mut self.sent[sender][serial as usize];
        if sent.fate == Fate::Open {
            sent.fate = Fate::GivenUp;
            self.counts.given_up += 1;
            self.stop_awaiting(sender, serial);
        }
    }

    /// How many chats are on their way to a receiver, as far as is known outside the server.
    pub(super) fn awaited(&self, receiver: usize) -> usize {
        self.receivers[receiver].awaited
    }

    /// Accepted chats that no receiver has taken yet.
    pub(super) fn missing(&self) -> usize {
        let accepted = |sent: &&Sent| sent.awaited && sent.fate == Fate::Accepted;
        self.sent.iter().flatten().filter(accepted).count()
    }

    /// The number of the newest chat that a receiver has taken, which it confirms.
    pub(super) fn last(&self, receiver: usize) -> i64 {
        self.receivers[receiver].last
    }

    /// A receiver receives a chat.
    pub(super) fn receive(
        &mut self,
        receiver: usize,
        key: Option<Key>,
        (mid, again): (i64, bool),
        arrival: Arrival,
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
            return self.report_violation(
                Violation::Unexpected,
                key,
                at,
                format!("receiver {receiver} received it as mid {mid}"),
            );
        };
        let name = (key.sender, key.serial);
        let receiver_state = &mut self.receivers[receiver];
        let before = receiver_state.taken.get_mut(&name);
        if mid <= receiver_state.last {
            self.counts.dropped += 1;
            let last = receiver_state.last;
            match before {
                Some(taken) if taken.mid == mid => {
                    let earlier = std::mem::replace(&mut taken.arrival, arrival);
                    let same_run = earlier.server_run == arrival.server_run;
                    if same_run && earlier.opened < arrival.connection && !again {
                        self.report_violation(
                            Violation::Unmarked,
                            key,
                            at,
                            format!("mid {mid}, taken before"),
                        );
                    }
                    if self.closed {
                        self.report_violation(Violation::Forgotten, key, at, format!("mid {mid}"));
                    }
                }
                Some(taken) => {
                    let first = taken.mid;
                    self.report_violation(
                        Violation::Doubled,
                        key,
                        at,
                        format!("as mid {first} and as mid {mid}"),
                    );
                }
                None => self.report_violation(
                    Violation::Lowered,
                    key,
                    at,
                    format!("as mid {mid} after mid {last}"),
                ),
            }
            return;
        }
        receiver_state.last = mid;
        self.counts.taken += 1;
        if let Some(taken) = before {
            let first = taken.mid;
            return self.report_violation(
                Violation::Doubled,
                key,
                at,
                format!("as mid {first} and as mid {mid}"),
            );
        }
        receiver_state.taken.insert(name, Taken { mid, at, arrival });
        let newest = receiver_state.newest.entry(key.sender).or_insert(key.serial);
        let overtaken_by = (*newest > key.serial).then_some(*newest);
        *newest = key.serial.max(*newest);
        self.stop_awaiting(key.sender, key.serial);
        if let Some(newer) = overtaken_by {
            let by = self.place(receiver, (key.sender, newer));
            self.report_violation(
                Violation::Overtaken,
                key,
                at,
                format!("as mid {mid} after seq {newer}, {by}"),
            );
        }
    }

    /// A receiver receives a chat of another run, which it confirms like any other.
    pub(super) fn skip_foreign(&mut self, receiver: usize, mid: i64) {
        let receiver_state = &mut self.receivers[receiver];
        receiver_state.last = receiver_state.last.max(mid);
    }

    /// Everything is confirmed: no chat that was taken may come again.
    pub(super) fn expect_no_more(&mut self) {
        self.closed = true;
    }

    /// All violations: those found during the run, and those that show at the end.
    pub(super) fn judge(&self) -> Vec<Finding> {
        let mut findings = self.findings.clone();
        findings
            .retain(|finding| finding.violation != Violation::Overtaken || !self.may_come_late(finding.key));
        for (sender, letters) in self.sent.iter().enumerate() {
            for (serial, sent) in letters.iter().enumerate() {
                let key = Key { sender, receiver: sent.receiver, serial: serial as u64 };
                let is_taken = self.receivers[sent.receiver].taken.contains_key(&(sender, key.serial));
                let violation = match sent.fate {
                    Fate::Open => Some(Violation::Unanswered),
                    Fate::Accepted if !is_taken => Some(Violation::Missing),
                    // An earlier try may have been accepted without an answer.
                    Fate::Refused if is_taken && sent.tries == 1 => Some(Violation::Unexpected),
                    _ => None,
                };
                if let Some(violation) = violation {
                    let detail = String::new();
                    findings.push(Finding { violation, key, at: sent.first, detail });
                }
            }
        }
        findings.sort_by_key(|finding| (finding.violation, finding.at));
        findings
    }

    /// Its first try may have been refused while its sender was away, and its second accepted behind newer ones: then
    /// it was sent later than they were.
    fn may_come_late(&self, Key { sender, receiver, serial }: Key) -> bool {
        self.receivers[receiver].has_refused && self.sent[sender][serial as usize].tries > 1
    }

    /// Describes a violation, with all that is known of the chat.
    pub(super) fn describe(&self, finding: &Finding) -> String {
        let Finding { key, detail, .. } = finding;
        let Key { sender, receiver, serial } = *key;
        let mut text = format!("sender {sender} to receiver {receiver}, seq {serial}: ");
        match self.sent.get(sender).and_then(|sent| sent.get(serial as usize)) {
            None => text.push_str("never sent"),
            Some(sent) => {
                let first = seconds(sent.first);
                let _ = write!(text, "sent at {first}, {} tries, {:?}", sent.tries, sent.fate);
                if let Some(at) = sent.answered {
                    let _ = write!(text, " at {}", seconds(at));
                }
                let _ = write!(text, "; {}", self.place(receiver, (sender, serial)));
                if let Some(after) = self.after(key) {
                    let place = self.place(receiver, (sender, after));
                    let _ = write!(text, "; the next of the pair, seq {after}, {place}");
                }
            }
        }
        if !detail.is_empty() {
            let _ = write!(text, "; found at {}: {detail}", seconds(finding.at));
        }
        text
    }

    /// The next chat of the same pair that was taken.
    fn after(&self, key: &Key) -> Option<u64> {
        let receiver_state = &self.receivers[key.receiver];
        let later = self.sent[key.sender].len() as u64;
        (key.serial + 1..later).find(|serial| receiver_state.taken.contains_key(&(key.sender, *serial)))
    }

    fn place(&self, receiver: usize, name: (usize, u64)) -> String {
        match self.receivers[receiver].taken.get(&name) {
            None => "never taken".to_owned(),
            Some(taken) => format!("taken as mid {} at {}", taken.mid, seconds(taken.at)),
        }
    }

    fn stop_awaiting(&mut self, sender: usize, serial: u64) {
        let sent = &mut self.sent[sender][serial as usize];
        if std::mem::replace(&mut sent.awaited, false) {
            self.receivers[sent.receiver].awaited -= 1;
        }
    }

    fn report_violation(&mut self, violation: Violation, key: Key, at: Duration, detail: String) {
        self.findings.push(Finding { violation, key, at, detail });
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
        checker: Checker,
        connection: u64,
        opened: u64,
        server_run: u32,
    }

    impl Pair {
        fn new() -> Self {
            Self { checker: Checker::new(1, 1), connection: 1, opened: 1, server_run: 1 }
        }

        fn accepted(&mut self) -> u64 {
            let Key { serial, .. } = self.checker.send(0, 0, NOW);
            assert!(self.checker.answer(0, serial, true, NOW));
            serial
        }

        fn receive(&mut self, serial: u64, mid: i64, again: bool) {
            let key = Key { sender: 0, receiver: 0, serial };
            let arrival =
                Arrival { connection: self.connection, opened: self.opened, server_run: self.server_run };
            self.checker.receive(0, Some(key), (mid, again), arrival, NOW);
        }

        fn violations(&mut self) -> Vec<(Violation, u64)> {
            self.checker.judge().iter().map(|finding| (finding.violation, finding.key.serial)).collect()
        }
    }

    #[test]
    fn what_comes_once_in_order_and_again_with_its_mark_is_right() {
        let mut pair = Pair::new();
        let (first, second) = (pair.accepted(), pair.accepted());
        pair.receive(first, 5, false);
        pair.receive(second, 9, false);
        pair.connection += 1;
        pair.receive(first, 5, true);
        pair.receive(second, 9, true);
        assert_eq!(pair.violations(), []);
        let counts = pair.checker.counts;
        assert_eq!((counts.received, counts.dropped, counts.marked, counts.taken), (4, 2, 2, 2));
        assert_eq!((pair.checker.awaited(0), pair.checker.missing(), pair.checker.last(0)), (0, 0, 9));
    }

    #[test]
    fn a_lost_chat_is_found_and_its_description_names_it() {
        let mut pair = Pair::new();
        let (lost, next) = (pair.accepted(), pair.accepted());
        pair.receive(next, 7, false);
        assert_eq!(pair.checker.missing(), 1);
        let findings = pair.checker.judge();
        assert_eq!(
            (findings[0].violation, findings[0].key.serial, findings.len()),
            (Violation::Missing, lost, 1)
        );
        let describe = pair.checker.describe(&findings[0]);
        assert_eq!(
            describe,
            "sender 0 to receiver 0, seq 0: sent at 1.000 s, 1 tries, Accepted at 1.000 s; never taken; \
             the next of the pair, seq 1, taken as mid 7 at 1.000 s"
        );
    }

    #[test]
    fn a_chat_under_two_numbers_is_doubled() {
        let mut pair = Pair::new();
        let chat = pair.accepted();
        pair.receive(chat, 5, false);
        pair.receive(chat, 6, false);
        assert_eq!(pair.violations(), [(Violation::Doubled, chat)]);
        pair.receive(chat, 4, false);
        assert_eq!(pair.violations(), [(Violation::Doubled, chat); 2]);
    }

    #[test]
    fn swapped_chats_are_found_by_their_order_and_by_their_numbers() {
        let mut pair = Pair::new();
        let (first, second, third) = (pair.accepted(), pair.accepted(), pair.accepted());
        pair.receive(second, 5, false);
        pair.receive(first, 6, false);
        pair.receive(third, 4, false);
        assert_eq!(
            pair.violations(),
            [(Violation::Missing, third), (Violation::Overtaken, first), (Violation::Lowered, third)]
        );
    }

    #[test]
    fn a_repetition_without_a_mark_is_wrong_unless_the_server_has_crashed_or_the_connection_stood_already() {
        let mut pair = Pair::new();
        let chat = pair.accepted();
        (pair.connection, pair.opened) = (4, 5);
        pair.receive(chat, 5, true);
        pair.connection = 5;
        pair.receive(chat, 5, false);
        (pair.connection, pair.opened, pair.server_run) = (6, 6, 2);
        pair.receive(chat, 5, false);
        assert_eq!(pair.violations(), []);
        pair.connection = 7;
        pair.receive(chat, 5, false);
        assert_eq!(pair.violations(), [(Violation::Unmarked, chat)]);
    }

    #[test]
    fn what_is_refused_must_not_come_and_what_is_given_up_may() {
        let mut pair = Pair::new();
        let refused = pair.checker.send(0, 0, NOW).serial;
        pair.checker.answer(0, refused, false, NOW);
        let given_up = pair.checker.send(0, 0, NOW).serial;
        pair.checker.give_up(0, given_up);
        assert!(!pair.checker.answer(0, given_up, true, NOW));
        assert_eq!(pair.checker.awaited(0), 0);
        pair.receive(refused, 1, false);
        pair.receive(given_up, 2, false);
        assert_eq!(pair.violations(), [(Violation::Unexpected, refused)]);
    }

    #[test]
    fn a_repetition_may_come_late_where_a_full_box_may_have_refused_its_first_try() {
        let mut pair = Pair::new();
        let (first, second) = (pair.accepted(), pair.accepted());
        pair.checker.repeat(0, first);
        pair.receive(second, 1, false);
        pair.receive(first, 2, false);
        assert_eq!(pair.violations(), [(Violation::Overtaken, first)]);
        let refused = pair.checker.send(0, 0, NOW).serial;
        pair.checker.answer(0, refused, false, NOW);
        assert_eq!(pair.violations(), []);
    }

    #[test]
    fn a_chat_that_nobody_sent_or_that_is_somebody_elses_is_uncalled_and_one_without_an_answer_is_named() {
        let mut checker = Checker::new(1, 2);
        let Key { serial, .. } = checker.send(0, 0, NOW);
        let arrival = Arrival { connection: 1, opened: 1, server_run: 1 };
        for key in
            [None, Some(Key { sender: 0, receiver: 0, serial }), Some(Key { sender: 7, receiver: 1, serial })]
        {
            checker.receive(1, key, (1, false), arrival, NOW);
        }
        let violations: Vec<_> = checker.judge().iter().map(|finding| finding.violation).collect();
        assert_eq!(
            violations,
            [Violation::Unexpected, Violation::Unexpected, Violation::Unexpected, Violation::Unanswered]
        );
    }

    #[test]
    fn what_was_confirmed_must_not_come_again_at_the_end() {
        let mut pair = Pair::new();
        let chat = pair.accepted();
        pair.receive(chat, 1, false);
        pair.checker.expect_no_more();
        pair.connection += 1;
        pair.receive(chat, 1, true);
        assert_eq!(pair.violations(), [(Violation::Forgotten, chat)]);
    }
}
