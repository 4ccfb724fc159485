//! `chaos`: senders that number their chats, receivers that confirm them, and a hand that interferes with both.
//!
//! Runs in one thread, with some receivers in processes of their own. Connections are reset, closed, half closed, left
//! unread, kicked and taken over; processes are killed with SIGKILL; and where the scenario runs the server itself,
//! so is the server. Bad when a chat that was confirmed to its sender was not taken by its receiver exactly once, in
//! order, going by the numbers; or when anybody was sent away whom nobody had struck.
//!
//! | module | duty |
//! |---|---|
//! | `crowd` | senders and receivers, and their connections |
//! | `hand` | who is struck, how and when |
//! | `ledger` | what was sent, confirmed, taken, and what is wrong |
//! | `verdict` | tells that, and what happened around it |
//! | `text` | tells one chat from another |
//! | `process`, `receive`, `diary` | receivers that are processes: parent, child, and what lies between |

mod args;
mod crowd;
mod diary;
mod hand;
mod ledger;
mod process;
pub(super) mod receive;
mod text;
mod verdict;

use std::net::SocketAddr;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::json;

use super::control::Control;
use super::fault::StressError;
use super::fleet::{Fleet, Leave};
use super::login::{self, Names};
use super::own_server::{OwnServer, Ready};
use super::progress::Progress;
use super::report::Report;
pub use args::ChaosArgs;
use crowd::Crowd;
use diary::Line;
use hand::{Blow, Hand, Targets};
use ledger::Ledger;
use process::{Process, Role, Scratch};
use receive::Where;
use verdict::{Done, Outcome};

/// A turn's longest wait.
const TURN: Duration = Duration::from_millis(2);

/// How often the diaries of processes are read.
const READ_DIARIES_EVERY: Duration = Duration::from_millis(20);

/// The longest absence of somebody who was struck, in milliseconds.
const AWAY_MS: usize = 150;

/// The longest absence of a box that is to fill.
const LONG_AWAY_MS: usize = 2_000;

/// The longest time without reading.
const PAUSE_MS: usize = 500;

/// The longest time without a server.
const DOWN_MS: usize = 200;

/// Of so many senders that are struck, or whose server is killed, one forgets what was not answered.
const FORGETS_SHARE: usize = 4;

/// At the end, without anything new for so long there is nothing more to come.
const STUCK_AFTER: Duration = Duration::from_secs(if cfg!(test) { 2 } else { 10 });

/// When all has come, what may still come is waited for so long.
const QUIET: Duration = Duration::from_millis(300);

struct Chaos<'a> {
    args: &'a ChaosArgs,
    targets: Targets,
    crowd: Crowd,
    processes: Vec<Process>,
    hand: Hand,
    control: Control,
    own: Option<OwnServer>,
    place: Where,
    /// When the server that was killed is started again; none while it runs or starts.
    restart_at: Option<Instant>,
    /// True exactly while the server runs and listens.
    is_up: bool,
    diaries_read: Instant,
    done: Vec<Done>,
}

pub(super) fn run(
    args: &ChaosArgs,
    names: &Names,
    progress: &mut Progress,
    report: &mut Report,
) -> Result<(), StressError> {
    let mut own = (!args.serve.is_empty()).then(|| OwnServer::start(&args.serve)).transpose()?;
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
    let ids = meet(target, targets, names, progress)?;
    let run = run_name();
    let scratch = (targets.processes > 0).then(|| Scratch::new(&run)).transpose()?;
    let place = Where { server_run: 1, target };
    let processes = start_processes(args, targets, names, &run, scratch.as_ref(), place)?;

    let places = 2 * (targets.senders + targets.receivers - targets.processes);
    let fleet = Fleet::new(target, places)?;
    let ledger = Ledger::new(targets.senders, targets.receivers);
    let crowd = Crowd::new(args, fleet, names, ids, &run, ledger);
    let mut chaos = Chaos {
        args,
        targets,
        crowd,
        processes,
        hand: Hand::new(args.common.seed, args.blow_ms, args.server_kill_ms),
        control,
        own,
        place,
        restart_at: None,
        is_up: true,
        diaries_read: Instant::now(),
        done: Vec::new(),
    };
    chaos.interfere(progress)?;
    let quiet = chaos.come_to_rest(progress)?;
    let all_back = chaos.look_again()?;
    Outcome {
        seed: args.common.seed,
        targets,
        crowd: &chaos.crowd,
        done: &chaos.done,
        quiet: quiet.filter(|_| all_back),
    }
    .tell(report);
    chaos.own.map_or(Ok(()), OwnServer::stop)
}

