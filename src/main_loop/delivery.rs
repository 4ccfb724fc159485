//! Chats that go through main: to the receiver's channel, into the hands of a settlement, or into the box.
//!
//! On main.

use super::login::{HANDOVER_BYTES, HANDOVER_COUNT};
use super::state::{MainLoop, through};
use super::transaction::{AfterCommit, PendingWrite};
use crate::channel::{ChannelId, SessionNo};
use crate::ids::{GroupId, Mid, UserId};
use crate::message::chat::{Body, Chat, OnFailure, OtherCopy};
use crate::message::command::WorkerCommand;
use crate::message::delivery::DeliveryTracker;
use crate::message::reply::Answer;
use crate::message::reply_to::Completes;
use crate::message::reply_to::ReplyTo;
use crate::message::request::{Destination, Message};
use crate::protocol::chat_object::read_delivered;
use crate::protocol::errno::Errno;
use crate::protocol::name::MAX_NAME_CHARS;
use crate::store::DedupRecord;
use crate::store::{BoxCopy, BoxUsage, COPY_BYTES, Storage, StoredMessage};
use crate::sync::Arc;

/// Where a chat has come to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Placement {
    /// Into the box, if the batch is committed.
    Kept,
    /// Nowhere, for the batch has failed already.
    NotStored,
    /// Somewhere else, or nowhere and its sender has been told.
    Elsewhere,
}

