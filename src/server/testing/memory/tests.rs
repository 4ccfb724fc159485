//! The made-up store answers as the real one: one script, both stores, the same answers.

use super::tables::Departed;
use super::*;
use crate::channel::{ChannelId, Reason};
use crate::ids::{Epoch, GroupId, Mid, UserId};
use crate::store::sqlite::{Durability, Filter, History, SqliteStore};
use crate::store::{
    DedupRecord, DepartureId, DepartureRow, DepartureUpdate, Lookup, OfflineBox, PasswordMark, Storage,
    Stored, TOKEN_LIFE_MS, TokenHash, TokenRow, Tokens, Transactions, Users,
};
use std::fmt::Debug;

const NOW_MS: i64 = 1_700_000_000_000;

/// Answers in order. An error's words differ from store to store; that there is one must not.
#[derive(Default)]
struct Transcript(Vec<String>);

impl Transcript {
    fn note<T: Debug>(&mut self, what: &str, answer: &Stored<T>) {
        self.0.push(match answer {
            Ok(value) => format!("{what}: {value:?}"),
            Err(_) => format!("{what}: refused"),
        });
    }
}

macro_rules! note {
    ($transcript:ident, $store:ident, $($method:ident($($argument:expr),*);)*) => {
        $(
            let answer = $store.$method($($argument),*);
            let call = concat!(stringify!($method), "(", stringify!($($argument),*), ")");
            $transcript.note(&format!("{} {call}", $transcript.0.len()), &answer);
        )*
    };
}

fn row(user: UserId, at_ms: i64) -> DepartureRow {
    DepartureRow {
        trusted_ms: at_ms,
        at_ms,
        channel: Some(ChannelId { slot: 7, generation: 3 }),
        user,
        name: "ann".into(),
        peer: Some(([127, 0, 0, 1], 1).into()),
        reason: Reason::Kicked,
        errno: Some(104),
        since_ms: Some(at_ms - 5),
    }
}

fn completion(offline_us: Option<i64>, closed_us: Option<i64>) -> DepartureUpdate {
    DepartureUpdate { offline_us, closed_us, delivered: 3, saved: 2, lost: 1 }
}

/// What users, groups and friends are asked, twice: what is committed, and what a rollback leaves.
fn script(s: &mut impl Storage) -> Vec<String> {
    let mut t = Transcript::default();
    let (ann, bob, cy, nobody) = (UserId(1), UserId(2), UserId(3), UserId(99));
    note! { t, s,
        // Writes need a transaction, reads do not.
        add_user("ann", None); commit(); user(ann);
        begin(); begin();
        add_user("ann", Some("h1")); add_user("bob", None); add_user("ann", Some("h2")); add_user("Ann", None); add_user("cy", Some("h3"));
        user(ann); user(cy); user_named("cy"); user_named("Cy"); user(UserId(4)); commit();
        user_called("e\u{301}"); begin(); add_user("é", None); user_called("e\u{301}"); user_named("e\u{301}"); commit();
        user(ann); user_named("bob"); user(nobody);
        // Fencing by epoch.
        begin(); set_online(ann, Epoch(4)); set_offline(ann, Epoch(3)); user(ann); set_epoch(ann, Epoch(2)); user(ann);
        set_offline(ann, Epoch(4)); set_epoch(ann, Epoch(6)); user(ann); set_offline(ann, Epoch(6));
        set_online(nobody, Epoch(1)); set_offline(nobody, Epoch(1)); set_epoch(nobody, Epoch(1)); user(nobody);
        renew_password(ann, "other", "h9"); user(ann); renew_password(ann, "h1", "h9"); renew_password(bob, "", "x");
        user(ann); user(bob); commit();
        // How rows stand, and what a session that goes on makes of its own.
        user_marks(UserId(i64::MIN), 9); user_marks(ann, 9); user_marks(ann, 1); user_marks(nobody, 9);
        restore_online(ann, Epoch(3)); begin(); restore_online(ann, Epoch(3)); restore_online(nobody, Epoch(3));
        user_marks(UserId(0), 1); user(nobody); set_offline(ann, Epoch(3)); set_epoch(ann, Epoch(6)); commit();
        // What is rolled back never was, its numbers included.
        begin(); add_user("dee", None); set_online(bob, Epoch(1));
    }
    s.rollback();
    note! { t, s,
        user(bob); user_named("dee"); begin(); add_user("dee", None); add_friend(ann, bob); add_friend(ann, bob);
        add_friend(ann, ann); add_friend(ann, nobody); add_friend(bob, ann); friends(ann, FIRST, 9); friends(bob, FIRST, 9);
        friends(nobody, FIRST, 9); friends(ann, ann, 9); friends(ann, FIRST, 1); count_friends(ann, 9); count_friends(ann, 1);
        add_group(ann, "g", "d"); add_group(ann, "g", ""); join_group(GroupId(1), bob); join_group(GroupId(1), bob);
        join_group(GroupId(1), ann); join_group(GroupId(1), nobody); join_group(GroupId(9), bob);
        group(GroupId(1)); group(GroupId(9)); members(GroupId(1), FIRST, 9); members(GroupId(9), FIRST, 9);
        members(GroupId(1), ann, 9); members(GroupId(1), FIRST, 1); groups_of(ann, GroupId(0), 9); groups_of(ann, GroupId(1), 9);
        groups_of(ann, GroupId(0), 1); groups_of(bob, GroupId(0), 9); count_groups(ann, 9); count_groups(ann, 1); commit(); begin(); commit();
    }
    boxes(s, &mut t);
    old_boxes(s, &mut t);
    accepted(s, &mut t);
    history(s, &mut t);
    tokens(s, &mut t);
    t.0
}

