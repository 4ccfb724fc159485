//! The admin socket's server side: it asks, main and the workers do.
//!
//! One thread accepts, each connection has a thread of its own that may wait. None of them holds a lock or
//! touches a client's socket.

use super::SOCKET_LOOK;
use super::ban_protocol::name_of;
use super::bans;
use super::bans::BansUnderWay;
use super::history_pool::HistoryPool;
use super::protocol::KickReason;
use super::protocol::{
    AdminRequest, ChannelRow, ChannelState, Channels, Drain, Draining, Kick, Kicked, KickedRow,
    MAX_ASK_BYTES, QueueState, Stats, UserRow, Users, answer_line, failure_line,
};
use super::refusal::{ANSWER_MAX, Refusal, silent};
use super::target::Target;
use crate::channel::{ChannelId, Reason, SessionNo, Stage};
use crate::handles::Handles;
use crate::ids::UserId;
use crate::ip_block::AddrBlock;
use crate::logs::Logs;
use crate::message::command::{ChannelReport, WorkerCommand};
use crate::message::disconnect::{CloseInfo, CloseStage, CloseWatcher};
use crate::message::event::{
    BanName, ControlAsk, DrainAsk, Event, QueueReport, StaleOnline, StaleOnlineFault, StaleOnlineName,
};
use crate::protocol::name::composed;
use crate::store::{Ban, BanSubject};
use crate::sync::{Arc, AtomicUsize, Ordering};
use crossbeam_channel::{Receiver, Sender};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use std::collections::HashMap;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::{Duration, Instant};

/// Connections that are served at once.
const CONNECTIONS_MAX: usize = 32;
/// How long a connection may be silent.
const SILENCE_MAX: Duration = Duration::from_mins(1);

/// All that control needs of the server.
pub struct AdminServer<S> {
    /// What it shares with main and the workers.
    pub handles: Arc<Handles<S>>,
    /// Who left, and how.
    pub archive: HistoryPool,
    /// The log, for what it has dropped.
    pub logs: Logs,
    /// What does not change while the server runs, for `stats`.
    pub facts: Vec<(&'static str, u64)>,
}

/// A channel that a kick means.
struct KickTarget {
    channel: ChannelId,
    /// Only this session, where the target named a user.
    session: Option<SessionNo>,
    user: Option<(UserId, String)>,
}

impl<S: Send + 'static> AdminServer<S> {
    /// Serves the socket until the process ends. `renew` makes it anew where somebody has removed it.
    pub fn run(self, mut listener: UnixListener, renew: impl Fn() -> Option<UnixListener>) {
        let server = Arc::new(self);
        let open = Arc::new(AtomicUsize::new(0));
        let mut looked = Instant::now();
        loop {
            if looked.elapsed() >= SOCKET_LOOK {
                looked = Instant::now();
                listener = renew().unwrap_or(listener);
            }
            let stream = match accept_within(&listener, SOCKET_LOOK) {
                Ok(Some(stream)) => stream,
                Ok(None) => continue,
                Err(error) => {
                    tracing::warn!(%error, "a control connection could not be accepted");
                    std::thread::sleep(Duration::from_millis(100));
                    continue;
                }
            };
            if open.fetch_add(1, Ordering::Relaxed) >= CONNECTIONS_MAX {
                open.fetch_sub(1, Ordering::Relaxed);
                refuse(&stream, "too many control connections");
                continue;
            }
            let (server, count) = (Arc::clone(&server), Arc::clone(&open));
            let spawned = std::thread::Builder::new().name("control-client".into()).spawn(move || {
                if let Err(error) = server.serve(&stream) {
                    tracing::debug!(%error, "a control connection ended");
                }
                count.fetch_sub(1, Ordering::Relaxed);
            });
            if let Err(error) = spawned {
                open.fetch_sub(1, Ordering::Relaxed);
                tracing::error!(%error, "no thread for a control connection");
            }
        }
    }

