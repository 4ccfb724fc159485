//! Group chats on their way to many members: work that main puts down at the end of its share of a turn and takes up
//! again in the next.
//!
//! What a peer sends may cost a turn of main no more than its share, however many members a group has. So a chat is
//! handed out in parts. The bodies of a part are stored once ([`Storage::keep_copies`]). While a chat of a user is
//! under way, the user's later requests wait behind it, and so does the user's next login: messages of one sender to one
//! receiver arrive in the order sent.
//!
//! On main.

use super::delivery::Placement;
use super::friends_groups::CachedGroup;
use super::state::{MainLoop, RETRY_US};
use super::transaction::AfterCommit;
use crate::hashing::IdMap;
use crate::ids::UserId;
use crate::message::chat::{Body, Chat, OnFailure, OtherCopy};
use crate::message::delivery::DeliveryTracker;
use crate::message::reply_to::ReplyTo;
use crate::message::request::{Ask, Message};
use crate::protocol::errno::Errno;
use crate::store::{BoxCopy, COPY_BYTES, Storage};
use crate::sync::Arc;
use std::collections::VecDeque;

/// What the chats that come in one turn of main may cost, and what those under way may cost, in copies: some 1 ms each.
const TURN_COST: usize = if cfg!(test) { 3 } else { 1024 };
/// What one of many chats under way may cost in a turn at least, in copies: fewer would store its body too often.
const PART_COST: usize = if cfg!(test) { 1 } else { 128 };
/// What a copy costs whose receiver has to be read from the store first, in copies.
const COLD_COST: usize = if cfg!(test) { 2 } else { 8 };
/// Bytes handed to a worker that cost as much as a copy: the worker copies them once for each receiver.
const BYTES_HANDED: usize = 8 * 1024;
/// Bytes stored that cost as much as a copy.
const BYTES_STORED: usize = 1024;
/// Copies from which on a short body is stored once for all of them rather than with each.
const SHARED_MIN: usize = 8;
/// The same for a body of more bytes than that.
const LONG_BODY_BYTES: usize = 512;
const SHARED_LONG_MIN: usize = 2;
/// Bytes of bodies under way or waiting behind others; past it, senders get errno 18.
const WAITING_BYTES_MAX: usize = 32 * 1024 * 1024;
/// How long a chat waits for a worker whose mailbox is full, in microseconds.
const FULL_US: u64 = 2_000;

/// A chat on its way to the members of a group.
#[derive(Debug)]
pub(crate) struct FanOut {
    asker: ReplyTo,
    from: UserId,
    body: Body,
    group: Arc<CachedGroup>,
    ticket: Option<Arc<DeliveryTracker>>,
    /// Members whom an earlier attempt has reached already, by number.
    reached: Vec<UserId>,
    /// The place of the next member.
    next: usize,
    /// Members whose part was not committed.
    again: Vec<UserId>,
    /// Members into whose boxes the batch under way puts a copy.
    in_batch: Vec<UserId>,
    /// True exactly when the batch under way has a part of it.
    is_in_batch: bool,
    /// True exactly when a part of it is committed: then the rest has to follow.
    begun: bool,
    /// True exactly when some copy of the first part rests on the batch under way.
    rests_on_commit: bool,
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
pub(crate) struct FanOuts {
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
    pub(crate) fn is_under_way(&self, user: UserId) -> bool {
        self.lines.contains_key(&user)
    }

    /// How many chats are under way.
    pub(crate) fn len(&self) -> usize {
        self.lines.len()
    }

    /// How long main may sleep, in microseconds.
    pub(crate) fn timeout_us(&self) -> Option<u64> {
        (!self.lines.is_empty()).then_some(self.pause_us)
    }

    /// Has a copy of the part that is being handed out go into a box. False when there is no such part.
    pub(crate) fn collect(&mut self, copy: BoxCopy) -> bool {
        let Some(part) = &mut self.part else { return false };
        part.copies.push(copy);
        true
    }

