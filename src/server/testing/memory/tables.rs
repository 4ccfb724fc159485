//! The rows of a made-up disk, and what follows from them alone.

use crate::channel::Reason;
use crate::clock::{Now, TimeMark, TrustedClock};
use crate::ids::{Epoch, GroupId, Mid, UserId};
use crate::protocol::name::Skeletons;
use crate::store::Ban;
use crate::store::DedupRecord;
use crate::store::{
    BoxCopy, BoxUsage, COPY_BYTES, DepartureId, DepartureRow, DepartureUpdate, GroupRow, NameTaken, UserRow,
};
use crate::store::{TOKEN_LIFE_MS, TokenRow};
use crate::sync::Arc;
use std::collections::{BTreeMap, BTreeSet};

/// A row of the history.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Departed {
    pub(crate) row: DepartureRow,
    pub(crate) completion: Option<DepartureUpdate>,
}

/// What was ever written of a user's sessions, whatever has expired since.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Tally {
    /// Sessions that began: each has an epoch of its own.
    pub(crate) begun: u64,
    /// The epoch of the one that began last.
    pub(crate) latest: Option<Epoch>,
    /// Rows of the history.
    pub(crate) ended: u64,
}

/// A message in a box.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Letter {
    pub(super) at_ms: i64,
    pub(super) body: Arc<[u8]>,
    pub(super) sent: bool,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Tables {
    pub(super) users: BTreeMap<UserId, UserRow>,
    /// What the users' names look like.
    pub(super) skeletons: BTreeMap<UserId, Skeletons>,
    /// The highest number ever given out; it is not given out again.
    pub(super) last_user: i64,
    pub(super) friends: BTreeSet<(UserId, UserId)>,
    pub(super) groups: BTreeMap<GroupId, GroupRow>,
    pub(super) members: BTreeMap<(GroupId, UserId), &'static str>,
    pub(super) boxes: BTreeMap<UserId, BTreeMap<Mid, Letter>>,
    /// The highest message number of each box, taken out ones included.
    pub(super) highest: BTreeMap<UserId, Mid>,
    pub(super) departures: BTreeMap<i64, Departed>,
    pub(super) bans: Vec<Ban>,
    /// Each of one session, by user and epoch.
    pub(super) tokens: BTreeMap<(UserId, Epoch), TokenRow>,
    pub(super) last_departure: i64,
    pub(super) tallies: BTreeMap<UserId, Tally>,
    /// The most messages that each box has held.
    pub(super) fullest: BTreeMap<UserId, usize>,
    /// Oldest first.
    pub(super) accepted: Vec<(i64, DedupRecord)>,
    pub(super) reached: Vec<(i64, DedupRecord, Vec<UserId>)>,
    pub(super) mark: Option<TimeMark>,
}

impl Tables {
    pub(super) fn named(&self, name: &str) -> Option<UserRow> {
        self.users.values().find(|row| row.name == name).cloned()
    }

    /// Why nobody may take that name, if so.
    pub(super) fn name_taken(&self, name: &str) -> Option<NameTaken> {
        let skeletons = Skeletons::of(name);
        if self.users.values().any(|row| row.name == name) {
            Some(NameTaken::Exactly)
        } else if self.skeletons.values().any(|other| other.meet(&skeletons)) {
            Some(NameTaken::InLooks)
        } else {
            None
        }
    }

    pub(super) fn usage(&self, user: UserId, upto: Mid) -> BoxUsage {
        let mut usage = BoxUsage::default();
        for (_, command) in self.boxes.get(&user).into_iter().flatten().filter(|(mid, _)| **mid <= upto) {
            usage.count += 1;
            usage.bytes += command.body.len() as u64;
        }
        usage
    }

    /// Puts a message into a box. Copies of one message share its body.
    pub(super) fn keep(&mut self, copy: BoxCopy, at_ms: i64, body: Arc<[u8]>) -> Result<(), &'static str> {
        let BoxCopy { user, mid, sent } = copy;
        // What was sent and not confirmed comes back below what has come since.
        if !sent && self.highest.get(&user).is_some_and(|highest| mid <= *highest) {
            return Err("a message number that does not rise");
        }
        let highest = self.highest.entry(user).or_insert(mid);
        *highest = mid.max(*highest);
        let messages = self.boxes.entry(user).or_default();
        let taken = messages.insert(mid, Letter { at_ms, body, sent });
        let fullest = self.fullest.entry(user).or_default();
        *fullest = messages.len().max(*fullest);
        match taken {
            Some(_) => Err("a message number that is taken"),
            None => Ok(()),
        }
    }

    /// What all boxes hold, each body once.
    pub(super) fn kept_bytes(&self) -> u64 {
        let mut bodies = BTreeSet::new();
        let mut bytes = 0;
        for command in self.boxes.values().flat_map(BTreeMap::values) {
            let is_new = bodies.insert(Arc::as_ptr(&command.body).cast::<u8>());
            bytes += COPY_BYTES + if is_new { command.body.len() as u64 } else { 0 };
        }
        bytes
    }

    pub(super) fn depart(&mut self, row: DepartureRow) -> DepartureId {
        self.last_departure += 1;
        self.tallies.entry(row.user).or_default().ended += 1;
        self.departures.insert(self.last_departure, Departed { row, completion: None });
        DepartureId(self.last_departure)
    }

    pub(super) fn recover(&mut self, wall_ms: i64) -> TrustedClock {
        let mut trusted = TrustedClock::start(self.mark, wall_ms);
        let mark = trusted.mark(Now { mono_us: 0, unix_ms: wall_ms });
        self.mark = Some(mark);
        for token in self.tokens.values_mut() {
            token.expires_ms.get_or_insert(mark.trusted_ms + TOKEN_LIFE_MS);
        }
        let online: Vec<UserId> = self.users.values().filter(|row| row.online).map(|row| row.id).collect();
        for id in online {
            let Some(row) = self.users.get_mut(&id) else { continue };
            (row.online, row.epoch) = (false, Epoch(row.epoch.0 + 1));
            let name = row.name.clone();
            self.depart(DepartureRow {
                at_ms: wall_ms,
                trusted_ms: mark.trusted_ms,
                channel: None,
                user: id,
                name: name.into(),
                peer: None,
                reason: Reason::ServerCrash,
                errno: None,
                since_ms: None,
            });
        }
        trusted
    }
}
