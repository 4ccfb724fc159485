//! Requests that are not answered yet, in the order they were typed.
//!
//! Plain data of a session. Each has a `seq` that no other run of the program uses, so the server recognizes a
//! request that is sent again after a lost answer.

use std::collections::VecDeque;

use super::messages;

/// With so many unanswered requests the client takes no more input.
pub(super) const WAITING_MAX: usize = 256;

/// The largest request, in bytes. Servers take 64 KiB unless told otherwise; a larger one would end the connection.
const BODY_MAX_BYTES: usize = 60 << 10;

/// The requests of one run.
#[derive(Debug)]
pub(super) struct Outbox {
    run: u64,
    last: u64,
    waiting: VecDeque<Request>,
}

/// A request that waits for its answer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Request {
    pub(super) kind: Kind,
    pub(super) body: String,
    seq: String,
    sent: bool,
}

/// What a request asks for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    /// A chat to one user.
    ToUser { id: i64, text: String },
    /// A chat to a group.
    ToGroup { id: i64, text: String },
    /// To add that friend.
    Add(i64),
    /// To join that group.
    Join(i64),
    /// To create a group of that name.
    Create(String),
}

/// Too long for the server.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("not sent: {0} bytes are more than the {BODY_MAX_BYTES} that fit into one message")]
pub(super) struct TooLong(usize);

impl Kind {
    /// True exactly when a repetition has no effect of its own. A group would be created twice.
    fn is_repeatable(&self) -> bool {
        !matches!(self, Kind::Create(_))
    }

    fn body(&self, seq: &str) -> String {
        match self {
            Kind::ToUser { id, text } => messages::to_user(*id, text, seq),
            Kind::ToGroup { id, text } => messages::to_group(*id, text, seq),
            Kind::Add(id) => messages::add_friend(*id, seq),
            Kind::Join(id) => messages::join_group(*id, seq),
            Kind::Create(name) => messages::create_group(name, seq),
        }
    }
}

impl Outbox {
    /// `run` is a number that no other run of the program has.
    pub(super) fn new(run: u64) -> Outbox {
        Outbox { run, last: 0, waiting: VecDeque::new() }
    }

    /// Puts a request behind the others.
    pub(super) fn push(&mut self, kind: Kind) -> Result<(), TooLong> {
        self.last += 1;
        let seq = format!("{:016x}-{}", self.run, self.last);
        let body = kind.body(&seq);
        if body.len() > BODY_MAX_BYTES {
            return Err(TooLong(body.len()));
        }
        self.waiting.push_back(Request { kind, body, seq, sent: false });
        Ok(())
    }

    /// The requests that were not sent on this connection yet, in order. Marks them as sent.
    pub(super) fn send_next(&mut self) -> impl Iterator<Item = &str> {
        self.waiting.iter_mut().filter(|request| !request.sent).map(|request| {
            request.sent = true;
            request.body.as_str()
        })
    }

    /// Takes out the request that was answered.
    pub(super) fn answered(&mut self, seq: &str) -> Option<Request> {
        let at = self.waiting.iter().position(|request| request.seq == seq)?;
        self.waiting.remove(at)
    }

    /// The connection was lost: marks everything as to be sent again, and takes out what was sent and must not be repeated.
    pub(super) fn connection_lost(&mut self) -> Vec<Request> {
        let (again, unrepeatable): (Vec<_>, Vec<_>) =
            self.waiting.drain(..).partition(|request| !request.sent || request.kind.is_repeatable());
        self.waiting = again.into_iter().map(|request| Request { sent: false, ..request }).collect();
        unrepeatable
    }

    /// Takes out the largest request: the one that a server with a smaller limit has refused.
    pub(super) fn take_largest(&mut self) -> Option<Request> {
        let (at, _) = self.waiting.iter().enumerate().max_by_key(|(_, request)| request.body.len())?;
        self.waiting.remove(at)
    }

    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chat(text: &str) -> Kind {
        Kind::ToUser { id: 2, text: text.into() }
    }

    fn sent(outbox: &mut Outbox) -> Vec<String> {
        outbox.send_next().map(str::to_owned).collect()
    }

    #[test]
    fn what_is_unanswered_goes_again_under_the_same_seq_and_in_order() {
        let mut outbox = Outbox::new(0xab);
        for text in ["a", "b", "c"] {
            outbox.push(chat(text)).unwrap();
        }
        let first = sent(&mut outbox);
        assert_eq!(first.len(), 3);
        assert!(sent(&mut outbox).is_empty(), "once on one connection");
        assert_eq!(outbox.answered("00000000000000ab-2").unwrap().kind, chat("b"));
        assert_eq!(outbox.answered("00000000000000ab-2"), None);
        assert!(outbox.connection_lost().is_empty());
        assert_eq!(sent(&mut outbox), [first[0].clone(), first[2].clone()]);
    }

    #[test]
    fn two_runs_never_use_the_same_seq() {
        let [one, other] = [1, 2].map(|run| {
            let mut outbox = Outbox::new(run);
            outbox.push(chat("hi")).unwrap();
            sent(&mut outbox)
        });
        assert_ne!(one, other);
    }

    #[test]
    fn a_group_is_not_created_twice() {
        let mut outbox = Outbox::new(1);
        outbox.push(Kind::Create("sent".into())).unwrap();
        sent(&mut outbox);
        outbox.push(Kind::Create("not sent".into())).unwrap();
        let unrepeatable = outbox.connection_lost();
        assert_eq!(unrepeatable.len(), 1);
        assert_eq!(unrepeatable[0].kind, Kind::Create("sent".into()));
        assert_eq!(sent(&mut outbox).len(), 1);
    }

    #[test]
    fn what_no_server_takes_is_not_sent() {
        let mut outbox = Outbox::new(1);
        assert!(outbox.push(chat(&"\u{1}".repeat(BODY_MAX_BYTES / 6))).is_err());
        outbox.push(chat("short")).unwrap();
        outbox.push(chat(&"x".repeat(1000))).unwrap();
        assert_eq!(outbox.take_largest().unwrap().kind, chat(&"x".repeat(1000)));
        assert_eq!(outbox.len(), 1);
    }
}