/// No user comes before this one.
const FIRST: UserId = UserId(i64::MIN);

fn boxes(s: &mut impl Storage, t: &mut Transcript) {
    let (ann, bob) = (UserId(1), UserId(2));
    note! { t, s,
        keep(ann, Mid(1), 0, b"x", false); begin(); box_usage(ann); kept(ann, Mid(0), 10, 10);
        keep(ann, Mid(3), 5, b"three", false); keep(ann, Mid(4), 6, b"four", false); keep(ann, Mid(9), 7, b"", false); keep(bob, Mid(1), 0, b"b", false);
        box_usage(ann); box_usage(bob);
        kept(ann, Mid(0), 10, 100); kept(ann, Mid(0), 1, 100); kept(ann, Mid(0), 0, 100); kept(ann, Mid(0), 10, 8);
        kept(ann, Mid(0), 10, 9); kept(ann, Mid(0), 10, 0); kept(ann, Mid(3), 10, 0); kept(ann, Mid(9), 10, 100);
        mark_sent(ann, Mid(3)); keep(ann, Mid(2), 8, b"two", true); kept(ann, Mid(0), 10, 100);
        mark_sent(UserId(50), Mid(3)); commit(); drop_kept(ann, Mid(3)); mark_sent(ann, Mid(3));
        begin(); drop_kept(ann, Mid(2)); drop_kept(ann, Mid(4)); box_usage(ann); drop_kept(UserId(50), Mid(7)); commit();
        kept(ann, Mid(0), 10, 100);
        // A number that is taken voids the transaction: nothing more is written, and nothing of it is committed.
        begin(); keep(bob, Mid(2), 0, b"lost", false); keep(bob, Mid(2), 0, b"again", false); keep(bob, Mid(3), 0, b"c", false);
        set_online(bob, Epoch(70)); add_user("eve", None); drop_kept(bob, Mid(9)); begin(); commit(); box_usage(bob);
    }
    s.rollback();
    s.rollback();
    note! { t, s,
        box_usage(bob); commit(); begin(); keep(bob, Mid(2), 0, b"kept", false); commit(); kept(bob, Mid(0), 9, 99);
        user_named("eve");
    }
}

