//! What the store promises, seen from outside: through its traits, and with SQLite beside it as other programs
//! would use it.

use linger_server::store::{
    BoxUsage, DedupLog, DedupRecord, DepartureRow, DepartureUpdate, Departures, Friend, FriendsGroups,
    Lookup, Member, NameTaken, OfflineBox, PasswordMark, TOKEN_LIFE_MS, TokenHash, TokenRow, Tokens,
    Transactions, UserRow, Users,
};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use linger_server::channel::{ChannelId, Reason};
use linger_server::ids::{Epoch, GroupId, Mid, UserId};
use linger_server::store::sqlite::{
    APPLICATION_ID, DATABASE_FILE, Durability, EXPIRE_BATCH, Filter, History, OpenError, SCHEMA_VERSION,
    SqliteLookup, SqliteStore, online_users,
};
use rusqlite::Connection;
use tempfile::TempDir;

const NOW_MS: i64 = 1_700_000_000_000;

/// No user comes before this one.
const FIRST: UserId = UserId(i64::MIN);

fn open(dir: &TempDir) -> SqliteStore {
    SqliteStore::open(dir.path(), Durability::Normal, NOW_MS).unwrap().store
}

fn opened() -> (TempDir, SqliteStore) {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir);
    (dir, store)
}

/// Another program's connection.
fn beside(dir: &TempDir) -> Connection {
    Connection::open(dir.path().join(DATABASE_FILE)).unwrap()
}

fn committed<T>(store: &mut SqliteStore, work: impl FnOnce(&mut SqliteStore) -> T) -> T {
    store.begin().unwrap();
    let result = work(store);
    store.commit().unwrap();
    result
}

fn add(store: &mut SqliteStore, name: &str) -> UserId {
    committed(store, |s| s.add_user(name, Some("$hash")).unwrap().expect("the name is free"))
}

fn departure(user: UserId, at_ms: i64) -> DepartureRow {
    DepartureRow {
        trusted_ms: at_ms,
        at_ms,
        channel: Some(ChannelId { slot: user.0 as u32, generation: 1 }),
        user,
        name: format!("user {user}").into(),
        peer: Some(([10, 0, 0, user.0 as u8], 5000).into()),
        reason: Reason::PeerReset,
        errno: Some(104),
        since_ms: Some(at_ms - 1_000),
    }
}

/// Every file in a directory, with its bytes.
fn snapshot(dir: &Path) -> Vec<(String, Vec<u8>)> {
    let mut files: Vec<_> = std::fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap())
        .map(|entry| (entry.file_name().into_string().unwrap(), std::fs::read(entry.path()).unwrap()))
        .collect();
    files.sort();
    files
}

fn refused(dir: &TempDir) -> OpenError {
    let before = snapshot(dir.path());
    let error = SqliteStore::open(dir.path(), Durability::Full, NOW_MS).expect_err("it must be refused");
    assert!(snapshot(dir.path()) == before, "something was changed: {error}");
    assert!(error.to_string().contains(DATABASE_FILE), "{error}");
    error
}

#[test]
fn a_new_database_is_in_wal_mode_and_says_whose_it_is() {
    let (dir, _store) = opened();
    let conn = beside(&dir);
    let value = |pragma: &str| {
        conn.pragma_query_value(None, pragma, |row| row.get::<_, rusqlite::types::Value>(0)).unwrap()
    };
    assert_eq!(value("journal_mode"), "wal".to_owned().into());
    assert_eq!(value("application_id"), APPLICATION_ID.into());
    assert_eq!(value("user_version"), SCHEMA_VERSION.into());
}

#[test]
fn the_header_names_us_even_while_everything_else_is_in_the_log() {
    let (dir, mut store) = opened();
    add(&mut store, "alice");
    // As a kill leaves it: no checkpoint has run, and this copy has no log.
    let bytes = std::fs::read(dir.path().join(DATABASE_FILE)).unwrap();
    assert_eq!(bytes[68..72], APPLICATION_ID.to_be_bytes());
    assert_eq!(bytes[60..64], SCHEMA_VERSION.to_be_bytes());
}

#[test]
fn the_tables_are_those_of_the_contract() {
    let (dir, _store) = opened();
    let conn = beside(&dir);
    let columns = |table: &str| -> Vec<String> {
        conn.prepare("SELECT name FROM pragma_table_info(?1)")
            .unwrap()
            .query_map([table], |row| row.get(0))
            .unwrap()
            .map(Result::unwrap)
            .collect()
    };
    assert_eq!(columns("user"), ["id", "name", "password", "state", "epoch", "skeleton", "cased_skeleton"]);
    for column in [
        "at",
        "channel",
        "user",
        "name",
        "peer",
        "reason",
        "initiator",
        "errno",
        "offline_us",
        "closed_us",
        "delivered",
        "saved",
        "lost",
        "since",
    ] {
        assert!(columns("departure").iter().any(|name| name == column), "{column} is missing");
    }
    conn.prepare("SELECT rowid FROM departure").expect("a rowid table");
    assert!(conn.prepare("SELECT rowid FROM box").is_err());
    assert!(conn.execute("INSERT INTO user (name, state) VALUES ('x', 'away')", ()).is_err());
}

