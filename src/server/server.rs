//! Composition: from a `Config` to running threads, and back to an exit code.
//!
//! ```text
//!   worker 0..N ──▶ offline queue ──▶ main (this thread) ──▶ SQLite
//!     ▲    ▲            ▲   ▲            │
//!     │    └ mailboxes ─┼───┼────────────┘
//!   auth, control ──────┘   └── signals
//! ```

use crate::admin::history_pool::HistoryPool;
use crate::admin::server::AdminServer;
use crate::auth::login_limiter::{LoginLimiter, LoginLimits};
use crate::auth::password::{Cost, Hasher};
use crate::auth::pool::{Auth, Jobs, Verifier};
use crate::channel::{ChannelTable, Reason};
use crate::clock::Clock;
use crate::config::{Config, Duplicate, Keepalive};
use crate::escape::shown_path;
use crate::handles::Handles;
use crate::logs::{self, Logs};
use crate::main_loop::context::Policy;
use crate::main_loop::state::MainLoop;
use crate::main_loop::turn::{BATCH_US, rest_after};
use crate::main_loop::watchdog::{Alert, Watchdog};
use crate::message::command::{WorkerCommand, WorkerSender};
use crate::message::event::Event;
use crate::metrics::Metrics;
use crate::net::listener::{ListenError, TcpTimeouts, listen};
use crate::offline_queue::closer::Kicker;
use crate::offline_queue::queue::BATCH_MAX;
use crate::offline_queue::queue::OfflineQueue;
use crate::process::data_dir::{self, DataDirectory, DirectoryError};
use crate::process::fd_budget::{self, FdBudget, LimitError};
pub use crate::process::signals::block_signals_of_writing;
use crate::process::signals::{self, Terminal};
use crate::process::systemd::ServiceManager;
use crate::store::sqlite::{Checkpointer, History, OpenError, OpenedFiles, SqliteLookup, SqliteStore};
use crate::sync::Arc;
use crate::worker::event_loop::{ProtocolKind, Worker, WorkerSetup};
use crate::worker::{IpLimit, Limits, Mailboxes, Shared, Unauthenticated};
use socket2::TcpKeepalive;
use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::thread::JoinHandle;
use std::time::Duration;

/// Auth threads, at most; each needs the memory of one hash while it has some to make.
const AUTH_THREADS_MAX: usize = 4;
/// The largest request before a login, in bytes, whatever `--max-frame` says above it.
const MAX_FRAME_BEFORE_LOGIN: usize = 8 * 1024;
/// Entries that main takes from its queue under one lock.
const TAKE_MAX: usize = 64;
const _: () = assert!(TAKE_MAX <= BATCH_MAX);
/// How often the watchdog looks at the offline queue, and whether the database is still there.
const WATCHDOG_INTERVAL: Duration = Duration::from_millis(250);

/// Why the server could not start, or ended otherwise than in order.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// An address cannot be listened on.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// The data directory cannot be used.
    #[error(transparent)]
    Directory(#[from] DirectoryError),
    /// The database cannot be used.
    #[error(transparent)]
    Database(#[from] OpenError),
    /// The fd limit is too low.
    #[error(transparent)]
    Limit(#[from] LimitError),
    /// The kernel refused something else at the start.
    #[error("cannot {what}: {source}")]
    Start {
        /// What was tried.
        what: &'static str,
        /// Why not.
        source: io::Error,
    },
    /// The database was deleted, moved or replaced while the server ran.
    #[error(
        "stopped, because the database is not the file that was opened; put it back, or start again on what is there{}",
        belonging(aside)
    )]
    Lost {
        /// What SQLite had beside it, by its new names.
        aside: Vec<PathBuf>,
    },
    /// The database did not take the last writes.
    #[error(
        "stopped, but the last states could not be written to the database; the next start sets them right"
    )]
    Unwritten,
}

/// Says which files were renamed, and which database they belong to.
fn belonging(aside: &[PathBuf]) -> String {
    if aside.is_empty() {
        return String::new();
    }
    let names: Vec<_> = aside.iter().map(|path| shown_path(path)).collect();
    format!("; its log is set aside: {} (without .lost, beside that file only)", names.join(", "))
}

