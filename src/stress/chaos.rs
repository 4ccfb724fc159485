//! `chaos`: senders number their chats, receivers confirm them, and faults are injected on both sides.
//!
//! Runs in one thread, with some receivers in processes of their own. Connections are reset, closed, half closed, left
//! unread, kicked and taken over; processes are killed with SIGKILL; and where the scenario runs the server itself,
//! so is the server. Bad when a chat that was confirmed to its sender was not taken by its receiver exactly once and in
//! order, by its number; or when the server ended a connection without a fault.
//!
//! | module | duty |
//! |---|---|
//! | `clients` | senders and receivers, and their connections |
//! | `fault_injector` | which client gets which fault, and when |
//! | `checker` | what was sent, confirmed, taken, and what is wrong |
//! | `verdict` | tells that, and what happened around it |
//! | `text` | tells one chat from another |
//! | `process`, `receive`, `log` | receivers that are processes: parent, child, and what lies between |

mod args;
mod chat_key;
mod checker;
mod clients;
mod fault_injector;
mod receiver_handle;
mod receiver_log;
mod receiver_process;
mod verdict;

use std::net::SocketAddr;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::json;

use super::client_pool::{ClientPool, CloseMode};
use super::control::Control;
use super::error::StressError;
use super::login::{self, Names};
use super::managed_server::{ManagedServer, Ready};
use super::progress::Progress;
use super::report::Report;
pub use args::ChaosArgs;
use checker::Checker;
use clients::Clients;
use fault_injector::{Fault, FaultInjector, Targets};
use receiver_handle::{ReceiverHandle, Role, ScratchDir};
use receiver_log::LogEntry;
pub use receiver_process::ReceiveArgs;
use receiver_process::ServerAddress;
pub(super) use receiver_process::run as run_receiver;
use verdict::{InjectedFault, Outcome};

/// A turn's longest wait.
const TURN: Duration = Duration::from_millis(2);

/// How often the logs of receiver processes are read.
const READ_LOGS_EVERY: Duration = Duration::from_millis(20);

/// The longest time until a client comes back after a fault, in milliseconds.
const AWAY_MS: usize = 150;

/// The longest time until a client comes back whose box is to fill, in milliseconds.
const LONG_AWAY_MS: usize = 2_000;

/// The longest time for which a client stops reading, in milliseconds.
const PAUSE_MS: usize = 500;

/// The longest time until the killed server is started again, in milliseconds.
const DOWN_MS: usize = 200;

/// One in so many senders forgets its unanswered chats when it is disconnected or the server is killed.
const FORGETS_SHARE: usize = 4;

/// At the end, the wait stops when nothing new has come for this long.
const STUCK_AFTER: Duration = Duration::from_secs(if cfg!(test) { 2 } else { 10 });

/// When everything has come, the wait goes on for this long, for chats that must not come.
const QUIET: Duration = Duration::from_millis(300);

struct Chaos<'a> {
    args: &'a ChaosArgs,
    targets: Targets,
    clients: Clients,
    processes: Vec<ReceiverHandle>,
    injector: FaultInjector,
    control: Control,
    own: Option<ManagedServer>,
    server: ServerAddress,
    /// When the server that was killed is started again; none while it runs or starts.
    restart_at: Option<Instant>,
    /// True exactly while the server runs and listens.
    is_up: bool,
    logs_read: Instant,
    injected: Vec<InjectedFault>,
}

pub(super) fn run(
    args: &ChaosArgs,
    names: &Names,
    progress: &mut Progress,
    report: &mut Report,
) -> Result<(), StressError> {
    let mut own = (!args.serve.is_empty()).then(|| ManagedServer::start(&args.serve)).transpose()?;
    let (target, data) = match &mut own {
        Some(server) => {
            let ready = server.wait_until_ready()?;
            (ready.target, ready.data)
        }
        None => (args.common.target, args.common.data.clone()),
    };
    let control = Control::new(&data);
    control.ask(&json!({"cmd": "stats"}))?;

    let targets = args.targets();
    let ids = register_all(target, targets, names, progress)?;
    let run = run_name();
    let scratch = (targets.processes > 0).then(|| ScratchDir::new(&run)).transpose()?;
    let server = ServerAddress { server_run: 1, target };
    let processes = start_processes(args, targets, names, &run, scratch.as_ref(), server)?;

    let connections = 2 * (targets.senders + targets.receivers - targets.processes);
    let pool = ClientPool::new(target, connections)?;
    let checker = Checker::new(targets.senders, targets.receivers);
    let clients = Clients::new(args, pool, names, ids, &run, checker);
    let mut chaos = Chaos {
        args,
        targets,
        clients,
        processes,
        injector: FaultInjector::new(args.common.seed, args.fault_ms, args.server_kill_ms),
        control,
        own,
        server,
        restart_at: None,
        is_up: true,
        logs_read: Instant::now(),
        injected: Vec::new(),
    };
    chaos.inject_faults(progress)?;
    let quiet = chaos.wait_until_quiet(progress)?;
    let all_back = chaos.check_final_login()?;
    Outcome {
        seed: args.common.seed,
        targets,
        clients: &chaos.clients,
        injected: &chaos.injected,
        quiet: quiet.filter(|_| all_back),
    }
    .report(report);
    chaos.own.map_or(Ok(()), ManagedServer::stop)
}