#[test]
fn rows_inserted_while_the_server_is_stopped_are_users() {
    let (dir, store) = opened();
    store.close().unwrap();
    beside(&dir).execute("insert into user(name,password) values('zhang san','$argon2id$x')", ()).unwrap();
    beside(&dir).execute("insert into user(id,name) values(13,'guest')", ()).unwrap();

    let mut store = open(&dir);
    let zhang = store.user_named("zhang san").unwrap().unwrap();
    assert_eq!(zhang.password.as_deref(), Some("$argon2id$x"));
    assert_eq!((zhang.epoch, zhang.online), (Epoch(0), false));
    assert_eq!(store.user(UserId(13)).unwrap().unwrap().password, None);
    assert_eq!(add(&mut store, "next"), UserId(14));
}

#[test]
fn an_empty_file_becomes_a_database() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join(DATABASE_FILE), b"").unwrap();
    let mut store = open(&dir);
    add(&mut store, "alice");
}

#[test]
fn odd_characters_in_the_directorys_name_do_no_harm() {
    let outer = tempfile::tempdir().unwrap();
    let dir = outer.path().join("file:a b?mode=memory#%41ü");
    std::fs::create_dir(&dir).unwrap();
    for recovered in [0, 1] {
        let mut opened = SqliteStore::open(&dir, Durability::Normal, NOW_MS).unwrap();
        assert_eq!(opened.recovered, recovered);
        committed(&mut opened.store, |s| {
            let user = s.add_user(&format!("user {recovered}"), None).unwrap().unwrap();
            s.set_online(user, Epoch(1)).unwrap();
        });
        assert_eq!(online_users(&dir).unwrap(), 1);
    }
    assert!(dir.join(DATABASE_FILE).exists());
}

#[test]
fn a_file_that_is_no_database_is_refused_unchanged() {
    let dir = tempfile::tempdir().unwrap();
    for content in [&b"x"[..], &[7; 100], "not a database. ".repeat(1_000).as_bytes()] {
        std::fs::write(dir.path().join(DATABASE_FILE), content).unwrap();
        assert!(matches!(refused(&dir), OpenError::Foreign { .. }));
    }
}

#[test]
fn somebody_elses_database_is_refused_unchanged_in_either_journal_mode() {
    for mode in ["delete", "wal"] {
        let dir = tempfile::tempdir().unwrap();
        let owner = beside(&dir);
        owner.pragma_update(None, "journal_mode", mode).unwrap();
        owner.execute_batch("CREATE TABLE user (id INTEGER PRIMARY KEY, name TEXT)").unwrap();
        if mode == "wal" {
            owner.execute_batch("PRAGMA wal_checkpoint; INSERT INTO user (name) VALUES ('x')").unwrap();
        }
        // While its owner has it open, and after.
        assert!(matches!(refused(&dir), OpenError::Foreign { .. }));
        drop(owner);
        assert!(matches!(refused(&dir), OpenError::Foreign { .. }));
    }
}

#[test]
fn a_newer_version_is_refused_unchanged() {
    let (dir, store) = opened();
    store.close().unwrap();
    beside(&dir).pragma_update(None, "user_version", SCHEMA_VERSION + 1).unwrap();
    let OpenError::Newer { found, .. } = refused(&dir) else { panic!("it is newer") };
    assert_eq!(found, SCHEMA_VERSION + 1);
}

#[test]
fn a_newer_version_that_is_only_in_the_log_is_refused_and_the_log_stays() {
    let (dir, _store) = opened();
    let newer = beside(&dir);
    newer.pragma_update(None, "user_version", SCHEMA_VERSION + 1).unwrap();
    let copy = tempfile::tempdir().unwrap();
    for suffix in ["", "-wal"] {
        let name = format!("{DATABASE_FILE}{suffix}");
        std::fs::copy(dir.path().join(&name), copy.path().join(&name)).unwrap();
    }
    let before = snapshot(copy.path());
    let error = SqliteStore::open(copy.path(), Durability::Full, NOW_MS).unwrap_err();
    assert!(matches!(error, OpenError::Newer { .. }), "{error}");
    let after = snapshot(copy.path());
    assert!(before.iter().all(|file| after.contains(file)), "the file or its log was changed");
}

#[test]
fn a_directory_in_the_databases_place_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join(DATABASE_FILE)).unwrap();
    let error = SqliteStore::open(dir.path(), Durability::Full, NOW_MS).unwrap_err();
    assert!(matches!(error, OpenError::Failed { .. }), "{error}");
}

#[test]
fn readers_want_a_database_that_is_there() {
    let dir = tempfile::tempdir().unwrap();
    assert!(matches!(SqliteLookup::open(dir.path()), Err(OpenError::Missing { .. })));
    assert!(matches!(History::open(dir.path()), Err(OpenError::Missing { .. })));
    assert!(matches!(online_users(dir.path()), Err(OpenError::Missing { .. })));
    assert!(snapshot(dir.path()).is_empty(), "a reader created something");
}

