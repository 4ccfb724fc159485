//! What must be true after clients have left: nobody online, the history complete, ids and fds given back.
//!
//! Runs on the scenario's thread and serves the pool meanwhile. It asks the server rarely enough that the questions are
//! no load.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use super::client_pool::{ClientEvent, ClientPool};
use super::error::{Failure, StressError};
use super::probe::Probe;
use super::report::{Latencies, Report};

/// All must be offline within this time after they have left.
const OFFLINE_WITHIN: Duration = Duration::from_secs(if cfg!(test) { 2 } else { 5 });

/// Ids and fds must be free within this time after the grace.
const RELEASE_MARGIN: Duration = Duration::from_secs(if cfg!(test) { 2 } else { 5 });

/// The shortest pause between two questions.
const MIN_PAUSE: Duration = Duration::from_millis(1);

/// A pause is so many times as long as the question took.
const PAUSE_FACTOR: u32 = 3;

/// The history keeps so many rows by default; beyond this many sessions it cannot be compared.
const COMPARABLE_SESSIONS: u64 = 90_000;

/// What was true while everybody was online.
#[derive(Debug)]
pub(super) struct Baseline {
    /// The channels of our users.
    channels: HashSet<String>,
    /// Fds that belong to no channel.
    other_fds: i64,
}

impl Baseline {
    /// Looks at the server while all clients are online, and fails the report where it does not show them.
    pub(super) fn look(probe: &Probe, clients: usize, report: &mut Report) -> Result<Self, StressError> {
        let channels = probe.channels()?;
        let (who, database) = (probe.who()?, probe.online()?);
        if who != clients || channels.len() < clients || database != clients {
            report.fail(Failure::NotOnline { clients, who, channels: channels.len(), database });
        }
        Ok(Self { channels, other_fds: probe.holdings()?.other_fds })
    }
}

/// Waits until `who` and the database show none of ours, and compares the history with the sessions that ended.
pub(super) fn wait_until_offline(
    pool: &mut ClientPool,
    events: &mut Vec<ClientEvent>,
    probe: &Probe,
    left: Instant,
    (mark, sessions): (i64, u64),
    report: &mut Report,
) -> Result<(), StressError> {
    let deadline = left + OFFLINE_WITHIN;
    let (mut who_at, mut database_at) = (None, None);
    let (mut in_who, mut online) = (0, 0);
    // Both are asked in each round, so that the time of one does not count for the other.
    poll(pool, events, deadline, || {
        if who_at.is_none() {
            in_who = probe.who()?;
            who_at = (in_who == 0).then(|| left.elapsed());
        }
        if database_at.is_none() {
            online = probe.online()?;
            database_at = (online == 0).then(|| left.elapsed());
        }
        Ok(who_at.is_some() && database_at.is_some())
    })?;
    report.took("gone_from_who", who_at);
    report.took("offline_in_database", database_at);
    let after_ms = left.elapsed().as_millis() as u64;
    if who_at.is_none() {
        report.fail(Failure::StillInWho { count: in_who, after_ms });
    }
    if database_at.is_none() {
        report.fail(Failure::StillOnline { count: online, after_ms });
    }
    let departures = probe.ends_after(mark)?.count();
    if sessions < COMPARABLE_SESSIONS && departures != sessions {
        report.fail(Failure::Departures { sessions, departures });
    }
    Ok(())
}

/// Waits until the grace is over and everything that `before` shows is free.
pub(super) fn wait_until_released(
    pool: &mut ClientPool,
    events: &mut Vec<ClientEvent>,
    probe: &Probe,
    left: Instant,
    before: &Baseline,
    report: &mut Report,
) -> Result<(), StressError> {
    let deadline = left + probe.grace()? + RELEASE_MARGIN;
    let (mut ids_at, mut fds_at) = (None, None);
    let (mut listed, mut extra) = (Vec::new(), 0);
    poll(pool, events, deadline, || {
        if ids_at.is_none() {
            listed = probe.listed_of(&before.channels)?;
            ids_at = listed.is_empty().then(|| left.elapsed());
        }
        // An fd must be back before its id, so there is nothing to see earlier.
        if ids_at.is_some() {
            extra = probe.holdings()?.other_fds - before.other_fds;
            fds_at = (extra <= 0).then(|| left.elapsed());
        }
        Ok(fds_at.is_some())
    })?;
    report.took("ids_free", ids_at);
    report.took("fds_closed", fds_at);
    if let Some(example) = listed.first() {
        report.fail(Failure::IdsLeaked { count: listed.len(), example: example.clone() });
    } else if fds_at.is_none() {
        report.fail(Failure::FdsLeaked(extra.max(0) as u64));
    }
    Ok(())
}

/// Reports the rows of the history, and the differences that the server has found itself.
pub(super) fn report_departures(probe: &Probe, mark: i64, report: &mut Report) -> Result<(), StressError> {
    let ends = probe.ends_after(mark)?;
    let mut noticed = Latencies::new();
    ends.offline_us.iter().for_each(|&us| noticed.record_us(us));
    report.counts("departures", ends.by_reason);
    report.latencies("noticed_to_committed", noticed);
    let differences = probe.differences()?;
    if differences > 0 {
        report.fail(Failure::Differences(differences));
    }
    Ok(())
}

/// Asks until the condition holds or the deadline has passed, and serves the pool between the questions.
fn poll(
    pool: &mut ClientPool,
    events: &mut Vec<ClientEvent>,
    deadline: Instant,
    mut is_so: impl FnMut() -> Result<bool, StressError>,
) -> Result<(), StressError> {
    loop {
        let asked = Instant::now();
        if is_so()? || asked >= deadline {
            return Ok(());
        }
        let until = Instant::now() + (asked.elapsed() * PAUSE_FACTOR).max(MIN_PAUSE);
        while Instant::now() < until {
            // A vector of its own: events that the caller has not seen would end the wait at once.
            let mut fresh = Vec::new();
            pool.turn(until.saturating_duration_since(Instant::now()), &mut fresh)?;
            events.append(&mut fresh);
        }
    }
}
