//! All of [`Storage`] on the made-up rows.

use super::disk::Fault;
use super::tables::{Letter, Tables};
use super::transaction::{MemoryStore, REFUSES, Transaction};
use crate::clock::TimeMark;
use crate::ids::{Epoch, GroupId, Mid, UserId};
use crate::protocol::name::Skeletons;
use crate::store::sqlite::{EXPIRE_ACCEPTED_BATCH, EXPIRE_BATCH};
use crate::store::{
    Ban, BanSubject, Bans, BoxCopy, BoxUsage, DedupLog, DedupRecord, DepartureId, DepartureRow,
    DepartureUpdate, Departures, ExpiredKept, Friend, FriendsGroups, GroupRow, Member, NameTaken, OfflineBox,
    PasswordMark, Stored, StoredMessage, TokenHash, TokenRow, Tokens, Transactions, UserMark, UserRow, Users,
};
use crate::sync::Arc;
use std::ops::RangeInclusive;

impl Transactions for MemoryStore {
    fn begin(&mut self) -> Stored<()> {
        self.begins()
    }

    fn commit(&mut self) -> Stored<()> {
        self.expect_open()?;
        if self.disk.strikes(Fault::Commit) {
            return Err(self.voided("committing", "a made-up fault"));
        }
        if let Some(tables) = self.draft.take() {
            self.disk.0.lock().tables = tables;
        }
        self.transaction = Transaction::None;
        Ok(())
    }

    fn rollback(&mut self) {
        self.draft = None;
        self.transaction = Transaction::None;
    }

    fn mark_time(&mut self, mark: TimeMark) -> Stored<()> {
        self.write(|tables| {
            tables.mark = Some(mark);
            Ok(())
        })
    }
}

impl Users for MemoryStore {
    fn add_user(&mut self, name: &str, password: Option<&str>) -> Stored<Result<UserId, NameTaken>> {
        self.write(|tables| {
            if let Some(taken) = tables.name_taken(name) {
                return Ok(Err(taken));
            }
            tables.last_user += 1;
            let id = UserId(tables.last_user);
            let password = password.map(Into::into);
            let row = UserRow { id, name: name.into(), password, epoch: Epoch(0), online: false };
            tables.users.insert(id, row);
            tables.skeletons.insert(id, Skeletons::of(name));
            Ok(Ok(id))
        })
    }

    fn renew_password(&mut self, user: UserId, old: &str, new: &str) -> Stored<()> {
        self.write(|tables| {
            if let Some(password) = tables.users.get_mut(&user).and_then(|row| row.password.as_mut())
                && password == old
            {
                new.clone_into(password);
            }
            Ok(())
        })
    }

    fn set_online(&mut self, user: UserId, epoch: Epoch) -> Stored<()> {
        self.write(|tables| {
            let Some(row) = tables.users.get_mut(&user) else { return Ok(()) };
            if epoch < row.epoch || epoch == row.epoch && !row.online {
                return Err("an epoch that does not rise");
            }
            let begins = epoch > row.epoch;
            (row.online, row.epoch) = (true, epoch);
            if begins {
                let tally = tables.tallies.entry(user).or_default();
                (tally.begun, tally.latest) = (tally.begun + 1, Some(epoch));
            }
            Ok(())
        })
    }

    fn restore_online(&mut self, user: UserId, epoch: Epoch) -> Stored<()> {
        self.write(|tables| {
            if let Some(row) = tables.users.get_mut(&user) {
                (row.online, row.epoch) = (true, epoch);
            }
            Ok(())
        })
    }

    fn user_marks(&mut self, after: UserId, max: usize) -> Stored<Vec<UserMark>> {
        self.read(|tables| {
            let above = tables.users.values().filter(|row| row.id > after).take(max);
            above.map(|row| UserMark { id: row.id, online: row.online, epoch: row.epoch }).collect()
        })
    }

    fn set_offline(&mut self, user: UserId, epoch: Epoch) -> Stored<()> {
        self.write(|tables| {
            if let Some(row) = tables.users.get_mut(&user).filter(|row| row.epoch == epoch) {
                row.online = false;
            }
            Ok(())
        })
    }

    fn set_epoch(&mut self, user: UserId, epoch: Epoch) -> Stored<()> {
        self.write(|tables| {
            if let Some(row) = tables.users.get_mut(&user) {
                row.epoch = row.epoch.believed().max(epoch);
            }
            Ok(())
        })
    }
}