    fn serve(&self, stream: &UnixStream) -> io::Result<()> {
        let peer = rustix::net::sockopt::socket_peercred(stream)?;
        if !(peer.uid == rustix::process::geteuid() || peer.uid.is_root()) {
            refuse(stream, "only the server's own user and root are served");
            return Ok(());
        }
        stream.set_read_timeout(Some(SILENCE_MAX))?;
        stream.set_write_timeout(Some(SILENCE_MAX))?;
        let mut reader = BufReader::new(stream);
        loop {
            let mut line = Vec::new();
            let taken = (&mut reader).take(MAX_ASK_BYTES as u64 + 1).read_until(b'\n', &mut line)?;
            if taken == 0 {
                return Ok(());
            }
            let too_long = taken > MAX_ASK_BYTES;
            // Dropped when the answer is written; a drain does not end the process before.
            let (answering, told) = crossbeam_channel::bounded(0);
            let answer = if too_long { Err(Refusal::TooLong) } else { self.answer(&line, told) };
            let bytes = answer.unwrap_or_else(|refusal| failure_line(&refusal.to_string()));
            let mut writer = stream;
            writer.write_all(&bytes)?;
            drop::<Sender<()>>(answering);
            if too_long {
                return Ok(());
            }
        }
    }

    fn answer(&self, line: &[u8], told: Receiver<()>) -> Result<Vec<u8>, Refusal> {
        let bytes = match AdminRequest::parse(line)? {
            AdminRequest::Kick(kick) => answer_line(&self.kick(&kick)?),
            AdminRequest::Who => answer_line(&self.who()?),
            AdminRequest::Channels => answer_line(&self.channels()?),
            AdminRequest::Queue => answer_line(&self.queue_state()?),
            AdminRequest::Stats => answer_line(&self.stats()?),
            AdminRequest::Why(why) => answer_line(&self.archive.departures(&why, ANSWER_MAX)?),
            AdminRequest::Drain(drain) => answer_line(&self.drain(drain, told)?),
            AdminRequest::Bans => answer_line(&bans::list(&self.handles.queue)?),
            AdminRequest::Unban(unban) => answer_line(&bans::lift(&self.handles.queue, &unban)?),
        };
        Ok(bytes?)
    }

    fn who(&self) -> Result<Users, Refusal> {
        let now_ms = self.handles.clock.now().unix_ms;
        let mut users: Vec<UserRow> = self
            .reports()?
            .into_iter()
            .filter(|report| report.state == "live")
            .filter_map(|report| {
                let (id, name) = report.user?;
                Some(UserRow {
                    id: id.0,
                    name,
                    channel: report.channel.to_string(),
                    peer: report.peer.to_string(),
                    since_ms: now_ms - report.session_ms? as i64,
                    idle_ms: report.idle_ms,
                })
            })
            .collect();
        users.sort_by_key(|user| user.id);
        Ok(Users { users })
    }

    fn channels(&self) -> Result<Channels, Refusal> {
        let mut reports = self.reports()?;
        reports.sort_by_key(|report| report.channel);
        let channels = reports
            .into_iter()
            .map(|report| {
                let (user, name) = report.user.map(|(id, name)| (id.0, name)).unzip();
                ChannelRow {
                    channel: report.channel.to_string(),
                    state: match report.state {
                        "new" => ChannelState::New,
                        "live" => ChannelState::Live,
                        _ => ChannelState::Lingering,
                    },
                    worker: report.worker as u32,
                    user,
                    name,
                    peer: report.peer.to_string(),
                    bytes_in: report.bytes_in,
                    bytes_out: report.bytes_out,
                    queued: report.queued as u64,
                    age_ms: report.age_ms,
                    idle_ms: report.idle_ms,
                }
            })
            .collect();
        Ok(Channels { channels })
    }

    fn queue_state(&self) -> Result<QueueState, Refusal> {
        let (depth, oldest_us) = self.handles.queue.departures();
        let now_us = self.handles.clock.now().mono_us;
        let report = self.queue_report()?;
        Ok(QueueState {
            depth: depth as u64,
            oldest_ms: oldest_us.map_or(0, |then_us| now_us.saturating_sub(then_us) / 1000),
            lingering: report.lingering as u64,
            drained: report.drained,
        })
    }

    fn queue_report(&self) -> Result<QueueReport, Refusal> {
        let (reply, answer) = crossbeam_channel::bounded(1);
        self.handles.queue.push(Event::Control(ControlAsk::Queue(reply)));
        answer.recv_timeout(ANSWER_MAX).map_err(|_| silent("main"))
    }

