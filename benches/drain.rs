//! What main costs, with SQLite on a disk and synced commits: to keep a chat for a user who is away, alone in its
//! commit and among others, and to end sessions, from the login to the closed channel. The workers are a sink.

use std::sync::Arc;

use criterion::{Criterion, Throughput};
use linger_server::auth::login_limiter::AddressLimit;
use linger_server::auth::login_limiter::{LoginLimiter, LoginLimits};
use linger_server::auth::pool::Auth;
use linger_server::channel::{ChannelId, ChannelTable, Reason, Stage};
use linger_server::clock::Clock;
use linger_server::handles::Handles;
use linger_server::ids::UserId;
use linger_server::main_loop::context::Policy;
use linger_server::main_loop::state::MainLoop;
use linger_server::message::chat::Body;
use linger_server::message::command::{WorkerCommand, WorkerSender};
use linger_server::message::disconnect::DeliveryReport;
use linger_server::message::event::Event;
use linger_server::message::fingerprint;
use linger_server::message::reply_to::ReplyTo;
use linger_server::message::request::{Ask, Destination, Login, Message};
use linger_server::message::request::{HashTag, Who};
use linger_server::metrics::Metrics;
use linger_server::offline_queue::closer::Kicker;
use linger_server::offline_queue::queue::OfflineQueue;
use linger_server::protocol::msgid::Msgid;
use linger_server::protocol::request::Caps;
use linger_server::store::sqlite::{Durability, SqliteStore};

/// Sessions that end in one batch.
const SESSIONS: usize = 100;

/// Chats that share a commit.
const CHATS: [u64; 2] = [1, 1000];

const HASH: &str = "hash";

const TEXT: &[u8] = br#"{"msgid":6,"toid":2,"msg":"the quick brown fox jumps over the lazy dog, again"}"#;

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    let directory =
        tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a temporary directory can be made");
    let mut desk = Desk::new(directory.path());
    keep(&mut criterion, &mut desk);
    end(&mut criterion, &mut desk);
    criterion.final_summary();
}

fn keep(criterion: &mut Criterion, desk: &mut Desk) {
    let (sender, receiver) = (desk.user("sender"), desk.user("receiver"));
    let channel = desk.enter(sender);
    let mut group = criterion.benchmark_group("drain");
    let mut seq = 0;
    for chats in CHATS {
        group.throughput(Throughput::Elements(chats));
        group.bench_function(format!("keep {chats} in a commit"), |bencher| {
            bencher.iter(|| {
                for _ in 0..chats {
                    seq += 1;
                    desk.chat((sender, channel), receiver, seq);
                }
                desk.finish();
            });
        });
    }
    group.finish();
}

fn end(criterion: &mut Criterion, desk: &mut Desk) {
    let users: Vec<_> = (0..SESSIONS).map(|number| desk.user(&format!("user {number}"))).collect();
    let mut group = criterion.benchmark_group("drain");
    group.throughput(Throughput::Elements(SESSIONS as u64));
    group.bench_function(format!("log in and end {SESSIONS} sessions"), |bencher| {
        bencher.iter(|| {
            let channels: Vec<_> = users.iter().map(|&user| desk.ask_in(user)).collect();
            desk.finish();
            for &channel in &channels {
                desk.send_away(channel);
            }
            desk.finish();
            for channel in channels {
                desk.hand_back(channel);
            }
            desk.finish();
        });
    });
    group.finish();
    assert_eq!(desk.table.taken(), 1, "the sender alone is left");
}

/// Workers that throw their letters away.
struct Sink;

impl WorkerSender for Sink {
    fn post(&self, _worker: usize, mail: &mut Vec<WorkerCommand>, _refused: &mut Vec<WorkerCommand>) {
        mail.clear();
    }

    fn is_full(&self, _worker: usize) -> bool {
        false
    }

    fn workers(&self) -> usize {
        1
    }
}

/// Main, and what it is asked in these measurements.
struct Desk {
    drain: MainLoop<SqliteStore, ()>,
    table: Arc<ChannelTable>,
    queue: Arc<OfflineQueue<()>>,
    kicker: Kicker<()>,
    /// Registered so far.
    users: i64,
    clock: Clock,
}

