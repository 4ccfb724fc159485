//! The simulation of one seed: decides who acts next and how time passes.
//!
//! A step is the smallest thing that one thread does without the others being able to tell what came between: a worker
//! takes its mailbox, serves one channel, or ends its turn; main takes some entries, or commits; an auth thread verifies
//! one password; the network carries some bytes one way; a client does one thing; time passes.

use super::client_state::UserState;
use super::oracle::Oracle;
use super::presence_oracle::PresenceOracle;
use super::rng::Rng;
use super::sim_link::{ClientAct, SimLink};
use super::trace::Trace;
use crate::auth::pool::Job;
use crate::channel::{ChannelId, Stage};
use crate::clock::{Clock, Now, STOP_MAX_MS};
use crate::ids::{GroupId, UserId};
use crate::main_loop::context::Policy;
use crate::message::request::{Ask, Login};
use crate::protocol::json::framing::Framer;
use crate::store::{FriendsGroups, Transactions, Users};
use crate::testing::builders::SECOND_US;
use crate::testing::fake_socket::{FakeSocket, connection};
use crate::testing::fixtures::{Fixtures, policy};
use crate::testing::memory::Disk;
use crate::testing::server_harness::{ServerHarness, verified};
use crate::testing::worker_harness::WorkerHarness;
use crate::worker::{Codec, WorkerState};
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// Names of the server's channels: few, so that they run short.
pub(super) const NAMES: usize = 14;
/// Channels that may be there at once; the other names are for those that linger.
const CHANNELS: usize = 9;
/// How long a thread that has something to do is kept from it at most.
const PATIENCE_US: u64 = 300_000;
/// The Unix time at which a simulation begins, in milliseconds.
const BEGAN_MS: i64 = 1_700_000_000_000;
/// By how much the wall clock is set, in milliseconds (10 days): once or twice that, either way, or to 1970, or right. No
/// run of the server can take that for the time since the last one.
const SET_BY_MS: i64 = 10 * 24 * 3600 * 1000;
const _: () = assert!(SET_BY_MS > STOP_MAX_MS);
/// After so many rounds without work everything is at rest; after the second number it never will be.
const QUIET_ROUNDS: usize = 3;
const ROUNDS_MAX: usize = 5000;
const NAMES_OF_USERS: [&str; 6] = ["ann", "bob", "cy", "dan", "eve", "fay"];
/// How much trouble there may be in a run.
const TROUBLES: [usize; 3] = [0, 1, 4];
/// The members of the group, counted from the first user.
const MEMBERS: usize = 6;

pub(super) struct Simulation {
    pub(super) server: ServerHarness,
    pub(super) rng: Rng,
    pub(super) trace: Trace,
    pub(super) oracle: Oracle,
    pub(super) presence: PresenceOracle,
    /// Every connection there ever was, by number, and those that something may still happen to.
    pub(super) links: Vec<SimLink>,
    pub(super) active: Vec<usize>,
    /// Who waits to be accepted, by worker.
    pub(super) listening: Vec<VecDeque<(usize, FakeSocket)>>,
    pub(super) users: Vec<UserId>,
    pub(super) clients: BTreeMap<UserId, UserState>,
    pub(super) group: GroupId,
    /// True exactly when a worker is between the mailbox and the end of its turn.
    in_turn: Vec<bool>,
    /// Since when a worker has had something to do; main always may.
    waiting_since_us: Vec<Option<u64>>,
    main_rested_us: u64,
    pub(super) jobs: Vec<Job>,
    /// Names that this run of the server has given out, and whose they were.
    pub(super) names: BTreeMap<ChannelId, usize>,
    accepted: u64,
    pub(super) last_row: i64,
    /// The same when the run under way began.
    pub(super) last_row_before: i64,
    /// The simulated time before this run of the server.
    before_us: u64,
    pub(super) stamp: u64,
    pub(super) steps: u64,
    pub(super) used_tokens: BTreeSet<String>,
    /// Confirmations that want an answer: who, and up to which number.
    pub(super) confirmations: Vec<(UserId, i64)>,
    /// True exactly when everybody only takes what there is.
    pub(super) is_ending: bool,
    /// How often the disk fails and the server is killed; 0 for never.
    pub(super) trouble: usize,
    /// True exactly when a login for a user who is online is refused.
    is_rejecting: bool,
    /// True exactly when somebody has set the wall clock.
    pub(super) clock_has_jumped: bool,
}