    fn stats(&self) -> Result<Stats, Refusal> {
        let report = self.queue_report()?;
        let mut rows: Vec<(String, serde_json::Number)> = Vec::new();
        let mut put = |name: &str, value: u64| rows.push((name.to_owned(), value.into()));
        for (name, value) in &self.facts {
            put(name, *value);
        }
        put("uptime_ms", self.handles.clock.now().mono_us / 1000);
        put("fds", open_fds());
        put("channels", self.handles.table.taken() as u64);
        put("channels_max", self.handles.table.capacity() as u64);
        put("present", self.handles.table.present() as u64);
        put("lingering", report.lingering as u64);
        put("online", self.handles.registry.len() as u64);
        put("queue_depth", self.handles.queue.departures().0 as u64);
        put("queue_entries", self.handles.queue.len() as u64);
        for (name, value) in report.stages {
            put(name, value);
        }
        for (name, _, value) in self.handles.metrics.counters() {
            put(&name, value);
        }
        put("log_dropped", self.logs.dropped());
        Ok(Stats(rows))
    }

    /// Answers as soon as the drain has begun; the admin watches it in the log, or by `queue`.
    fn drain(&self, drain: Drain, told: Receiver<()>) -> Result<Draining, Refusal> {
        let (reply, answer) = crossbeam_channel::bounded(1);
        let ask = DrainAsk { limit: drain.for_ms.length(), rate: drain.rate, reply, told };
        self.handles.queue.push(Event::Control(ControlAsk::Drain(ask)));
        let begun = answer.recv_timeout(ANSWER_MAX).map_err(|_| silent("main"))?;
        let channels = begun.ok_or(Refusal::Stopping)? as u64;
        Ok(Draining { channels })
    }

    /// Asks every worker for its channels.
    fn reports(&self) -> Result<Vec<ChannelReport>, Refusal> {
        let workers = self.handles.worker_sender.workers();
        let (reply, answers) = crossbeam_channel::bounded(workers);
        for worker in 0..workers {
            self.handles.worker_sender.post(
                worker,
                &mut vec![WorkerCommand::Report(reply.clone())],
                &mut Vec::new(),
            );
        }
        let deadline = Instant::now() + ANSWER_MAX;
        let mut all = Vec::new();
        for _ in 0..workers {
            all.extend(answers.recv_deadline(deadline).map_err(|_| silent("a worker"))?);
        }
        Ok(all)
    }

    pub(super) fn kick(&self, kick: &Kick) -> Result<Kicked, Refusal> {
        let (reports, milestones) = crossbeam_channel::unbounded();
        let mut bans =
            kick.ban.map(|length| BansUnderWay::new(length, kick.reason.as_ref().map(KickReason::as_str)));
        let mut tally = Tally {
            close_info: close_info(kick, bans.as_ref()),
            kicked: Vec::new(),
            waited: Vec::new(),
            missed: Vec::new(),
            fault: None,
        };
        let reports = kick.wait.then_some(reports);
        for target in &kick.targets {
            let hits = self.hits_of_banned(target, bans.as_mut())?;
            if hits.is_empty() {
                match self.ghost(target)? {
                    Ok(ghost) => tally.kicked.extend(ghost),
                    Err(fault) => drop(tally.fault.get_or_insert((target.clone(), fault))),
                }
                if let Target::Addr(block) = target {
                    tally.missed.push(*block);
                }
            }
            for hit in hits {
                self.send_away(hit, &mut tally, reports.as_ref());
            }
        }
        if let Some(bans) = &bans {
            for ban in bans.wait()? {
                self.enforce(&ban, &mut tally, reports.as_ref());
            }
        }
        drop(reports);
        let Tally { mut kicked, waited, fault, .. } = tally;
        self.handles.metrics.kicks.add(waited.len() as u64);
        if let Some((target, fault)) = fault {
            return Err(Refusal::StaleOnline { target, fault });
        }
        if kick.wait {
            let stages = await_stages(&waited, &milestones)?;
            for row in &mut kicked {
                if let Some(stages) = row.channel.as_ref().and_then(|channel| stages.get(channel)) {
                    row.told_us = stages.told;
                    row.shutdown_us = stages.shut_down;
                    row.offline_us = stages.offline;
                }
            }
        }
        Ok(Kicked { kicked })
    }

    /// The channels that a target means. Whoever is to be banned is on the way to main before any of them leaves.
    fn hits_of_banned(
        &self,
        target: &Target,
        bans: Option<&mut BansUnderWay>,
    ) -> Result<Vec<KickTarget>, Refusal> {
        let Some(bans) = bans else { return self.hits(target) };
        if let Some(name) = name_of(target).filter(|name| *name != BanName::All) {
            // First the ban: a user who logs in before it is among the targets that are found, one who logs in after it is kept out.
            bans.ask_main(&self.handles.queue, &[name]);
            return self.hits(target);
        }
        let hits = self.hits(target)?;
        let users = hits.iter().filter_map(|hit| hit.user.as_ref());
        let names: Vec<_> = users.map(|(user, _)| BanName::Id(*user)).collect();
        bans.ask_main(&self.handles.queue, &names);
        Ok(hits)
    }

