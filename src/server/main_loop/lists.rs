//! Friends and groups, as login answers list them: read a bounded number of rows at a time, and remembered for a while.
//!
//! Owned by main. A login waits until all is read that its answer can hold: it goes back to the end of the queue between
//! two looks at the store, so that somebody with thousands of friends keeps nobody waiting. What is remembered spares the
//! store the same look when many members of a group log in, or one user again and again.

use super::context::Context;
use crate::ids::IdMap;
use crate::ids::{GroupId, UserId};
use crate::protocol::login_answer::{
    FRIEND_MIN, FriendState, GROUP_MIN, GroupState, LOGIN_ANSWER_MAX, ListedGroup, ListedMember, MEMBER_MIN,
};
use crate::store::{GroupRow, Storage};
use crate::sync::Arc;
use ecow::EcoString;

/// Rows that one login reads before it goes back to the end of main's queue.
pub(crate) const LIST_ROWS: usize = 1_024;
/// Groups that are read at once: each may come with a long description.
const GROUP_ROWS: usize = 64;
/// How often a login reads at most; what is not read by then is left out of its answer.
const LOOKS_MAX: u8 = 64;
/// Rows that are remembered; past it all are forgotten.
const REMEMBERED_ROWS: usize = 524_288;
/// How long they are remembered, in microseconds: other processes may write to the database.
const REMEMBERED_US: u64 = 10_000_000;
/// Users whose looks are counted; past it all counts begin anew.
const COUNTED_MAX: usize = 65_536;

/// No user and no group comes before these.
const FIRST_USER: UserId = UserId(i64::MIN);
const FIRST_GROUP: GroupId = GroupId(i64::MIN);

/// How far a list is read.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
enum Reach {
    /// There may be more.
    #[default]
    Part,
    /// To its end.
    Whole,
    /// As far as it could fit into an answer.
    Cut,
}

/// A list in the order of its items.
#[derive(Debug)]
struct List<T> {
    items: Vec<T>,
    /// What they take of a login answer at least.
    bytes: usize,
    reach: Reach,
}

impl<T> Default for List<T> {
    fn default() -> Self {
        List { items: Vec::new(), bytes: 0, reach: Reach::Part }
    }
}

impl<T> List<T> {
    /// Takes the next items, of which so many were asked for, with what each takes of an answer.
    fn take(&mut self, asked: usize, items: impl ExactSizeIterator<Item = (T, usize)>) {
        if items.len() < asked {
            self.reach = Reach::Whole;
        }
        for (item, bytes) in items {
            self.items.push(item);
            self.bytes += bytes;
        }
        if self.bytes > LOGIN_ANSWER_MAX {
            self.reach = Reach::Cut;
        }
    }
}

#[derive(Debug)]
struct ListedFriend {
    id: UserId,
    name: EcoString,
}

/// A group whose members are read, or are being read.
#[derive(Debug)]
struct Group {
    name: EcoString,
    desc: EcoString,
    members: List<ListedMember>,
    /// The same once all members are read and fit into an answer.
    listed: Option<Arc<ListedGroup>>,
}

impl Group {
    fn new(row: GroupRow) -> Self {
        Group { name: row.name.into(), desc: row.desc.into(), members: List::default(), listed: None }
    }

    /// What it takes of a login answer at least.
    fn bytes(&self) -> usize {
        GROUP_MIN + self.name.len() + self.desc.len() + self.members.bytes
    }

    /// All members are read, or too many for any answer.
    fn end(&mut self, id: GroupId) {
        let members = std::mem::take(&mut self.members.items);
        if self.members.reach == Reach::Whole {
            let (name, desc) = (self.name.clone(), self.desc.clone());
            self.listed = Some(Arc::new(ListedGroup { id, name, desc, members }));
        }
    }
}

/// How many friends and groups a user has, as far as that was asked.
#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    friends: Option<usize>,
    groups: Option<usize>,
}