#[test]
fn a_start_sets_everybody_offline_whom_a_crash_left_online() {
    let (dir, mut store) = opened();
    let (alice, bob) = (add(&mut store, "alice"), add(&mut store, "bob"));
    committed(&mut store, |s| s.set_online(alice, Epoch(7)).unwrap());
    assert_eq!(online_users(dir.path()).unwrap(), 1);
    drop(store);

    let opened = SqliteStore::open(dir.path(), Durability::Full, NOW_MS + 5).unwrap();
    assert_eq!(opened.recovered, 1);
    assert_eq!(online_users(dir.path()).unwrap(), 0);
    let mut store = opened.store;
    let row = store.user(alice).unwrap().unwrap();
    assert_eq!((row.online, row.epoch), (false, Epoch(8)));
    assert_eq!(store.user(bob).unwrap().unwrap().epoch, Epoch(0));

    let departures = History::open(dir.path()).unwrap().departures(Filter::All, 10).unwrap();
    let [crash] = departures.as_slice() else { panic!("{departures:?}") };
    assert_eq!((crash.user, crash.name.as_str(), crash.at_ms), (alice, "alice", NOW_MS + 5));
    assert_eq!((crash.reason.as_str(), crash.initiator.as_str()), ("server_crash", "server"));
    assert_eq!((&crash.channel, &crash.peer, crash.delivered, crash.since_ms), (&None, &None, None, None));

    drop(store);
    assert_eq!(SqliteStore::open(dir.path(), Durability::Full, NOW_MS).unwrap().recovered, 0);
}

#[test]
fn the_largest_epoch_does_not_keep_the_server_from_starting() {
    let (dir, mut store) = opened();
    let alice = add(&mut store, "alice");
    committed(&mut store, |s| s.set_online(alice, Epoch(i64::MAX)).unwrap());
    drop(store);
    let mut opened = SqliteStore::open(dir.path(), Durability::Full, NOW_MS).unwrap();
    assert_eq!(opened.recovered, 1);
    assert_eq!(opened.store.user(alice).unwrap().unwrap().epoch, Epoch(i64::MAX));
}

#[test]
fn a_late_offline_of_an_older_session_changes_nothing() {
    let (_dir, mut store) = opened();
    let alice = add(&mut store, "alice");
    committed(&mut store, |s| {
        s.set_online(alice, Epoch(1)).unwrap();
        s.set_online(alice, Epoch(2)).unwrap();
        s.set_offline(alice, Epoch(1)).unwrap();
    });
    assert!(store.user(alice).unwrap().unwrap().online);
    committed(&mut store, |s| s.set_offline(alice, Epoch(2)).unwrap());
    assert_eq!(
        store.user(alice).unwrap(),
        Some(UserRow {
            id: alice,
            name: "alice".to_owned(),
            password: Some("$hash".to_owned()),
            epoch: Epoch(2),
            online: false,
        })
    );
}

#[test]
fn an_epoch_only_rises() {
    let (_dir, mut store) = opened();
    let alice = add(&mut store, "alice");
    committed(&mut store, |s| {
        s.set_epoch(alice, Epoch(5)).unwrap();
        s.set_epoch(alice, Epoch(3)).unwrap();
    });
    let row = store.user(alice).unwrap().unwrap();
    assert_eq!((row.epoch, row.online), (Epoch(5), false));
}

#[test]
fn a_name_is_taken_once_and_compared_byte_by_byte() {
    let (_dir, mut store) = opened();
    let alice = add(&mut store, "alice");
    committed(&mut store, |s| {
        assert_eq!(s.add_user("alice", None).unwrap(), Err(NameTaken::Exactly));
        assert_eq!(s.add_user("Alice", None).unwrap(), Err(NameTaken::InLooks));
    });
    assert_eq!(store.user_named("alice").unwrap().unwrap().id, alice);
    assert_eq!(store.user_named("alice ").unwrap(), None);
}

#[test]
fn a_password_is_renewed_only_if_it_is_still_the_old_one() {
    let (_dir, mut store) = opened();
    let alice = add(&mut store, "alice");
    committed(&mut store, |s| {
        s.renew_password(alice, "$other", "$stolen").unwrap();
        s.renew_password(alice, "$hash", "$better").unwrap();
    });
    assert_eq!(store.user(alice).unwrap().unwrap().password.as_deref(), Some("$better"));
}

#[test]
fn what_is_rolled_back_never_was_and_a_rollback_of_nothing_is_harmless() {
    let (_dir, mut store) = opened();
    store.rollback();
    store.begin().unwrap();
    store.add_user("alice", None).unwrap().unwrap();
    store.rollback();
    store.rollback();
    assert_eq!(store.user_named("alice").unwrap(), None);
    add(&mut store, "alice");
}

#[test]
fn a_write_outside_a_transaction_is_refused() {
    let (_dir, mut store) = opened();
    let error = store.add_user("alice", None).unwrap_err().to_string();
    assert!(error.contains("no transaction is open"), "{error}");
    assert!(store.commit().is_err());
    assert_eq!(store.user_named("alice").unwrap(), None);
}