fn old_boxes(s: &mut impl Storage, t: &mut Transcript) {
    let (dan, eve) = (UserId(60), UserId(70));
    note! { t, s,
        expire_kept(100, None, 9); begin(); expire_kept(-1, None, 9);
        keep(dan, Mid(1), 100, b"1", false); keep(dan, Mid(2), 200, b"2", false); keep(dan, Mid(3), 300, b"3", false);
        keep(eve, Mid(1), 200, b"e", false); keep(UserId(80), Mid(1), 900, b"new", false);
        // A clock that was set back: what is old behind something new stays until that is old.
        keep(UserId(80), Mid(2), 1, b"old", false);
        expire_kept(-1, None, 9);
        expire_kept(300, Some(dan), 1); kept(dan, Mid(0), 9, 99); expire_kept(300, Some(dan), 1);
        expire_kept(300, Some(dan), 1); expire_kept(300, Some(eve), 9); expire_kept(300, Some(dan), 9);
        kept(dan, Mid(0), 9, 99); box_usage(eve); box_usage(UserId(80)); expire_kept(901, Some(dan), 9);
        box_usage(UserId(80)); commit();
    }
}

fn accepted(s: &mut impl Storage, t: &mut Transcript) {
    let chat = |fingerprint| DedupRecord { sender: UserId(1), fingerprint };
    note! { t, s,
        accept(chat(1), 5); begin(); accept(chat(1), 5); accept(chat(2), 6); accept(chat(1), 7); expire_accepted(4);
        expire_accepted(6); expire_accepted(6); expire_accepted(9); commit();
        note_reached(chat(4), 5, &[UserId(1)]); begin(); reached(chat(4));
        note_reached(chat(4), 5, &[UserId(9), UserId(i64::MIN)]); note_reached(chat(5), 6, &[UserId(1)]);
        note_reached(chat(4), 7, &[UserId(3)]); reached(chat(4)); forget_reached(chat(6)); commit(); reached(chat(4));
        forget_reached(chat(5)); begin(); forget_reached(chat(5)); reached(chat(5)); expire_accepted(5); reached(chat(4));
        expire_accepted(6); expire_accepted(7); reached(chat(4)); commit();
    }
}

fn history(s: &mut impl Storage, t: &mut Transcript) {
    let ann = UserId(1);
    note! { t, s,
        add_departure(&row(ann, 1)); begin();
        add_departure(&row(ann, 100)); add_departure(&row(ann, 200)); add_departure(&row(ann, 300));
        add_departure(&row(ann, 50)); add_departure(&row(ann, 400));
        complete_departures(DepartureId(3)..=DepartureId(4), &completion(Some(7), None));
        complete_departures(DepartureId(3)..=DepartureId(3), &completion(None, Some(9)));
        complete_departures(DepartureId(76)..=DepartureId(77), &completion(None, None));
        expire_departures(0, 100); expire_departures(0, 4); expire_departures(60, 100); expire_departures(60, 100);
        add_departure(&row(ann, 500)); commit();
    }
}

fn token(user: UserId, epoch: i64, hash: u8, mark: u8) -> TokenRow {
    let (hash, mark) = (TokenHash([hash; 32]), PasswordMark([mark; 32]));
    TokenRow { user, epoch: Epoch(epoch), hash, mark, expires_ms: None }
}

