//! Who may not log in, and until when.
//!
//! On main, which has all bans in memory; the store has them for the next start. Other processes that change the
//! table meanwhile are not heard.

use super::context::Context;
use super::transaction::{AfterCommit, PendingWrite};
use crate::ids::UserId;
use crate::ip_block::AddrBlock;
use crate::message::command::WorkerCommand;
use crate::message::event::{BANS_MAX, BanFault, BanName, BanRequest};
use crate::message::reply::Answer;
use crate::message::reply_to::{Completes, ReplyTo};
use crate::store::{Ban, BanSubject, Storage};
use crate::sync::Arc;
use crossbeam_channel::Sender;
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};

/// All bans.
#[derive(Debug, Default)]
pub(crate) struct Bans {
    known: HashMap<BanSubject, Ban>,
}

impl Bans {
    /// The ban that keeps out that user, or somebody new, at that address the longest.
    pub(crate) fn find(&self, user: Option<UserId>, peer: IpAddr, now_ms: i64) -> Option<&Ban> {
        if self.known.is_empty() {
            return None;
        }
        let blocks = AddrBlock::all_around(peer).map(BanSubject::Block);
        user.map(BanSubject::User)
            .into_iter()
            .chain(blocks)
            .filter_map(|banned| self.known.get(&banned))
            .filter(|ban| now_ms < ban.until_ms)
            .max_by_key(|ban| ban.until_ms)
    }

    /// Takes the bans of the last run.
    pub(super) fn recall(&mut self, bans: Vec<Ban>) {
        for ban in bans {
            if self.put(ban).is_err() {
                tracing::warn!(
                    max = BANS_MAX,
                    "the database has more bans than may be; the rest is left out"
                );
                break;
            }
        }
    }

    /// Adds one; the latest word counts.
    pub(crate) fn put(&mut self, ban: Ban) -> Result<(), BanFault> {
        if self.known.len() >= BANS_MAX && !self.known.contains_key(&ban.banned) {
            return Err(BanFault::TooMany);
        }
        self.known.insert(ban.banned, ban);
        Ok(())
    }

    /// Takes out all that are meant and not over.
    fn take(&mut self, name: &BanName, now_ms: i64) -> Vec<Ban> {
        let means = |ban: &Ban| match (name, &ban.banned) {
            (BanName::Id(user), BanSubject::User(banned)) => user == banned,
            (BanName::Name(name), BanSubject::User(_)) => ban.name.as_deref() == Some(name),
            (BanName::Block(block), BanSubject::Block(banned)) => block == banned,
            (BanName::All, _) => true,
            _ => false,
        };
        self.known.extract_if(|_, ban| now_ms < ban.until_ms && means(ban)).map(|(_, ban)| ban).collect()
    }

    /// Those that are not over, in no order.
    fn list(&self, now_ms: i64) -> Vec<Ban> {
        self.known.values().filter(|ban| now_ms < ban.until_ms).cloned().collect()
    }

    /// Forgets those that are over. True exactly when there were any.
    fn expire(&mut self, now_ms: i64) -> bool {
        let before = self.known.len();
        self.known.retain(|_, ban| now_ms < ban.until_ms);
        self.known.len() < before
    }

    /// Bans whoever is meant. It holds for every login behind it in the queue.
    pub(super) fn ban(&mut self, cx: &mut Context<impl Storage, impl Send + 'static>, ask: BanRequest) {
        let mut bans = Vec::new();
        let until_ms = cx.trusted_ms().saturating_add_unsigned(ask.length_ms);
        // After a crash, a clock that is wrong must not prolong it.
        cx.mark_time();
        for name in ask.names {
            let Some((banned, name)) = find_banned(cx, name) else { continue };
            let ban = Ban { banned, name, until_ms, reason: ask.reason.clone() };
            if let Err(fault) = self.put(ban.clone()) {
                // Whoever asked may have given up.
                let _ = ask.reply.send(Err(fault));
                return;
            }
            cx.handles.metrics.bans.add(1);
            cx.enqueue(PendingWrite::Ban(ban.clone()));
            if let BanSubject::User(user) = ban.banned {
                cx.enqueue(PendingWrite::DropTokens { user });
            }
            bans.push(ban);
        }
        let bans = as_shown(cx, bans);
        cx.then(AfterCommit::Bans { reply: ask.reply, bans });
    }