fn starting(what: &'static str) -> impl FnOnce(io::Error) -> ServerError {
    move |source| ServerError::Start { what, source }
}

/// Runs the server until it is stopped. The calling thread becomes main.
///
/// # Errors
/// When it cannot start (and then nothing is changed), or when the last writes failed.
pub fn run(config: &Config, logs: &Logs) -> Result<(), ServerError> {
    end_process_on_panic(logs);
    data_dir::create_privately();
    let queue = Arc::default();
    let terminal = Arc::<Terminal>::default();
    signals::catch(&queue, &terminal, logs).map_err(starting("catch signals"))?;
    let budget = FdBudget::raise(config)?;
    let mut listeners = Listeners::bind(config)?;
    listeners.warn_of_readable_passwords();
    let directory = Arc::new(DataDirectory::hold(&config.data)?);
    let clock = Clock::start();
    let opened = SqliteStore::open(directory.path(), config.durability, clock.now().unix_ms)?;
    if opened.recovered > 0 {
        tracing::warn!(
            users = opened.recovered,
            reason = Reason::ServerCrash.word(),
            "the last run was killed; whoever was online is set offline"
        );
    }
    let control_listener = directory.bind_control()?;
    let parts = Threads::build(config, &budget, clock, queue)?;
    parts.handles.metrics.left.add(Reason::ServerCrash, opened.recovered);
    let files = opened.store.opened_files();
    let checkpointer =
        Checkpointer::start(directory.path(), Arc::clone(&files), Arc::clone(&parts.handles.metrics))?;
    parts.start_auth(config, &directory)?;
    let mut drain = parts.drain(config, opened.store).with_trusted(opened.trusted);
    drain = drain.with_bans(opened.bans).with_chats(opened.accepted, opened.unfinished);
    let workers = parts.start_workers(config, &mut listeners, &budget)?;
    parts.start_control(control_listener, config, &directory, logs)?;
    parts.start_watchdog(terminal, Arc::clone(&files))?;
    announce(&listeners, &directory)?;
    let manager = ServiceManager::told_ready().map_err(starting("start a thread"))?;

    drain_until_stopped(&mut drain, &parts, manager);

    parts.end_workers();
    for worker in workers {
        // A worker that has panicked has ended the process already.
        drop(worker.join());
    }
    drain.look_last(&|| clock.now());
    directory.release();
    checkpointer.stop();
    let settled = drain.is_settled();
    if let Err(error) = drain.into_store().close() {
        tracing::warn!(%error, "the database could not be tidied; its log is read at the next start");
    }
    tracing::info!("stopped");
    if files.is_lost() {
        return Err(ServerError::Lost { aside: files.set_aside() });
    }
    if settled { Ok(()) } else { Err(ServerError::Unwritten) }
}

/// What the threads share.
struct Threads {
    handles: Arc<Handles<TcpStream>>,
    jobs: Jobs,
    desks: Vec<WorkerSetup>,
}

impl Threads {
    fn build(
        config: &Config,
        budget: &FdBudget,
        clock: Clock,
        queue: Arc<OfflineQueue<TcpStream>>,
    ) -> Result<Self, ServerError> {
        let table = Arc::new(ChannelTable::new(budget.capacity));
        let desks = (0..config.workers)
            .map(|_| WorkerSetup::new())
            .collect::<io::Result<Vec<_>>>()
            .map_err(starting("create a poller"))?;
        let mailboxes = desks.iter().map(|desk| Arc::clone(&desk.mailbox)).collect();
        let worker_sender: Arc<dyn WorkerSender> = Arc::new(Mailboxes::new(Arc::clone(&table), mailboxes));
        let (auth, jobs) = Auth::new()
            .map_err(|error| ServerError::Start { what: "read random bytes", source: error.into() })?;
        let metrics = Arc::<Metrics>::default();
        let limits = LoginLimits {
            per_user: config.login_failures,
            per_address: config.address_failures,
            registrations: config.address_registrations,
        };
        let kicker = Kicker::new(
            Arc::clone(&table),
            Arc::clone(&queue),
            Arc::clone(&worker_sender),
            Arc::clone(&metrics),
            clock,
        );
        let handles = Arc::new(Handles {
            table,
            registry: Arc::default(),
            queue,
            worker_sender,
            auth: Arc::new(auth),
            attempts: Arc::new(LoginLimiter::new(limits, Arc::clone(&metrics))),
            metrics,
            kicker,
            clock,
        });
        Ok(Threads { handles, jobs, desks })
    }