impl Simulation {
    pub(super) fn new(seed: u64, is_traced: bool) -> Self {
        let mut rng = Rng::new(seed);
        let workers = 1 + rng.below(3);
        let trouble = rng.pick(&TROUBLES).expect("there are some");
        let is_rejecting = rng.one_in(4);
        let disk = Disk::default();
        let mut store = disk.beside();
        store.begin().expect("no fault is ordered");
        let mut users = Vec::new();
        for name in NAMES_OF_USERS {
            let hash = Some(crate::testing::builders::HASH);
            users.push(store.add_user(name, hash).expect("no fault").expect("the name is free"));
        }
        let group = store.add_group(users[0], "all", "those who talk").expect("no fault");
        for user in &users[1..MEMBERS] {
            store.join_group(group, *user).expect("no fault");
        }
        store.commit().expect("no fault");
        let mut oracle = Oracle::default();
        oracle.confirming.extend(users.iter().step_by(2));
        let clients =
            users.iter().map(|user| (*user, UserState::new(&mut rng, oracle.confirming.contains(user))));
        let clients = clients.collect();
        let clock = Clock::by_hand_from(BEGAN_MS);
        Simulation {
            server: server(disk, clock, workers, is_rejecting),
            rng,
            trace: Trace::new(is_traced),
            oracle,
            presence: PresenceOracle::default(),
            links: Vec::new(),
            active: Vec::new(),
            listening: (0..workers).map(|_| VecDeque::new()).collect(),
            users,
            clients,
            group,
            in_turn: vec![false; workers],
            waiting_since_us: vec![None; workers],
            main_rested_us: 0,
            jobs: Vec::new(),
            names: BTreeMap::new(),
            accepted: 0,
            last_row: 0,
            last_row_before: 0,
            before_us: 0,
            stamp: 0,
            steps: 0,
            used_tokens: BTreeSet::new(),
            confirmations: Vec::new(),
            is_ending: false,
            trouble,
            is_rejecting,
            clock_has_jumped: false,
        }
    }

    pub(super) fn members(&self) -> &[UserId] {
        &self.users[..MEMBERS]
    }

    pub(super) fn now(&self) -> Now {
        self.server.workers.fixtures.clock.now()
    }

    /// The simulated time since the beginning.
    pub(super) fn at_us(&self) -> u64 {
        self.before_us + self.now().mono_us
    }

    pub(super) fn tell(&mut self, what: impl FnOnce() -> String) {
        let at_us = self.at_us();
        self.trace.tell(at_us, what);
    }

    /// The next thing happens.
    pub(super) fn step(&mut self) {
        self.steps += 1;
        //              worker main auth carry read  act time leap kick clock fault crash
        let mut weights = [2600, 1300, 300, 1400, 1200, 1500, 500, 12, 25, 5, 30, 4];
        weights[10..].iter_mut().for_each(|weight| *weight *= self.trouble);
        match self.rng.weighted(&weights) {
            0 => {
                let worker = self.rng.below(self.in_turn.len());
                self.worker_acts(worker);
            }
            1 => self.main_acts(),
            2 => self.auth_acts(),
            3 => self.network_carries(),
            4 => self.somebody_reads(),
            5 => self.somebody_acts(),
            6 => {
                let us = self.rng.between(1, 20_000);
                self.pass_a_little(us);
            }
            7 => self.leap(),
            8 => self.somebody_is_kicked(),
            9 => self.clock_jumps(),
            10 => self.store_changes(),
            _ => self.crash(),
        }
        self.check_invariants();
    }

    /// A worker does one thing.
    pub(super) fn worker_acts(&mut self, worker: usize) {
        if !self.in_turn[worker] {
            return self.worker_begins(worker);
        }
        if self.rng.one_in(3) && self.worker_accepts(worker) {
            return;
        }
        let ready: Vec<usize> = self.ready_links(worker);
        match self.rng.pick(&ready) {
            Some(link) if !self.rng.one_in(4) => self.worker_serves(worker, link),
            _ => self.worker_finishes(worker),
        }
    }

    fn worker_begins(&mut self, worker: usize) {
        self.tell(|| format!("worker {worker} takes its mailbox"));
        let now = self.now();
        self.server.workers.states[worker].begin(now);
        self.in_turn[worker] = true;
        self.note_output();
    }