impl<St: Storage, S: Send + 'static> MainLoop<St, S> {
    /// A chat to one user or to a group.
    pub(crate) fn chat(&mut self, message: &Message) {
        let ticket = match message.fingerprint {
            None => None,
            Some(fingerprint) => match self.new_ticket(message, fingerprint) {
                Some(ticket) => Some(ticket),
                None => return,
            },
        };
        match &message.to {
            Destination::User(user) => self.chat_to_user(*user, message, ticket),
            Destination::Group(group) => self.chat_to_group(*group, message, ticket),
            Destination::Name(name) => self.chat_to_name(name, message, ticket),
        }
    }

    /// A ticket for a chat with `seq`; none for a repetition, which is answered with the first.
    fn new_ticket(&mut self, message: &Message, fingerprint: u128) -> Option<Arc<DeliveryTracker>> {
        let asker = message.asker.clone();
        let now_us = self.now.mono_us;
        let acceptance = DedupRecord { sender: message.from, fingerprint };
        let known = self.repetitions.find(acceptance, now_us);
        if let Some(known) = &known {
            let late = known.join(asker).err();
            if late.is_none() || known.succeeded() {
                self.let_go_on(&message.asker, false);
                if let Some(asker) = late {
                    self.batch.then(AfterCommit::Safe { ticket: known.for_repetition(asker), copies: 1 });
                }
                return None;
            }
        }
        let ticket = DeliveryTracker::new(message.asker.clone(), Some(acceptance));
        if known.is_some_and(|failed| failed.has_notes()) {
            ticket.expect_notes();
        }
        self.repetitions.remember(acceptance, &ticket, now_us);
        Some(ticket)
    }

    fn chat_to_name(&mut self, name: &str, message: &Message, ticket: Option<Arc<DeliveryTracker>>) {
        let online = self.around.registry.named(name);
        let found = match online {
            Some(user) => Some(Some(user)),
            None => self.batch.attempt(|store| Ok(store.user_called(name)?.map(|row| row.id))),
        };
        match found {
            None => self.refuse_chat(&message.asker, ticket, Errno::NotStored),
            Some(Some(user)) => self.chat_to_user(user, message, ticket),
            Some(None) => {
                // Nobody has a longer name, and the error may not be longer than what was sent.
                let text: String =
                    "no such user: ".chars().chain(name.chars().take(MAX_NAME_CHARS)).collect();
                let mut letter = through(&message.asker, Some(Errno::NoSuchUser));
                if let WorkerCommand::Answer { answer: Some(Answer::Error { text: said, .. }), .. } =
                    &mut letter
                {
                    *said = text.into();
                }
                self.post(message.asker.channel, letter);
            }
        }
    }

    fn chat_to_user(&mut self, user: UserId, message: &Message, ticket: Option<Arc<DeliveryTracker>>) {
        let asker = &message.asker;
        let fault = match self.person(user) {
            Err(_) => Some(Errno::NotStored),
            Ok(None) => Some(Errno::NoSuchUser),
            Ok(Some(_)) => None,
        };
        if let Some(errno) = fault {
            return self.refuse_chat(asker, ticket, errno);
        }
        let told =
            if ticket.is_some() { OnFailure::ByTicket } else { OnFailure::Sender(Box::new(asker.clone())) };
        let answered = ticket.clone();
        let placed = self.place(
            user,
            Chat {
                body: message.body.clone().addressed_to(user),
                group: None,
                ticket,
                custody: OtherCopy::Here,
                told,
            },
        );
        match answered {
            // It is settled with this batch.
            Some(ticket) if placed != Placement::Elsewhere => ticket.answer_lets_go_on(),
            answered => self.let_go_on(asker, answered.is_none() && placed == Placement::Kept),
        }
    }

    fn chat_to_group(&mut self, group: GroupId, message: &Message, ticket: Option<Arc<DeliveryTracker>>) {
        let asker = &message.asker;
        let known = match self.members(group) {
            Ok(Some(known)) => known,
            Ok(None) => return self.refuse_chat(asker, ticket, Errno::NoSuchGroup),
            Err(_) => return self.refuse_chat(asker, ticket, Errno::NotStored),
        };
        if known.members.binary_search(&message.from).is_err() {
            return self.refuse_chat(asker, ticket, Errno::NotMember);
        }
        if self.is_a_worker_full() {
            return self.refuse_chat(asker, ticket, Errno::Busy);
        }
        self.fan_out(message, known, ticket);
    }

    /// A copy that nobody has to get.
    pub(super) fn count_off(&mut self, ticket: Option<Arc<DeliveryTracker>>) -> Placement {
        if let Some(ticket) = ticket {
            self.secure(&ticket, 1);
            self.batch.then(AfterCommit::CountOff { ticket, copies: 1 });
        }
        Placement::Elsewhere
    }

    /// A copy is in the kernel. Its sender is answered when that is stored, or cannot be: it is handed over.
    pub(crate) fn handed(&mut self, ticket: Arc<DeliveryTracker>) {
        self.count_off(Some(ticket));
    }

    /// Notes that so many more copies are safe, if the batch is committed; the last one stores that the chat was accepted.
    pub(super) fn secure(&mut self, ticket: &DeliveryTracker, copies: usize) {
        if let Some(accepted) = ticket.secure(copies) {
            let at_ms = self.trusted_ms();
            self.batch.attempt(|store| accepted.write(store, at_ms));
        }
    }

    /// Brings a chat to where its receiver is: a channel, a settlement that is awaited, or the box.
    pub(crate) fn place(&mut self, user: UserId, chat: Chat) -> Placement {
        match self.forward(user, chat) {
            Ok(placed) => placed,
            Err(chat) => self.keep(user, chat),
        }
    }

    /// The same for a chat that has waited. Its sender has gone on, so that its way into the box is not given up.
    pub(crate) fn place_held(&mut self, user: UserId, chat: Chat) {
        let Err(chat) = self.forward(user, chat) else { return };
        let usage = if matches!(chat.told, OnFailure::Nobody) { None } else { self.usage(user) };
        if usage.is_some_and(|usage| self.with_one_more(usage, &chat.body.object()) == Err(Errno::BoxFull)) {
            return self.fail(user, chat, Errno::BoxFull);
        }
        self.around.metrics.chats_kept.add(1);
        self.save(user, chat);
    }

    /// Has a chat wait, or sends it to its receiver's channel. Gives back what belongs into the box.
    fn forward(&mut self, user: UserId, chat: Chat) -> Result<Placement, Chat> {
        let batch = self.batch.number();
        let outlet = Arc::clone(&self.around.outlet);
        let Some(person) = self.people.find(user) else { return Err(chat) };
        if person.holds_messages() {
            if person.holds_too_many() && !matches!(chat.told, OnFailure::Nobody) {
                self.fail(user, chat, Errno::Busy);
            } else {
                person.hold(chat);
            }
            return Ok(Placement::Elsewhere);
        }
        if person.unconfirmed.is_some() {
            return self.send_numbered(user, chat);
        }
        let Some(session) = person.session.as_mut().filter(|session| session.backlog.is_none()) else {
            return Err(chat);
        };
        let (channel, number) = (session.channel, session.number);
        let worker = self.around.table.worker(channel);
        if outlet.is_full(worker) {
            self.fail(user, chat, Errno::Busy);
            return Ok(Placement::Elsewhere);
        }
        session.addressed = Some(batch);
        // Should the session be over by then, or its login not be committed, the letter comes back.
        let letter = WorkerCommand::Chat { to: channel, session: number, user, chat, origin: None };
        self.batch.then(AfterCommit::Post { worker, letter });
        Ok(Placement::Elsewhere)
    }

    /// Puts a chat into a box, if there is room.
    fn keep(&mut self, user: UserId, chat: Chat) -> Placement {
        self.keep_as(user, chat, false).map_or_else(|placed| placed, |_| Placement::Kept)
    }

    /// The same, and whether it is sent to a client that confirms as soon as it is there. Answers its number, or where
    /// it has come to instead.
    pub(crate) fn keep_as(&mut self, user: UserId, chat: Chat, sent: bool) -> Result<Mid, Placement> {
        let Some(usage) = self.usage(user) else { return Err(self.not_stored(user, chat)) };
        let object = chat.body.object();
        let usage = match self.with_one_more(usage, &object) {
            Err(Errno::NotStored) => return Err(self.not_stored(user, chat)),
            Err(errno) => {
                self.fail(user, chat, errno);
                return Err(Placement::Elsewhere);
            }
            Ok(usage) => usage,
        };
        let at_ms = self.trusted_ms();
        let Some(mid) = self.next_mid(user) else { return Err(self.not_stored(user, chat)) };
        // A chat to a group goes into all boxes of a part together.
        let is_part = self.fan_outs.collect(BoxCopy { user, mid, sent });
        if !is_part {
            self.batch.count_bytes(object.len());
            if self.batch.attempt(|store| store.keep(user, mid, at_ms, &object, sent)).is_none() {
                return Err(self.not_stored(user, chat));
            }
        }
        if let Some(person) = self.people.find(user) {
            person.remember_usage(usage);
        }
        self.around.metrics.chats_kept.add(1);
        if let Some(ticket) = chat.ticket.filter(|_| !is_part) {
            self.secure(&ticket, 1);
            self.batch.then(AfterCommit::Safe { ticket, copies: 1 });
        }
        Ok(mid)
    }

    /// What a box holds with one more message. An error where that is too much for it, or for all boxes together.
    fn with_one_more(&mut self, usage: BoxUsage, object: &[u8]) -> Result<BoxUsage, Errno> {
        let more = usage.with(object);
        if more.count > self.policy.box_messages || more.bytes > self.policy.box_bytes {
            return Err(Errno::BoxFull);
        }
        let collected = self.fan_outs.bytes_collected();
        // Its body is counted already where others of the same part have it.
        let bytes = COPY_BYTES + if collected > 0 { 0 } else { object.len() as u64 };
        let all = self.batch.attempt(Storage::kept_bytes).ok_or(Errno::NotStored)?;
        if all + collected + bytes <= self.policy.box_total { Ok(more) } else { Err(Errno::BoxFull) }
    }

    pub(crate) fn not_stored(&mut self, user: UserId, chat: Chat) -> Placement {
        if !self.fan_outs.tries_again() {
            self.fail(user, chat, Errno::NotStored);
        }
        Placement::NotStored
    }

    /// A chat that could not be placed: its sender is told.
    pub(crate) fn fail(&mut self, user: UserId, chat: Chat, errno: Errno) {
        match (chat.ticket, chat.told) {
            (Some(ticket), OnFailure::Group) if errno == Errno::BoxFull => {
                self.secure(&ticket, 1);
                self.batch.then(AfterCommit::Full { ticket, user });
            }
            (Some(ticket), _) => self.batch.then(AfterCommit::Failed { ticket, errno }),
            (None, OnFailure::Sender(asker)) => {
                let answer = Some(error(&asker, errno));
                let letter =
                    WorkerCommand::Answer { channel: asker.channel, settles: Completes::Nothing, answer };
                self.post(asker.channel, letter);
            }
            // A sender without `seq` has asked to hear of no member in particular.
            (None, OnFailure::Group) => {}
            (None, OnFailure::ByTicket | OnFailure::Nobody) => {
                tracing::error!(%user, "an accepted message could not be placed");
            }
        }
    }

    pub(super) fn refuse_chat(
        &mut self,
        asker: &ReplyTo,
        ticket: Option<Arc<DeliveryTracker>>,
        errno: Errno,
    ) {
        if let Some(ticket) = ticket {
            self.let_go_on(asker, false);
            self.batch.then(AfterCommit::Failed { ticket, errno });
        } else {
            self.refuse_request(asker, errno);
        }
    }

    /// A channel has taken over messages of its user's box: they are gone from it, and more may follow.
    pub(crate) fn taken_over(&mut self, user: UserId, key: (ChannelId, SessionNo), upto: Mid) {
        self.batch.owe(PendingWrite::DropKept { user, upto });
        let Some(person) = self.people.find(user) else { return };
        person.forget_usage();
        if let Some(session) = &person.session
            && (session.channel, session.number) == key
            && session.backlog.as_deref().is_some_and(|sent| *sent <= upto)
        {
            self.refills.push(user);
        }
    }

    /// Sends more of the box to those who have taken over all they were sent.
    pub(crate) fn refill(&mut self) {
        if self.now.mono_us < self.refill_at_us {
            return;
        }
        let mut users = std::mem::take(&mut self.refills);
        // Twice in one turn would be to look behind what is not committed yet.
        users.sort_unstable();
        users.dedup();
        let mut users = users.into_iter();
        while let Some(user) = users.next() {
            if self.refill_one(user).is_none() {
                // The store cannot be read now; the next batch tries again.
                self.refills.push(user);
                self.refills.extend(users);
                return;
            }
        }
    }

    fn refill_one(&mut self, user: UserId) -> Option<()> {
        let session = self.people.find(user).and_then(|person| person.session.as_ref());
        let Some((session, sent)) = session.and_then(|session| Some((session, *session.backlog.as_deref()?)))
        else {
            return Some(());
        };
        if session.confirms {
            return self.refill_window(user, sent);
        }
        let (channel, number) = (session.channel, session.number);
        let worker = self.around.table.worker(channel);
        let lines = session.lines;
        let kept = self.batch.attempt(|store| store.kept(user, sent, HANDOVER_COUNT, HANDOVER_BYTES))?;
        let last = kept.last().map(|kept| kept.mid);
        let mut letters: Vec<WorkerCommand> = self
            .chats_of(kept, lines)
            .into_iter()
            .map(|chat| WorkerCommand::Chat { to: channel, session: number, user, chat, origin: None })
            .collect();
        if last.is_none() {
            letters.push(WorkerCommand::Open { channel, session: number });
        }
        if let Some(session) = self.people.find(user).and_then(|person| person.session.as_mut()) {
            session.backlog = last.map(Box::new);
        }
        self.post_now(worker, &mut letters);
        Some(())
    }

    /// Letters that hang on no batch.
    pub(crate) fn post_now(&mut self, worker: usize, letters: &mut Vec<WorkerCommand>) {
        let mut refused = Vec::new();
        self.around.outlet.post(worker, letters, &mut refused);
        for letter in refused {
            self.came_back(letter);
        }
    }

    /// Chats that lie in a box, with the names of their groups for a client that speaks lines.
    pub(crate) fn chats_of(&mut self, kept: Vec<StoredMessage>, lines: bool) -> Vec<Chat> {
        kept.into_iter()
            .map(|kept| {
                let group = lines.then(|| read_delivered(&kept.body)?.groupid).flatten();
                let known = group.and_then(|group| self.members(group).ok().flatten());
                let group = known.map(|known| Arc::clone(&known.name));
                Chat::copied(Body::Object(kept.body.into()), group, OtherCopy::Box(kept.mid))
            })
            .collect()
    }

    /// What a box holds. `None` when the batch has failed.
    pub(crate) fn usage(&mut self, user: UserId) -> Option<BoxUsage> {
        if let Some(usage) = self.people.find(user)?.usage() {
            return Some(usage);
        }
        let usage = self.batch.attempt(|store| store.box_usage(user))?;
        self.people.find(user)?.remember_usage(usage);
        Some(usage)
    }

    /// The next number in a box. The epoch it belongs to is written first where this run has not begun one.
    pub(crate) fn next_mid(&mut self, user: UserId) -> Option<Mid> {
        if self.person(user).is_err() {
            return None;
        }
        let unix_ms = self.now.unix_ms;
        let person = self.people.find(user)?;
        if !person.has_numbers() {
            let epoch = person.go_on_in_next_epoch(unix_ms);
            self.batch.attempt(|store| store.set_epoch(user, epoch))?;
        }
        Some(self.people.find(user)?.number())
    }

    /// The request is through main; those behind it may take the direct way again. A sender without `seq` hears
    /// nothing of a success, but of a commit that fails.
    pub(super) fn let_go_on(&mut self, asker: &ReplyTo, rests_on_commit: bool) {
        if rests_on_commit {
            self.batch.then(AfterCommit::GoOn { asker: asker.clone() });
        } else {
            self.post(asker.channel, through(asker, None));
        }
    }

    /// A request without a ticket has failed.
    pub(crate) fn refuse_request(&mut self, asker: &ReplyTo, errno: Errno) {
        self.post(asker.channel, through(asker, Some(errno)));
    }

    /// A request without a ticket has succeeded, if its batch is committed.
    pub(crate) fn grant(&mut self, asker: &ReplyTo, id: Option<GroupId>) {
        let worker = self.around.table.worker(asker.channel);
        let (channel, settles) = (asker.channel, Completes::Request);
        let done = |seq| Answer::Done { re: asker.re, seq, id, full: Vec::new() };
        let answer = asker.seq.clone().map(done);
        let letter = WorkerCommand::Answer { channel, settles, answer };
        let otherwise =
            WorkerCommand::Answer { channel, settles, answer: Some(error(asker, Errno::NotStored)) };
        self.batch.then(AfterCommit::Commit { worker, letter, otherwise: Box::new(otherwise) });
    }
}

fn error(asker: &ReplyTo, errno: Errno) -> Answer {
    Answer::Error { errno, text: errno.text().into(), re: Some(asker.re), seq: asker.seq.clone() }
}