    fn drain(&self, config: &Config, store: SqliteStore) -> MainLoop<SqliteStore, TcpStream> {
        let policy = Policy {
            grace_us: config.grace.as_micros() as u64,
            stop_drain_us: config.stop_drain.as_micros() as u64,
            box_messages: config.box_messages as u64,
            box_bytes: config.box_bytes as u64,
            box_total: config.box_total as u64,
            ack_window: config.ack_window,
            box_age_ms: config.box_age.as_millis() as u64,
            history_age_ms: config.history_age.as_millis() as u64,
            history_rows: config.history_rows as u64,
            presence_delay_us: config.presence_delay.as_micros() as u64,
            friends_max: config.friends_max,
            groups_max: config.groups_max,
            reject_duplicates: config.duplicate == Duplicate::Reject,
        };
        MainLoop::new(store, policy, Arc::clone(&self.handles))
    }

    fn start_auth(&self, config: &Config, directory: &DataDirectory) -> Result<(), ServerError> {
        let threads = fd_budget::cores().min(AUTH_THREADS_MAX);
        let argon2 = config.argon2;
        let cost = Cost { memory_kib: argon2.memory_kib, passes: argon2.passes, lanes: argon2.lanes };
        let large = Arc::default();
        for index in 0..threads {
            let verifier = Verifier {
                jobs: self.jobs.clone(),
                auth: Arc::clone(&self.handles.auth),
                attempts: Arc::clone(&self.handles.attempts),
                lookup: Box::new(SqliteLookup::open(directory.path())?),
                queue: Arc::clone(&self.handles.queue),
                worker_sender: Arc::clone(&self.handles.worker_sender),
                table: Arc::clone(&self.handles.table),
                hasher: Hasher::new(cost, Arc::clone(&large)),
                clock: self.handles.clock,
            };
            // The auth threads end with the process: no client waits for a hash when the server stops.
            spawn(format!("auth-{index}"), move || verifier.run())?;
        }
        Ok(())
    }

    fn start_workers(
        &self,
        config: &Config,
        listeners: &mut Listeners,
        budget: &FdBudget,
    ) -> Result<Vec<JoinHandle<()>>, ServerError> {
        let shared = Arc::new(Shared {
            limits: Limits {
                max_frame: config.max_frame,
                max_frame_before_login: config.max_frame.min(MAX_FRAME_BEFORE_LOGIN),
                out_limit: config.out_limit,
                login_timeout_us: config.login_timeout.as_micros() as u64,
                idle_us: config.idle.map(|idle| idle.as_micros() as u64),
                max_channels: budget.max_channels,
                write_timeout_us: config.write_timeout.as_micros() as u64,
                user_timeout_us: config.user_timeout.as_micros() as u64,
                quiet_timeout_us: config.quiet_timeout().as_micros() as u64,
                ping_interval_us: config.ping_interval.as_micros() as u64,
                ping_timeout_us: config.ping_timeout.as_micros() as u64,
                request_rate: config.request_rate,
            },
            addresses: IpLimit::new(config.address_channels),
            unauthenticated: Unauthenticated::new(),
        });
        let mut threads = Vec::new();
        for (index, desk) in self.desks.iter().enumerate() {
            let own = listeners.take(index);
            let worker = Worker::new(index, desk, own, Arc::clone(&self.handles), Arc::clone(&shared))
                .map_err(starting("watch a listener"))?;
            threads.push(spawn(format!("worker-{index}"), move || worker.run())?);
        }
        Ok(threads)
    }