    fn worker_serves(&mut self, worker: usize, link: usize) {
        let Some(channel) = self.links[link].channel else { return };
        if self.rng.one_in(6) {
            let bytes = 1 + self.rng.below(60);
            self.links[link].client.shorten_next_write(bytes);
        }
        let (readable, writable) = self.links[link].client.events();
        let what = if readable { "reads" } else { "may write" };
        self.tell(|| format!("worker {worker}: {channel} {what}"));
        self.server.workers.states[worker].ready(channel.slot as usize, readable, writable);
        self.note_output();
    }

    fn worker_finishes(&mut self, worker: usize) {
        self.tell(|| format!("worker {worker} ends its turn"));
        self.server.workers.finish_one(worker);
        self.in_turn[worker] = false;
        self.waiting_since_us[worker] = None;
        self.note_output();
    }

    fn ready_links(&self, worker: usize) -> Vec<usize> {
        let is_ready = |n: &usize| {
            let link = &self.links[*n];
            link.worker == worker && link.channel.is_some() && link.client.events() != (false, false)
        };
        self.active.iter().copied().filter(is_ready).collect()
    }

    fn worker_accepts(&mut self, worker: usize) -> bool {
        if !self.server.workers.states[worker].is_accepting() {
            return false;
        }
        let Some((number, wire)) = self.listening[worker].pop_front() else { return false };
        let link = &self.links[number];
        let peer = format!("10.0.0.{}:{}", link.owner, 1024 + number % 60_000);
        let ends = (wire, link.client.clone());
        match self.server.workers.try_accept(&peer, worker, Codec::Json(Framer::default()), ends) {
            Ok((channel, _)) => {
                self.tell(|| format!("worker {worker} accepts #{number} as {channel}"));
                let known = self.names.insert(channel, number);
                assert!(known.is_none(), "{channel} is a name that was given before");
                self.links[number].channel = Some(channel);
                self.accepted += 1;
            }
            Err(wire) => {
                self.tell(|| format!("worker {worker} has no name for #{number}"));
                self.listening[worker].push_front((number, wire));
                self.server.workers.states[worker].pause_accepting();
            }
        }
        self.note_output();
        true
    }

    fn main_acts(&mut self) {
        let waiting = self.server.workers.fixtures.queue.len();
        if waiting == 0 || self.rng.one_in(3) {
            return self.main_finishes();
        }
        let count = if self.rng.one_in(4) { usize::MAX } else { 1 + self.rng.below(6) };
        self.main_takes(count);
    }

    fn main_takes(&mut self, count: usize) -> usize {
        let mut entries = Vec::new();
        self.server.workers.fixtures.queue.pop_batch(count, &mut entries);
        let taken = entries.len();
        for entry in entries {
            self.tell(|| format!("main takes {}", super::trace::entry(&entry)));
            let now = self.now();
            self.server.main.take(entry, now);
        }
        taken
    }

    /// Main commits, which may take its time: others go on between the commit and what main says then.
    fn main_finishes(&mut self) {
        let slow_us = if self.rng.one_in(8) { self.rng.between(1, PATIENCE_US / 3) } else { 0 };
        let meanwhile = if self.rng.one_in(4) { Some(self.rng.below(self.in_turn.len())) } else { None };
        let kicked = if self.rng.one_in(200) { self.somebody_present() } else { None };
        self.finish(slow_us, meanwhile, kicked);
    }

    fn finish(&mut self, slow_us: u64, meanwhile: Option<usize>, kicked: Option<ChannelId>) {
        if let Some(channel) = kicked {
            self.note_kick(channel);
        }
        self.tell(|| {
            let worker = meanwhile.map_or(String::new(), |worker| format!(", while worker {worker} goes on"));
            format!("main commits in {slow_us} us{worker}")
        });
        let ServerHarness { workers: harness, main, .. } = &mut self.server;
        let clock = harness.fixtures.clock;
        let others = RefCell::new((harness, &mut self.in_turn));
        main.finish(&|| {
            clock.advance(slow_us);
            let (harness, in_turn) = &mut *others.borrow_mut();
            if let Some(channel) = kicked {
                harness.kicker.kick(channel, crate::channel::Reason::Kicked);
            }
            if let Some(worker) = meanwhile {
                if in_turn[worker] {
                    harness.finish_one(worker);
                } else {
                    harness.states[worker].begin(clock.now());
                }
                in_turn[worker] = !in_turn[worker];
            }
            clock.now()
        });
        self.main_rested_us = self.now().mono_us;
        self.note_output();
        self.check_rows();
    }