    /// A ban holds now. Its user may have come online just before it; and it counts also where nobody is here.
    fn enforce(&self, ban: &Ban, tally: &mut Tally, reports: Option<&Receipts>) {
        match ban.banned {
            BanSubject::User(user) => {
                if let Some(hit) = self.session_of(user) {
                    self.send_away(hit, tally, reports);
                }
                if tally.kicked.iter().all(|row| row.user != Some(user.0)) {
                    let name = ban.name.as_deref().map(Into::into);
                    tally.kicked.push(KickedRow::new(None, Some(user.0), name));
                }
            }
            BanSubject::Block(block) if tally.missed.contains(&block) => {
                let address = Some(block.to_string());
                tally.kicked.push(KickedRow { address, ..KickedRow::new(None, None, None) });
            }
            BanSubject::Block(_) => {}
        }
    }

    fn send_away(&self, hit: KickTarget, tally: &mut Tally, reports: Option<&Receipts>) {
        let began_us = self.handles.clock.now().mono_us;
        let channel = Some(hit.channel);
        let watcher = reports.map(|to| Arc::new(CloseWatcher { channel, began_us, to: to.clone() }));
        let close_info = CloseInfo { watcher, ..tally.close_info.clone() };
        let hit_it = match hit.session {
            Some(session) => self.handles.kicker.kick_session(hit.channel, session, close_info),
            None => self.handles.kicker.kick_saying(hit.channel, close_info),
        };
        if hit_it {
            let (user, name) = hit.user.map(|(id, name)| (id.0, name)).unzip();
            tally.waited.push(hit.channel);
            tally.kicked.push(KickedRow::new(Some(hit.channel.to_string()), user, name));
        }
    }

    /// The channels that a target means and that have not left.
    fn hits(&self, target: &Target) -> Result<Vec<KickTarget>, Refusal> {
        let by_report = |wanted: &dyn Fn(&ChannelReport) -> bool| -> Result<Vec<KickTarget>, Refusal> {
            let present = self.reports()?.into_iter().filter(|report| report.state != "lingering");
            Ok(present
                .filter(wanted)
                .map(|report| KickTarget { channel: report.channel, session: None, user: report.user })
                .collect())
        };
        Ok(match target {
            Target::User(user) => self.session_of(*user).into_iter().collect(),
            Target::Name(name) => {
                let named = self.handles.registry.named(name);
                let user = named.or_else(|| self.handles.registry.named(&composed(name)?));
                user.and_then(|user| self.session_of(user)).into_iter().collect()
            }
            Target::Channel(slot, generation) => {
                let channel = ChannelId { slot: *slot, generation: *generation };
                match self.handles.table.stage(channel) {
                    Stage::Free | Stage::Offline => Vec::new(),
                    Stage::Connected | Stage::LoggedIn(_) => {
                        vec![KickTarget { channel, session: None, user: self.user_on(channel) }]
                    }
                }
            }
            Target::Addr(block) => by_report(&|report| block.contains(report.peer.ip()))?,
            Target::Idle(limit) => {
                let limit_ms = limit.as_millis() as u64;
                by_report(&|report| report.idle_ms >= limit_ms)?
            }
            Target::All => by_report(&|_| true)?,
        })
    }

    fn session_of(&self, user: UserId) -> Option<KickTarget> {
        let online = self.handles.registry.find(user)?;
        let name = online.sender.name.to_string();
        Some(KickTarget { channel: online.channel, session: Some(online.session), user: Some((user, name)) })
    }

    fn user_on(&self, channel: ChannelId) -> Option<(UserId, String)> {
        let user = self.handles.table.user(channel)?;
        let online = self.handles.registry.find(user).filter(|online| online.channel == channel)?;
        Some((user, online.sender.name.to_string()))
    }