    /// True exactly when what cannot be stored now is handed out again.
    pub(crate) fn tries_again(&self) -> bool {
        self.part.as_ref().is_some_and(|part| part.is_later)
    }

    /// Bytes that the part which is being handed out will add to the boxes.
    pub(crate) fn bytes_collected(&self) -> u64 {
        let Some(part) = self.part.as_ref().filter(|part| !part.copies.is_empty()) else { return 0 };
        part.copies.len() as u64 * COPY_BYTES + part.body_bytes as u64
    }

    /// True exactly when no more bytes may wait.
    fn is_full(&self) -> bool {
        self.bytes >= WAITING_BYTES_MAX
    }

    fn wait(&mut self, fan_out: FanOut) {
        self.bytes += fan_out.body.size();
        self.turns.push_back(fan_out.from);
        let from = fan_out.from;
        self.lines.insert(from, Line { chat: Some(Box::new(fan_out)), behind: VecDeque::new() });
    }
}

impl FanOut {
    fn new(message: &Message, group: Arc<CachedGroup>, ticket: Option<Arc<DeliveryTracker>>) -> Self {
        FanOut {
            asker: message.asker.clone(),
            from: message.from,
            body: message.body.clone(),
            group,
            ticket,
            reached: Vec::new(),
            next: 0,
            again: Vec::new(),
            in_batch: Vec::new(),
            is_in_batch: false,
            begun: false,
            rests_on_commit: false,
        }
    }

    /// The next member who has to get a copy.
    fn next(&mut self) -> Option<UserId> {
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

    /// True exactly when each member's copy is on its way, and none of them rests on the batch under way.
    fn is_over(&self) -> bool {
        self.is_handed_out() && self.in_batch.is_empty()
    }

    fn is_handed_out(&self) -> bool {
        self.again.is_empty() && self.next >= self.group.members.len()
    }

    /// Members who have not had their turn.
    fn rest(&mut self) -> usize {
        std::iter::from_fn(|| self.next()).count()
    }
}

impl<St: Storage, S: Send + 'static> MainLoop<St, S> {
    /// A chat to a group whose sender is a member of it.
    pub(super) fn fan_out(
        &mut self,
        message: &Message,
        group: Arc<CachedGroup>,
        ticket: Option<Arc<DeliveryTracker>>,
    ) {
        if self.fan_outs.is_full() {
            return self.refuse_chat(&message.asker, ticket, Errno::Busy);
        }
        let mut reached = Vec::new();
        if let Some(ticket) = &ticket {
            if ticket.has_notes()
                && let Some(acceptance) = ticket.note_reached()
            {
                let Some(noted) = self.batch.attempt(|store| store.reached(acceptance)) else {
                    return self.refuse_chat(&message.asker, Some(Arc::clone(ticket)), Errno::NotStored);
                };
                reached = noted;
            }
            // The ticket's own copy is counted off last, so that it cannot settle before all are counted in.
            ticket.expect_more(group.members.len() - 1);
        }
        let mut fan_out = FanOut::new(message, group, ticket);
        fan_out.reached = reached;
        let mut left = self.fan_outs.left;
        self.hand_out(&mut fan_out, &mut left);
        self.fan_outs.left = left;
        if !fan_out.is_handed_out() {
            self.note_reached(&fan_out, 0);
            return self.fan_outs.wait(fan_out);
        }
        self.let_go_on(&fan_out.asker, fan_out.ticket.is_none() && fan_out.rests_on_commit);
        self.count_off(fan_out.ticket.clone());
        self.note_reached(&fan_out, 0);
    }

    /// Notes which members have their copies from the transaction under way, from that one of them on, unless it stores
    /// that the chat is accepted.
    fn note_reached(&mut self, chat: &FanOut, from: usize) {
        let members = &chat.in_batch[from..];
        if !members.is_empty()
            && let Some(acceptance) = chat.ticket.as_ref().and_then(|ticket| ticket.note_reached())
        {
            let at_ms = self.trusted_ms();
            self.batch.attempt(|store| store.note_reached(acceptance, at_ms, members));
        }
    }

