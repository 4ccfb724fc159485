//! Main's state: the parts that it is made of, each of which owns what it knows.
//!
//! Owned by the main thread. [`turn`](super::turn) takes events and ends turns; what main does with an event that concerns
//! several parts stands in the file that is called after it.

use super::bans::Bans;
use super::context::{Context, Policy};
use super::dedup::DedupWindow;
use super::fan_out::FanOuts;
use super::group_cache::GroupCache;
use super::latency::Stages;
use super::lingering::Lingering;
use super::lists::Lists;
use super::open_departures::OpenDepartures;
use super::presence::Presence;
use super::reconcile::walks::Reconciler;
use super::refills::Refills;
use super::retention::Retention;
use super::session_map::SessionMap;
use super::shutdown::Shutdown;
use super::users::UserTable;
use crate::clock::TrustedClock;
use crate::handles::Handles;
use crate::ids::UserId;
use crate::message::delivery::DeliveryTracker;
use crate::message::request::Ask;
use crate::store::{Ban, DedupRecord, Storage};
use crate::sync::Arc;
use std::collections::VecDeque;

/// Main's state. `St` keeps, `S` is a client's socket.
pub struct MainLoop<St, S> {
    pub(crate) cx: Context<St, S>,
    pub(crate) users: UserTable,
    /// Whose session is on which channel.
    pub(crate) sessions: SessionMap<UserId>,
    /// Ends of which not all is known yet.
    pub(super) open_departures: OpenDepartures,
    /// Channels that have left and still have their fd.
    pub(super) lingering: Lingering,
    pub(crate) presence: Presence,
    pub(crate) bans: Bans,
    pub(super) group_cache: GroupCache,
    pub(crate) lists: Lists,
    pub(super) dedup: DedupWindow,
    pub(super) fan_outs: FanOuts,
    pub(super) refills: Refills,
    pub(super) retention: Retention,
    pub(super) shutdown: Shutdown,
    pub(super) reconciler: Reconciler,
    pub(super) stages: Stages,
    /// Workers that wait for room.
    pub(super) short: Vec<usize>,
    /// What an event has left for other parts to do.
    pub(super) followups: VecDeque<Followup>,
}

/// What one part leaves for others to do, in the same turn.
#[derive(Debug)]
pub(super) enum Followup {
    /// What has waited for the end of a user's session goes on.
    Release(UserId),
    /// The client of a user's session has been looked at, or the session has ended.
    Probed(UserId),
    /// A request that has waited behind a group chat has its turn.
    Request(Ask),
}

impl<St: Storage, S: Send + 'static> MainLoop<St, S> {
    /// Main's state at the start.
    pub fn new(store: St, policy: Policy, handles: Arc<Handles<S>>) -> Self {
        let capacity = handles.table.capacity();
        MainLoop {
            cx: Context::new(store, policy, handles),
            users: UserTable::default(),
            sessions: SessionMap::new(capacity),
            open_departures: OpenDepartures::new(capacity),
            lingering: Lingering::default(),
            presence: Presence::default(),
            bans: Bans::default(),
            group_cache: GroupCache::default(),
            lists: Lists::default(),
            dedup: DedupWindow::default(),
            fan_outs: FanOuts::default(),
            refills: Refills::default(),
            retention: Retention::default(),
            shutdown: Shutdown::default(),
            reconciler: Reconciler::default(),
            stages: Stages::default(),
            short: Vec::new(),
            followups: VecDeque::new(),
        }
    }

    /// Takes over the time by which ages are judged.
    #[must_use]
    pub fn with_trusted(mut self, trusted: TrustedClock) -> Self {
        self.cx.trusted = trusted;
        self
    }

    /// Takes the bans of the last run, before anybody logs in.
    #[must_use]
    pub fn with_bans(mut self, bans: Vec<Ban>) -> Self {
        self.bans.recall(bans);
        self
    }

    /// Takes the chats with `seq` that the last run accepted, and those that it had not handed out to the end; both oldest
    /// first, each with its age in milliseconds.
    #[must_use]
    pub fn with_chats(
        mut self,
        accepted: Vec<(DedupRecord, u64)>,
        unfinished: Vec<(DedupRecord, u64)>,
    ) -> Self {
        let accepted = accepted.into_iter().map(|(chat, age_ms)| (chat, None, age_ms));
        let unfinished = unfinished
            .into_iter()
            .map(|(chat, age_ms)| (chat, Some(DeliveryTracker::of_unfinished()), age_ms));
        for (chat, tracker, age_ms) in accepted.chain(unfinished) {
            self.dedup.recall(chat, tracker, age_ms.saturating_mul(1000), self.cx.now.mono_us);
        }
        self
    }

    /// Gives the store up, to be closed.
    pub fn into_store(self) -> St {
        self.cx.transaction.into_store()
    }

    /// True exactly when everything that had to be written is written, but for what only completes the history.
    pub fn is_settled(&self) -> bool {
        !self.cx.transaction.is_in_debt()
    }

    /// What is still remembered of channels and ends; nothing when everybody has gone and the grace is over.
    #[cfg(test)]
    pub(crate) fn left_over(&self) -> Vec<(&'static str, usize)> {
        let transaction = &self.cx.transaction;
        let counts = [
            ("sessions", self.sessions.len()),
            ("refills", self.refills.len()),
            ("users not at rest", self.users.count_busy()),
            ("transaction", usize::from(transaction.is_under_way() || transaction.is_in_debt())),
            ("fan-outs", self.fan_outs.len()),
            ("followups", self.followups.len()),
            ("queue", self.cx.handles.queue.len()),
            ("registry", self.cx.handles.registry.len()),
            ("table", self.cx.handles.table.taken()),
        ];
        let of_ends = self.open_departures.left_over().into_iter().chain(self.lingering.left_over());
        counts.into_iter().chain(of_ends).filter(|(_, count)| *count > 0).collect()
    }
}