impl Desk {
    fn new(directory: &std::path::Path) -> Self {
        let clock = Clock::start();
        let opened = SqliteStore::open(directory, Durability::Full, clock.now().unix_ms)
            .expect("a fresh database can be opened");
        let (table, queue) = (Arc::new(ChannelTable::new(SESSIONS * 2)), Arc::<OfflineQueue<()>>::default());
        let (metrics, worker_sender): (Arc<Metrics>, Arc<dyn WorkerSender>) =
            (Arc::default(), Arc::new(Sink));
        let shared =
            (Arc::clone(&table), Arc::clone(&queue), Arc::clone(&worker_sender), Arc::clone(&metrics));
        let kicker = Kicker::new(shared.0, shared.1, shared.2, shared.3, clock);
        let (auth, _) = Auth::new().expect("the kernel has random bytes");
        let registrations = AddressLimit { at_most: 1, spares_loopback: true };
        let limits = LoginLimits { per_user: 1, per_address: 1, registrations };
        let attempts = Arc::new(LoginLimiter::new(limits, Arc::clone(&metrics)));
        let handles = Arc::new(Handles {
            table: Arc::clone(&table),
            registry: Arc::default(),
            queue: Arc::clone(&queue),
            worker_sender,
            auth: Arc::new(auth),
            attempts,
            metrics,
            kicker: kicker.clone(),
            clock,
        });
        Desk { drain: MainLoop::new(opened.store, policy(), handles), table, queue, kicker, users: 0, clock }
    }

    fn take(&mut self, entry: Event<()>) {
        self.drain.take(entry, self.clock.now());
    }

    fn finish(&mut self) {
        let clock = self.clock;
        self.drain.finish(&|| clock.now());
    }

    /// Registers a name. Ids rise from 1.
    fn user(&mut self, name: &str) -> UserId {
        let channel = self.open();
        let reply_to = ReplyTo { channel, re: Msgid::Register, seq: None };
        let peer = ([127, 0, 0, 1], 1).into();
        self.take(Event::Ask(Ask::Register { reply_to, peer, name: name.into(), password: HASH.into() }));
        self.finish();
        self.send_away(channel);
        self.finish();
        self.hand_back(channel);
        self.users += 1;
        UserId(self.users)
    }

    fn open(&self) -> ChannelId {
        self.table.open(0).expect("the table has a place for each session")
    }

    /// Asks for a login, not yet committed.
    fn ask_in(&mut self, user: UserId) -> ChannelId {
        let channel = self.open();
        let login = Login {
            reply_to: ReplyTo { channel, re: Msgid::Login, seq: None },
            peer: ([127, 0, 0, 1], 1).into(),
            user,
            token: None,
            verified: Some(HashTag::of(HASH)),
            renewed: None,
            again: Some((Who::Id(user), "password".into())),
            caps: Caps::default(),
            lines: false,
            proven: false,
        };
        self.take(Event::Ask(Ask::Login(Box::new(login))));
        channel
    }

    fn enter(&mut self, user: UserId) -> ChannelId {
        let channel = self.ask_in(user);
        self.finish();
        assert!(matches!(self.table.stage(channel), Stage::LoggedIn(_)), "the login is granted");
        channel
    }

    fn chat(&mut self, (from, channel): (UserId, ChannelId), to: UserId, seq: u64) {
        let (seq, to) = (seq.to_string(), Destination::User(to));
        let fingerprint = Some(fingerprint::of(&seq, &to, TEXT));
        let reply_to = ReplyTo { channel, re: Msgid::Chat, seq: Some(seq.into()) };
        let body = Body::Object(TEXT.into());
        self.take(Event::Ask(Ask::Chat(Message { reply_to, from, to, body, fingerprint })));
    }

    /// A departure and its settlement.
    fn send_away(&mut self, channel: ChannelId) {
        let session = match self.table.stage(channel) {
            Stage::LoggedIn(session) => Some(session),
            _ => None,
        };
        assert!(self.kicker.kick(channel, Reason::Kicked), "nobody else takes the step");
        let mut entries = Vec::new();
        self.queue.pop_batch(usize::MAX, &mut entries);
        for entry in entries {
            self.take(entry);
        }
        self.take(Event::DeliveryReport(DeliveryReport {
            channel,
            session,
            unsent: Vec::new(),
            delivered: 0,
        }));
    }

    /// What the worker does when the grace, which is none here, is over.
    fn hand_back(&mut self, channel: ChannelId) {
        self.table.note_gone();
        self.take(Event::HandBack { channel, socket: None, partial: None });
    }
}

/// No grace, and boxes that hold a whole measurement.
fn policy() -> Policy {
    Policy {
        grace_us: 0,
        stop_drain_us: 0,
        box_messages: u64::MAX >> 1,
        box_bytes: u64::MAX >> 1,
        box_total: u64::MAX,
        ack_window: 64,
        box_age_ms: i64::MAX as u64 >> 1,
        history_age_ms: i64::MAX as u64 >> 1,
        history_rows: 100_000,
        presence_delay_us: 0,
        friends_max: 5_000,
        groups_max: 1_000,
        reject_duplicates: false,
    }
}