    /// Has a request wait while a chat of its user is under way. Gives back what need not wait.
    pub(crate) fn wait_in_line(&mut self, user: UserId, ask: Ask) -> Option<Ask> {
        let is_full = self.fan_outs.is_full();
        let Some(line) = self.fan_outs.lines.get_mut(&user) else { return Some(ask) };
        if let Ask::Chat(message) = &ask {
            if is_full {
                let ticket = message.fingerprint.map(|_| DeliveryTracker::new(message.asker.clone(), None));
                self.refuse_chat(&message.asker, ticket, Errno::Busy);
                return None;
            }
            self.fan_outs.bytes += message.body.size();
        }
        line.behind.push_back(ask);
        None
    }

    /// Hands out more of the chats under way, some of each.
    pub(crate) fn go_on_handing_out(&mut self) {
        self.fan_outs.left = TURN_COST;
        if self.fan_outs.lines.is_empty() {
            return;
        }
        self.fan_outs.pause_us = 0;
        if self.is_a_worker_full() {
            self.fan_outs.pause_us = FULL_US;
            return;
        }
        let mut left = TURN_COST;
        let share = (TURN_COST / self.fan_outs.lines.len()).max(PART_COST);
        for _ in 0..self.fan_outs.turns.len() {
            if left == 0 {
                return;
            }
            let Some(user) = self.fan_outs.turns.pop_front() else { return };
            let Some(mut chat) = self.fan_outs.lines.get_mut(&user).and_then(|line| line.chat.take()) else {
                continue;
            };
            let may_cost = share.min(left);
            let mut unspent = may_cost;
            let before = chat.in_batch.len();
            self.hand_out(&mut chat, &mut unspent);
            self.note_reached(&chat, before);
            left -= may_cost - unspent;
            if let Some(line) = self.fan_outs.lines.get_mut(&user) {
                line.chat = Some(chat);
            }
            self.fan_outs.turns.push_back(user);
        }
    }

    /// Hands out a part that costs no more than `left`, but for its last copy.
    fn hand_out(&mut self, chat: &mut FanOut, left: &mut usize) {
        let body_bytes = chat.body.size();
        self.fan_outs.part = Some(Part { copies: Vec::new(), body_bytes, is_later: chat.begun });
        chat.is_in_batch |= *left > 0;
        while *left > 0
            && let Some(member) = chat.next()
        {
            if chat.reached.binary_search(&member).is_ok() {
                self.count_off(chat.ticket.clone());
                *left -= 1;
                continue;
            }
            let is_known = self.people.look(member).is_some_and(|person| {
                person.session.is_some() || person.has_numbers() && person.usage().is_some()
            });
            let collected = self.fan_outs.bytes_collected();
            let found = self.person(member).map(|found| found.is_some());
            let told = OnFailure::Group;
            let (body, name) = (chat.body.clone(), Arc::clone(&chat.group.name));
            let (ticket, custody) = (chat.ticket.clone(), OtherCopy::Here);
            let copy = Chat { body, group: Some(name), ticket, custody, told };
            let placed = match found {
                Ok(true) => self.place(member, copy),
                Ok(false) => self.count_off(copy.ticket),
                Err(_) => self.not_stored(member, copy),
            };
            if placed == Placement::NotStored && chat.begun {
                chat.again.push(member);
                break;
            }
            chat.rests_on_commit |= placed != Placement::Elsewhere;
            let is_handed = self.fan_outs.bytes_collected() == collected;
            let cost =
                if is_known { 1 } else { COLD_COST } + if is_handed { body_bytes / BYTES_HANDED } else { 0 };
            *left = left.saturating_sub(cost);
        }
        let copies = self.fan_outs.part.take().map(|part| part.copies).unwrap_or_default();
        if !copies.is_empty() {
            *left = left.saturating_sub(body_bytes / BYTES_STORED);
            self.keep_part(chat, &copies);
        }
    }

