//! What must be true after clients have left: nobody online, the history complete, ids and fds given back.
//!
//! Runs on the scenario's thread and lets the fleet go on meanwhile. It asks the server only so often that asking
//! does not become the load.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use super::fault::{Failure, StressError};
use super::fleet::{Fleet, News};
use super::report::{Latencies, Report};
use super::view::View;

/// Everybody must be offline so soon after leaving.
const OFFLINE_WITHIN: Duration = Duration::from_secs(if cfg!(test) { 2 } else { 5 });

/// Ids and fds must be back so soon after the grace.
const RELEASE_MARGIN: Duration = Duration::from_secs(if cfg!(test) { 2 } else { 5 });

/// The shortest pause between two questions.
const MIN_PAUSE: Duration = Duration::from_millis(1);

/// Pauses are so many times as long as the question took.
const PAUSE_FACTOR: u32 = 3;

/// The history keeps so many rows by default; beyond this many sessions it cannot be compared.
const COMPARABLE_SESSIONS: u64 = 90_000;

/// What was true while everybody was online.
#[derive(Debug)]
pub(super) struct Before {
    /// The channels of ours.
    channels: HashSet<String>,
    /// Fds that are no channel's.
    other_fds: i64,
}

impl Before {
    /// Looks at the server while all clients are online, and fails the report where it does not show them.
    pub(super) fn look(view: &View, clients: usize, report: &mut Report) -> Result<Self, StressError> {
        let channels = view.channels()?;
        let (who, database) = (view.who()?, view.online()?);
        if who != clients || channels.len() < clients || database != clients {
            report.fail(Failure::NotOnline { clients, who, channels: channels.len(), database });
        }
        Ok(Self { channels, other_fds: view.holdings()?.other_fds })
    }
}

/// Waits until `who` and the database show none of ours, and compares the history with the sessions that ended.
pub(super) fn all_offline(
    fleet: &mut Fleet,
    news: &mut Vec<News>,
    view: &View,
    left: Instant,
    (mark, sessions): (i64, u64),
    report: &mut Report,
) -> Result<(), StressError> {
    let deadline = left + OFFLINE_WITHIN;
    let (mut who_at, mut database_at) = (None, None);
    let (mut in_who, mut online) = (0, 0);
    // Both are asked in each round, so that neither's time hides in the other's.
    poll(fleet, news, deadline, || {
        if who_at.is_none() {
            in_who = view.who()?;
            who_at = (in_who == 0).then(|| left.elapsed());
        }
        if database_at.is_none() {
            online = view.online()?;
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
    let departures = view.ends_after(mark)?.count();
    if sessions < COMPARABLE_SESSIONS && departures != sessions {
        report.fail(Failure::Departures { sessions, departures });
    }
    Ok(())
}

/// Waits until the grace is over and everything that `before` shows is given back.
pub(super) fn all_released(
    fleet: &mut Fleet,
    news: &mut Vec<News>,
    view: &View,
    left: Instant,
    before: &Before,
    report: &mut Report,
) -> Result<(), StressError> {
    let deadline = left + view.grace()? + RELEASE_MARGIN;
    let (mut ids_at, mut fds_at) = (None, None);
    let (mut listed, mut extra) = (Vec::new(), 0);
    poll(fleet, news, deadline, || {
        if ids_at.is_none() {
            listed = view.still_listed(&before.channels)?;
            ids_at = listed.is_empty().then(|| left.elapsed());
        }
        // An fd must be back before its id, so there is nothing to see earlier.
        if ids_at.is_some() {
            extra = view.holdings()?.other_fds - before.other_fds;
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

/// What the server itself noted of the departures, and of what differed meanwhile.
pub(super) fn history(view: &View, mark: i64, report: &mut Report) -> Result<(), StressError> {
    let ends = view.ends_after(mark)?;
    let mut noticed = Latencies::new();
    ends.offline_us.iter().for_each(|&us| noticed.record_us(us));
    report.counts("departures", ends.by_reason);
    report.latencies("noticed_to_committed", noticed);
    let differences = view.differences()?;
    if differences > 0 {
        report.fail(Failure::Differences(differences));
    }
    Ok(())
}

/// Asks until it is so or the deadline has passed, and lets the fleet go on between the questions.
fn poll(
    fleet: &mut Fleet,
    news: &mut Vec<News>,
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
            // Appended to what the caller has not looked at yet, which must not keep this from waiting.
            let mut fresh = Vec::new();
            fleet.turn(until.saturating_duration_since(Instant::now()), &mut fresh)?;
            news.append(&mut fresh);
        }
    }
}
