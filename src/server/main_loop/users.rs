//! The users whom main knows: their sessions, the messages that wait for them, the logins that wait.
//!
//! Owned by main. A user who is not known yet is read from the store.

use super::ack_window::AckWindow;
use super::context::Context;
use super::transaction::TransactionFailed;
use crate::channel::{ChannelId, SessionNo};
use crate::ids::id_hash;
use crate::ids::{EPOCH_MIDS, Epoch, Mid, UserId};
use crate::ip_block::Peer;
use crate::message::chat::{Chat, Sender};
use crate::message::request::Login;
use crate::store::{BoxUsage, Storage, UserRow};
use crate::sync::Arc;
use hashbrown::HashTable;
use hashbrown::hash_table::OccupiedEntry;
use std::collections::VecDeque;
use std::num::{NonZeroU32, NonZeroU64};

/// Users who are remembered although nothing goes on with them.
const IDLE_MAX: usize = 65_536;
/// Messages held for one user between a departure and its report; past it, senders get errno 18.
const HELD_MAX: usize = 65_536;
/// The same in bytes of bodies.
const HELD_BYTES_MAX: usize = 16 * 1024 * 1024;

/// A user, as main sees one.
#[derive(Debug)]
pub(crate) struct UserState {
    /// Number and name, shared with all who have to know.
    pub(crate) sender: Arc<Sender>,
    /// The highest epoch given out. It rises durably before a message of it is ever sent, so message numbers rise across
    /// restarts and crashes without a write of their own.
    pub(crate) epoch: Epoch,
    pub(crate) session: Option<Session>,
    /// What waits for a delivery report or a look; seldom anything.
    waiting: Option<Box<Pending>>,
    /// What the session's client has to confirm, until the session has settled; none where the client does not.
    pub(super) ack_window: Option<Box<AckWindow>>,
    usage: BoxUsage,
    /// True exactly when `usage` is what the box holds: once it has been looked at.
    knows_usage: bool,
    /// The next message's number within the epoch; none before an epoch has been begun for it in this run of the server.
    next: Option<NonZeroU32>,
}

/// What waits for one user, and for what.
#[derive(Debug, Default)]
struct Pending {
    /// The session whose departure is drained and whose delivery report has not come. Until then messages are held and
    /// logins parked.
    leaving: Option<(ChannelId, SessionNo)>,
    /// Logins that wait for a delivery report, oldest first.
    parked: VecDeque<Login>,
    /// Logins that wait to hear whether the present session's client is still there.
    probing: Vec<Login>,
    /// Messages that wait for a delivery report, oldest first.
    held: VecDeque<Chat>,
    /// Bytes of their bodies.
    held_bytes: usize,
}

/// A user's session, as main sees it.
#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each says one thing, and none follows from the others")]
pub(crate) struct Session {
    pub(crate) channel: ChannelId,
    pub(crate) number: SessionNo,
    pub(crate) epoch: Epoch,
    pub(crate) peer: Peer,
    pub(crate) since_ms: i64,
    /// True exactly when the client speaks lines.
    pub(crate) lines: bool,
    /// True exactly when the client confirms messages.
    pub(crate) confirms: bool,
    /// True exactly when the session has a token.
    pub(crate) resumes: bool,
    /// The newest message of the box that was sent to the channel, while the box may hold newer ones. Boxed, for that is
    /// seldom.
    pub(crate) backlog: Option<Box<Mid>>,
    /// True exactly when the session's channel is known to have left, and its departure is still on its way.
    pub(crate) gone: bool,
    /// The latest transaction in which a chat was addressed to it.
    pub(crate) addressed: Option<NonZeroU64>,
}

// There is one for each user who is online.
const _: () = assert!(size_of::<Option<Session>>() <= 64 && size_of::<UserState>() <= 120);

impl UserState {
    fn new(row: &UserRow) -> Self {
        UserState {
            sender: sender(row),
            epoch: row.epoch.believed(),
            session: None,
            waiting: None,
            ack_window: None,
            usage: BoxUsage::default(),
            knows_usage: false,
            next: None,
        }
    }