/// What is remembered of all of them.
#[derive(Debug, Default)]
pub(crate) struct Lists {
    friends: IdMap<UserId, List<ListedFriend>>,
    joined: IdMap<UserId, List<GroupId>>,
    groups: IdMap<GroupId, Group>,
    counts: IdMap<UserId, Counts>,
    /// Rows in all of them.
    rows: usize,
    /// Until when they are remembered, on the monotonic clock.
    until_us: u64,
    /// How often the login of a user has read that is not answered yet.
    looks: IdMap<UserId, u8>,
}

impl Lists {
    /// Forgets everything that was read.
    pub(crate) fn clear(&mut self) {
        *self = Lists { looks: std::mem::take(&mut self.looks), ..Lists::default() };
    }

    /// Forgets what is old or too much.
    pub(crate) fn tidy(&mut self, now_us: u64) {
        let held = self.held();
        if now_us >= self.until_us || held > REMEMBERED_ROWS {
            if held > 0 {
                self.clear();
            }
            self.until_us = now_us + REMEMBERED_US;
        }
        if self.looks.len() > COUNTED_MAX {
            self.looks = IdMap::default();
        }
    }

    /// Rows that are remembered. Each user counts as well: most have no friend and no group.
    pub(crate) fn held(&self) -> usize {
        self.rows + self.friends.len() + self.joined.len() + self.counts.len()
    }

    /// A user has a new friend.
    pub(crate) fn note_friend(&mut self, user: UserId) {
        self.friends.remove(&user);
        if let Some(count) = self.counts.get_mut(&user).and_then(|counts| counts.friends.as_mut()) {
            *count += 1;
        }
    }

    /// A group has a new member.
    pub(crate) fn note_member(&mut self, group: GroupId, user: UserId) {
        self.joined.remove(&user);
        if let Some(group) = self.groups.get_mut(&group) {
            (group.members, group.listed) = (List::default(), None);
        }
        if let Some(count) = self.counts.get_mut(&user).and_then(|counts| counts.groups.as_mut()) {
            *count += 1;
        }
    }

    /// Reads on. True exactly when all is read; `None` when the transaction has failed.
    fn read(&mut self, cx: &mut Context<impl Storage, impl Send + 'static>, user: UserId) -> Option<bool> {
        let mut budget = LIST_ROWS;
        // A look costs something even where it finds nothing.
        let mut pay = |rows: usize| {
            self.rows += rows;
            budget = budget.saturating_sub(rows.max(1));
            budget
        };
        let mut left = LIST_ROWS;
        let friends = self.friends.entry(user).or_default();
        while friends.reach == Reach::Part {
            if left == 0 {
                return Some(false);
            }
            let after = friends.items.last().map_or(FIRST_USER, |friend| friend.id);
            let asked = left;
            let rows = cx.attempt(|store| store.friends(user, after, asked))?;
            left = pay(rows.len());
            friends.take(
                asked,
                rows.into_iter().map(|row| {
                    let bytes = FRIEND_MIN + row.name.len();
                    (ListedFriend { id: row.id, name: row.name.into() }, bytes)
                }),
            );
        }
        let joined = self.joined.entry(user).or_default();
        while joined.reach == Reach::Part {
            if left == 0 {
                return Some(false);
            }
            let after = joined.items.last().copied().unwrap_or(FIRST_GROUP);
            let asked = left.min(GROUP_ROWS);
            let rows = cx.attempt(|store| store.groups_of(user, after, asked))?;
            left = pay(rows.len());
            let groups = &mut self.groups;
            joined.take(
                asked,
                rows.into_iter().map(|row| {
                    let id = row.id;
                    let bytes = GROUP_MIN + row.name.len() + row.desc.len();
                    groups.entry(id).or_insert_with(|| Group::new(row));
                    (id, bytes)
                }),
            );
        }
        let mut room = LOGIN_ANSWER_MAX.saturating_sub(friends.bytes);
        for id in &joined.items {
            if room < GROUP_MIN {
                break;
            }
            let Some(group) = self.groups.get_mut(id) else { continue };
            while group.members.reach == Reach::Part {
                if left == 0 {
                    return Some(false);
                }
                let after = group.members.items.last().map_or(FIRST_USER, |member| member.id);
                let asked = left;
                let rows = cx.attempt(|store| store.members(*id, after, asked))?;
                left = pay(rows.len());
                group.members.take(
                    asked,
                    rows.into_iter().map(|row| {
                        let bytes = MEMBER_MIN + row.name.len() + row.role.len();
                        (ListedMember { id: row.id, name: row.name.into(), role: row.role.into() }, bytes)
                    }),
                );
                if group.members.reach != Reach::Part {
                    group.end(*id);
                }
            }
            room -= group.listed.as_ref().map_or(0, |_| group.bytes()).min(room);
        }
        Some(true)
    }