#[test]
fn a_transaction_with_a_failure_in_it_cannot_be_committed() {
    let (_dir, mut store) = opened();
    store.begin().unwrap();
    store.keep(UserId(1), Mid(1), 0, b"{}", false).unwrap();
    assert!(store.keep(UserId(1), Mid(1), 0, b"{}", false).is_err());
    assert!(store.keep(UserId(1), Mid(2), 0, b"{}", false).is_err());
    assert!(store.commit().is_err());
    store.rollback();
    assert_eq!(store.box_usage(UserId(1)).unwrap(), BoxUsage::default());
}

#[test]
fn friends_and_groups_come_by_number_and_twice_is_once() {
    let (_dir, mut store) = opened();
    let (a, b, c) = (add(&mut store, "a"), add(&mut store, "b"), add(&mut store, "c"));
    let group = committed(&mut store, |s| {
        for friend in [c, b, c] {
            s.add_friend(a, friend).unwrap();
        }
        let group = s.add_group(b, "rust", "crabs").unwrap();
        for user in [c, a, b, c] {
            s.join_group(group, user).unwrap();
        }
        group
    });
    let friend = |id, name: &str| Friend { id, name: name.to_owned() };
    assert_eq!(store.friends(a, FIRST, 9).unwrap(), [friend(b, "b"), friend(c, "c")]);
    assert_eq!(store.friends(b, FIRST, 9).unwrap(), []);
    let member = |id, name: &str, role: &str| Member { id, name: name.to_owned(), role: role.to_owned() };
    assert_eq!(
        store.members(group, FIRST, 9).unwrap(),
        [member(a, "a", "normal"), member(b, "b", "creator"), member(c, "c", "normal")]
    );
    let row = store.group(group).unwrap().unwrap();
    assert_eq!((row.id, row.name.as_str(), row.desc.as_str()), (group, "rust", "crabs"));
    assert_eq!(store.groups_of(c, GroupId(0), 9).unwrap(), [row]);
    assert_eq!(store.group(GroupId(99)).unwrap(), None);
}

#[test]
fn a_box_is_read_in_order_within_limits_and_dropped_up_to_a_number() {
    let (_dir, mut store) = opened();
    let (alice, bob) = (UserId(1), UserId(2));
    committed(&mut store, |s| {
        for mid in 1..=5 {
            s.keep(alice, Mid(mid), NOW_MS, format!("body {mid}").as_bytes(), false).unwrap();
        }
        s.keep(bob, Mid(1), NOW_MS, b"other", false).unwrap();
    });
    let mut mids = |after: i64, count, bytes| -> Vec<i64> {
        store.kept(alice, Mid(after), count, bytes).unwrap().iter().map(|kept| kept.mid.0).collect()
    };
    assert_eq!(mids(0, 100, 1_000), [1, 2, 3, 4, 5]);
    assert_eq!(mids(2, 2, 1_000), [3, 4]);
    assert_eq!(mids(0, 100, 12), [1, 2]);
    assert_eq!(mids(0, 100, 11), [1]);
    assert_eq!(mids(0, 0, 0), [1]);
    assert_eq!(mids(5, 100, 1_000), [0; 0]);
    assert_eq!(store.kept(alice, Mid(4), 1, 0).unwrap()[0].body, b"body 5");

    assert_eq!(store.box_usage(alice).unwrap(), BoxUsage { count: 5, bytes: 30 });
    committed(&mut store, |s| {
        assert_eq!(s.drop_kept(alice, Mid(3)).unwrap(), BoxUsage { count: 3, bytes: 18 });
        assert_eq!(s.drop_kept(alice, Mid(3)).unwrap(), BoxUsage::default());
    });
    assert_eq!(store.box_usage(alice).unwrap(), BoxUsage { count: 2, bytes: 12 });
    assert_eq!(store.box_usage(bob).unwrap(), BoxUsage { count: 1, bytes: 5 });
}

#[test]
fn a_departure_is_completed_later_and_found_by_each_filter() {
    let (dir, mut store) = opened();
    let ids = committed(&mut store, |s| {
        [1, 2, 1].map(|user| s.add_departure(&departure(UserId(user), NOW_MS)).unwrap())
    });
    let early = DepartureUpdate { offline_us: Some(900), ..DepartureUpdate::default() };
    let late =
        DepartureUpdate { closed_us: Some(5_000_000), delivered: 3, saved: 2, lost: 1, offline_us: None };
    committed(&mut store, |s| {
        s.complete_departures(ids[0]..=ids[1], &early).unwrap();
        s.complete_departures(ids[0]..=ids[0], &late).unwrap();
    });

    let mut history = History::open(dir.path()).unwrap();
    let mut found = |filter, limit| -> Vec<_> {
        history.departures(filter, limit).unwrap().into_iter().map(|departure| departure.id).collect()
    };
    assert_eq!(found(Filter::All, 10), [ids[2], ids[1], ids[0]]);
    assert_eq!(found(Filter::All, 1), [ids[2]]);
    assert_eq!(found(Filter::User(UserId(1)), 10), [ids[2], ids[0]]);
    assert_eq!(found(Filter::Channel("2.1"), 10), [ids[1]]);
    assert_eq!(found(Filter::Peer(&|peer| peer.starts_with("10.0.0.1:")), 1), [ids[2]]);
    assert_eq!(found(Filter::All, 0), []);

    let oldest = history.departures(Filter::User(UserId(1)), 10).unwrap().pop().unwrap();
    assert_eq!((oldest.offline_us, oldest.closed_us), (Some(900), Some(5_000_000)));
    assert_eq!((oldest.delivered, oldest.saved, oldest.lost), (Some(3), Some(2), Some(1)));
    assert_eq!((oldest.reason.as_str(), oldest.initiator.as_str()), ("peer_reset", "network"));
    assert_eq!((oldest.errno, oldest.since_ms), (Some(104), Some(NOW_MS - 1_000)));
    let offline_us = history.departures(Filter::All, 10).unwrap().into_iter().map(|row| row.offline_us);
    assert_eq!(offline_us.collect::<Vec<_>>(), [None, Some(900), Some(900)], "newest first");
}

