//! Group chats under way, and what waits behind them. Main does a share of that work in each turn.
//!
//! What a peer sends may cost a turn of main no more than its share, however many members a group has. So a chat is
//! handed out in parts. While a chat of a user is under way, the user's later requests wait behind it, and so does the
//! user's next login: messages of one sender to one receiver arrive in the order sent.
//!
//! Plain data, owned by main; `group_chat` hands the parts out.

use super::group_cache::CachedGroup;
use super::transaction::RETRY_US;
use crate::ids::IdMap;
use crate::ids::UserId;
use crate::message::chat::{Body, Chat, OnFailure, OtherCopy};
use crate::message::delivery::DeliveryTracker;
use crate::message::reply_to::ReplyTo;
use crate::message::request::{Ask, Message};
use crate::store::{BoxCopy, COPY_BYTES};
use crate::sync::Arc;
use std::collections::VecDeque;

/// What the chats that come in one turn of main may cost, and what those under way may cost, in copies: some 1 ms each.
const TURN_COST: usize = if cfg!(test) { 3 } else { 1024 };
/// What one of many chats under way may cost in a turn at least, in copies: fewer would store its body too often.
const PART_COST: usize = if cfg!(test) { 1 } else { 128 };
/// Bytes of bodies under way or waiting behind others; past it, senders get errno 18.
const WAITING_BYTES_MAX: usize = 32 * 1024 * 1024;
/// How long a chat waits for a worker whose mailbox is full, in microseconds.
const FULL_US: u64 = 2_000;

/// A chat on its way to the members of a group.
#[derive(Debug)]
pub(super) struct FanOut {
    pub(super) reply_to: ReplyTo,
    pub(super) from: UserId,
    pub(super) body: Body,
    group: Arc<CachedGroup>,
    pub(super) tracker: Option<Arc<DeliveryTracker>>,
    /// Members whom an earlier attempt has reached already, by number.
    pub(super) reached: Vec<UserId>,
    /// The place of the next member.
    next: usize,
    /// Members whose part was not committed.
    again: Vec<UserId>,
    /// Members into whose boxes the transaction under way puts a copy.
    pub(super) in_batch: Vec<UserId>,
    /// True exactly when the transaction under way has a part of it.
    is_in_batch: bool,
    /// True exactly when a part of it is committed: then the rest has to follow.
    pub(super) begun: bool,
    /// True exactly when some copy of the first part rests on the transaction under way.
    pub(super) rests_on_commit: bool,
}

/// The chat of a user that is under way, and what waits behind it.
#[derive(Debug)]
struct Line {
    /// None only while a part of it is being handed out.
    chat: Option<Box<FanOut>>,
    behind: VecDeque<Ask>,
}

/// Copies of the part that is being handed out which go into boxes.
#[derive(Debug, Default)]
struct Part {
    copies: Vec<BoxCopy>,
    body_bytes: usize,
    /// True exactly when it is not the first of its chat: what cannot be stored of it is handed out again.
    is_later: bool,
}

/// All chats under way, by sender.
#[derive(Debug)]
pub(super) struct FanOuts {
    lines: IdMap<UserId, Line>,
    /// Whose turn comes, next first.
    turns: VecDeque<UserId>,
    /// Bytes of bodies in all lines.
    bytes: usize,
    /// What chats that come in this turn may still cost.
    left: usize,
    /// How long main may sleep before it goes on with the chats under way, in microseconds: not at all, unless the last
    /// part could not be handed out.
    pause_us: u64,
    /// Some exactly while a part is being handed out.
    part: Option<Part>,
}

/// A chat that is over, or has failed in its first part, and what has waited behind it.
pub(super) struct Ended {
    pub(super) chat: Box<FanOut>,
    pub(super) behind: VecDeque<Ask>,
}

impl Default for FanOuts {
    fn default() -> Self {
        FanOuts {
            lines: IdMap::default(),
            turns: VecDeque::new(),
            bytes: 0,
            left: TURN_COST,
            pause_us: 0,
            part: None,
        }
    }
}

