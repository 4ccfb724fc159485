//! The history of ended sessions, as main writes it; `history` reads it.

use super::sqlite_store::{EXPIRE_BATCH, SqliteStore};
use super::{format, sql};
use crate::store::{DepartureId, DepartureRow, DepartureUpdate, Departures, Stored};
use std::ops::RangeInclusive;

impl Departures for SqliteStore {
    fn add_departure(&mut self, row: &DepartureRow) -> Stored<DepartureId> {
        let (channel, peer) = (row.channel.map(format::channel), row.peer.map(format::peer));
        let columns = (
            row.at_ms,
            channel.as_deref(),
            row.user.0,
            row.name.as_str(),
            peer.as_deref(),
            row.reason.word(),
            row.reason.initiator().word(),
            row.errno,
            row.since_ms,
            row.trusted_ms,
        );
        self.write("recording a departure", sql::ADD_DEPARTURE, columns)?;
        let mut id = self.conn().last_insert_rowid();
        if id <= self.last_departure {
            // The row that had the number is removed, but main may still complete it.
            let free = self.last_departure.saturating_add(1);
            self.write("renumbering a departure", sql::RENUMBER_DEPARTURE, (id, free))?;
            id = free;
        }
        self.last_departure = id;
        Ok(DepartureId(id))
    }

    fn complete_departures(
        &mut self,
        ids: RangeInclusive<DepartureId>,
        completion: &DepartureUpdate,
    ) -> Stored<()> {
        let DepartureUpdate { offline_us, closed_us, delivered, saved, lost } = *completion;
        let columns = (ids.start().0, ids.end().0, offline_us, closed_us, delivered, saved, lost);
        self.write("completing departures", sql::COMPLETE_DEPARTURES, columns).map(drop)
    }

    fn expire_departures(&mut self, before_ms: i64, keep: u64) -> Stored<u64> {
        let doing = "expiring departures";
        let keep = i64::try_from(keep).unwrap_or(i64::MAX);
        let mut expired = self.write(doing, sql::EXPIRE_OLDEST, (EXPIRE_BATCH as i64, keep))? as u64;
        let rest = EXPIRE_BATCH.saturating_sub(expired);
        if rest > 0 {
            expired += self.write(doing, sql::EXPIRE_BEFORE, (rest as i64, before_ms))? as u64;
        }
        Ok(expired)
    }
}
