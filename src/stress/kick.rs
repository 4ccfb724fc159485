//! `kick`: everybody is online and listens, and is sent away over the control socket.
//!
//! The kicks come from a thread of their own, so that each client's clock runs while the server is asked. Bad when
//! one is told nothing, too late or something else, when a user is online after `--wait` returned, when bystanders
//! are touched, or when anything leaks.

use std::collections::HashSet;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::KickArgs;
use super::client::ServerMessage;
use super::client_pool::{ClientEvent, ClientPool, CloseMode, EventKind};
use super::error::{Failure, StressError};
use super::login::{self, Names};
use super::postconditions::{self, Baseline};
use super::probe::Probe;
use super::progress::Progress;
use super::report::{Latencies, Report};

/// What every kicked client must be told, beside the reason `kicked`.
const TEXT: &str = "linger stress kick";

/// One bystander for so many victims, and one at least.
const VICTIMS_PER_BYSTANDER: usize = 10;

/// A goodbye and the end of the stream come within this, for a kick of one; a millisecond or so is the promise,
/// the rest is for busy machines. Well below the default grace.
const TOLD_WITHIN: Duration = Duration::from_secs(1);

/// And so much longer for each other victim of the same request.
const TOLD_WITHIN_PER_OTHER: Duration = Duration::from_millis(1);

/// How long clients are listened to after the last kick was answered.
const LISTEN_ON: Duration = Duration::from_secs(2);

/// A turn's longest wait.
const TURN: Duration = Duration::from_millis(10);

/// What one kick request came to.
#[derive(Debug)]
struct Asked {
    at: Instant,
    answered: Duration,
    /// Of its users, online in the database when the answer had come.
    still_online: usize,
    /// Of its users, missing in the answer.
    unlisted: usize,
    /// The entries of the answer.
    kicked: Vec<Value>,
}

/// The second thread: asks for kicks, one request after another.
struct Kicker<'a> {
    probe: Probe,
    ids: &'a [i64],
    bulk: usize,
}

/// What one victim saw.
#[derive(Clone, Default, Debug)]
struct Measurements {
    goodbye: Option<(Instant, String)>,
    end: Option<Instant>,
}

pub(super) fn run(
    args: &KickArgs,
    probe: &Probe,
    names: &Names,
    progress: &mut Progress,
    report: &mut Report,
) -> Result<(), StressError> {
    let victims = args.common.clients(1000);
    let bystanders = (victims / VICTIMS_PER_BYSTANDER).max(1);
    let clients = victims + bystanders;
    let mut pool = ClientPool::new(args.common.target, clients)?;
    let mark = probe.mark()?;
    let ids = login::log_all_in(&mut pool, names, progress)?;
    let before = Baseline::look(probe, clients, report)?;
    report.count("victims", victims as u64);
    report.count("bystanders", bystanders as u64);

    let bulk = args.bulk.get();
    let kicker = Kicker { probe: Probe::open(&args.common.data, &names.0)?, ids: &ids[..victims], bulk };
    let mut seen = vec![Measurements::default(); clients];
    progress.phase("kick", victims as u64);
    let asked = kick_all(&mut pool, kicker, &mut seen, progress)?;
    progress.done();

    judge_kicks(&asked, report);
    judge_victims(&seen[..victims], &asked, bulk, report);
    let touched = seen[victims..].iter().filter(|seen| seen.goodbye.is_some() || seen.end.is_some()).count();
    if touched > 0 {
        report.fail(Failure::Bystanders(touched));
    }

    (0..clients).for_each(|who| pool.close(who, CloseMode::Fin));
    let left = Instant::now();
    let mut events = Vec::new();
    progress.phase("released", clients as u64);
    postconditions::wait_until_offline(&mut pool, &mut events, probe, left, (mark, clients as u64), report)?;
    postconditions::wait_until_released(&mut pool, &mut events, probe, left, &before, report)?;
    progress.done();
    postconditions::report_departures(probe, mark, report)
}