    /// Puts the copies of a part into their boxes.
    fn keep_part(&mut self, chat: &mut FanOut, copies: &[BoxCopy]) {
        let (object, at_ms) = (chat.body.object(), self.trusted_ms());
        self.batch.count_bytes(object.len());
        let shared_min = if object.len() > LONG_BODY_BYTES { SHARED_LONG_MIN } else { SHARED_MIN };
        self.batch.attempt(|store| {
            if copies.len() >= shared_min {
                return store.keep_copies(copies, at_ms, &object);
            }
            copies.iter().try_for_each(|copy| store.keep(copy.user, copy.mid, at_ms, &object, copy.sent))
        });
        chat.in_batch.extend(copies.iter().map(|copy| copy.user));
        let Some(ticket) = &chat.ticket else { return };
        let count = copies.len();
        self.secure(ticket, count);
        let ticket = Arc::clone(ticket);
        self.batch.then(if chat.begun {
            AfterCommit::SafeOrAgain { ticket, copies: count }
        } else {
            AfterCommit::Safe { ticket, copies: count }
        });
    }

    /// The batch is over. Chats that are with all members by now let their senders go on; parts that were not committed
    /// are handed out again, or fail with their chat where nothing of it is committed.
    pub(crate) fn end_parts(&mut self, committed: bool) {
        if self.fan_outs.lines.is_empty() {
            return;
        }
        let mut ended = Vec::new();
        for (user, line) in &mut self.fan_outs.lines {
            let Some(chat) = &mut line.chat else { continue };
            let was_in_batch = std::mem::take(&mut chat.is_in_batch);
            if committed {
                chat.begun |= was_in_batch;
                chat.in_batch.clear();
            } else if was_in_batch && !chat.begun {
                ended.push(*user);
                continue;
            } else {
                let unsecured = chat.in_batch.len();
                if let Some(ticket) = &chat.ticket {
                    ticket.unsecure(unsecured);
                }
                chat.again.append(&mut chat.in_batch);
            }
            if chat.is_over() {
                ended.push(*user);
            }
        }
        if !committed {
            self.fan_outs.pause_us = RETRY_US;
        }
        // The order of a map is nobody's.
        ended.sort_unstable();
        for user in ended {
            self.end_line(user);
        }
    }

    /// A chat is over, or has failed in its first part. What has waited behind it has its turn.
    fn end_line(&mut self, user: UserId) {
        let Some(Line { chat: Some(mut chat), behind }) = self.fan_outs.lines.remove(&user) else { return };
        self.fan_outs.turns.retain(|other| *other != user);
        self.fan_outs.bytes -= chat.body.size();
        let has_failed = !chat.begun;
        let rest = chat.rest();
        let FanOut { asker, ticket, .. } = *chat;
        match ticket {
            // The copies of the first part have failed by themselves.
            Some(ticket) if has_failed => {
                self.let_go_on(&asker, false);
                self.batch.then(AfterCommit::CountOff { ticket: Arc::clone(&ticket), copies: rest });
                self.batch.then(AfterCommit::Failed { ticket, errno: Errno::NotStored });
            }
            None if has_failed => self.refuse_request(&asker, Errno::NotStored),
            ticket => {
                self.let_go_on(&asker, false);
                self.count_off(ticket);
            }
        }
        for ask in behind {
            if let Ask::Chat(message) = &ask {
                self.fan_outs.bytes -= message.body.size();
            }
            self.answer(ask);
        }
    }

    /// True exactly when some worker has so much mail that it should get no new chats.
    pub(super) fn is_a_worker_full(&self) -> bool {
        let outlet = &self.around.outlet;
        (0..outlet.workers()).any(|worker| outlet.is_full(worker))
    }
}

impl Ask {
    /// Whose later request it is: it waits while an earlier one is under way. A login is looked at when its user is
    /// known.
    pub(crate) fn user(&self) -> Option<UserId> {
        match self {
            Ask::Chat(message) => Some(message.from),
            Ask::AddFriend { user, .. } | Ask::CreateGroup { user, .. } | Ask::JoinGroup { user, .. } => {
                Some(*user)
            }
            _ => None,
        }
    }
}
