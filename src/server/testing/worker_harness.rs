//! Workers alone: clients and commands go in, bytes and events for main come out. The test takes the part of main.

use super::builders::{accepted, texts};
use super::fake_socket::{Client, FakeSocket, Fd, connection};
use super::fixtures::{CAPACITY, Fixtures};
use crate::channel::{ChannelId, SessionNo, Stage};
use crate::ids::{Epoch, UserId};
use crate::message::chat::Sender;
use crate::message::command::{WorkerCommand, WorkerSender};
use crate::message::event::Event;
use crate::message::reply::{Answer, LoggedIn};
use crate::message::reply_to::Completes;
use crate::offline_queue::closer::Kicker;
use crate::protocol::json::framing::Framer;
use crate::protocol::request::Caps;
use crate::registry::SessionEntry;
use crate::sync::Arc;
use crate::worker::{Codec, Limits, Mailbox, Mailboxes, Wake, WorkerState};

/// Nobody waits in a poller here.
struct NoWake;

impl Wake for NoWake {
    fn wake(&self) {}
}

/// Workers without threads.
pub(crate) struct WorkerHarness {
    pub(crate) fixtures: Fixtures,
    pub(crate) worker_sender: Arc<dyn WorkerSender>,
    pub(crate) kicker: Kicker<Fd>,
    pub(crate) states: Vec<WorkerState<FakeSocket>>,
    clients: Vec<(ChannelId, Client)>,
}

impl WorkerHarness {
    /// One worker.
    pub(crate) fn new() -> Self {
        WorkerHarness::with(1, CAPACITY)
    }

    pub(crate) fn with(workers: usize, capacity: usize) -> Self {
        WorkerHarness::limited(workers, capacity, |_| ())
    }

    /// With other limits than usual.
    pub(crate) fn limited(workers: usize, capacity: usize, limit: impl FnOnce(&mut Limits)) -> Self {
        WorkerHarness::among(Fixtures::new(capacity), workers, limit)
    }

    /// Around shared parts that the test has made.
    pub(crate) fn among(fixtures: Fixtures, workers: usize, limit: impl FnOnce(&mut Limits)) -> Self {
        let mut limits = fixtures.limits();
        limit(&mut limits);
        let mailboxes: Vec<_> = (0..workers).map(|_| Arc::new(Mailbox::new(Box::new(NoWake)))).collect();
        let worker_sender: Arc<dyn WorkerSender> =
            Arc::new(Mailboxes::new(Arc::clone(&fixtures.table), mailboxes.clone()));
        let (handles, shared) = (fixtures.surroundings(&worker_sender), Fixtures::shared(limits));
        let now = fixtures.clock.now();
        let numbered = mailboxes.into_iter().enumerate();
        let states = numbered
            .map(|(index, mailbox)| {
                WorkerState::new(index, Arc::clone(&handles), Arc::clone(&shared), mailbox, now)
            })
            .collect();
        WorkerHarness {
            kicker: fixtures.kicker(&worker_sender),
            fixtures,
            worker_sender,
            states,
            clients: Vec::new(),
        }
    }

    /// A client connects to the first worker.
    pub(crate) fn accept(&mut self) -> (ChannelId, Client) {
        self.accept_at(0)
    }

    pub(crate) fn accept_at(&mut self, worker: usize) -> (ChannelId, Client) {
        self.accept_from("127.0.0.1:1", worker)
    }

    pub(crate) fn accept_from(&mut self, peer: &str, worker: usize) -> (ChannelId, Client) {
        self.take_in(peer, worker, Codec::Json(Framer::default()), connection())
    }

    pub(crate) fn accept_speaking(&mut self, worker: usize, codec: Codec) -> (ChannelId, Client) {
        self.take_in("127.0.0.1:1", worker, codec, connection())
    }

    /// The same over a connection that is prepared already.
    pub(crate) fn accept_over(&mut self, worker: usize, ends: (FakeSocket, Client)) -> (ChannelId, Client) {
        self.take_in("127.0.0.1:1", worker, Codec::Json(Framer::default()), ends)
    }

    fn take_in(
        &mut self,
        peer: &str,
        worker: usize,
        codec: Codec,
        ends: (FakeSocket, Client),
    ) -> (ChannelId, Client) {
        self.try_accept(peer, worker, codec, ends).expect("a name is free")
    }

