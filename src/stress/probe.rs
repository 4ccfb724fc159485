//! The server as it is seen from outside: what the control socket says and what the database holds about the users
//! of one scenario. It never writes.

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, OpenFlags};
use serde_json::{Value, json};

use super::control::Control;
use super::error::StressError;

/// How long a read waits for a writer that holds the database.
const BUSY_MS: u64 = 5_000;

/// The grace, where the server does not tell its own.
const DEFAULT_GRACE: Duration = Duration::from_secs(5);

/// A running server, and which of its users are ours: those whose name begins with the prefix.
#[derive(Debug)]
pub(super) struct Probe {
    control: Control,
    database: Connection,
    path: PathBuf,
    prefix: String,
    /// Differences that the server had counted before.
    reconciled: u64,
}

/// What holds for the whole server now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Holdings {
    /// Open fds that are no channel's.
    pub(super) other_fds: i64,
}

/// One end of a session.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Ends {
    /// Rows of the history, by reason.
    pub(super) by_reason: BTreeMap<String, u64>,
    /// From noticed to committed, in microseconds, where known.
    pub(super) offline_us: Vec<u64>,
}

impl Ends {
    /// Rows of the history.
    pub(super) fn count(&self) -> u64 {
        self.by_reason.values().sum()
    }
}

impl Probe {
    /// Opens the database; the control socket is asked once, so that a wrong directory shows at once.
    pub(super) fn open(data: &Path, prefix: &str) -> Result<Self, StressError> {
        let control = Control::new(data);
        let reconciled = reconciled(&control)?;
        let path = data.join("linger.db");
        let failed = |source| StressError::Database { path: path.clone(), source };
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let database = Connection::open_with_flags(&path, flags).map_err(failed)?;
        database.busy_timeout(Duration::from_millis(BUSY_MS)).map_err(failed)?;
        Ok(Self { control, database, path, prefix: prefix.to_owned(), reconciled })
    }

    /// The control socket, for a thread of its own.
    pub(super) fn control(&self) -> Control {
        self.control.clone()
    }

    /// How long a channel lingers after it went offline.
    pub(super) fn grace(&self) -> Result<Duration, StressError> {
        let stats = self.control.ask(&json!({"cmd": "stats"}))?;
        Ok(stats["grace_ms"].as_u64().map_or(DEFAULT_GRACE, Duration::from_millis))
    }

    /// Our users in `who`.
    pub(super) fn who(&self) -> Result<usize, StressError> {
        let answer = self.control.ask(&json!({"cmd": "who"}))?;
        Ok(list("who", &answer, "users")?.iter().filter(|user| self.is_ours(user)).count())
    }

    /// The names of our users' channels, whatever their state.
    pub(super) fn channels(&self) -> Result<HashSet<String>, StressError> {
        let answer = self.control.ask(&json!({"cmd": "channels"}))?;
        let ours = list("channels", &answer, "channels")?.iter().filter(|channel| self.is_ours(channel));
        Ok(ours.filter_map(|channel| Some(channel["channel"].as_str()?.to_owned())).collect())
    }

    /// Which of these channels are still listed, whoever has them.
    pub(super) fn listed_of(&self, names: &HashSet<String>) -> Result<Vec<String>, StressError> {
        let answer = self.control.ask(&json!({"cmd": "channels"}))?;
        let listed = list("channels", &answer, "channels")?.iter();
        Ok(listed
            .filter_map(|channel| channel["channel"].as_str())
            .filter(|name| names.contains(*name))
            .map(str::to_owned)
            .collect())
    }

    /// What the server holds beside its channels. Two questions, so it wavers while connections come and go.
    pub(super) fn holdings(&self) -> Result<Holdings, StressError> {
        let stats = self.control.ask(&json!({"cmd": "stats"}))?;
        let wrong = |answer: &str| StressError::Answer { cmd: "stats".into(), answer: answer.into() };
        let fds = stats["fds"].as_i64().ok_or_else(|| wrong("no `fds`, so that no leak can be seen"))?;
        let answer = self.control.ask(&json!({"cmd": "channels"}))?;
        let channels = list("channels", &answer, "channels")?.len();
        Ok(Holdings { other_fds: fds - channels as i64 })
    }

    /// Differences that the server's reconciler has found since this view was opened.
    pub(super) fn differences(&self) -> Result<u64, StressError> {
        Ok(reconciled(&self.control)?.saturating_sub(self.reconciled))
    }

    /// Our users whom the database calls online.
    pub(super) fn online(&self) -> Result<usize, StressError> {
        self.read(|database| {
            database
                .prepare_cached(
                    "SELECT count(*) FROM user WHERE state = 'online' AND substr(name, 1, length(?1)) = ?1",
                )?
                .query_row([&self.prefix], |row| row.get::<_, i64>(0))
        })
        .map(|count| count as usize)
    }

    /// How many of these users the database calls online.
    pub(super) fn online_of(&self, ids: &[i64]) -> Result<usize, StressError> {
        self.read(|database| {
            let mut state =
                database.prepare_cached("SELECT 1 FROM user WHERE id = ?1 AND state = 'online'")?;
            let mut online = 0;
            for id in ids {
                online += usize::from(state.exists([id])?);
            }
            Ok(online)
        })
    }