    fn is(&self, user: UserId) -> bool {
        self.sender.id == user
    }

    /// Begins a new epoch at that time of the wall clock: message numbers go on from there.
    pub(crate) fn begin_epoch(&mut self, unix_ms: i64) -> Epoch {
        self.epoch = self.epoch.next(unix_ms);
        self.next = Some(NonZeroU32::MIN);
        self.epoch
    }

    /// Begins a new epoch for the sake of message numbers. A session that goes on is one of that epoch from then on,
    /// for its end must name the epoch of the row.
    pub(crate) fn go_on_in_next_epoch(&mut self, unix_ms: i64) -> Epoch {
        let epoch = self.begin_epoch(unix_ms);
        if let Some(session) = &mut self.session {
            session.epoch = epoch;
        }
        epoch
    }

    /// True exactly when message numbers can be given out.
    pub(crate) fn has_numbers(&self) -> bool {
        self.next.is_some()
    }

    /// The next message's number.
    pub(crate) fn number(&mut self) -> Mid {
        let place = self.next.unwrap_or(NonZeroU32::MIN).get();
        // The last number of an epoch is followed by a new epoch.
        self.next = NonZeroU32::new((place + 1) % EPOCH_MIDS);
        self.epoch.mid(place)
    }

    /// What the box holds; none before it has been looked at.
    pub(crate) fn usage(&self) -> Option<BoxUsage> {
        self.knows_usage.then_some(self.usage)
    }

    /// The same, to be changed with the box.
    pub(crate) fn usage_mut(&mut self) -> Option<&mut BoxUsage> {
        self.knows_usage.then_some(&mut self.usage)
    }

    /// Remembers what the box holds.
    pub(crate) fn remember_usage(&mut self, usage: BoxUsage) {
        (self.usage, self.knows_usage) = (usage, true);
    }

    /// The box has to be looked at again.
    pub(crate) fn forget_usage(&mut self) {
        self.knows_usage = false;
    }

    /// Forgets the numbers of an epoch that may not have been committed; the next one is higher.
    pub(crate) fn forget_numbers(&mut self) {
        self.next = None;
    }

    /// A session's departure is drained: its report is awaited from now on.
    pub(crate) fn await_settlement(&mut self, of: (ChannelId, SessionNo)) {
        self.waiting.get_or_insert_default().leaving = Some(of);
    }

    /// The delivery report of a session has come. True exactly when it was the one awaited.
    pub(crate) fn end_settlement(&mut self, of: (ChannelId, SessionNo)) -> bool {
        self.take_waiting(|waiting| waiting.leaving.take_if(|leaving| *leaving == of).is_some())
    }

    /// True exactly while a delivery report is awaited.
    pub(crate) fn is_leaving(&self) -> bool {
        self.waiting.as_deref().is_some_and(|waiting| waiting.leaving.is_some())
    }

    /// True exactly when a message or a login waits, or a delivery report is awaited.
    pub(crate) fn has_waiting(&self) -> bool {
        self.waiting.is_some()
    }

    /// Has a message wait for a delivery report.
    pub(crate) fn hold(&mut self, chat: Chat) {
        let waiting = self.waiting.get_or_insert_default();
        waiting.held_bytes += chat.body.size();
        waiting.held.push_back(chat);
    }

    /// True exactly when no more messages may wait.
    pub(crate) fn holds_too_many(&self) -> bool {
        let waiting = self.waiting.as_deref();
        waiting.is_some_and(|waiting| waiting.held.len() >= HELD_MAX || waiting.held_bytes >= HELD_BYTES_MAX)
    }

    /// Takes the messages that have waited.
    pub(crate) fn take_held(&mut self) -> VecDeque<Chat> {
        self.take_waiting(|waiting| {
            waiting.held_bytes = 0;
            std::mem::take(&mut waiting.held)
        })
    }