    /// A client connects, if a name is free for it.
    pub(crate) fn try_accept(
        &mut self,
        peer: &str,
        worker: usize,
        codec: Codec,
        (wire, client): (FakeSocket, Client),
    ) -> Result<(ChannelId, Client), FakeSocket> {
        let before: Vec<ChannelId> = self.fixtures.table.occupants().collect();
        self.states[worker].accept(wire, peer.parse().unwrap(), codec, |wire, _| wire)?;
        let mut present = self.fixtures.table.occupants();
        let channel = present.find(|channel| !before.contains(channel)).expect("it has a name now");
        self.clients.retain(|(known, _)| known.slot != channel.slot);
        self.clients.push((channel, client.clone()));
        Ok((channel, client))
    }

    /// Every worker takes its mailbox.
    pub(crate) fn begin(&mut self) {
        let now = self.fixtures.clock.now();
        self.states.iter_mut().for_each(|core| core.begin(now));
    }

    /// Every worker polls. Returns whether there was anything.
    pub(crate) fn poll(&mut self) -> bool {
        let mut any = false;
        for (channel, client) in &self.clients {
            let (readable, writable) = client.events();
            if readable || writable {
                any = true;
                let worker = self.fixtures.table.worker(*channel);
                self.states[worker].ready(channel.slot as usize, readable, writable);
            }
        }
        any
    }

    /// One worker ends its turn.
    pub(crate) fn finish_one(&mut self, worker: usize) {
        let clock = self.fixtures.clock;
        self.states[worker].finish(clock.now().mono_us, &|| clock.now());
    }

    /// Every worker ends its turn.
    pub(crate) fn finish(&mut self) {
        (0..self.states.len()).for_each(|worker| self.finish_one(worker));
    }

    /// A whole turn of every worker. Answers whether the poller had anything.
    pub(crate) fn turn(&mut self) -> bool {
        self.begin();
        let any = self.poll();
        self.finish();
        any
    }

    /// Main grants a login whose box is empty.
    pub(crate) fn greet(&self, channel: ChannelId, user: UserId) -> SessionNo {
        self.greet_with(channel, user, Caps::default())
    }

    /// The same for a client that can do more.
    pub(crate) fn greet_with(&self, channel: ChannelId, user: UserId, caps: Caps) -> SessionNo {
        let session = self.fixtures.table.begin_session(channel, user).expect("nobody is logged in there");
        let sender = Arc::new(Sender { id: user, name: format!("user {user}").into() });
        let worker = self.fixtures.table.worker(channel) as u16;
        let online = SessionEntry { channel, session, worker, direct: false, sender: Arc::clone(&sender) };
        self.fixtures.registry.enter(user, online);
        let login = LoggedIn {
            sender,
            session: Some(session),
            epoch: Epoch(1),
            caps,
            offline: Vec::new(),
            upto: None,
            open: true,
            friends: Vec::new(),
            groups: Vec::new(),
            more: false,
            token: None,
            seq: None,
        };
        let answer = Some(Answer::LoggedIn(Box::new(login)));
        self.post(WorkerCommand::Answer { channel, settles: Completes::Login, answer });
        session
    }

    /// Posts a command to a channel's worker.
    pub(crate) fn post(&self, command: WorkerCommand) {
        let channel = super::builders::Summary::of(&command).0;
        let worker = channel.map_or(0, |channel| self.fixtures.table.worker(channel));
        self.worker_sender.post(worker, &mut vec![command], &mut Vec::new());
    }

    /// A chat to a session.
    pub(crate) fn chat(&self, to: ChannelId, session: SessionNo, user: UserId, text: &str) {
        self.post(WorkerCommand::Chat { to, session, user, chat: accepted(text), origin: None });
    }

    /// Takes what was told to main.
    pub(crate) fn entries(&self) -> Vec<Event<Fd>> {
        let mut entries = Vec::new();
        self.fixtures.queue.pop_batch(usize::MAX, &mut entries);
        entries
    }

    /// Takes what was told to main, and answers what each settlement among it gives back.
    pub(crate) fn settlements(&self) -> Vec<(Option<SessionNo>, Vec<String>)> {
        let settled = |entry| match entry {
            Event::DeliveryReport(settlement) => Some((settlement.session, texts(&settlement.unsent))),
            _ => None,
        };
        self.entries().into_iter().filter_map(settled).collect()
    }

    pub(crate) fn stage(&self, channel: ChannelId) -> Stage {
        self.fixtures.table.stage(channel)
    }
}