    /// Lifts bans.
    pub(super) fn unban(
        &mut self,
        cx: &mut Context<impl Storage, impl Send + 'static>,
        names: &[BanName],
        reply: Sender<Result<Vec<Ban>, BanFault>>,
    ) {
        let mut bans = Vec::new();
        for name in names {
            bans.extend(self.take(name, cx.trusted_ms()));
        }
        for ban in &bans {
            cx.enqueue(PendingWrite::Unban(ban.banned));
        }
        let bans = as_shown(cx, bans);
        cx.then(AfterCommit::Bans { reply, bans });
    }

    /// All bans, in no order.
    pub(super) fn list_bans(&self, cx: &Context<impl Storage, impl Send + 'static>) -> Vec<Ban> {
        as_shown(cx, self.list(cx.trusted_ms()))
    }

    /// Removes what is over from memory and from the store.
    pub(super) fn remove_expired(&mut self, cx: &mut Context<impl Storage, impl Send + 'static>) {
        let now_ms = cx.trusted_ms();
        if self.expire(now_ms) {
            cx.attempt(|store| store.expire_bans(now_ms));
        }
    }

    /// True exactly when a ban of the address keeps a new user out; then that is answered.
    pub(super) fn keeps_newcomer_out(
        &mut self,
        cx: &mut Context<impl Storage, impl Send + 'static>,
        reply_to: &ReplyTo,
        peer: SocketAddr,
    ) -> bool {
        let Some(ban) = self.find(None, peer.ip(), cx.trusted_ms()).cloned() else { return false };
        cx.handles.metrics.registrations_refused.add(1);
        if cx.handles.attempts.may_log(cx.now.mono_us) {
            tracing::info!(channel = %reply_to.channel, %peer, "a banned registration was refused");
        }
        answer_banned(cx, reply_to, ban);
        true
    }

    /// The ban that keeps a user out who logs in from there.
    pub(super) fn find_for(
        &self,
        cx: &Context<impl Storage, impl Send + 'static>,
        user: UserId,
        peer: SocketAddr,
    ) -> Option<Ban> {
        self.find(Some(user), peer.ip(), cx.trusted_ms()).cloned()
    }
}

/// Answers whom a ban keeps out.
pub(super) fn answer_banned(
    cx: &mut Context<impl Storage, impl Send + 'static>,
    reply_to: &ReplyTo,
    ban: Ban,
) {
    let retry_after_ms = ban.until_ms.abs_diff(cx.trusted_ms());
    let answer =
        Answer::Banned { re: reply_to.re, retry_after_ms, reason: ban.reason, seq: reply_to.seq.clone() };
    let channel = reply_to.channel;
    cx.post(channel, WorkerCommand::Answer { channel, settles: Completes::Login, answer: Some(answer) });
}

/// The same for people, who look at the wall clock.
fn as_shown(cx: &Context<impl Storage, impl Send + 'static>, bans: Vec<Ban>) -> Vec<Ban> {
    let shown = |ban: Ban| Ban { until_ms: cx.trusted.shown_ms(ban.until_ms, cx.now), ..ban };
    bans.into_iter().map(shown).collect()
}