impl Departures for MemoryStore {
    fn add_departure(&mut self, row: &DepartureRow) -> Stored<DepartureId> {
        if self.disk.0.lock().refuses_history {
            return Err(self.voided("recording a departure", REFUSES));
        }
        self.write(|tables| Ok(tables.depart(row.clone())))
    }

    fn complete_departures(
        &mut self,
        ids: RangeInclusive<DepartureId>,
        completion: &DepartureUpdate,
    ) -> Stored<()> {
        let refused =
            self.disk.0.lock().refused_row.is_some_and(|row| (ids.start().0..=ids.end().0).contains(&row.0));
        self.write(|tables| {
            if refused {
                return Err(REFUSES);
            }
            for (_, departed) in tables.departures.range_mut(ids.start().0..=ids.end().0) {
                let before = departed.completion.unwrap_or_default();
                departed.completion = Some(DepartureUpdate {
                    offline_us: completion.offline_us.or(before.offline_us),
                    closed_us: completion.closed_us.or(before.closed_us),
                    ..*completion
                });
            }
            Ok(())
        })
    }

    fn expire_departures(&mut self, before_ms: i64, keep: u64) -> Stored<u64> {
        self.write(|tables| {
            let count = tables.departures.len() as u64;
            let too_many = count.saturating_sub(keep).min(EXPIRE_BATCH);
            for _ in 0..too_many {
                tables.departures.pop_first();
            }
            let oldest = tables.departures.iter().take((EXPIRE_BATCH - too_many) as usize);
            let old: Vec<i64> =
                oldest.filter(|(_, d)| d.row.trusted_ms < before_ms).map(|(id, _)| *id).collect();
            for id in &old {
                tables.departures.remove(id);
            }
            Ok(too_many + old.len() as u64)
        })
    }
}

impl Bans for MemoryStore {
    fn put_ban(&mut self, ban: &Ban) -> Stored<()> {
        self.write(|tables| {
            tables.bans.retain(|other| other.banned != ban.banned);
            tables.bans.push(ban.clone());
            Ok(())
        })
    }

    fn drop_ban(&mut self, banned: BanSubject) -> Stored<()> {
        self.write(|tables| {
            tables.bans.retain(|ban| ban.banned != banned);
            Ok(())
        })
    }

    fn expire_bans(&mut self, now_ms: i64) -> Stored<()> {
        self.write(|tables| {
            tables.bans.retain(|ban| ban.until_ms > now_ms);
            Ok(())
        })
    }
}

impl Tokens for MemoryStore {
    fn add_token(&mut self, token: &TokenRow, keep: usize) -> Stored<()> {
        self.write(|tables| {
            tables.tokens.insert((token.user, token.epoch), token.clone());
            let of_user: Vec<_> = tables.tokens.keys().filter(|key| key.0 == token.user).copied().collect();
            for key in of_user.iter().rev().skip(keep) {
                tables.tokens.remove(key);
            }
            Ok(())
        })
    }

    fn replace_token(&mut self, used: &TokenHash, token: &TokenRow) -> Stored<()> {
        self.write(|tables| {
            let known = tables.tokens.len();
            tables.tokens.retain(|_, other| other.hash != *used);
            if tables.tokens.len() < known {
                tables.tokens.insert((token.user, token.epoch), token.clone());
            }
            Ok(())
        })
    }

    fn token(&mut self, hash: &TokenHash) -> Stored<Option<TokenRow>> {
        self.read(|tables| tables.tokens.values().find(|token| token.hash == *hash).cloned())
    }

    fn drop_token(&mut self, hash: &TokenHash) -> Stored<()> {
        self.write(|tables| {
            tables.tokens.retain(|_, token| token.hash != *hash);
            Ok(())
        })
    }

    fn drop_tokens(&mut self, user: UserId) -> Stored<()> {
        self.write(|tables| {
            tables.tokens.retain(|_, token| token.user != user);
            Ok(())
        })
    }

    fn end_tokens(&mut self, user: UserId, upto: Epoch, expires_ms: i64) -> Stored<()> {
        self.write(|tables| {
            for (_, token) in tables.tokens.range_mut((user, Epoch(i64::MIN))..=(user, upto)) {
                token.expires_ms.get_or_insert(expires_ms);
            }
            Ok(())
        })
    }

    fn renew_tokens(&mut self, user: UserId, old: &PasswordMark, new: &PasswordMark) -> Stored<()> {
        self.write(|tables| {
            for token in tables.tokens.values_mut().filter(|token| token.user == user && token.mark == *old) {
                token.mark = *new;
            }
            Ok(())
        })
    }