/// Registers everybody who is not registered yet; answers the users, senders first.
fn register_all(
    target: SocketAddr,
    targets: Targets,
    names: &Names,
    progress: &mut Progress,
) -> Result<Vec<i64>, StressError> {
    let mut pool = ClientPool::new(target, targets.senders + targets.receivers)?;
    let ids = login::log_all_in(&mut pool, names, progress)?;
    (0..pool.size()).for_each(|who| pool.close(who, CloseMode::Fin));
    Ok(ids)
}

/// No two runs have the same name, so that texts of an earlier one are not taken for ours.
fn run_name() -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    format!("{:x}-{}", now.as_micros(), std::process::id())
}

fn start_processes(
    args: &ChaosArgs,
    targets: Targets,
    names: &Names,
    run: &str,
    scratch: Option<&ScratchDir>,
    server: ServerAddress,
) -> Result<Vec<ReceiverHandle>, StressError> {
    let Some(scratch) = scratch else { return Ok(Vec::new()) };
    let everybody = targets.senders + targets.receivers;
    (everybody - targets.processes..everybody)
        .map(|who| {
            let seed = args.common.seed.wrapping_mul(1000).wrapping_add(who as u64);
            let (name, run) = (names.name(who), run.to_owned());
            ReceiverHandle::start(Role { name, run, slow_ms: args.slow_ms, seed }, scratch, server)
        })
        .collect()
}