    fn start_control(
        &self,
        listener: std::os::unix::net::UnixListener,
        config: &Config,
        directory: &Arc<DataDirectory>,
        logs: &Logs,
    ) -> Result<(), ServerError> {
        let server = AdminServer {
            handles: Arc::clone(&self.handles),
            archive: HistoryPool::new(History::open(directory.path())?),
            logs: logs.clone(),
            facts: vec![
                ("pid", u64::from(std::process::id())),
                ("workers", config.workers as u64),
                ("grace_ms", config.grace.as_millis() as u64),
            ],
        };
        // The admin socket's thread ends with the process: nothing of a request that is not answered has to be kept.
        let directory = Arc::clone(directory);
        spawn("control".into(), move || server.run(listener, || directory.renew_control()))?;
        Ok(())
    }

    /// Logs when main falls behind, which main itself could not do, and when the database is lost. Looks at the terminal too.
    fn start_watchdog(&self, terminal: Arc<Terminal>, files: Arc<OpenedFiles>) -> Result<(), ServerError> {
        let (queue, clock) = (Arc::clone(&self.handles.queue), self.handles.clock);
        let mut dog = Watchdog::default();
        // It ends with the process.
        spawn("watchdog".into(), move || {
            loop {
                terminal.look();
                std::thread::sleep(WATCHDOG_INTERVAL);
                if let Some(found) = files.look() {
                    tracing::error!(
                        "{found} while the server runs; nothing can be stored, so the server stops"
                    );
                    queue.push(Event::DatabaseLost);
                }
                let (depth, oldest_us) = queue.departures();
                match dog.look(oldest_us, clock.now().mono_us) {
                    Some(Alert::Behind(age_us)) => {
                        let age_ms = age_us / 1000;
                        tracing::warn!(
                            depth,
                            age_ms,
                            "the offline queue is behind: is the disk slow or the database locked?"
                        );
                    }
                    Some(Alert::CaughtUp) => tracing::info!("the offline queue has caught up"),
                    None => {}
                }
            }
        })?;
        Ok(())
    }

    fn end_workers(&self) {
        for worker in 0..self.desks.len() {
            self.handles.worker_sender.post(worker, &mut vec![WorkerCommand::Exit], &mut Vec::new());
        }
    }
}

/// Main's loop: wait, drain a batch that is bounded in entries and in time, commit. Rests between batches of many ends.
fn drain_until_stopped(
    drain: &mut MainLoop<SqliteStore, TcpStream>,
    parts: &Threads,
    mut manager: ServiceManager,
) {
    let clock = parts.handles.clock;
    // What one turn has no time for is the first of the next.
    let mut entries = VecDeque::new();
    let mut rest = Duration::ZERO;
    while !drain.is_finished() {
        let ping_us = manager.timeout_us(clock.now().mono_us);
        let sleep_us = [drain.timeout_us(), ping_us].into_iter().flatten().min();
        if entries.is_empty() {
            parts.handles.queue.wait(sleep_us.map(Duration::from_micros), rest);
        }
        let began_us = clock.now().mono_us;
        let (mut taken, mut presses) = (0, false);
        loop {
            if entries.is_empty() {
                parts.handles.queue.pop_batch(TAKE_MAX, &mut entries);
            }
            let count = entries.len();
            let now = clock.now();
            while !drain.is_full()
                && let Some(entry) = entries.pop_front()
            {
                taken += 1;
                presses |= entry.is_pressing();
                drain.take(entry, now);
            }
            if drain.is_full() || count < TAKE_MAX || taken >= BATCH_MAX || now.mono_us >= began_us + BATCH_US
            {
                break;
            }
        }
        parts.handles.metrics.drains.add(u64::from(taken > 0));
        parts.handles.metrics.drained.add(taken as u64);
        drain.finish(&|| clock.now());
        rest = rest_after(taken, presses);
        manager.turned(clock.now().mono_us, drain.stop_limit_us());
    }
}

/// True exactly when only this machine can reach the address.
fn is_loopback(address: &SocketAddr) -> bool {
    address.ip().to_canonical().is_loopback()
}