#[test]
fn departures_expire_by_age_and_by_number_a_batch_at_a_time() {
    let (dir, mut store) = opened();
    committed(&mut store, |s| {
        for second in 0..2_500 {
            s.add_departure(&departure(UserId(1), second * 1_000)).unwrap();
        }
    });
    let mut expire =
        |before_ms, keep| committed(&mut store, |s| s.expire_departures(before_ms, keep).unwrap());
    assert_eq!(expire(0, 2_500), 0);
    assert_eq!(expire(10_000, 10_000), 10, "those of the first ten seconds");
    assert_eq!(expire(30_000, 2_480), 20, "ten too many, ten more too old");
    assert_eq!(expire(0, 100), EXPIRE_BATCH);
    assert_eq!(expire(0, 100), EXPIRE_BATCH);
    assert_eq!(expire(0, 100), 370);
    let left = History::open(dir.path()).unwrap().departures(Filter::All, 1_000).unwrap();
    assert_eq!(left.len(), 100);
    assert_eq!(left[0].at_ms, 2_499_000, "the newest stay");
}

#[test]
fn messages_expire_by_age_a_bounded_number_and_a_bounded_number_of_boxes_at_a_time() {
    let (_dir, mut store) = opened();
    let boxes = EXPIRE_BATCH as i64 + 5;
    committed(&mut store, |s| {
        for user in 1..=boxes {
            s.keep(UserId(user), Mid(1), 10 + i64::from(user == boxes), b"old", false).unwrap();
            s.keep(UserId(user), Mid(2), 1_000, b"new", false).unwrap();
        }
    });
    let mut expire =
        |before_ms, from, max| committed(&mut store, |s| s.expire_kept(before_ms, from, max).unwrap());
    let mut all_looked_at = expire(10, None, 100);
    while all_looked_at.next == Some(UserId(i64::MIN)) {
        // What came lately moves on first, a bounded number at a time, too.
        all_looked_at = expire(10, all_looked_at.next, 100);
    }
    assert_eq!(
        (all_looked_at.messages, all_looked_at.next),
        (0, Some(UserId(boxes - 4))),
        "not every box at once"
    );
    let few = expire(11, None, 3);
    assert_eq!((few.messages, few.users.len()), (3, 3), "no more than asked for");
    let mut removed = few.messages;
    let mut from = few.next;
    while from.is_some() {
        let more = expire(11, from, 100);
        (removed, from) = (removed + more.messages, more.next);
    }
    assert_eq!(removed, EXPIRE_BATCH + 4, "but the last one's, which is younger");
    assert_eq!(store.box_usage(UserId(boxes)).unwrap().count, 2);
    assert_eq!(store.box_usage(UserId(1)).unwrap(), BoxUsage { count: 1, bytes: 3 });
}

/// Takes away what version 8 has brought, and the view that it has changed.
const BACK_TO_7: &str = "
    DROP VIEW kept; DROP INDEX box_by_message; ALTER TABLE box DROP COLUMN message; DROP TABLE message;
    DROP TABLE copy_mark; DROP TABLE reached;
    DROP TRIGGER user_renamed; DROP INDEX user_by_skeleton; DROP INDEX user_by_cased_skeleton;
    ALTER TABLE user DROP COLUMN skeleton; ALTER TABLE user DROP COLUMN cased_skeleton;
    DROP TABLE clock; ALTER TABLE departure DROP COLUMN trusted;
";

#[test]
fn epochs_from_before_they_had_39_bits_go_on_above_all_numbers_that_were_given() {
    const LAST: i64 = (1 << 25) - (1 << 19) - 1;
    let (dir, store) = opened();
    store.close().unwrap();
    let old = beside(&dir);
    old.execute_batch(BACK_TO_7).unwrap();
    for (name, epoch) in [("new", 0), ("usual", 7), ("last", LAST), ("wild", i64::MAX), ("negative", -1)] {
        old.execute("INSERT INTO user (name, epoch) VALUES (?1, ?2)", (name, epoch)).unwrap();
    }
    old.pragma_update(None, "user_version", 7).unwrap();
    drop(old);
    let mut store = open(&dir);
    let mut epoch = |name| store.user_named(name).unwrap().unwrap().epoch;
    for (name, before) in [("new", 0), ("usual", 7), ("last", LAST)] {
        assert!(epoch(name).mid(0).0 > (before << 28 | ((1 << 28) - 1)), "{name}");
        assert_eq!(epoch(name).believed(), epoch(name), "{name}");
    }
    assert_eq!((epoch("wild"), epoch("negative")), (Epoch(0), Epoch(0)), "the clock decides");
}