impl FanOuts {
    /// True exactly when a chat of that user is under way.
    pub(super) fn is_under_way(&self, user: UserId) -> bool {
        self.lines.contains_key(&user)
    }

    /// How many chats are under way.
    pub(super) fn len(&self) -> usize {
        self.lines.len()
    }

    /// How long main may sleep, in microseconds.
    pub(super) fn timeout_us(&self) -> Option<u64> {
        (!self.lines.is_empty()).then_some(self.pause_us)
    }

    /// True exactly when no more bytes may wait.
    pub(super) fn is_full(&self) -> bool {
        self.bytes >= WAITING_BYTES_MAX
    }

    /// What chats that come in this turn may still cost, in copies.
    pub(super) fn left(&self) -> usize {
        self.left
    }

    /// Notes what they may still cost.
    pub(super) fn set_left(&mut self, left: usize) {
        self.left = left;
    }

    /// Has the rest of a chat wait for the next turn.
    pub(super) fn wait(&mut self, chat: FanOut) {
        self.bytes += chat.body.size();
        self.turns.push_back(chat.from);
        self.lines.insert(chat.from, Line { chat: Some(Box::new(chat)), behind: VecDeque::new() });
    }

    /// Has a request wait while a chat of its user is under way. Gives back what need not wait, or may not.
    pub(super) fn wait_in_line(&mut self, user: UserId, ask: Ask) -> Option<Ask> {
        let is_full = self.is_full();
        let Some(line) = self.lines.get_mut(&user) else { return Some(ask) };
        if let Ask::Chat(message) = &ask {
            if is_full {
                return Some(ask);
            }
            self.bytes += message.body.size();
        }
        line.behind.push_back(ask);
        None
    }

    /// A turn begins. Answers what each chat under way may cost in it, in copies, and all of them together; none where
    /// none is handed out in it.
    pub(super) fn begin_turn(&mut self, is_a_worker_full: bool) -> Option<(usize, usize)> {
        self.left = TURN_COST;
        if self.lines.is_empty() {
            return None;
        }
        self.pause_us = if is_a_worker_full { FULL_US } else { 0 };
        (!is_a_worker_full).then(|| ((TURN_COST / self.lines.len()).max(PART_COST), TURN_COST))
    }

    /// How many chats wait for their turn.
    pub(super) fn waiting(&self) -> usize {
        self.turns.len()
    }

    /// Takes the chat whose turn it is, until [`put_back`](FanOuts::put_back).
    pub(super) fn take_next(&mut self) -> Option<Box<FanOut>> {
        let user = self.turns.pop_front()?;
        self.lines.get_mut(&user)?.chat.take()
    }

    /// A chat has had its turn.
    pub(super) fn put_back(&mut self, chat: Box<FanOut>) {
        let user = chat.from;
        if let Some(line) = self.lines.get_mut(&user) {
            line.chat = Some(chat);
        }
        self.turns.push_back(user);
    }

    /// A part of a chat is being handed out from now on. `is_later` where it is not the first.
    pub(super) fn begin_part(&mut self, body_bytes: usize, is_later: bool) {
        self.part = Some(Part { copies: Vec::new(), body_bytes, is_later });
    }

    /// Has a copy of the part that is being handed out go into a box. False when there is no such part.
    pub(super) fn collect(&mut self, copy: BoxCopy) -> bool {
        let Some(part) = &mut self.part else { return false };
        part.copies.push(copy);
        true
    }

    /// True exactly when what cannot be stored now is handed out again.
    pub(super) fn tries_again(&self) -> bool {
        self.part.as_ref().is_some_and(|part| part.is_later)
    }

    /// Bytes that the part which is being handed out will add to the boxes.
    pub(super) fn bytes_collected(&self) -> u64 {
        let Some(part) = self.part.as_ref().filter(|part| !part.copies.is_empty()) else { return 0 };
        part.copies.len() as u64 * COPY_BYTES + part.body_bytes as u64
    }