/// Every address's listeners, one for each worker.
struct Listeners {
    json: Vec<SocketAddr>,
    line: Option<SocketAddr>,
    by_address: Vec<(ProtocolKind, Vec<Option<TcpListener>>)>,
}

impl Listeners {
    fn bind(config: &Config) -> Result<Self, ServerError> {
        let mut all = Listeners { json: Vec::new(), line: None, by_address: Vec::new() };
        let Keepalive { idle, interval, probes } = config.keepalive;
        let keepalive = TcpKeepalive::new().with_time(idle).with_interval(interval).with_retries(probes);
        let patience = TcpTimeouts { keepalive, user_timeout: config.user_timeout };
        for address in &config.listen {
            let bound = all.add(ProtocolKind::Json, *address, config.workers, &patience)?;
            all.json.push(bound);
        }
        if let Some(address) = config.line {
            all.line = Some(all.add(ProtocolKind::Lines, address, config.workers, &patience)?);
        }
        Ok(all)
    }

    /// Listens on one more address, and answers which port it is.
    fn add(
        &mut self,
        speaks: ProtocolKind,
        address: SocketAddr,
        workers: usize,
        patience: &TcpTimeouts,
    ) -> Result<SocketAddr, ServerError> {
        let listeners = listen(address, workers, patience)?;
        let bound = listeners.first().and_then(|listener| listener.local_addr().ok());
        self.by_address.push((speaks, listeners.into_iter().map(Some).collect()));
        Ok(bound.unwrap_or(address))
    }

    /// Logs in one line which addresses other machines can reach, because there is no encryption.
    fn warn_of_readable_passwords(&self) {
        let open: Vec<_> =
            self.json.iter().chain(&self.line).filter(|address| !is_loopback(address)).collect();
        if !open.is_empty() {
            let addresses = open.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
            tracing::warn!(
                addresses,
                "passwords cross the network readably: listen on loopback, or let a tunnel or a proxy encrypt"
            );
        }
    }

    /// One worker's listeners, of each address one.
    fn take(&mut self, worker: usize) -> Vec<(ProtocolKind, TcpListener)> {
        let own = |(speaks, of): &mut (ProtocolKind, Vec<Option<TcpListener>>)| {
            Some((*speaks, of.get_mut(worker).and_then(Option::take)?))
        };
        self.by_address.iter_mut().filter_map(own).collect()
    }
}

/// Prints the one line on stdout: everything listens. A thread of its own prints it, because stdout may never be read.
fn announce(listeners: &Listeners, directory: &DataDirectory) -> Result<(), ServerError> {
    let json: Vec<String> = listeners.json.iter().map(SocketAddr::to_string).collect();
    let line = listeners.line.map_or("off".to_owned(), |address| address.to_string());
    let ready = format!(
        "linger ready pid={} json={} line={line} control={}\n",
        std::process::id(),
        json.join(","),
        shown_path(&directory.control())
    );
    let say = move || {
        // Not through the buffer of the standard library, whose lock would be held meanwhile.
        let stdout = io::stdout().as_fd().try_clone_to_owned().map(File::from);
        if let Err(error) = stdout.and_then(|stdout| logs::write_whole(stdout, ready.as_bytes())) {
            tracing::warn!(%error, "the ready line could not be written to stdout");
        }
    };
    spawn("ready-line".into(), say)?;
    Ok(())
}

fn spawn(name: String, work: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, ServerError> {
    std::thread::Builder::new().name(name).spawn(work).map_err(starting("start a thread"))
}

/// A panic anywhere ends the process: a server that has lost a thread serves only some of its clients, and the next start
/// sets right what was left.
fn end_process_on_panic(logs: &Logs) {
    let report = std::panic::take_hook();
    let logs = logs.clone();
    std::panic::set_hook(Box::new(move |panic| {
        logs.flush();
        logs::end_soon(1);
        report(panic);
        // Not through the log, which may be what has panicked.
        let _ =
            writeln!(io::stderr(), "linger: a thread panicked, so the server ends at once; start it again");
        std::process::exit(1);
    }));
}
