//! Main alone: the test passes events in, as workers would, and reads the commands that come out.

use super::builders::{HASH, Summary, login, message, reply_to};
use super::fake_socket::Fd;
use super::fixtures::{CAPACITY, Fixtures, policy};
use super::memory::{Disk, MemoryStore};
use super::recording_mailboxes::RecordingMailboxes;
use crate::channel::{ChannelId, Reason, SessionNo, Stage};
use crate::clock::Clock;
use crate::ids::{GroupId, UserId};
use crate::main_loop::context::Policy;
use crate::main_loop::state::MainLoop;
use crate::message::chat::Chat;
use crate::message::command::{WorkerCommand, WorkerSender};
use crate::message::disconnect::{CloseInfo, DeliveryReport, Departure};
use crate::message::event::Event;
use crate::message::request::{Ask, Destination};
use crate::offline_queue::closer::Kicker;
use crate::protocol::msgid::Msgid;
use crate::sync::Arc;

/// Main without workers.
pub(crate) struct MainHarness {
    pub(crate) fixtures: Fixtures,
    pub(crate) mailboxes: Arc<RecordingMailboxes>,
    pub(crate) kicker: Kicker<Fd>,
    pub(crate) main: MainLoop<MemoryStore, Fd>,
    pub(crate) disk: Disk,
}

/// Somebody who is online.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Online {
    pub(crate) user: UserId,
    pub(crate) channel: ChannelId,
    pub(crate) session: SessionNo,
}

impl MainHarness {
    pub(crate) fn new() -> Self {
        MainHarness::with(policy(), CAPACITY, Disk::default())
    }

    /// A server that refuses a login for a user who is online.
    pub(crate) fn rejecting() -> Self {
        MainHarness::with(Policy { reject_duplicates: true, ..policy() }, CAPACITY, Disk::default())
    }

    pub(crate) fn with(policy: Policy, capacity: usize, disk: Disk) -> Self {
        MainHarness::among(Fixtures::new(capacity), policy, disk)
    }

    /// The next run of the server, on the same disk, as after a crash, with the wall clock at that time.
    pub(crate) fn restarted_at(self, wall_ms: i64) -> Self {
        MainHarness::among(Fixtures::at(CAPACITY, Clock::by_hand_from(wall_ms)), policy(), self.disk)
    }

    fn among(fixtures: Fixtures, policy: Policy, disk: Disk) -> Self {
        let mailboxes = Arc::new(RecordingMailboxes::new(Arc::clone(&fixtures.table), 1));
        let worker_sender: Arc<dyn WorkerSender> = Arc::<RecordingMailboxes>::clone(&mailboxes);
        let (store, trusted) = disk.start(fixtures.clock.now().unix_ms);
        let [accepted, unfinished] = disk.chats(trusted.now_ms(fixtures.clock.now()));
        let main = MainLoop::new(store, policy, fixtures.surroundings(&worker_sender));
        let main = main.with_trusted(trusted).with_chats(accepted, unfinished).with_bans(disk.bans());
        MainHarness { kicker: fixtures.kicker(&worker_sender), fixtures, mailboxes, main, disk }
    }

    /// The next run of the server, on the same disk, as after a crash.
    pub(crate) fn restarted(self) -> Self {
        MainHarness::with(policy(), CAPACITY, self.disk)
    }

    /// Main takes one entry.
    pub(crate) fn take(&mut self, entry: Event<Fd>) {
        self.main.take(entry, self.fixtures.clock.now());
    }

    /// Main takes a request.
    pub(crate) fn ask(&mut self, ask: Ask) {
        self.take(Event::Ask(ask));
    }

    /// Main takes what others have pushed: the departures of those who were sent away.
    pub(crate) fn take_queued(&mut self) {
        let mut entries = Vec::new();
        self.fixtures.queue.pop_batch(usize::MAX, &mut entries);
        for entry in entries {
            self.take(entry);
        }
    }

    /// Main ends its batch.
    pub(crate) fn finish(&mut self) {
        let clock = self.fixtures.clock;
        self.main.finish(&|| clock.now());
    }

    /// The same until nothing is left to do at once.
    pub(crate) fn finish_all(&mut self) {
        for _ in 0..100 {
            self.finish();
            self.take_queued();
            if !self.main.cx.transaction.is_under_way() && self.main.timeout_us() != Some(0) {
                return;
            }
        }
        panic!("main is never done");
    }

    /// Time passes, and main does what is due.
    pub(crate) fn pass_us(&mut self, us: u64) {
        self.fixtures.clock.advance(us);
        self.finish_all();
    }

    pub(crate) fn connect(&self) -> ChannelId {
        self.fixtures.table.open(0).unwrap()
    }

    /// Registers a name.
    pub(crate) fn user(&mut self, name: &str) -> UserId {
        let channel = self.connect();
        let (peer, password) = (([127, 0, 0, 1], 1).into(), HASH.into());
        self.ask(Ask::Register {
            reply_to: reply_to(channel, Msgid::Register, None),
            peer,
            name: name.into(),
            password,
        });
        self.finish();
        match self.heard(channel)[..] {
            [Summary::Registered(user)] => user,
            ref other => panic!("{name} was not registered but told {other:?}"),
        }
    }

    /// A login that is asked for and not yet committed.
    pub(crate) fn log_in(&mut self, user: UserId, channel: ChannelId) {
        self.ask(login(user, channel));
    }