fn tokens(s: &mut impl Storage, t: &mut Transcript) {
    let (ann, bob) = (UserId(1), UserId(2));
    let hash = |byte| TokenHash([byte; 32]);
    let (old, new) = (PasswordMark([1; 32]), PasswordMark([2; 32]));
    note! { t, s,
        add_token(&token(ann, 1, 1, 1), 3); drop_tokens(ann); token(&hash(1)); begin();
        add_token(&token(ann, 1, 1, 1), 3); add_token(&token(ann, 2, 2, 1), 3); add_token(&token(bob, 1, 3, 1), 3);
        add_token(&token(ann, 4, 4, 3), 3); token(&hash(1)); token(&hash(4)); token(&hash(9));
        // The oldest one goes, and only that user's.
        add_token(&token(ann, 7, 5, 1), 3); token(&hash(1)); token(&hash(2)); token(&hash(3)); commit();
        begin(); renew_tokens(ann, &old, &new); token(&hash(2)); token(&hash(4)); token(&hash(3));
        end_tokens(ann, Epoch(2), 100); end_tokens(ann, Epoch(1), 1); end_tokens(bob, Epoch(1), 50); token(&hash(4));
        // An epoch in between ends what is before it, and nothing twice.
        end_tokens(ann, Epoch(5), 300); token(&hash(4));
        token(&hash(2)); token(&hash(3)); token(&hash(5)); expire_tokens(49); expire_tokens(50); expire_tokens(99);
        token(&hash(3)); token(&hash(2)); expire_tokens(i64::MAX); token(&hash(2)); token(&hash(5));
        drop_token(&hash(9)); drop_token(&hash(5)); token(&hash(5)); add_token(&token(bob, 3, 6, 1), 0); token(&hash(6));
        add_token(&token(bob, 4, 7, 1), 8); add_token(&token(bob, 4, 8, 1), 8); token(&hash(7)); token(&hash(8));
        drop_tokens(ann); token(&hash(4)); token(&hash(8)); drop_tokens(bob); token(&hash(8)); commit();
        // One that was used up in what is rolled back is good again.
        begin(); add_token(&token(ann, 9, 9, 1), 8); commit(); begin(); drop_token(&hash(9)); token(&hash(9));
    }
    s.rollback();
    note! { t, s,
        token(&hash(9)); replace_token(&hash(9), &token(ann, 10, 10, 1)); begin(); end_tokens(ann, Epoch(9), 7);
        // One takes the other's place and is not over; one that nobody has leaves no place.
        replace_token(&hash(9), &token(ann, 10, 10, 2)); token(&hash(9)); token(&hash(10));
        replace_token(&hash(9), &token(ann, 11, 11, 2)); token(&hash(11)); expire_tokens(i64::MAX); token(&hash(10));
        // Whatever is in that place already gives way.
        add_token(&token(ann, 12, 12, 2), 8); replace_token(&hash(10), &token(ann, 12, 13, 2));
        token(&hash(10)); token(&hash(12)); token(&hash(13)); drop_tokens(ann); token(&hash(13)); commit();
    }
}

#[test]
fn both_stores_give_the_same_answers() {
    let dir = tempfile::tempdir().unwrap();
    let mut sqlite = SqliteStore::open(dir.path(), Durability::Normal, NOW_MS).unwrap().store;
    let (disk, real) = (Disk::default(), script(&mut sqlite));
    let made_up = script(&mut disk.open(NOW_MS));
    for (real, made_up) in real.iter().zip(&made_up) {
        assert_eq!(real, made_up);
    }
    assert_eq!(real.len(), made_up.len());
    assert!(real.iter().any(|line| line.ends_with("refused")), "the script provokes refusals");
}

/// Somebody who has left once, and is online when the server is killed.
fn stay_online(s: &mut impl Storage) {
    s.begin().unwrap();
    let user = s.add_user("ann", None).unwrap().unwrap();
    s.set_online(user, Epoch(5)).unwrap();
    s.add_token(&token(user, 4, 1, 1), 8).unwrap();
    s.end_tokens(user, Epoch(4), 77).unwrap();
    s.add_token(&token(user, 5, 2, 1), 8).unwrap();
    let left = s.add_departure(&row(user, 100)).unwrap();
    s.complete_departures(left..=left, &completion(Some(7), None)).unwrap();
    s.complete_departures(left..=left, &completion(None, Some(9))).unwrap();
    s.commit().unwrap();
}