    /// How many messages lie in the boxes of these users.
    pub(super) fn kept(&self, ids: &[i64]) -> Result<u64, StressError> {
        self.read(|database| {
            let mut count = database.prepare_cached("SELECT count(*) FROM kept WHERE user = ?1")?;
            let counts = ids.iter().map(|id| count.query_row([id], |row| row.get::<_, i64>(0)));
            Ok(counts.sum::<rusqlite::Result<i64>>()? as u64)
        })
    }

    /// Another look at the same server.
    pub(super) fn again(&self) -> Result<Self, StressError> {
        let data = self.path.parent().unwrap_or(Path::new("."));
        Self::open(data, &self.prefix)
    }

    /// How many users of ours there are.
    pub(super) fn users(&self) -> Result<u64, StressError> {
        self.read(|database| {
            let count = "SELECT count(*) FROM user WHERE substr(name, 1, length(?1)) = ?1";
            database.prepare_cached(count)?.query_row([&self.prefix], |row| row.get::<_, i64>(0))
        })
        .map(|count| count as u64)
    }

    /// The group of that name; the oldest, where there are several.
    pub(super) fn group(&self, name: &str) -> Result<Option<i64>, StressError> {
        self.read(|database| {
            let oldest = "SELECT min(id) FROM chatgroup WHERE name = ?1";
            database.prepare_cached(oldest)?.query_row([name], |row| row.get(0))
        })
    }

    /// The members of a group.
    pub(super) fn members(&self, group: i64) -> Result<Vec<i64>, StressError> {
        self.read(|database| {
            let mut members = database.prepare_cached("SELECT user FROM member WHERE groupid = ?1")?;
            members.query_map([group], |row| row.get(0))?.collect()
        })
    }

    /// How many of these users, one after another from the first on, the database calls offline.
    pub(super) fn offline_from_first(&self, ids: &[i64]) -> Result<usize, StressError> {
        self.read(|database| {
            let mut online =
                database.prepare_cached("SELECT 1 FROM user WHERE id = ?1 AND state = 'online'")?;
            for (count, id) in ids.iter().enumerate() {
                if online.exists([id])? {
                    return Ok(count);
                }
            }
            Ok(ids.len())
        })
    }

    /// Fds of channels that the server has closed since it started.
    pub(super) fn closed(&self) -> Result<u64, StressError> {
        let stats = self.control.ask(&json!({"cmd": "stats"}))?;
        let wrong = || StressError::Answer { cmd: "stats".into(), answer: "no `closed`".into() };
        stats["closed"].as_u64().ok_or_else(wrong)
    }

    /// A mark in the history: what comes later lies behind it.
    pub(super) fn mark(&self) -> Result<i64, StressError> {
        self.read(|database| {
            database.query_row("SELECT ifnull(max(rowid), 0) FROM departure", [], |row| row.get(0))
        })
    }

    /// How many of our users' sessions behind a mark have ended and settled.
    pub(super) fn settled_after(&self, mark: i64) -> Result<usize, StressError> {
        self.read(|database| {
            database
                .prepare_cached(
                    "SELECT count(*) FROM departure
                        WHERE rowid > ?1 AND substr(name, 1, length(?2)) = ?2 AND delivered IS NOT NULL",
                )?
                .query_row((mark, &self.prefix), |row| row.get::<_, i64>(0))
        })
        .map(|count| count as usize)
    }

    /// The ends of our users' sessions behind a mark.
    pub(super) fn ends_after(&self, mark: i64) -> Result<Ends, StressError> {
        self.read(|database| {
            let mut rows = database.prepare_cached(
                "SELECT reason, offline_us FROM departure WHERE rowid > ?1 AND substr(name, 1, length(?2)) = ?2",
            )?;
            let mut rows = rows.query((mark, &self.prefix))?;
            let mut ends = Ends { by_reason: BTreeMap::new(), offline_us: Vec::new() };
            while let Some(row) = rows.next()? {
                *ends.by_reason.entry(row.get(0)?).or_insert(0) += 1;
                ends.offline_us.extend(row.get::<_, Option<i64>>(1)?.map(|us| us.max(0) as u64));
            }
            Ok(ends)
        })
    }

    fn is_ours(&self, row: &Value) -> bool {
        row["name"].as_str().is_some_and(|name| name.starts_with(&self.prefix))
    }

    fn read<T>(&self, query: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Result<T, StressError> {
        query(&self.database).map_err(|source| StressError::Database { path: self.path.clone(), source })
    }
}

fn reconciled(control: &Control) -> Result<u64, StressError> {
    let stats = control.ask(&json!({"cmd": "stats"}))?;
    stats["reconciled"].as_u64().ok_or_else(|| StressError::Answer {
        cmd: "stats".into(),
        answer: "no `reconciled`, so that no difference can be seen".into(),
    })
}

fn list<'a>(cmd: &str, answer: &'a Value, key: &str) -> Result<&'a Vec<Value>, StressError> {
    answer[key]
        .as_array()
        .ok_or_else(|| StressError::Answer { cmd: cmd.into(), answer: format!("no array {key:?}") })
}