    fn expire_tokens(&mut self, now_ms: i64) -> Stored<u64> {
        self.write(|tables| {
            let over = |token: &TokenRow| token.expires_ms.filter(|at_ms| *at_ms <= now_ms);
            let mut old: Vec<_> =
                tables.tokens.iter().filter_map(|(key, token)| Some((over(token)?, *key))).collect();
            old.sort_unstable();
            old.truncate(EXPIRE_BATCH as usize);
            for (_, key) in &old {
                tables.tokens.remove(key);
            }
            Ok(old.len() as u64)
        })
    }
}

impl FriendsGroups for MemoryStore {
    fn add_friend(&mut self, user: UserId, friend: UserId) -> Stored<bool> {
        self.write(|tables| Ok(tables.friends.insert((user, friend))))
    }

    fn friends(&mut self, user: UserId, after: UserId, max: usize) -> Stored<Vec<Friend>> {
        self.read(|tables| {
            let added = tables.friends.iter().filter(|(of, friend)| *of == user && *friend > after);
            let rows = added.filter_map(|(_, friend)| tables.users.get(friend));
            rows.map(|row| Friend { id: row.id, name: row.name.clone() }).take(max).collect()
        })
    }

    fn count_friends(&mut self, user: UserId, max: usize) -> Stored<usize> {
        self.read(|tables| tables.friends.iter().filter(|(of, _)| *of == user).take(max).count())
    }

    fn add_group(&mut self, creator: UserId, name: &str, desc: &str) -> Stored<GroupId> {
        self.write(|tables| {
            let id = GroupId(tables.groups.len() as i64 + 1);
            tables.groups.insert(id, GroupRow { id, name: name.into(), desc: desc.into() });
            tables.members.insert((id, creator), "creator");
            Ok(id)
        })
    }

    fn group(&mut self, id: GroupId) -> Stored<Option<GroupRow>> {
        self.read(|tables| tables.groups.get(&id).cloned())
    }

    fn join_group(&mut self, group: GroupId, user: UserId) -> Stored<bool> {
        self.write(|tables| {
            let before = tables.members.len();
            tables.members.entry((group, user)).or_insert("normal");
            Ok(tables.members.len() > before)
        })
    }

    fn groups_of(&mut self, user: UserId, after: GroupId, max: usize) -> Stored<Vec<GroupRow>> {
        self.read(|tables| {
            let joined = tables.members.keys().filter(|(group, member)| *member == user && *group > after);
            joined.filter_map(|(group, _)| tables.groups.get(group)).take(max).cloned().collect()
        })
    }

    fn count_groups(&mut self, user: UserId, max: usize) -> Stored<usize> {
        self.read(|tables| tables.members.keys().filter(|(_, member)| *member == user).take(max).count())
    }

    fn member_ids(&mut self, group: GroupId) -> Stored<Vec<UserId>> {
        self.read(|tables| {
            tables.members.keys().filter(|(of, _)| *of == group).map(|(_, member)| *member).collect()
        })
    }

    fn members(&mut self, group: GroupId, after: UserId, max: usize) -> Stored<Vec<Member>> {
        self.read(|tables| {
            let joined = tables.members.iter().filter(|((of, user), _)| *of == group && *user > after);
            let rows = joined.filter_map(|((_, user), role)| Some((tables.users.get(user)?, *role)));
            let member = |(row, role): (&UserRow, &str)| Member {
                id: row.id,
                name: row.name.clone(),
                role: role.into(),
            };
            rows.map(member).take(max).collect()
        })
    }
}

impl OfflineBox for MemoryStore {
    fn keep(&mut self, user: UserId, mid: Mid, at_ms: i64, body: &[u8], sent: bool) -> Stored<()> {
        self.write(|tables| tables.keep(BoxCopy { user, mid, sent }, at_ms, body.into()))
    }

    fn keep_copies(&mut self, copies: &[BoxCopy], at_ms: i64, body: &[u8]) -> Stored<()> {
        self.write(|tables| {
            let body: Arc<[u8]> = body.into();
            copies.iter().try_for_each(|copy| tables.keep(*copy, at_ms, Arc::clone(&body)))
        })
    }

    fn kept_bytes(&mut self) -> Stored<u64> {
        self.read(Tables::kept_bytes)
    }