fn find_banned(
    cx: &mut Context<impl Storage, impl Send + 'static>,
    name: BanName,
) -> Option<(BanSubject, Option<Arc<str>>)> {
    let row = match name {
        BanName::Block(block) => return Some((BanSubject::Block(block), None)),
        BanName::All => None,
        BanName::Id(user) => cx.attempt(|store| store.user(user))?,
        BanName::Name(name) => cx.attempt(|store| store.user_called(&name))?,
    }?;
    Some((BanSubject::User(row.id), Some(row.name.into())))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR_MS: i64 = 3_600_000;

    fn ban(banned: BanSubject, until_ms: i64) -> Ban {
        Ban { banned, name: None, until_ms, reason: None }
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn block(text: &str) -> BanSubject {
        BanSubject::Block(text.parse().unwrap())
    }

    #[test]
    fn a_user_is_kept_out_from_anywhere_and_an_address_for_anybody_until_it_is_over() {
        let mut bans = Bans::default();
        bans.put(ban(BanSubject::User(UserId(1)), HOUR_MS)).unwrap();
        bans.put(ban(block("10.0.0.0/8"), 2 * HOUR_MS)).unwrap();
        let until = |user, peer: &str, now_ms| bans.find(user, ip(peer), now_ms).map(|ban| ban.until_ms);
        let (one, two) = (Some(UserId(1)), Some(UserId(2)));
        assert_eq!(until(one, "192.0.2.1", 0), Some(HOUR_MS));
        assert_eq!(until(two, "192.0.2.1", 0), None);
        assert_eq!(until(None, "192.0.2.1", 0), None, "somebody new");
        for user in [two, None] {
            assert_eq!(until(user, "::ffff:10.9.9.9", 0), Some(2 * HOUR_MS));
        }
        assert_eq!(until(one, "10.9.9.9", 0), Some(2 * HOUR_MS), "the longer one counts");
        assert_eq!(until(one, "192.0.2.1", HOUR_MS), None, "it is over");
    }

    #[test]
    fn a_banned_ipv6_address_without_a_length_bans_its_64_and_one_with_a_length_that_alone() {
        let mut bans = Bans::default();
        bans.put(ban(block("2001:db8::1"), HOUR_MS)).unwrap();
        bans.put(ban(block("2001:db8:0:1::1/128"), HOUR_MS)).unwrap();
        for (peer, is_banned) in [
            ("2001:db8::1", true),
            ("2001:db8::2", true),
            ("2001:db8:0:1::1", true),
            ("2001:db8:0:1::2", false),
        ] {
            assert_eq!(bans.find(None, ip(peer), 0).is_some(), is_banned, "{peer}");
        }
        assert_eq!(
            bans.take(&BanName::Block("2001:db8::9".parse().unwrap()), 0).len(),
            1,
            "and is lifted so"
        );
    }

    #[test]
    fn the_latest_word_on_the_same_user_counts() {
        let mut bans = Bans::default();
        bans.put(ban(BanSubject::User(UserId(1)), HOUR_MS)).unwrap();
        bans.put(ban(BanSubject::User(UserId(1)), 5)).unwrap();
        assert_eq!(bans.list(0), [ban(BanSubject::User(UserId(1)), 5)]);
    }

    #[test]
    fn only_what_is_meant_is_lifted() {
        let mut bans = Bans::default();
        let named = Ban { name: Some("ann".into()), ..ban(BanSubject::User(UserId(1)), HOUR_MS) };
        for ban in [named.clone(), ban(block("10.0.0.0/8"), HOUR_MS), ban(block("10.0.0.0/9"), HOUR_MS)] {
            bans.put(ban).unwrap();
        }
        assert_eq!(bans.take(&BanName::Name("bob".into()), 0), []);
        assert_eq!(bans.take(&BanName::Name("ann".into()), HOUR_MS), [], "over already");
        assert_eq!(bans.take(&BanName::Name("ann".into()), 0), [named]);
        let lifted = bans.take(&BanName::Block("10.0.0.0/8".parse().unwrap()), 0);
        assert_eq!(lifted, [ban(block("10.0.0.0/8"), HOUR_MS)]);
        assert_eq!(bans.take(&BanName::All, 0).len(), 1);
        assert_eq!(bans.list(0), []);
    }

    #[test]
    fn what_is_over_is_forgotten_and_makes_room() {
        let mut bans = Bans::default();
        for user in 0..BANS_MAX as i64 {
            bans.put(ban(BanSubject::User(UserId(user)), 1 + user % 2)).unwrap();
        }
        assert_eq!(bans.put(ban(block("10.0.0.0/8"), 9)), Err(BanFault::TooMany));
        assert_eq!(bans.put(ban(BanSubject::User(UserId(1)), 9)), Ok(()), "not one more");
        assert!(!bans.expire(0));
        assert!(bans.expire(1));
        assert_eq!(bans.put(ban(block("10.0.0.0/8"), 9)), Ok(()));
    }
}