    /// Has a login wait for a delivery report.
    pub(crate) fn park(&mut self, login: Login) {
        self.waiting.get_or_insert_default().parked.push_back(login);
    }

    /// The same for a login that has ended the session itself. It goes first: if another login took the place, this one
    /// would fail after it had changed something.
    pub(crate) fn park_first(&mut self, login: Login) {
        self.waiting.get_or_insert_default().parked.push_front(login);
    }

    /// True exactly when logins wait for a delivery report.
    pub(crate) fn has_parked(&self) -> bool {
        self.waiting.as_deref().is_some_and(|waiting| !waiting.parked.is_empty())
    }

    /// Takes the login that has waited longest for a delivery report.
    pub(crate) fn take_first_parked(&mut self) -> Option<Login> {
        self.take_waiting(|waiting| waiting.parked.pop_front())
    }

    /// Takes all logins that have waited for a delivery report.
    pub(crate) fn take_parked(&mut self) -> VecDeque<Login> {
        self.take_waiting(|waiting| std::mem::take(&mut waiting.parked))
    }

    /// Has a login wait for a look at the present session's client. True exactly when it is the first.
    pub(crate) fn wait_for_look(&mut self, login: Login) -> bool {
        let probing = &mut self.waiting.get_or_insert_default().probing;
        probing.push(login);
        probing.len() == 1
    }

    /// Takes the logins that have waited for that look.
    pub(crate) fn take_probing(&mut self) -> Vec<Login> {
        self.take_waiting(|waiting| std::mem::take(&mut waiting.probing))
    }

    fn take_waiting<R: Default>(&mut self, take: impl FnOnce(&mut Pending) -> R) -> R {
        let Some(waiting) = self.waiting.as_deref_mut() else { return R::default() };
        let taken = take(waiting);
        if waiting.is_empty() {
            self.waiting = None;
        }
        taken
    }

    /// True exactly when messages have to wait for a delivery report.
    pub(crate) fn holds_messages(&self) -> bool {
        self.is_leaving() || self.session.as_ref().is_some_and(|session| session.gone)
    }

    /// True exactly when nothing is under way: no end, no login, no message that waits.
    pub(crate) fn is_at_rest(&self) -> bool {
        self.waiting.is_none() && self.session.as_ref().is_none_or(|session| !session.gone)
    }

    fn is_idle(&self) -> bool {
        self.session.is_none() && self.is_at_rest()
    }
}

impl Pending {
    fn is_empty(&self) -> bool {
        self.leaving.is_none() && self.parked.is_empty() && self.probing.is_empty() && self.held.is_empty()
    }
}

/// All of them.
#[derive(Debug, Default)]
pub(crate) struct UserTable {
    /// By number. Boxed, and without keys of its own, for a table has room for up to twice as many as it holds.
    known: HashTable<Box<UserState>>,
    /// Users who were loaded in the transaction under way: their rows may have been added in it.
    loaded: Vec<UserId>,
    online: usize,
}

impl UserTable {
    pub(crate) fn find(&mut self, user: UserId) -> Option<&mut UserState> {
        self.known.find_mut(id_hash(user), |person| person.is(user)).map(|person| &mut **person)
    }

    /// The same, only to look.
    pub(crate) fn look(&self, user: UserId) -> Option<&UserState> {
        self.known.find(id_hash(user), |person| person.is(user)).map(|person| &**person)
    }

    /// A user, with the row read if need be. `Ok(None)` for nobody.
    pub(super) fn find_or_load(
        &mut self,
        cx: &mut Context<impl Storage, impl Send + 'static>,
        user: UserId,
    ) -> Result<Option<&mut UserState>, TransactionFailed> {
        if self.look(user).is_none() {
            let Some(row) = cx.attempt(|store| store.user(user)).ok_or(TransactionFailed)? else {
                return Ok(None);
            };
            return Ok(Some(self.load(&row)));
        }
        Ok(self.find(user))
    }

    pub(crate) fn is_online(&self, user: UserId) -> bool {
        self.look(user).is_some_and(|person| person.session.is_some())
    }

