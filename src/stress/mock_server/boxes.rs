//! The mock server's boxes for clients that confirm, and its memory of chats with `seq`. Plain data, with its bugs.

use std::collections::{BTreeMap, HashSet};

use serde_json::{Value, json};

use super::{BUG_AT, Bug};

/// What is not confirmed, by user.
#[derive(Debug)]
pub(super) struct Boxes {
    bug: Bug,
    kept: BTreeMap<i64, Vec<Kept>>,
    /// Chats that were accepted: sender, and the request as it came.
    accepted: HashSet<(i64, String)>,
    mids: i64,
    chats: usize,
    /// The chat that another is to overtake.
    held: Option<(i64, i64, Value)>,
}

#[derive(Debug)]
struct Kept {
    mid: i64,
    object: Value,
    sent: bool,
}

impl Boxes {
    pub(super) fn new(bug: Bug) -> Self {
        let (kept, accepted) = (BTreeMap::new(), HashSet::new());
        Self { bug, kept, accepted, mids: 0, chats: 0, held: None }
    }

    /// Takes a chat with `seq`. False where it is not to be answered.
    pub(super) fn accept(&mut self, from: i64, to: i64, request: &Value) -> bool {
        if !self.accepted.insert((from, request.to_string())) && self.bug != Bug::ForgetsWhatItAccepted {
            return true;
        }
        self.chats += 1;
        let has_bug = self.chats == BUG_AT;
        let chat = json!({"msgid": 6, "toid": to, "id": from, "msg": request["msg"]});
        match self.bug {
            Bug::LosesAChat if has_bug => return true,
            Bug::DoublesAChat if has_bug => self.keep(to, chat.clone()),
            Bug::SwapsTwoChats if has_bug => {
                self.held = Some((from, to, chat));
                return true;
            }
            _ => {}
        }
        if self.bug == Bug::LowersANumber && has_bug {
            self.kept.entry(to).or_default().insert(0, Kept { mid: 0, object: chat, sent: false });
        } else {
            self.keep(to, chat);
        }
        if let Some((_, _, held)) = self.held.take_if(|(by, user, _)| (*by, *user) == (from, to)) {
            self.keep(to, held);
        }
        !(has_bug && self.bug == Bug::AnswersNoChat)
    }

    /// What was not sent to a user yet.
    pub(super) fn unsent(&mut self, user: i64) -> Vec<String> {
        let kept = self.kept.entry(user).or_default().iter_mut().filter(|kept| !kept.sent);
        kept.map(Kept::send).collect()
    }

    /// All that a user has not confirmed, for the login.
    pub(super) fn all(&mut self, user: i64) -> Vec<String> {
        let marks = self.bug != Bug::ForgetsTheMark;
        let kept = self.kept.entry(user).or_default().iter_mut();
        kept.map(|kept| {
            if kept.sent && marks {
                kept.object["again"] = true.into();
            }
            kept.send()
        })
        .collect()
    }

    /// A user has all up to that number.
    pub(super) fn confirm(&mut self, user: i64, mid: i64) {
        if self.bug != Bug::ForgetsConfirmations {
            self.kept.entry(user).or_default().retain(|kept| kept.mid > mid);
        }
    }

    fn keep(&mut self, user: i64, object: Value) {
        self.mids += 1;
        self.kept.entry(user).or_default().push(Kept { mid: self.mids, object, sent: false });
    }
}

impl Kept {
    fn send(&mut self) -> String {
        self.sent = true;
        self.object["mid"] = self.mid.into();
        self.object.to_string()
    }
}