/// Registers everybody who is not registered yet; answers the users, senders first.
fn meet(
    target: SocketAddr,
    targets: Targets,
    names: &Names,
    progress: &mut Progress,
) -> Result<Vec<i64>, StressError> {
    let mut fleet = Fleet::new(target, targets.senders + targets.receivers)?;
    let ids = login::log_all_in(&mut fleet, names, progress)?;
    (0..fleet.size()).for_each(|who| fleet.leave(who, Leave::Fin));
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
    scratch: Option<&Scratch>,
    place: Where,
) -> Result<Vec<Process>, StressError> {
    let Some(scratch) = scratch else { return Ok(Vec::new()) };
    let everybody = targets.senders + targets.receivers;
    (everybody - targets.processes..everybody)
        .map(|who| {
            let seed = args.common.seed.wrapping_mul(1000).wrapping_add(who as u64);
            let (name, run) = (names.name(who), run.to_owned());
            Process::start(Role { name, run, slow_ms: args.slow_ms, seed }, scratch, place)
        })
        .collect()
}

impl Chaos<'_> {
    /// The crowd talks and the hand strikes, for as long as asked.
    fn interfere(&mut self, progress: &mut Progress) -> Result<(), StressError> {
        let time = Duration::from_secs(self.args.seconds);
        progress.phase("chaos, seconds", self.args.seconds);
        while self.crowd.now() < time {
            if let Some((who, blow)) = self.hand.strike(self.crowd.now(), self.targets)
                && self.strike(who, blow)?
            {
                self.note(Some(who), blow.word());
            }
            if self.own.is_some() && self.is_up && self.hand.kills_server(self.crowd.now()) {
                self.kill_server()?;
            }
            self.turn()?;
            progress.set(self.crowd.now().as_secs());
        }
        progress.done();
        Ok(())
    }

    fn turn(&mut self) -> Result<(), StressError> {
        self.see_to_server()?;
        self.crowd.turn(TURN)?;
        if self.diaries_read.elapsed() > READ_DIARIES_EVERY {
            self.diaries_read = Instant::now();
            self.read_diaries()?;
        }
        Ok(())
    }

    /// True when there was somebody to strike.
    fn strike(&mut self, who: usize, blow: Blow) -> Result<bool, StressError> {
        // What is said just before is still under way when the blow falls.
        self.crowd.turn(Duration::ZERO)?;
        let away = self.hand.pause(AWAY_MS);
        let parts = matches!(blow, Blow::Reset | Blow::Close | Blow::HalfClose | Blow::LongAway | Blow::Kick);
        let has_struck = match blow {
            Blow::Reset => self.crowd.part(who, Leave::Rst, away),
            Blow::Close => self.crowd.part(who, Leave::Fin, away),
            Blow::HalfClose => self.crowd.part(who, Leave::HalfClose, away),
            Blow::LongAway => {
                let away = self.hand.pause(LONG_AWAY_MS);
                self.crowd.part(who, Leave::Rst, away)
            }
            Blow::Kick => self.kick(who)?,
            Blow::TakeOver => self.crowd.take_over(who)?,
            Blow::Rivals => self.crowd.rivals(who)?,
            Blow::Pause => {
                let pause = self.hand.pause(PAUSE_MS);
                self.crowd.stop_reading(who, pause)?
            }
            Blow::KillProcess => {
                let process = self.process(who).expect("only a process is struck so");
                let lines = self.processes[process].kill(self.place)?;
                self.take(who - self.targets.senders, &lines);
                true
            }
        };
        if has_struck && parts && who < self.targets.senders && self.hand.one_in(FORGETS_SHARE) {
            self.crowd.forget_open(who);
        }
        Ok(has_struck)
    }

    /// The number of the process that a person is.
    fn process(&self, who: usize) -> Option<usize> {
        who.checked_sub(self.targets.senders + self.targets.receivers - self.targets.processes)
    }

    fn kick(&mut self, who: usize) -> Result<bool, StressError> {
        if !self.is_up || self.process(who).is_none() && !self.crowd.expect_end(who) {
            return Ok(false);
        }
        let target = self.crowd.id(who).to_string();
        let answer = self.control.ask(&json!({"cmd": "kick", "targets": [target], "reason": "chaos"}))?;
        Ok(answer["kicked"].as_array().is_some_and(|kicked| !kicked.is_empty()))
    }

    fn kill_server(&mut self) -> Result<(), StressError> {
        self.crowd.turn(Duration::ZERO)?;
        let Some(own) = &mut self.own else { return Ok(()) };
        own.kill()?;
        self.is_up = false;
        self.restart_at = Some(Instant::now() + self.hand.pause(DOWN_MS));
        self.crowd.server_is_down();
        for sender in 0..self.targets.senders {
            if self.hand.one_in(FORGETS_SHARE) {
                self.crowd.forget_open(sender);
            }
        }
        self.note(None, "server_kill");
        Ok(())
    }

    /// Starts the server again when it is time, and tells everybody when it is ready.
    fn see_to_server(&mut self) -> Result<(), StressError> {
        let Some(own) = &mut self.own else { return Ok(()) };
        if self.restart_at.take_if(|at| *at <= Instant::now()).is_some() {
            own.restart()?;
        } else if self.is_up {
            own.check()?;
        } else if self.restart_at.is_none()
            && let Some(Ready { target, .. }) = own.ready()?
        {
            self.is_up = true;
            self.crowd.server_is_up(target);
            self.place = Where { server_run: self.crowd.server_run(), target };
            for process in &mut self.processes {
                process.tell(self.place)?;
            }
        }
        Ok(())
    }

    fn read_diaries(&mut self) -> Result<(), StressError> {
        for process in 0..self.processes.len() {
            let lines = self.processes[process].read()?;
            self.take(self.targets.receivers - self.targets.processes + process, &lines);
        }
        Ok(())
    }

    fn take(&mut self, receiver: usize, lines: &[Line]) {
        for Line { heard, mid, again, told } in lines {
            self.crowd.take(receiver, *told, (*mid, *again), *heard);
        }
    }

    /// The hand rests, everybody comes back once more, and what is under way arrives. Answers how long that took, or
    /// none where something did not arrive.
    fn come_to_rest(&mut self, progress: &mut Progress) -> Result<Option<Duration>, StressError> {
        self.crowd.fall_silent();
        while !self.is_up {
            self.turn()?;
        }
        progress.phase("rest", self.crowd.ledger.counts.sent);
        let began = Instant::now();
        self.crowd.part_all();
        let (mut moved, mut counts) = (Instant::now(), self.crowd.ledger.counts);
        loop {
            self.turn()?;
            if counts != self.crowd.ledger.counts {
                (moved, counts) = (Instant::now(), self.crowd.ledger.counts);
            }
            let is_done = self.crowd.is_online() && self.crowd.is_done();
            if is_done && moved.elapsed() > QUIET || moved.elapsed() > STUCK_AFTER {
                progress.done();
                return Ok(is_done.then(|| began.elapsed()));
            }
        }
    }

    /// Everybody has confirmed all: at one more login nothing may come. True exactly when everybody came.
    fn look_again(&mut self) -> Result<bool, StressError> {
        for (number, process) in std::mem::take(&mut self.processes).into_iter().enumerate() {
            let lines = process.finish()?;
            self.take(self.targets.receivers - self.targets.processes + number, &lines);
        }
        self.crowd.ledger.close();
        self.crowd.part_all();
        let began = Instant::now();
        while began.elapsed() < STUCK_AFTER && !self.crowd.is_online() {
            self.turn()?;
        }
        Ok(self.crowd.is_online())
    }

    fn note(&mut self, who: Option<usize>, what: &'static str) {
        self.done.push(Done { at: self.crowd.now(), who, what });
    }
}