    fn auth_acts(&mut self) {
        self.jobs.extend(self.server.workers.fixtures.jobs.take_all());
        if self.jobs.is_empty() {
            return;
        }
        let at = self.rng.below(self.jobs.len());
        let job = self.jobs.remove(at);
        let channel = job.reply_to.channel;
        if self.server.workers.fixtures.table.has_left(channel) {
            return self.tell(|| format!("no password of {channel} is verified: it has left"));
        }
        self.tell(|| format!("a password of {channel} is verified"));
        let now_us = self.now().mono_us;
        let harness = &mut self.server.workers;
        match verified(&self.server.disk, job) {
            Ok(ask) => {
                if let Ask::Login(login) = &ask
                    && let Login { user, again: Some((who, password)), verified: Some(hash), .. } = &**login
                {
                    harness.fixtures.auth.remember(who, password, *user, *hash, now_us);
                }
                harness.fixtures.queue.ask(ask).expect("there is room");
            }
            Err(refusal) => harness.post(*refusal),
        }
    }

    /// Time passes, unless somebody has been kept waiting for too long.
    pub(super) fn pass_a_little(&mut self, us: u64) {
        let now_us = self.now().mono_us;
        for worker in 0..self.in_turn.len() {
            if !self.has_work(worker) {
                self.waiting_since_us[worker] = None;
                continue;
            }
            let since_us = *self.waiting_since_us[worker].get_or_insert(now_us);
            if now_us + us > since_us + PATIENCE_US {
                return self.whole_turn(worker);
            }
        }
        if now_us + us > self.main_rested_us + PATIENCE_US {
            self.main_takes(usize::MAX);
            return self.finish(0, None, None);
        }
        self.server.workers.fixtures.clock.advance(us);
    }

    fn has_work(&self, worker: usize) -> bool {
        let core = &self.server.workers.states[worker];
        self.in_turn[worker]
            || core.has_more()
            || core.timeout_us(self.now().mono_us) == Some(0)
            || !self.ready_links(worker).is_empty()
    }

    fn whole_turn(&mut self, worker: usize) {
        if self.in_turn[worker] {
            self.worker_finishes(worker);
        }
        self.worker_begins(worker);
        for link in self.ready_links(worker) {
            self.worker_serves(worker, link);
        }
        while self.worker_accepts(worker) {
            if !self.server.workers.states[worker].is_accepting() {
                break;
            }
        }
        self.worker_finishes(worker);
    }

    /// Everybody works until there is nothing to do at once. The network and the clients stand still.
    pub(super) fn rest(&mut self) {
        let mut quiet = 0;
        for _ in 0..ROUNDS_MAX {
            let mut any = false;
            for worker in 0..self.in_turn.len() {
                any |= self.has_work(worker);
                self.whole_turn(worker);
            }
            self.jobs.extend(self.server.workers.fixtures.jobs.take_all());
            any |= !self.jobs.is_empty();
            while !self.jobs.is_empty() {
                self.auth_acts();
            }
            any |= self.main_takes(usize::MAX) > 0 || self.server.main.cx.transaction.is_under_way();
            self.finish(0, None, None);
            // What the end of a batch has begun, and group chats that are handed out turn by turn.
            any |= self.server.main.timeout_us() == Some(0);
            quiet = if any { 0 } else { quiet + 1 };
            if quiet == QUIET_ROUNDS {
                return self.check_at_rest();
            }
        }
        panic!("the server is never at rest");
    }

    /// Everybody rests, and much time passes.
    pub(super) fn leap(&mut self) {
        self.rest();
        let most_s = if self.rng.one_in(10) { 900 } else { 60 };
        let us = self.rng.between(SECOND_US, most_s * SECOND_US);
        self.pass(us);
        self.silent_links_time_out();
    }

    pub(super) fn pass(&mut self, us: u64) {
        self.server.workers.fixtures.clock.advance(us);
        self.tell(|| format!("{:.1} s have passed", us as f64 / SECOND_US as f64));
        let now_us = self.now().mono_us;
        self.main_rested_us = now_us;
        self.waiting_since_us.fill(None);
    }

    fn silent_links_time_out(&mut self) {
        for number in self.active.clone() {
            if self.links[number].silent && !self.links[number].dead && self.rng.one_in(3) {
                self.tell(|| format!("the kernel gives #{number} up"));
                self.links[number].acts.insert(ClientAct::TimedOut);
                self.links[number].client.time_out();
                self.note_death(number);
            }
        }
    }