#[test]
fn names_from_before_they_were_compared_stay_and_keep_look_alikes_out() {
    let (dir, store) = opened();
    store.close().unwrap();
    let old = beside(&dir);
    old.execute_batch(BACK_TO_7).unwrap();
    old.execute_batch("INSERT INTO user (name) VALUES ('alice'), ('Alice'), ('user1')").unwrap();
    let many = "WITH n(n) AS (VALUES (1) UNION ALL SELECT n + 1 FROM n LIMIT 1000)
        INSERT INTO user (name) SELECT 'n' || n FROM n";
    old.execute_batch(many).unwrap();
    old.pragma_update(None, "user_version", 7).unwrap();
    drop(old);
    let mut store = open(&dir);
    assert_eq!(store.user_named("Alice").unwrap().unwrap().id, UserId(2));
    committed(&mut store, |s| {
        for alike in ["ALICE", "userl", "N7", "N1000"] {
            assert_eq!(s.add_user(alike, None).unwrap(), Err(NameTaken::InLooks), "{alike}");
        }
        assert!(s.add_user("n1001", None).unwrap().is_ok());
    });
    let without = "SELECT count(*) FROM user WHERE skeleton IS NULL";
    assert_eq!(beside(&dir).query_row(without, (), |row| row.get::<_, i64>(0)), Ok(0));
}

#[test]
fn a_history_from_before_its_numbers_were_ours_keeps_its_rows() {
    let (dir, mut store) = opened();
    let first = committed(&mut store, |s| s.add_departure(&departure(UserId(1), 1)).unwrap());
    store.close().unwrap();
    let old = beside(&dir);
    old.execute_batch(BACK_TO_7).unwrap();
    let table = "SELECT sql FROM sqlite_schema WHERE name = 'departure'";
    let sql: String = old.query_row(table, (), |row| row.get(0)).unwrap();
    let before = sql.replace("PRIMARY KEY", "PRIMARY KEY AUTOINCREMENT").replace("\"departure\"", "new");
    old.execute_batch(&format!(
        "{before}; INSERT INTO new SELECT * FROM departure; DROP TABLE departure; ALTER TABLE new RENAME TO departure;
        CREATE TABLE gone (a); CREATE VIEW theirs AS SELECT a FROM gone; DROP TABLE gone;"
    ))
    .unwrap();
    old.pragma_update(None, "user_version", 6).unwrap();
    drop(old);
    let mut store = open(&dir);
    let second = committed(&mut store, |s| s.add_departure(&departure(UserId(2), 1)).unwrap());
    let rows = History::open(dir.path()).unwrap().departures(Filter::All, 9).unwrap();
    let rows: Vec<_> = rows.iter().map(|row| (row.id, row.user, row.peer.as_deref())).collect();
    let expected = [(second, UserId(2), Some("10.0.0.2:5000")), (first, UserId(1), Some("10.0.0.1:5000"))];
    assert_eq!(rows, expected);
    let sql: String = beside(&dir).query_row(table, (), |row| row.get(0)).unwrap();
    assert!(!sql.contains("AUTOINCREMENT"), "{sql}");
}

#[test]
fn a_departures_number_is_never_given_out_again() {
    let (_dir, mut store) = opened();
    let first = committed(&mut store, |s| s.add_departure(&departure(UserId(1), 1)).unwrap());
    let second = committed(&mut store, |s| {
        assert_eq!(s.expire_departures(2, 0).unwrap(), 1);
        s.complete_departures(first..=first, &DepartureUpdate::default()).unwrap();
        s.add_departure(&departure(UserId(2), 1)).unwrap()
    });
    assert_ne!(first, second);
    let third = committed(&mut store, |s| s.add_departure(&departure(UserId(3), 1)).unwrap());
    assert!(third.0 > second.0 && second.0 > first.0, "{first:?} {second:?} {third:?}");
}

fn token(user: UserId, epoch: i64, number: u64) -> TokenRow {
    let mut hash = [0; 32];
    hash[..8].copy_from_slice(&number.to_le_bytes());
    let (hash, mark) = (TokenHash(hash), PasswordMark([7; 32]));
    TokenRow { user, epoch: Epoch(epoch), hash, mark, expires_ms: None }
}