    fn mark_sent(&mut self, user: UserId, upto: Mid) -> Stored<()> {
        self.write(|tables| {
            for (_, command) in tables.boxes.entry(user).or_default().range_mut(..=upto) {
                command.sent = true;
            }
            Ok(())
        })
    }

    fn box_usage(&mut self, user: UserId) -> Stored<BoxUsage> {
        self.read(|tables| tables.usage(user, Mid(i64::MAX)))
    }

    fn kept(
        &mut self,
        user: UserId,
        after: Mid,
        max_count: usize,
        max_bytes: usize,
    ) -> Stored<Vec<StoredMessage>> {
        self.read(|tables| {
            let mut room = max_bytes;
            let mut kept: Vec<StoredMessage> = Vec::new();
            let newer = tables.boxes.get(&user).into_iter().flatten().filter(|(mid, _)| **mid > after);
            for (mid, Letter { body, sent, .. }) in newer {
                if kept.len() >= max_count.max(1) || body.len() > room && !kept.is_empty() {
                    break;
                }
                room = room.saturating_sub(body.len());
                kept.push(StoredMessage { mid: *mid, body: body.to_vec(), sent: *sent });
            }
            kept
        })
    }

    fn drop_kept(&mut self, user: UserId, upto: Mid) -> Stored<BoxUsage> {
        self.write(|tables| {
            let dropped = tables.usage(user, upto);
            if let Some(messages) = tables.boxes.get_mut(&user) {
                messages.retain(|mid, _| *mid > upto);
            }
            Ok(dropped)
        })
    }

    fn expire_kept(&mut self, before_ms: i64, from: Option<UserId>, max: u64) -> Stored<ExpiredKept> {
        self.write(|tables| {
            let mut expired = ExpiredKept::default();
            let boxes = tables
                .boxes
                .iter_mut()
                .filter(|(user, messages)| !messages.is_empty() && from.is_none_or(|from| **user >= from));
            for (looked_at, (user, messages)) in boxes.enumerate() {
                if looked_at as u64 == EXPIRE_BATCH {
                    return Ok(ExpiredKept { next: Some(*user), ..expired });
                }
                if messages.values().next().is_none_or(|oldest| oldest.at_ms >= before_ms) {
                    continue;
                }
                let room = max - expired.messages;
                let oldest = messages.iter().take(room as usize);
                let old: Vec<Mid> =
                    oldest.filter(|(_, command)| command.at_ms < before_ms).map(|(mid, _)| *mid).collect();
                messages.retain(|mid, _| !old.contains(mid));
                expired.messages += old.len() as u64;
                expired.users.push(*user);
                if old.len() as u64 == room {
                    return Ok(ExpiredKept { next: Some(*user), ..expired });
                }
            }
            Ok(expired)
        })
    }
}

impl DedupLog for MemoryStore {
    fn accept(&mut self, acceptance: DedupRecord, at_ms: i64) -> Stored<()> {
        self.write(|tables| {
            tables.accepted.push((at_ms, acceptance));
            Ok(())
        })
    }

    fn expire_accepted(&mut self, before_ms: i64) -> Stored<bool> {
        self.write(|tables| {
            let old = tables.accepted.iter().take(EXPIRE_ACCEPTED_BATCH as usize);
            let count = old.take_while(|(at_ms, _)| *at_ms <= before_ms).count();
            tables.accepted.drain(..count);
            let old = tables.reached.iter().take(EXPIRE_ACCEPTED_BATCH as usize);
            let notes = old.take_while(|(at_ms, ..)| *at_ms <= before_ms).count();
            tables.reached.drain(..notes);
            Ok(count + notes > 0)
        })
    }

    fn note_reached(&mut self, chat: DedupRecord, at_ms: i64, users: &[UserId]) -> Stored<()> {
        self.write(|tables| {
            tables.reached.push((at_ms, chat, users.to_vec()));
            Ok(())
        })
    }

    fn reached(&mut self, chat: DedupRecord) -> Stored<Vec<UserId>> {
        self.read(|tables| {
            let of_chat = tables.reached.iter().filter(|(_, other, _)| *other == chat);
            let mut users: Vec<_> = of_chat.flat_map(|(_, _, users)| users.clone()).collect();
            users.sort_unstable();
            users
        })
    }

    fn forget_reached(&mut self, chat: DedupRecord) -> Stored<()> {
        self.write(|tables| {
            tables.reached.retain(|(_, other, _)| *other != chat);
            Ok(())
        })
    }
}