    /// Users with whom something goes on.
    #[cfg(test)]
    pub(crate) fn count_busy(&self) -> usize {
        self.known.iter().filter(|person| !person.is_idle() || person.ack_window.is_some()).count()
    }

    /// Remembers a user whose row was just read.
    pub(crate) fn load(&mut self, row: &UserRow) -> &mut UserState {
        let loaded = &mut self.loaded;
        let place =
            self.known.entry(id_hash(row.id), |person| person.is(row.id), |person| id_hash(person.sender.id));
        let place = place.or_insert_with(|| {
            loaded.push(row.id);
            Box::new(UserState::new(row))
        });
        let person = place.into_mut();
        // Another process may have raised it, never lowered.
        let epoch = row.epoch.believed();
        if epoch > person.epoch {
            person.epoch = epoch;
            person.forget_numbers();
        }
        if *person.sender.name != *row.name {
            person.sender = sender(row);
        }
        person
    }

    /// Forgets what rests on rows that may never have been committed, after a transaction that failed.
    pub(crate) fn invalidate(&mut self) {
        for person in &mut self.known {
            person.forget_usage();
            if person.session.is_none() {
                person.forget_numbers();
            }
        }
    }

    /// Takes the users who were loaded in the transaction that ends.
    pub(crate) fn take_loaded(&mut self) -> Vec<UserId> {
        std::mem::take(&mut self.loaded)
    }

    /// Forgets those of these users with whom nothing goes on: their rows may never have been.
    pub(crate) fn evict(&mut self, loaded: &[UserId]) {
        for user in loaded {
            if self.look(*user).is_some_and(UserState::is_idle) {
                let place = self.known.find_entry(id_hash(*user), |person| person.is(*user));
                let _ = place.map(OccupiedEntry::remove);
            }
        }
    }

    /// Messages have gone from these boxes for their age.
    pub(super) fn note_expiry(&mut self, users: Vec<UserId>) {
        for user in users {
            if let Some(person) = self.find(user) {
                person.forget_usage();
                if let Some(window) = &mut person.ack_window {
                    window.note_expiry();
                }
            }
        }
    }

    /// Forgets users with whom nothing goes on, when there are too many.
    pub(crate) fn tidy(&mut self, online: usize) {
        self.online = online;
        if self.known.len() > online + IDLE_MAX {
            self.known.retain(|person| !person.is_idle());
            self.known.shrink_to(2 * self.known.len(), |person| id_hash(person.sender.id));
        }
    }
}