#[test]
fn both_stores_tell_the_same_history_and_recover_from_a_crash_alike() {
    let dir = tempfile::tempdir().unwrap();
    let disk = Disk::default();
    stay_online(&mut SqliteStore::open(dir.path(), Durability::Normal, NOW_MS).unwrap().store);
    stay_online(&mut disk.open(NOW_MS));
    let mut sqlite = SqliteStore::open(dir.path(), Durability::Normal, NOW_MS + 1).unwrap().store;
    let mut memory = disk.open(NOW_MS + 1);
    assert_eq!(sqlite.user(UserId(1)).unwrap(), memory.user(UserId(1)).unwrap());
    assert_eq!(memory.user(UserId(1)).unwrap().map(|row| (row.online, row.epoch)), Some((false, Epoch(6))));
    for (hash, expires_ms) in [(1, 77), (2, NOW_MS + 1 + TOKEN_LIFE_MS)] {
        let (real, made_up) = (sqlite.token(&TokenHash([hash; 32])), memory.token(&TokenHash([hash; 32])));
        let (real, made_up) = (real.unwrap().unwrap(), made_up.unwrap().unwrap());
        assert_eq!(real, made_up);
        assert_eq!(real.expires_ms, Some(expires_ms), "only what had not begun to run out begins now");
    }

    let mut real = History::open(dir.path()).unwrap().departures(Filter::All, 10).unwrap();
    real.reverse();
    let real: Vec<_> = real
        .into_iter()
        .map(|d| {
            let known = (d.offline_us, d.closed_us, d.delivered, d.saved, d.lost);
            (d.at_ms, d.channel, d.user, d.name, d.peer, d.reason, d.errno, d.since_ms, known)
        })
        .collect();
    let made_up: Vec<_> = disk
        .departures()
        .into_iter()
        .map(|Departed { row: d, completion: c }| {
            let (offline_us, closed_us) = (c.and_then(|c| c.offline_us), c.and_then(|c| c.closed_us));
            let known =
                (offline_us, closed_us, c.map(|c| c.delivered), c.map(|c| c.saved), c.map(|c| c.lost));
            let (reason, errno) = (d.reason.word().to_owned(), d.errno.map(i64::from));
            let (channel, peer) = (d.channel.map(|id| id.to_string()), d.peer.map(|addr| addr.to_string()));
            (d.at_ms, channel, d.user, d.name.to_string(), peer, reason, errno, d.since_ms, known)
        })
        .collect();
    assert_eq!(real, made_up);
}

#[test]
fn a_fault_strikes_once_and_when_it_is_due() {
    let disk = Disk::default();
    let mut store = disk.open(NOW_MS);
    disk.fail_next(Fault::Begin);
    assert!(store.begin().is_err());
    disk.fail_after(1, Fault::Write);
    store.begin().unwrap();
    assert!(store.add_user("ann", None).is_ok());
    assert!(store.add_user("bob", None).is_err(), "the second write");
    assert!(store.add_user("cy", None).is_err(), "the transaction is void");
    assert!(store.commit().is_err());
    store.rollback();

    disk.fail_next(Fault::Commit);
    store.begin().unwrap();
    store.add_user("ann", None).unwrap().unwrap();
    assert!(store.commit().is_err());
    store.rollback();
    assert_eq!(store.user_named("ann").unwrap(), None);

    disk.set_full(true);
    store.begin().unwrap();
    assert!(store.add_user("ann", None).is_err());
    assert!(store.commit().is_err());
    store.rollback();
    disk.set_full(false);
    store.begin().unwrap();
    assert_eq!(store.add_user("ann", None).unwrap(), Ok(UserId(1)));
    store.commit().unwrap();
    disk.fail_next(Fault::Read);
    assert!(store.user(UserId(1)).is_err());
    assert!(store.user(UserId(1)).unwrap().is_some());
}

#[test]
fn numbers_that_do_not_rise_are_refused() {
    let disk = Disk::default();
    let mut store = disk.open(NOW_MS);
    store.begin().unwrap();
    let ann = store.add_user("ann", None).unwrap().unwrap();
    store.set_online(ann, Epoch(2)).unwrap();
    store.keep(ann, Mid(5), 0, b"x", false).unwrap();
    store.drop_kept(ann, Mid(5)).unwrap();
    store.commit().unwrap();
    for act in [
        (|s, user| s.keep(user, Mid(5), 0, b"y", false)) as fn(&mut MemoryStore, UserId) -> Stored<()>,
        |s, user| s.set_online(user, Epoch(1)),
    ] {
        store.begin().unwrap();
        assert!(act(&mut store, ann).is_err());
        store.rollback();
    }
}