    /// Somebody connects.
    pub(super) fn connect(&mut self, owner: UserId, room: usize) -> usize {
        let worker = self.rng.below(self.in_turn.len());
        let (wire, client) = connection();
        client.take_only(room);
        let number = self.links.len();
        self.links.push(SimLink::new(client, owner, worker));
        self.active.push(number);
        self.listening[worker].push_back((number, wire));
        self.tell(|| format!("#{number} of {owner} connects to worker {worker}"));
        number
    }

    /// The client's end of a connection is gone.
    pub(super) fn note_death(&mut self, number: usize) {
        self.links[number].dead = true;
        self.links[number].outgoing.clear();
        self.note_torn(number);
    }

    /// The server is killed and starts again.
    pub(super) fn crash(&mut self) {
        self.tell(|| "the server is killed, and starts again".into());
        for number in std::mem::take(&mut self.active) {
            if !self.links[number].dead && !self.links[number].closed {
                self.note_torn(number);
            }
            self.links[number].dead = true;
        }
        self.oracle.crashed();
        let workers = self.in_turn.len();
        self.before_us = self.at_us();
        let clock = Clock::by_hand_from(self.now().unix_ms + 1);
        let disk = self.server.disk.clone();
        self.server = server(disk, clock, workers, self.is_rejecting);
        self.in_turn.fill(false);
        self.waiting_since_us.fill(None);
        self.main_rested_us = 0;
        self.listening.iter_mut().for_each(VecDeque::clear);
        self.jobs.clear();
        self.names.clear();
        self.accepted = 0;
        self.check_rows();
        self.last_row_before = self.last_row;
    }

    /// Somebody sets the wall clock.
    pub(super) fn clock_jumps(&mut self) {
        let now_ms = self.now().unix_ms;
        let right_ms = BEGAN_MS + (self.at_us() / 1000) as i64;
        let by_ms = match self.rng.below(4) {
            0 => -now_ms,
            1 => right_ms - now_ms,
            2 => -SET_BY_MS * self.rng.between(1, 3) as i64,
            _ => SET_BY_MS * self.rng.between(1, 3) as i64,
        };
        self.clock_has_jumped = true;
        self.tell(|| format!("the wall clock is set by {} h", by_ms / 3_600_000));
        self.server.workers.fixtures.clock.set_wall_by(by_ms);
    }

    fn somebody_present(&mut self) -> Option<ChannelId> {
        let table = &self.server.workers.fixtures.table;
        let present: Vec<ChannelId> = table.occupants().collect();
        self.rng.pick(&present)
    }

    fn somebody_is_kicked(&mut self) {
        let Some(channel) = self.somebody_present() else { return };
        self.note_kick(channel);
        if self.server.workers.kicker.kick(channel, crate::channel::Reason::Kicked)
            && let Some(number) = self.names.get(&channel)
        {
            self.links[*number].kicked_us =
                Some(self.before_us + self.server.workers.fixtures.clock.now().mono_us);
        }
    }

    fn note_kick(&mut self, channel: ChannelId) {
        self.tell(|| format!("{channel} is kicked"));
        if let Some(number) = self.names.get(&channel) {
            self.links[*number].acts.insert(ClientAct::Kicked);
        }
    }

    pub(super) fn accepted(&self) -> u64 {
        self.accepted
    }

    /// True exactly when no thread is in the middle of anything, and nothing waits for main.
    pub(super) fn is_quiet(&self) -> bool {
        let fixtures = &self.server.workers.fixtures;
        !self.in_turn.contains(&true)
            && fixtures.queue.is_empty()
            && !self.server.main.cx.transaction.is_under_way()
            && self.server.main.is_settled()
            && !self.server.workers.states.iter().any(WorkerState::has_more)
    }

    pub(super) fn stage(&self, channel: ChannelId) -> Stage {
        self.server.workers.stage(channel)
    }
}

fn server(disk: Disk, clock: Clock, workers: usize, is_rejecting: bool) -> ServerHarness {
    let harness = WorkerHarness::among(Fixtures::at(NAMES, clock), workers, |limits| {
        (limits.out_limit, limits.max_channels) = (4096, CHANNELS);
    });
    let policy = Policy {
        // Longer than a simulation lasts, shorter than its clock jumps.
        box_age_ms: 5 * 24 * 3600 * 1000,
        history_rows: 500,
        reject_duplicates: is_rejecting,
        ..policy()
    };
    ServerHarness::over(disk, policy, harness)
}