    /// A user who is marked online without a live channel is set offline, and that counts.
    fn ghost(&self, target: &Target) -> Result<Result<Option<KickedRow>, StaleOnlineFault>, Refusal> {
        let who = match target {
            Target::User(user) => StaleOnlineName::Id(*user),
            Target::Name(name) => StaleOnlineName::Name(name.clone()),
            _ => return Ok(Ok(None)),
        };
        let (reply, answer) = crossbeam_channel::bounded(1);
        self.handles.queue.push(Event::Control(ControlAsk::StaleOnline { who, reply }));
        let ghost = answer.recv_timeout(ANSWER_MAX).map_err(|_| silent("main"))?;
        let row = |ghost: StaleOnline| KickedRow {
            offline_us: Some(ghost.offline_us),
            ..KickedRow::new(None, Some(ghost.user.0), Some(ghost.name))
        };
        Ok(ghost.map(|ghost| ghost.map(row)))
    }
}

/// Where the stages of channels' ends are reported.
type Receipts = Sender<(Option<ChannelId>, CloseStage)>;

/// What a kick has done so far.
struct Tally {
    /// What everybody hears.
    close_info: CloseInfo,
    kicked: Vec<KickedRow>,
    /// The channels among them.
    waited: Vec<ChannelId>,
    /// Addresses from which nobody is here.
    missed: Vec<AddrBlock>,
    /// The first target whose state could not be put right. The others are sent away all the same.
    fault: Option<(Target, StaleOnlineFault)>,
}

/// The goodbye of the channels that a kick sends away.
fn close_info(kick: &Kick, bans: Option<&BansUnderWay>) -> CloseInfo {
    match (bans, &kick.reason) {
        (Some(bans), _) => bans.close_info(),
        (None, Some(reason)) => CloseInfo::new(Reason::Kicked).saying(reason.as_str()),
        (None, None) => CloseInfo::new(Reason::Kicked),
    }
}

/// What is known of one channel's end.
#[derive(Default)]
struct Stages {
    told: Option<u64>,
    shut_down: Option<u64>,
    offline: Option<u64>,
    /// True exactly when nobody could be told at once: the connection is broken, or the client does not read.
    untold: bool,
}

impl Stages {
    fn missing(&self) -> Option<&'static str> {
        match self {
            Stages { told: None, untold: false, .. } => Some("told"),
            Stages { shut_down: None, untold: false, .. } => Some("shut down"),
            Stages { offline: None, .. } => Some("offline"),
            _ => None,
        }
    }
}

/// Waits until the end of every channel is committed, and told and shut down where the client can be reached.
fn await_stages(
    channels: &[ChannelId],
    milestones: &Receiver<(Option<ChannelId>, CloseStage)>,
) -> Result<HashMap<String, Stages>, Refusal> {
    let deadline = Instant::now() + ANSWER_MAX;
    let mut stages: HashMap<ChannelId, Stages> =
        channels.iter().map(|channel| (*channel, Stages::default())).collect();
    loop {
        let open = stages.iter().find_map(|(channel, s)| Some((*channel, s.missing()?)));
        let Some((channel, stage)) = open else { break };
        let unconfirmed =
            || Refusal::Unconfirmed { channel: channel.to_string(), stage, seconds: ANSWER_MAX.as_secs() };
        let (from, milestone) = milestones.recv_deadline(deadline).map_err(|_| unconfirmed())?;
        let Some(entry) = from.and_then(|channel| stages.get_mut(&channel)) else { continue };
        match milestone {
            CloseStage::Told(us) => entry.told = Some(us),
            CloseStage::ShutDown(us) => entry.shut_down = Some(us),
            CloseStage::Offline(us) => entry.offline = Some(us),
            CloseStage::Blocked | CloseStage::Lost | CloseStage::Closed => entry.untold = true,
        }
    }
    Ok(stages.into_iter().map(|(channel, stages)| (channel.to_string(), stages)).collect())
}

/// The next connection, or none in that time.
fn accept_within(listener: &UnixListener, limit: Duration) -> io::Result<Option<UnixStream>> {
    let limit = Timespec::try_from(limit).map_err(io::Error::other)?;
    match poll(&mut [PollFd::new(listener, PollFlags::IN)], Some(&limit)) {
        // The handler of a signal may run on this thread.
        Ok(0) | Err(Errno::INTR) => Ok(None),
        // Only this thread accepts, so it does not wait here.
        Ok(_) => listener.accept().map(|(stream, _)| Some(stream)),
        Err(errno) => Err(errno.into()),
    }
}

fn refuse(mut stream: &UnixStream, why: &str) {
    // The client may be gone, and then nobody misses the reason.
    let _ = stream.write_all(&failure_line(why));
}

/// Open fds of this process, the one that counts them not included.
fn open_fds() -> u64 {
    std::fs::read_dir("/proc/self/fd").map_or(0, |entries| (entries.count() as u64).saturating_sub(1))
}