    /// Reads what a login answer lists of a user, a bounded number of rows a call. True exactly when nothing is left to
    /// read, or the transaction has failed, and the login with it.
    pub(super) fn read_on(
        &mut self,
        cx: &mut Context<impl Storage, impl Send + 'static>,
        user: UserId,
    ) -> bool {
        self.tidy(cx.now.mono_us);
        let looks = self.looks.entry(user).or_default();
        *looks += 1;
        // What others have remembered may have been forgotten again and again meanwhile.
        let is_read = *looks > LOOKS_MAX || self.read(cx, user).unwrap_or(true);
        if is_read {
            self.looks.remove(&user);
        }
        is_read
    }

    /// Friends as they are now, and whether there are more.
    pub(super) fn friends_now(
        &self,
        user: UserId,
        is_online: impl Fn(UserId) -> bool,
    ) -> (Vec<FriendState>, bool) {
        let Some(list) = self.friends.get(&user) else { return (Vec::new(), true) };
        let friends = list.items.iter();
        let friends = friends
            .map(|friend| FriendState {
                online: is_online(friend.id),
                id: friend.id,
                name: friend.name.clone(),
            })
            .collect();
        (friends, list.reach != Reach::Whole)
    }

    /// The groups that may fit into the answer beside the friends, with their members as they are now, and whether there
    /// are more.
    pub(super) fn groups_now(
        &self,
        user: UserId,
        is_online: impl Fn(UserId) -> bool,
    ) -> (Vec<GroupState>, bool) {
        let Some(joined) = self.joined.get(&user) else { return (Vec::new(), true) };
        let mut more = joined.reach != Reach::Whole;
        let friends = self.friends.get(&user).map_or(0, |friends| friends.bytes);
        let mut room = LOGIN_ANSWER_MAX.saturating_sub(friends);
        let mut groups = Vec::new();
        for id in &joined.items {
            if room < GROUP_MIN {
                more = true;
                break;
            }
            let listed = self.groups.get(id).filter(|group| group.bytes() <= room);
            let Some((bytes, group)) = listed.and_then(|group| Some((group.bytes(), group.listed.as_ref()?)))
            else {
                more = true;
                continue;
            };
            room -= bytes;
            let online = group.members.iter().map(|member| is_online(member.id)).collect();
            groups.push(GroupState { group: Arc::clone(group), online });
        }
        (groups, more)
    }

    /// How many friends a user has, up to the most that one may have. `None` when the transaction has failed.
    pub(super) fn count_friends(
        &mut self,
        cx: &mut Context<impl Storage, impl Send + 'static>,
        user: UserId,
    ) -> Option<usize> {
        let max = cx.policy.friends_max;
        if let Some(count) = self.counts.get(&user).and_then(|counts| counts.friends) {
            return Some(count);
        }
        let count = cx.attempt(|store| store.count_friends(user, max))?;
        self.counts.entry(user).or_default().friends = Some(count);
        self.rows += 1;
        Some(count)
    }

    /// The same for the groups that a user is in.
    pub(super) fn count_groups(
        &mut self,
        cx: &mut Context<impl Storage, impl Send + 'static>,
        user: UserId,
    ) -> Option<usize> {
        let max = cx.policy.groups_max;
        if let Some(count) = self.counts.get(&user).and_then(|counts| counts.groups) {
            return Some(count);
        }
        let count = cx.attempt(|store| store.count_groups(user, max))?;
        self.counts.entry(user).or_default().groups = Some(count);
        self.rows += 1;
        Some(count)
    }
}