    /// Registers a name, connects, and logs in, all committed.
    pub(crate) fn online(&mut self, name: &str) -> Online {
        let user = self.user(name);
        self.enter(user)
    }

    /// Connects and logs in, and forgets what was answered.
    pub(crate) fn enter(&mut self, user: UserId) -> Online {
        let channel = self.connect();
        self.log_in(user, channel);
        self.finish();
        self.heard(channel);
        Online { user, channel, session: self.session(channel).expect("the login is granted") }
    }

    pub(crate) fn session(&self, channel: ChannelId) -> Option<SessionNo> {
        match self.fixtures.table.stage(channel) {
            Stage::LoggedIn(session) => Some(session),
            _ => None,
        }
    }

    /// A chat without `seq`.
    pub(crate) fn chat(&mut self, from: Online, to: UserId, text: &str) {
        self.ask(message((from.user, from.channel), Destination::User(to), text, None));
    }

    /// A chat with `seq`, which is always answered.
    pub(crate) fn chat_with_seq(&mut self, from: Online, to: UserId, text: &str, seq: &str) {
        self.ask(message((from.user, from.channel), Destination::User(to), text, Some(seq)));
    }

    pub(crate) fn group_chat(&mut self, from: Online, group: GroupId, text: &str, seq: Option<&str>) {
        self.ask(message((from.user, from.channel), Destination::Group(group), text, seq));
    }

    /// A group of its creator alone.
    pub(crate) fn group(&mut self, creator: Online) -> GroupId {
        let reply_to = reply_to(creator.channel, Msgid::CreateGroup, Some("1"));
        self.ask(Ask::CreateGroup { reply_to, user: creator.user, name: "group".into(), desc: "".into() });
        self.finish();
        match self.heard(creator.channel)[..] {
            [Summary::Created(group)] => group,
            ref other => panic!("no group was created but {other:?} said"),
        }
    }

    /// A member who is asked in and not yet committed.
    pub(crate) fn join(&mut self, who: Online, group: GroupId) {
        self.ask(Ask::JoinGroup {
            reply_to: reply_to(who.channel, Msgid::JoinGroup, None),
            user: who.user,
            group,
        });
    }

    /// Somebody takes the step for a channel; main learns of it.
    pub(crate) fn send_away(&mut self, who: Online, reason: Reason) {
        assert!(self.kicker.kick(who.channel, reason), "only one takes the step");
        self.take_queued();
    }

    /// A session logs out; its channel stays.
    pub(crate) fn log_out(&mut self, who: Online) {
        assert!(self.fixtures.table.end_session(who.channel, who.session));
        self.report_logout(who);
    }

    /// Main learns that a session has logged out.
    pub(crate) fn report_logout(&mut self, who: Online) {
        let now = self.fixtures.clock.now();
        self.take(Event::Departure(Departure {
            channel: who.channel,
            session: Some(who.session),
            stays: true,
            noticed_us: now.mono_us,
            queued_us: now.mono_us,
            at_ms: now.unix_ms,
            close_info: CloseInfo::new(Reason::ClientQuit),
        }));
    }

    /// The worker reports that a channel without a session has settled.
    pub(crate) fn settle_channel(&mut self, channel: ChannelId) {
        self.take(Event::DeliveryReport(DeliveryReport {
            channel,
            session: None,
            unsent: Vec::new(),
            delivered: 0,
        }));
    }

    /// The worker reports what a session has left unsent.
    pub(crate) fn settle(&mut self, who: Online, unsent: Vec<Chat>) {
        let (channel, session) = (who.channel, Some(who.session));
        self.take(Event::DeliveryReport(DeliveryReport { channel, session, unsent, delivered: 0 }));
    }

    /// The chats that were posted to a channel, as its worker would give them back.
    pub(crate) fn unsent(&self, channel: ChannelId) -> Vec<Chat> {
        let chat = |command| match command {
            WorkerCommand::Chat { chat, .. } => Some(chat),
            _ => None,
        };
        self.mailboxes.take(Some(channel)).into_iter().filter_map(chat).collect()
    }

    /// The receiver's worker hands chats to the kernel; main commits that and answers their senders.
    pub(crate) fn take_over(&mut self, commands: Vec<WorkerCommand>) {
        for command in commands {
            if let WorkerCommand::Chat { chat: Chat { tracker: Some(tracker), .. }, .. } = command {
                self.take(Event::Handed { tracker });
            }
        }
        self.finish();
    }

    /// The worker hands the socket back.
    pub(crate) fn hand_back(&mut self, channel: ChannelId) {
        self.fixtures.table.note_gone();
        self.take(Event::HandBack { channel, socket: None, partial: None });
    }

    /// What was said about a channel since the last look.
    pub(crate) fn heard(&self, channel: ChannelId) -> Vec<Summary> {
        self.mailboxes.take(Some(channel)).iter().flat_map(Summary::all_of).collect()
    }

    /// The same about all channels.
    pub(crate) fn all_heard(&self) -> Vec<(ChannelId, Summary)> {
        let commands = self.mailboxes.take(None);
        commands.iter().map(Summary::of).filter_map(|(channel, said)| Some((channel?, said))).collect()
    }

    /// Forgets what was said.
    pub(crate) fn forget(&self) {
        self.mailboxes.take(None);
    }

    pub(crate) fn is_online(&self, user: UserId) -> bool {
        self.disk.user(user).is_some_and(|row| row.online)
    }
}