impl Chaos<'_> {
    /// Lets clients chat and injects faults, for as long as asked.
    fn inject_faults(&mut self, progress: &mut Progress) -> Result<(), StressError> {
        let time = Duration::from_secs(self.args.seconds);
        progress.phase("chaos, seconds", self.args.seconds);
        while self.clients.now() < time {
            if let Some((who, fault)) = self.injector.next_fault(self.clients.now(), self.targets)
                && self.inject(who, fault)?
            {
                self.note(Some(who), fault.name());
            }
            if self.own.is_some() && self.is_up && self.injector.server_kill_is_due(self.clients.now()) {
                self.kill_server()?;
            }
            self.turn()?;
            progress.set(self.clients.now().as_secs());
        }
        progress.done();
        Ok(())
    }

    fn turn(&mut self) -> Result<(), StressError> {
        self.restart_server_if_due()?;
        self.clients.turn(TURN)?;
        if self.logs_read.elapsed() > READ_LOGS_EVERY {
            self.logs_read = Instant::now();
            self.read_logs()?;
        }
        Ok(())
    }

    /// Injects a fault. True when it had an effect.
    fn inject(&mut self, who: usize, fault: Fault) -> Result<bool, StressError> {
        // Sends first, so that requests are under way when the fault happens.
        self.clients.turn(Duration::ZERO)?;
        let away = self.injector.pause(AWAY_MS);
        let disconnects =
            matches!(fault, Fault::Reset | Fault::Close | Fault::HalfClose | Fault::LongAway | Fault::Kick);
        let has_effect = match fault {
            Fault::Reset => self.clients.disconnect(who, CloseMode::Rst, away),
            Fault::Close => self.clients.disconnect(who, CloseMode::Fin, away),
            Fault::HalfClose => self.clients.disconnect(who, CloseMode::HalfClose, away),
            Fault::LongAway => {
                let away = self.injector.pause(LONG_AWAY_MS);
                self.clients.disconnect(who, CloseMode::Rst, away)
            }
            Fault::Kick => self.kick(who)?,
            Fault::TakeOver => self.clients.take_over(who)?,
            Fault::TwoLogins => self.clients.log_in_twice(who)?,
            Fault::Pause => {
                let pause = self.injector.pause(PAUSE_MS);
                self.clients.stop_reading(who, pause)?
            }
            Fault::KillProcess => {
                let process = self.process(who).expect("only processes get this fault");
                let entries = self.processes[process].kill(self.server)?;
                self.record(who - self.targets.senders, &entries);
                true
            }
        };
        if has_effect && disconnects && who < self.targets.senders && self.injector.one_in(FORGETS_SHARE) {
            self.clients.forget_unanswered(who);
        }
        Ok(has_effect)
    }

    /// The number of the process that a client is.
    fn process(&self, who: usize) -> Option<usize> {
        who.checked_sub(self.targets.senders + self.targets.receivers - self.targets.processes)
    }

    fn kick(&mut self, who: usize) -> Result<bool, StressError> {
        if !self.is_up || self.process(who).is_none() && !self.clients.expect_end(who) {
            return Ok(false);
        }
        let target = self.clients.id(who).to_string();
        let answer = self.control.ask(&json!({"cmd": "kick", "targets": [target], "reason": "chaos"}))?;
        Ok(answer["kicked"].as_array().is_some_and(|kicked| !kicked.is_empty()))
    }

    fn kill_server(&mut self) -> Result<(), StressError> {
        self.clients.turn(Duration::ZERO)?;
        let Some(own) = &mut self.own else { return Ok(()) };
        own.kill()?;
        self.is_up = false;
        self.restart_at = Some(Instant::now() + self.injector.pause(DOWN_MS));
        self.clients.server_is_down();
        for sender in 0..self.targets.senders {
            if self.injector.one_in(FORGETS_SHARE) {
                self.clients.forget_unanswered(sender);
            }
        }
        self.note(None, "server_kill");
        Ok(())
    }

    /// Starts the server again when it is time, and tells everybody when it is ready.
    fn restart_server_if_due(&mut self) -> Result<(), StressError> {
        let Some(own) = &mut self.own else { return Ok(()) };
        if self.restart_at.take_if(|at| *at <= Instant::now()).is_some() {
            own.restart()?;
        } else if self.is_up {
            own.check()?;
        } else if self.restart_at.is_none()
            && let Some(Ready { target, .. }) = own.ready()?
        {
            self.is_up = true;
            self.clients.server_is_up(target);
            self.server = ServerAddress { server_run: self.clients.server_run(), target };
            for process in &mut self.processes {
                process.tell(self.server)?;
            }
        }
        Ok(())
    }

    fn read_logs(&mut self) -> Result<(), StressError> {
        for process in 0..self.processes.len() {
            let entries = self.processes[process].read()?;
            self.record(self.targets.receivers - self.targets.processes + process, &entries);
        }
        Ok(())
    }

    fn record(&mut self, receiver: usize, entries: &[LogEntry]) {
        for LogEntry { arrival, mid, again, origin } in entries {
            self.clients.record(receiver, *origin, (*mid, *again), *arrival);
        }
    }

    /// Stops the faults, reconnects all clients and waits until everything has arrived. Returns how long that took, or none
    /// where something did not arrive.
    fn wait_until_quiet(&mut self, progress: &mut Progress) -> Result<Option<Duration>, StressError> {
        self.clients.stop_sending();
        while !self.is_up {
            self.turn()?;
        }
        progress.phase("rest", self.clients.checker.counts.sent);
        let began = Instant::now();
        self.clients.disconnect_all();
        let (mut moved, mut counts) = (Instant::now(), self.clients.checker.counts);
        loop {
            self.turn()?;
            if counts != self.clients.checker.counts {
                (moved, counts) = (Instant::now(), self.clients.checker.counts);
            }
            let is_done = self.clients.is_online() && self.clients.is_done();
            if is_done && moved.elapsed() > QUIET || moved.elapsed() > STUCK_AFTER {
                progress.done();
                return Ok(is_done.then(|| began.elapsed()));
            }
        }
    }

    /// Logs all clients in once more, when everything is confirmed: nothing may come. True exactly when all came online.
    fn check_final_login(&mut self) -> Result<bool, StressError> {
        for (number, process) in std::mem::take(&mut self.processes).into_iter().enumerate() {
            let entries = process.finish()?;
            self.record(self.targets.receivers - self.targets.processes + number, &entries);
        }
        self.clients.checker.expect_no_more();
        self.clients.disconnect_all();
        let began = Instant::now();
        while began.elapsed() < STUCK_AFTER && !self.clients.is_online() {
            self.turn()?;
        }
        Ok(self.clients.is_online())
    }

    fn note(&mut self, who: Option<usize>, what: &'static str) {
        self.injected.push(InjectedFault { at: self.clients.now(), who, what });
    }
}