#[test]
fn a_database_from_before_there_were_tokens_gets_them_and_keeps_what_it_has() {
    let (dir, mut store) = opened();
    let user = add(&mut store, "alice");
    store.close().unwrap();
    let old = beside(&dir);
    old.execute_batch(BACK_TO_7).unwrap();
    old.execute_batch(
        "DROP TABLE token; DROP TABLE intake; DROP TABLE settled; DROP TABLE acceptance;
        CREATE TABLE accepted (id INTEGER PRIMARY KEY, at INTEGER NOT NULL, sender INTEGER NOT NULL,
            fingerprint BLOB NOT NULL);
        INSERT INTO accepted (at, sender, fingerprint) VALUES
            (1699999999999, -2, x'0f000000000000000000000000000000'),
            (1700000000000, 513, x'000000000000000000000000000000f0'), (1700000000000, 'x', x'00')",
    )
    .unwrap();
    old.pragma_update(None, "user_version", 2).unwrap();
    drop(old);
    let opened = SqliteStore::open(dir.path(), Durability::Normal, NOW_MS).unwrap();
    let chat = |sender, fingerprint| DedupRecord { sender: UserId(sender), fingerprint };
    assert_eq!(opened.accepted, [(chat(-2, 15), 1), (chat(513, 0xf0 << 120), 0)]);
    let mut store = opened.store;
    assert_eq!(store.user_named("alice").unwrap().unwrap().id, user);
    let given = token(user, 1, 1);
    committed(&mut store, |s| s.add_token(&given, 8).unwrap());
    assert_eq!(store.token(&given.hash).unwrap(), Some(given));
    let version: i32 = beside(&dir).pragma_query_value(None, "user_version", |row| row.get(0)).unwrap();
    assert_eq!(version, SCHEMA_VERSION);
}

#[test]
fn accepted_chats_are_known_at_the_next_start_and_those_of_a_millisecond_share_rows() {
    let (dir, mut store) = opened();
    let chat = |number: i64| DedupRecord { sender: UserId(number % 7), fingerprint: number as u128 };
    committed(&mut store, |s| (0..400).for_each(|number| s.accept(chat(number), NOW_MS - 2).unwrap()));
    store.begin().unwrap();
    store.accept(chat(400), NOW_MS).unwrap();
    store.rollback();
    committed(&mut store, |s| s.accept(chat(401), NOW_MS).unwrap());
    let rows = "SELECT count(*) FROM acceptance";
    let rows: i64 = beside(&dir).query_row(rows, (), |row| row.get(0)).unwrap();
    assert!(rows < 8, "{rows} rows");
    drop(store);
    let opened = SqliteStore::open(dir.path(), Durability::Normal, NOW_MS).unwrap();
    let mut expected: Vec<_> = (0..400).map(|number| (chat(number), 2)).collect();
    expected.push((chat(401), 0));
    assert_eq!(opened.accepted, expected);

    let mut store = opened.store;
    assert!(committed(&mut store, |s| s.expire_accepted(NOW_MS - 1).unwrap()));
    assert!(!committed(&mut store, |s| s.expire_accepted(NOW_MS - 1).unwrap()));
    drop(store);
    let opened = SqliteStore::open(dir.path(), Durability::Normal, NOW_MS).unwrap();
    assert_eq!(opened.accepted, [(chat(401), 0)]);
}

#[test]
fn a_token_outlives_a_crash_by_as_long_as_any_end() {
    let (dir, mut store) = opened();
    let user = add(&mut store, "alice");
    let (over, live) = (token(user, 1, 1), token(user, 2, 2));
    committed(&mut store, |s| {
        s.add_token(&over, 8).unwrap();
        s.end_tokens(user, Epoch(1), 5).unwrap();
        s.add_token(&live, 8).unwrap();
    });
    drop(store);
    let later_ms = NOW_MS + 3_600_000;
    let mut store = SqliteStore::open(dir.path(), Durability::Normal, later_ms).unwrap().store;
    assert_eq!(store.token(&over.hash).unwrap().unwrap().expires_ms, Some(5));
    assert_eq!(store.token(&live.hash).unwrap().unwrap().expires_ms, Some(later_ms + TOKEN_LIFE_MS));
}

#[test]
fn tokens_expire_a_batch_at_a_time_oldest_first() {
    let (_dir, mut store) = opened();
    let given: Vec<_> = (0..EXPIRE_BATCH + 2).map(|n| token(UserId(n as i64 + 1), 1, n)).collect();
    committed(&mut store, |s| {
        for (n, token) in given.iter().enumerate() {
            s.add_token(token, 8).unwrap();
            s.end_tokens(token.user, token.epoch, 1_000_000 - n as i64).unwrap();
        }
    });
    assert_eq!(committed(&mut store, |s| s.expire_tokens(1_000_000).unwrap()), EXPIRE_BATCH);
    assert!(store.token(&given[1].hash).unwrap().is_some());
    assert!(store.token(&given[2].hash).unwrap().is_none());
    assert_eq!(committed(&mut store, |s| s.expire_tokens(999_999).unwrap()), 1);
    assert!(store.token(&given[0].hash).unwrap().is_some());
}

#[test]
fn an_odd_token_is_none() {
    let (dir, mut store) = opened();
    let hash = token(UserId(1), 1, 1).hash;
    let odd = beside(&dir);
    odd.execute("INSERT INTO token (user, epoch, hash, password) VALUES (1, 1, ?1, 'x')", (&hash.0[..],))
        .unwrap();
    assert_eq!(store.token(&hash).unwrap(), None);
    odd.execute("UPDATE token SET password = ?1, expires = 'soon'", (&hash.0[..],)).unwrap();
    assert_eq!(store.token(&hash).unwrap().map(|token| token.expires_ms), Some(Some(0)));
}

