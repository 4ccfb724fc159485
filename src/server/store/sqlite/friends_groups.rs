//! Whom users have added as friends, and who is in which group.

use super::sql::Sql;
use super::sqlite_store::{SqliteStore, at_most};
use super::{row, sql};
use crate::ids::{GroupId, UserId};
use crate::store::{Friend, FriendsGroups, GroupRow, Member, Stored};
use rusqlite::OptionalExtension;

impl SqliteStore {
    fn count(&mut self, doing: &'static str, statement: Sql, user: UserId, max: usize) -> Stored<usize> {
        let params = (user.0, at_most(max));
        self.run(doing, |all| all.get(statement).query_row(params, |row| row.get::<_, i64>(0)))
            .map(|count| count as usize)
    }
}

impl FriendsGroups for SqliteStore {
    fn add_friend(&mut self, user: UserId, friend: UserId) -> Stored<bool> {
        self.write("adding a friend", sql::ADD_FRIEND, (user.0, friend.0)).map(|count| count > 0)
    }

    fn count_friends(&mut self, user: UserId, max: usize) -> Stored<usize> {
        self.count("counting friends", sql::COUNT_FRIENDS, user, max)
    }

    fn friends(&mut self, user: UserId, after: UserId, max: usize) -> Stored<Vec<Friend>> {
        self.read_all("reading friends", sql::FRIENDS, (user.0, after.0, at_most(max)), |row| {
            Ok(Friend { id: UserId(row.get(0)?), name: row::text(row, 1)? })
        })
    }

    fn add_group(&mut self, creator: UserId, name: &str, desc: &str) -> Stored<GroupId> {
        let doing = "adding a group";
        self.write(doing, sql::ADD_GROUP, (name, desc))?;
        let group = GroupId(self.conn().last_insert_rowid());
        self.write(doing, sql::ADD_MEMBER, (group.0, creator.0, "creator"))?;
        Ok(group)
    }

    fn group(&mut self, id: GroupId) -> Stored<Option<GroupRow>> {
        self.run("reading a group", |all| all.get(sql::GROUP).query_row((id.0,), group_row).optional())
    }

    fn join_group(&mut self, group: GroupId, user: UserId) -> Stored<bool> {
        self.write("joining a group", sql::ADD_MEMBER, (group.0, user.0, "normal")).map(|count| count > 0)
    }

    fn count_groups(&mut self, user: UserId, max: usize) -> Stored<usize> {
        self.count("counting a user's groups", sql::COUNT_GROUPS, user, max)
    }

    fn groups_of(&mut self, user: UserId, after: GroupId, max: usize) -> Stored<Vec<GroupRow>> {
        let params = (user.0, after.0, at_most(max));
        self.read_all("reading a user's groups", sql::GROUPS_OF, params, group_row)
    }

    fn member_ids(&mut self, group: GroupId) -> Stored<Vec<UserId>> {
        self.read_all("reading who is in a group", sql::MEMBER_IDS, (group.0,), |row| Ok(UserId(row.get(0)?)))
    }

    fn members(&mut self, group: GroupId, after: UserId, max: usize) -> Stored<Vec<Member>> {
        let params = (group.0, after.0, at_most(max));
        self.read_all("reading a group's members", sql::MEMBERS, params, |row| {
            Ok(Member { id: UserId(row.get(0)?), name: row::text(row, 1)?, role: row::text(row, 2)? })
        })
    }
}

fn group_row(row: &rusqlite::Row<'_>) -> rusqlite::Result<GroupRow> {
    Ok(GroupRow { id: GroupId(row.get(0)?), name: row::text(row, 1)?, desc: row::text(row, 2)? })
}