/// Kicks from a second thread and listens in this one until every victim saw its end, or long enough.
fn kick_all(
    pool: &mut ClientPool,
    kicker: Kicker<'_>,
    seen: &mut [Measurements],
    progress: &mut Progress,
) -> Result<Vec<Asked>, StressError> {
    thread::scope(|scope| {
        let victims = kicker.ids.len();
        let kicker = scope.spawn(move || kicker.run());
        let mut answered = None;
        let mut events = Vec::new();
        let mut ended = 0;
        loop {
            pool.turn(TURN, &mut events)?;
            for ClientEvent { who, at, kind } in events.drain(..) {
                match kind {
                    EventKind::Message(ServerMessage::Goodbye { reason, text }) => {
                        seen[who].goodbye = Some((at, format!("{reason}: {text}")));
                    }
                    EventKind::Closed(error) => {
                        // A reset is no end of the stream: it may have eaten the goodbye.
                        seen[who].end = error.is_none().then_some(at);
                        ended += usize::from(who < victims);
                    }
                    _ => {}
                }
            }
            progress.set(ended as u64);
            if kicker.is_finished() {
                let answered = *answered.get_or_insert_with(Instant::now);
                if ended >= victims || answered.elapsed() > LISTEN_ON {
                    break;
                }
            }
        }
        match kicker.join() {
            Ok(asked) => asked,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

impl Kicker<'_> {
    fn run(self) -> Result<Vec<Asked>, StressError> {
        self.ids.chunks(self.bulk).map(|ids| self.kick(ids)).collect()
    }

    /// One request, and a look into the database the moment it is answered.
    fn kick(&self, ids: &[i64]) -> Result<Asked, StressError> {
        let targets: Vec<_> = ids.iter().map(i64::to_string).collect();
        let request = json!({"cmd": "kick", "targets": targets, "reason": TEXT, "wait": true});
        let control = self.probe.control();
        let at = Instant::now();
        let mut answer = control.ask(&request)?;
        let answered = at.elapsed();
        let still_online = self.probe.online_of(ids)?;
        let Value::Array(kicked) = answer["kicked"].take() else {
            return Err(StressError::Answer { cmd: "kick".into(), answer: "no array \"kicked\"".into() });
        };
        let listed: HashSet<_> = kicked.iter().filter_map(|entry| entry["user"].as_i64()).collect();
        let unlisted = ids.iter().filter(|id| !listed.contains(id)).count();
        Ok(Asked { at, answered, still_online, unlisted, kicked })
    }
}

fn judge_kicks(asked: &[Asked], report: &mut Report) {
    let mut answered = Latencies::new();
    let (mut told, mut offline) = (Latencies::new(), Latencies::new());
    for one in asked {
        answered.record(one.answered);
        for entry in &one.kicked {
            entry["told_us"].as_u64().into_iter().for_each(|us| told.record_us(us));
            entry["offline_us"].as_u64().into_iter().for_each(|us| offline.record_us(us));
        }
    }
    report.latencies("kick_answered", answered);
    report.latencies("server_told", told);
    report.latencies("server_offline", offline);
    let still_online: usize = asked.iter().map(|one| one.still_online).sum();
    if still_online > 0 {
        report.fail(Failure::OnlineAfterWait(still_online));
    }
    let unlisted: usize = asked.iter().map(|one| one.unlisted).sum();
    if unlisted > 0 {
        report.fail(Failure::NotKicked(unlisted));
    }
}

fn judge_victims(seen: &[Measurements], asked: &[Asked], bulk: usize, report: &mut Report) {
    let within = TOLD_WITHIN + TOLD_WITHIN_PER_OTHER * (bulk as u32 - 1);
    let (mut goodbyes, mut ends) = (Latencies::new(), Latencies::new());
    let (mut silent, mut endless, mut late, mut wrong) = (0, 0, 0, Vec::new());
    let expected = format!("kicked: {TEXT}");
    for (who, victim) in seen.iter().enumerate() {
        let Some(asked) = asked.get(who / bulk) else { continue };
        let mut slowest = Duration::ZERO;
        match &victim.goodbye {
            None => silent += 1,
            Some((at, words)) => {
                slowest = at.saturating_duration_since(asked.at);
                goodbyes.record(slowest);
                if *words != expected {
                    wrong.push(words.clone());
                }
            }
        }
        match victim.end {
            None => endless += 1,
            Some(at) => {
                let took = at.saturating_duration_since(asked.at);
                ends.record(took);
                slowest = slowest.max(took);
            }
        }
        late += usize::from(slowest > within);
    }
    report.latencies("goodbye", goodbyes);
    report.latencies("end_of_stream", ends);
    if silent > 0 {
        report.fail(Failure::ToldNothing(silent));
    }
    if endless > 0 {
        report.fail(Failure::NoEnd(endless));
    }
    if late > 0 {
        report.fail(Failure::ToldLate { count: late, within_ms: within.as_millis() as u64 });
    }
    if let Some(example) = wrong.first() {
        report.fail(Failure::ToldElse { count: wrong.len(), example: example.clone() });
    }
}