#[test]
fn a_reader_sees_what_is_committed_and_never_waits_for_the_writer() {
    let (dir, mut store) = opened();
    let mut lookup = SqliteLookup::open(dir.path()).unwrap();
    store.begin().unwrap();
    let alice = store.add_user("alice", None).unwrap().unwrap();
    assert_eq!(lookup.user(alice).unwrap(), None, "not committed yet");
    store.commit().unwrap();
    assert_eq!(lookup.user(alice).unwrap(), lookup.user_named("alice").unwrap());
    assert!(lookup.user(alice).unwrap().is_some());
}

#[test]
fn others_may_read_and_write_beside_us() {
    let (dir, mut store) = opened();
    let other = beside(&dir);
    other.execute("INSERT INTO user (name) VALUES ('bob')", ()).unwrap();
    assert!(store.user_named("bob").unwrap().is_some());

    // A reader in the middle of its transaction stops no commit of ours.
    other.execute_batch("BEGIN; SELECT count(*) FROM user").unwrap();
    add(&mut store, "alice");
    other.execute_batch("COMMIT").unwrap();

    // A writer does, but not for ever: `begin` waits, and gets in when the other one is through.
    other.execute_batch("BEGIN IMMEDIATE; INSERT INTO user (name) VALUES ('carol')").unwrap();
    let is_through = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let is_through = &is_through;
        scope.spawn(move || {
            std::thread::sleep(Duration::from_millis(50));
            is_through.store(true, Ordering::SeqCst);
            other.execute_batch("COMMIT").unwrap();
        });
        add(&mut store, "dave");
        assert!(is_through.load(Ordering::SeqCst), "two writers at once");
    });
    assert!(store.user_named("dave").unwrap().is_some());
}

#[test]
fn odd_contents_are_read_as_something_sensible() {
    let (dir, mut store) = opened();
    let alice = add(&mut store, "alice");
    let other = beside(&dir);
    other
        .execute_batch(
            "PRAGMA ignore_check_constraints = ON;
            INSERT INTO user (id, name, password, state, epoch)
                VALUES (50, x'ff41', x'00ff', 7, 'many'), (51, CAST(x'ff' AS TEXT), '', 'away', 1.5);
            INSERT INTO friend VALUES (1, 50), (1, 51), (1, 99), ('x', 'y');
            INSERT INTO chatgroup (id, name) VALUES (1, x'80');
            INSERT INTO member VALUES (1, 50, 3.5), (1, 'nobody', x'ff');
            INSERT INTO box (user, mid, at, body, sent) VALUES (1, 1, 'late', 'text é', 'yes'), (1, 2, 0, 17, 0);
            INSERT INTO departure (at, user, name, reason, initiator, errno, delivered)
                VALUES ('noon', 'who', x'ff', 4, 'martians', 'E', 2.5);",
        )
        .unwrap();
    let odd = store.user(UserId(50)).unwrap().unwrap();
    assert_eq!((odd.name.as_str(), odd.epoch, odd.online), ("\u{fffd}A", Epoch(0), false));
    assert!(odd.password.is_some(), "only NULL makes a guest");
    assert_eq!(store.user(UserId(51)).unwrap().unwrap().epoch, Epoch(1));
    assert_eq!(store.friends(alice, FIRST, 9).unwrap().len(), 2);
    assert_eq!(store.members(GroupId(1), FIRST, 9).unwrap()[0].role, "3.5");
    assert_eq!(store.group(GroupId(1)).unwrap().unwrap().name, "\u{fffd}");
    let kept = store.kept(alice, Mid(0), 10, 100).unwrap();
    assert_eq!(kept[0].body, "text é".as_bytes());
    assert_eq!(store.box_usage(alice).unwrap().bytes, 9, "bytes, not characters");
    let departures = History::open(dir.path()).unwrap().departures(Filter::All, 10).unwrap();
    assert_eq!((departures[0].at_ms, departures[0].initiator.as_str()), (0, "martians"));
}

#[test]
fn a_missing_table_shows_at_the_start() {
    let (dir, store) = opened();
    store.close().unwrap();
    beside(&dir).execute_batch("DROP TABLE box").unwrap();
    let error = SqliteStore::open(dir.path(), Durability::Full, NOW_MS).unwrap_err();
    assert!(error.to_string().contains("box"), "{error}");
}

#[test]
fn a_renamed_user_keeps_the_history_and_a_new_owner_of_the_name_has_none() {
    let (dir, mut store) = opened();
    let alice = add(&mut store, "alice");
    let row = DepartureRow { name: "alice".into(), ..departure(alice, NOW_MS) };
    let id = committed(&mut store, |s| s.add_departure(&row).unwrap());
    let outsider = Connection::open(dir.path().join(DATABASE_FILE)).unwrap();
    outsider.execute("UPDATE user SET name = 'alicia' WHERE id = ?1", (alice.0,)).unwrap();
    add(&mut store, "alice");

    let mut history = History::open(dir.path()).unwrap();
    let mut found = |name| -> Vec<_> {
        let departures = history.departures(Filter::Named(name), 10).unwrap();
        departures.into_iter().map(|departure| departure.id).collect()
    };
    assert_eq!(found("alicia"), [id]);
    assert_eq!(found("alice"), []);
    assert_eq!(found("nobody"), []);
}