fn sender(row: &UserRow) -> Arc<Sender> {
    Arc::new(Sender { id: row.id, name: row.name.as_str().into() })
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHANNEL: ChannelId = ChannelId { slot: 0, generation: 1 };

    fn row(epoch: i64) -> UserRow {
        UserRow { id: UserId(1), name: "ann".into(), password: None, epoch: Epoch(epoch), online: false }
    }

    #[test]
    fn message_numbers_rise_within_an_epoch_and_across_epochs() {
        let mut users = UserTable::default();
        let person = users.load(&row(4));
        person.begin_epoch(0);
        let (first, second) = (person.number(), person.number());
        person.begin_epoch(0);
        let third = person.number();
        assert!(first < second && second < third);
        assert!(third.0 < 1 << 53);
    }

    /// A time at which the wall clock is right.
    const LATER_MS: i64 = 1_800_000_000_000;

    #[test]
    fn an_older_row_takes_no_number_again_while_the_clock_is_right() {
        let latest = {
            let mut users = UserTable::default();
            let person = users.load(&row(4));
            (person.begin_epoch(LATER_MS), person.number())
        };
        let mut users = UserTable::default();
        let person = users.load(&row(4));
        let epoch = person.begin_epoch(LATER_MS + 10);
        assert!(epoch > latest.0 && person.number() > latest.1);
    }

    #[test]
    fn a_clock_that_is_wrong_lets_numbers_rise_all_the_same() {
        for unix_ms in [i64::MIN, -1, 0, 1, i64::MAX] {
            let mut users = UserTable::default();
            let person = users.load(&row(4));
            assert_eq!(person.begin_epoch(unix_ms), Epoch(5), "{unix_ms}");
        }
    }

    #[test]
    fn whatever_epoch_another_process_writes_numbers_rise_and_stay_positive_and_exact() {
        for wild in [i64::MIN, -1, 1 << 25, 1 << 38, (1 << 39) - (1 << 32) - 2, 1 << 39, 1 << 53, i64::MAX] {
            let mut users = UserTable::default();
            let person = users.load(&row(4));
            person.begin_epoch(LATER_MS);
            let before = person.number();
            let person = users.load(&row(wild));
            let mut latest = before;
            for _ in 0..3 {
                person.go_on_in_next_epoch(LATER_MS);
                let mid = person.number();
                assert!(mid > latest && mid.0 < 1 << 53, "{wild}: {mid:?} after {latest:?}");
                latest = mid;
            }
            let mut users = UserTable::default();
            let person = users.load(&row(wild));
            person.begin_epoch(LATER_MS + 10);
            assert!(person.number() > before, "{wild}, after a restart");
        }
    }

    #[test]
    fn when_all_epochs_are_used_up_the_clock_decides() {
        let mut users = UserTable::default();
        let person = users.load(&row(4));
        person.epoch = Epoch((1 << 39) - 1);
        assert_eq!(person.begin_epoch(LATER_MS), Epoch::lowest_at(LATER_MS));
    }

    #[test]
    fn an_epoch_without_numbers_left_is_followed_by_the_next() {
        let mut users = UserTable::default();
        let person = users.load(&row(4));
        person.begin_epoch(0);
        person.next = NonZeroU32::new(EPOCH_MIDS - 1);
        let last = person.number();
        assert!(!person.has_numbers());
        person.go_on_in_next_epoch(0);
        assert!(person.number() > last);
    }

    #[test]
    fn a_row_of_a_later_epoch_ends_the_numbers_of_the_one_before() {
        let mut users = UserTable::default();
        users.load(&row(4)).begin_epoch(0);
        assert!(users.load(&row(5)).has_numbers(), "it is our own");
        let person = users.load(&row(9));
        assert!(!person.has_numbers(), "another process may have given them out");
        person.go_on_in_next_epoch(0);
        assert_eq!(person.number(), Epoch(10).mid(1));
    }

    #[test]
    fn a_settlement_is_awaited_until_it_comes() {
        let (own, other) = ((CHANNEL, SessionNo(1)), (CHANNEL, SessionNo(2)));
        let mut users = UserTable::default();
        let person = users.load(&row(0));
        person.await_settlement(own);
        assert!(!person.end_settlement(other) && person.holds_messages());
        assert!(person.end_settlement(own) && !person.end_settlement(own));
        assert!(person.is_at_rest());
    }

    #[test]
    fn each_user_is_known_once_and_found_by_number() {
        let mut users = UserTable::default();
        for user in [1, 2, 1, 65, 2] {
            users.load(&UserRow { id: UserId(user), ..row(0) });
        }
        users.load(&row(0)).await_settlement((CHANNEL, SessionNo(1)));
        let loaded = users.take_loaded();
        assert_eq!(loaded, [UserId(1), UserId(2), UserId(65)]);
        users.evict(&loaded);
        let found: Vec<_> = loaded.iter().map(|user| users.look(*user).is_some()).collect();
        assert_eq!(found, [true, false, false], "only the first is busy");
    }

    #[test]
    fn only_users_with_whom_nothing_goes_on_are_forgotten() {
        let mut users = UserTable::default();
        for id in 0..=IDLE_MAX as i64 + 1 {
            users.load(&UserRow { id: UserId(id), ..row(0) });
        }
        users.load(&row(0)).await_settlement((CHANNEL, SessionNo(1)));
        users.tidy(0);
        assert_eq!(users.known.len(), 1);
    }
}