    /// The part is handed out. Answers its copies that go into boxes.
    pub(super) fn end_part(&mut self) -> Vec<BoxCopy> {
        self.part.take().map(|part| part.copies).unwrap_or_default()
    }

    /// The transaction is over. Answers the chats that are with all members by now, and those of which nothing is
    /// committed; parts of others that were not committed are handed out again.
    pub(super) fn end_turn(&mut self, committed: bool) -> Vec<Ended> {
        let mut ended = Vec::new();
        for (user, line) in &mut self.lines {
            if line.chat.as_mut().is_some_and(|chat| chat.end_turn(committed)) {
                ended.push(*user);
            }
        }
        if !committed {
            self.pause_us = RETRY_US;
        }
        // A map has no order: the same events give the same sequence.
        ended.sort_unstable();
        ended.into_iter().filter_map(|user| self.end_line(user)).collect()
    }

    fn end_line(&mut self, user: UserId) -> Option<Ended> {
        let Line { chat, behind } = self.lines.remove(&user)?;
        let chat = chat?;
        self.turns.retain(|other| *other != user);
        let waited =
            behind.iter().map(|ask| if let Ask::Chat(message) = ask { message.body.size() } else { 0 });
        self.bytes -= chat.body.size() + waited.sum::<usize>();
        Some(Ended { chat, behind })
    }
}

impl FanOut {
    /// A chat that no member has yet, but those whom an earlier attempt has reached.
    pub(super) fn new(
        message: &Message,
        group: Arc<CachedGroup>,
        tracker: Option<Arc<DeliveryTracker>>,
        reached: Vec<UserId>,
    ) -> Self {
        FanOut {
            reply_to: message.reply_to.clone(),
            from: message.from,
            body: message.body.clone(),
            group,
            tracker,
            reached,
            next: 0,
            again: Vec::new(),
            in_batch: Vec::new(),
            is_in_batch: false,
            begun: false,
            rests_on_commit: false,
        }
    }

    /// The next member who has to get a copy.
    pub(super) fn next(&mut self) -> Option<UserId> {
        if let Some(member) = self.again.pop() {
            return Some(member);
        }
        loop {
            let member = *self.group.members.get(self.next)?;
            self.next += 1;
            if member != self.from {
                return Some(member);
            }
        }
    }

    /// True exactly when each member's copy is on its way, and none of them rests on the transaction under way.
    fn is_over(&self) -> bool {
        self.is_handed_out() && self.in_batch.is_empty()
    }

    /// True exactly when each member has had a turn.
    pub(super) fn is_handed_out(&self) -> bool {
        self.again.is_empty() && self.next >= self.group.members.len()
    }

    /// The copy of a member.
    pub(super) fn copy(&self) -> Chat {
        let (body, group) = (self.body.clone(), Some(Arc::clone(&self.group.name)));
        Chat {
            body,
            group,
            tracker: self.tracker.clone(),
            other_copy: OtherCopy::Here,
            on_failure: OnFailure::Group,
        }
    }

    /// A part is handed out in the transaction under way.
    pub(super) fn begin_part(&mut self) {
        self.is_in_batch = true;
    }

    /// A member's copy could not be stored now, and is handed out again.
    pub(super) fn try_again(&mut self, member: UserId) {
        self.again.push(member);
    }

    /// The transaction is over. True exactly when the chat is over with it, or has failed.
    fn end_turn(&mut self, committed: bool) -> bool {
        let was_in_batch = std::mem::take(&mut self.is_in_batch);
        if committed {
            self.begun |= was_in_batch;
            self.in_batch.clear();
        } else if was_in_batch && !self.begun {
            return true;
        } else {
            let unsecured = self.in_batch.len();
            if let Some(tracker) = &self.tracker {
                tracker.unsecure(unsecured);
            }
            self.again.append(&mut self.in_batch);
        }
        self.is_over()
    }

    /// Members who have not had their turn.
    pub(super) fn rest(&mut self) -> usize {
        std::iter::from_fn(|| self.next()).count()
    }
}
