//! Boxes beside plain maps, with generations so small that every step of theirs falls between every two operations.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use rusqlite::Connection;

use super::compaction::FLOOD;
use super::expiry::EXPIRE_MOVES;
use super::*;
use crate::store::ExpiredKept;
use crate::store::sqlite::connect;
use crate::store::sqlite::{Durability, SqliteStore};

/// Small enough that a handful of messages are a generation, and so slow that everything else happens while it moves.
const SLOW: CompactionPolicy = CompactionPolicy { generation: 8, copies: 12, stride: 2, moves: 3 };

/// What a box should hold: its messages and whether each was sent.
type Model = BTreeMap<(i64, i64), (Vec<u8>, bool)>;

/// What all of them are counted as: a body that several boxes share is told by its text here.
fn total(model: &Model) -> u64 {
    let shared = |body: &&Vec<u8>| body.starts_with(b"shared");
    let bodies: BTreeSet<&Vec<u8>> = model.values().map(|(body, _)| body).filter(shared).collect();
    let own = model.values().map(|(body, _)| body).filter(|body| !shared(body));
    let bytes: usize = own.chain(bodies).map(Vec::len).sum();
    model.len() as u64 * COPY_BYTES + bytes as u64
}

#[derive(Clone, Debug)]
enum Step {
    /// With a number above those that the box has, or in between.
    Keep {
        user: i64,
        mid: i64,
        long: bool,
        sent: bool,
    },
    /// For some users, each with a number above all that the user has had.
    KeepCopies {
        users: BTreeMap<i64, bool>,
        long: bool,
    },
    MarkSent {
        user: i64,
        upto: i64,
    },
    Drop {
        user: i64,
        upto: i64,
    },
    Expire,
    Commit,
    Rollback,
    /// As after a crash: what is remembered is gone, what is committed is there.
    Restart,
}

const USERS: i64 = 5;
const MIDS: i64 = 40;

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let user = || 1..=USERS;
    let mid = || 1..=MIDS;
    let upto = || prop_oneof![1..=MIDS, MIDS..=MIDS + 60];
    let step = prop_oneof![
        12 => (user(), mid(), prop::bool::weighted(0.1), any::<bool>())
            .prop_map(|(user, mid, long, sent)| Step::Keep { user, mid, long, sent }),
        4 => (prop::collection::btree_map(user(), any::<bool>(), 1..=USERS as usize), prop::bool::weighted(0.1))
            .prop_map(|(users, long)| Step::KeepCopies { users, long }),
        2 => (user(), upto()).prop_map(|(user, upto)| Step::MarkSent { user, upto }),
        4 => (user(), upto()).prop_map(|(user, upto)| Step::Drop { user, upto }),
        1 => Just(Step::Expire),
        4 => Just(Step::Commit),
        1 => Just(Step::Rollback),
        1 => Just(Step::Restart),
    ];
    prop::collection::vec(step, 1..120)
}

fn database() -> (tempfile::TempDir, Connection) {
    let dir = tempfile::tempdir().unwrap();
    SqliteStore::open(dir.path(), Durability::Normal, 0).unwrap().store.close().unwrap();
    let conn = Connection::open(dir.path().join(crate::store::sqlite::DATABASE_FILE)).unwrap();
    rusqlite::vtab::array::load_module(&conn).unwrap();
    (dir, conn)
}

fn rows_in(conn: &Connection, table: &str) -> i64 {
    conn.query_row(&format!("SELECT count(*) FROM {table}"), (), |row| row.get(0)).unwrap()
}

/// What others see through the view.
fn seen(conn: &Connection) -> Model {
    let mut statement = conn.prepare_cached("SELECT user, mid, body, sent FROM kept").unwrap();
    let rows = statement
        .query_map((), |row| Ok(((row.get(0)?, row.get(1)?), (row.get(2)?, row.get::<_, i64>(3)? != 0))))
        .unwrap();
    let rows: Vec<_> = rows.map(Result::unwrap).collect();
    let model: Model = rows.iter().cloned().collect();
    assert_eq!(model.len(), rows.len(), "the view shows a message twice");
    model
}

fn hold_the_same(boxes: &mut OfflineBoxes, all: &Statements<'_>, model: &Model) {
    assert_eq!(&seen(all.conn()), model);
    assert_eq!(boxes.total(all).unwrap(), total(model));
    for user in 1..=USERS {
        let expected: Vec<StoredMessage> = model
            .range((user, i64::MIN)..=(user, i64::MAX))
            .map(|((_, mid), (body, sent))| StoredMessage { mid: Mid(*mid), body: body.clone(), sent: *sent })
            .collect();
        let bytes = expected.iter().map(|kept| kept.body.len() as u64).sum();
        let usage = BoxUsage { count: expected.len() as u64, bytes };
        assert_eq!(boxes.usage(all, UserId(user)).unwrap(), usage);
        // In pieces, each as long as the limits let it be.
        for (max_count, max_bytes) in [(1_000, 1_000_000), (3, 1_000_000), (1_000, 600)] {
            let (mut pieces, mut after) = (Vec::new(), Mid(0));
            loop {
                let piece = boxes.kept(all, UserId(user), after, max_count, max_bytes).unwrap();
                let Some(last) = piece.last() else { break };
                assert!(piece.len() <= max_count);
                assert!(
                    piece.len() == 1 || piece.iter().map(|kept| kept.body.len()).sum::<usize>() <= max_bytes
                );
                after = last.mid;
                pieces.extend(piece);
            }
            assert_eq!(pieces, expected);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn wherever_messages_lie_a_box_holds_what_was_put_into_it(steps in steps()) {
        let (_dir, conn) = database();
        let all = Statements::prepare(&conn).unwrap();
        conn.execute_batch("BEGIN").unwrap();
        let mut boxes = OfflineBoxes::with_policy(SLOW);
        let (mut model, mut committed) = (Model::new(), Model::new());
        let mut highest = [MIDS; USERS as usize + 1];
        for (number, step) in steps.into_iter().enumerate() {
            match step {
                Step::Keep { user, mid, .. } if model.contains_key(&(user, mid)) => {}
                Step::Keep { user, mid, long, sent } => {
                    let mut body = format!("{number} for {user}").into_bytes();
                    body.resize(if long { INTAKE_BODY_BYTES + 1 } else { body.len() }, b' ');
                    boxes.keep(&all, UserId(user), Mid(mid), 100, &body, sent).unwrap();
                    model.insert((user, mid), (body, sent));
                }
                Step::KeepCopies { users, long } => {
                    let mut body = format!("shared {number}").into_bytes();
                    body.resize(if long { INTAKE_BODY_BYTES + 1 } else { body.len() }, b' ');
                    let copies: Vec<BoxCopy> = users.iter().map(|(user, sent)| {
                        highest[*user as usize] += 1;
                        BoxCopy { user: UserId(*user), mid: Mid(highest[*user as usize]), sent: *sent }
                    }).collect();
                    boxes.keep_copies(&all, &copies, 100, &body).unwrap();
                    for BoxCopy { user, mid, sent } in copies {
                        model.insert((user.0, mid.0), (body.clone(), sent));
                    }
                }
                Step::MarkSent { user, upto } => {
                    boxes.mark_sent(&all, UserId(user), Mid(upto)).unwrap();
                    model.range_mut((user, 0)..=(user, upto)).for_each(|(_, message)| message.1 = true);
                }
                Step::Drop { user, upto } => {
                    let before = model.len();
                    model.retain(|(of, mid), _| *of != user || *mid > upto);
                    let dropped = boxes.drop_kept(&all, UserId(user), Mid(upto)).unwrap();
                    prop_assert_eq!(dropped.count as usize, before - model.len());
                }
                Step::Expire => {
                    let expired = boxes.expire(&all, 100, None, 1_000, 1_000).unwrap();
                    prop_assert_eq!(expired, ExpiredKept::default(), "none is older");
                }
                Step::Commit => {
                    conn.execute_batch("COMMIT; BEGIN").unwrap();
                    boxes.committed();
                    committed.clone_from(&model);
                }
                Step::Rollback => {
                    conn.execute_batch("ROLLBACK; BEGIN").unwrap();
                    boxes.forget();
                    model.clone_from(&committed);
                }
                Step::Restart => {
                    conn.execute_batch("ROLLBACK; BEGIN").unwrap();
                    boxes = OfflineBoxes::with_policy(SLOW);
                    model.clone_from(&committed);
                }
            }
            hold_the_same(&mut boxes, &all, &model);
        }
    }
}

#[test]
fn a_new_message_never_gets_the_number_of_one_that_has_moved_on() {
    let (_dir, conn) = database();
    let all = Statements::prepare(&conn).unwrap();
    let mut boxes =
        OfflineBoxes::with_policy(CompactionPolicy { generation: 3, stride: 3, moves: 1, ..COMPACTION });
    // The third begins a generation of all three, and the first user's has moved on.
    for user in 1..=3 {
        boxes.keep(&all, UserId(user), Mid(1), 0, b"first", false).unwrap();
    }
    assert_eq!(boxes.compaction.cursor(), CompactionCursor { rows: 3, users: 1 });
    // The highest number is free now, and a new start does not know it.
    boxes.drop_kept(&all, UserId(3), Mid(1)).unwrap();
    boxes.forget();
    boxes.keep(&all, UserId(1), Mid(2), 0, b"second", false).unwrap();
    boxes.forget();
    let kept = boxes.kept(&all, UserId(1), Mid(0), 10, 1_000).unwrap();
    assert_eq!(kept.iter().map(|kept| kept.mid).collect::<Vec<_>>(), [Mid(1), Mid(2)]);
}

#[test]
fn messages_for_many_users_share_pages_until_they_move_on() {
    const MESSAGES: i64 = 1_000;
    // Each in a page of its own would be a thousand.
    const PAGES_MOST: i64 = 60;
    let (_dir, conn) = database();
    let all = Statements::prepare(&conn).unwrap();
    let mut boxes = OfflineBoxes::new();
    let body = [b'x'; 100];
    // All have a page in `box`, as after weeks.
    conn.execute_batch("BEGIN").unwrap();
    for user in 1..=MESSAGES {
        for mid in 1..=40 {
            conn.execute(sql::KEEP.text, (user, mid, 0, &body, false)).unwrap();
        }
    }
    conn.execute_batch("COMMIT; PRAGMA wal_checkpoint(TRUNCATE); BEGIN").unwrap();
    for user in 1..=MESSAGES {
        boxes.keep(&all, UserId(user), Mid(41), 0, &body, false).unwrap();
    }
    conn.execute_batch("COMMIT").unwrap();
    let pages: i64 = conn.query_row("PRAGMA wal_checkpoint(NOOP)", (), |row| row.get(1)).unwrap();
    assert!(pages <= PAGES_MOST, "{pages} pages for {MESSAGES} messages");
}

#[test]
fn a_flood_moves_on_as_fast_as_it_comes() {
    const SMALL: CompactionPolicy = CompactionPolicy { generation: 128, ..COMPACTION };
    let (_dir, conn) = database();
    let all = Statements::prepare(&conn).unwrap();
    let mut boxes = OfflineBoxes::with_policy(SMALL);
    conn.execute_batch("BEGIN").unwrap();
    for mid in 1..=5_000 {
        boxes.keep(&all, UserId(mid % 37), Mid(mid), 0, b"{}", false).unwrap();
        let rows = rows_in(&conn, "intake");
        assert!(rows <= 3 * SMALL.generation as i64, "{rows} rows after {mid} messages");
    }
    assert_eq!(rows_in(&conn, "kept"), 5_000);
}

#[test]
fn boxes_expire_while_a_flood_goes_on() {
    let (_dir, conn) = database();
    let all = Statements::prepare(&conn).unwrap();
    let mut boxes = OfflineBoxes::new();
    conn.execute_batch("BEGIN").unwrap();
    boxes.keep(&all, UserId(1), Mid(1), 10, b"old", false).unwrap();
    let (mut removed, mut next) = (0, None);
    for call in 0..20 {
        for mid in 1..=2 * EXPIRE_MOVES as i64 {
            let (mid, user) = (Mid(call * 10_000 + mid), UserId(2 + mid % 50));
            boxes.keep(&all, user, mid, 100, b"{}", false).unwrap();
        }
        let expired = boxes.expire(&all, 20, next, 100, 1_000).unwrap();
        removed += expired.messages;
        next = expired.next;
        if next.is_none() {
            assert_eq!(removed, 1);
            return;
        }
    }
    panic!("the round never ends; {removed} removed");
}

#[test]
fn a_generation_of_which_all_was_confirmed_ends_and_so_does_one_with_a_wide_gap() {
    const STEADY: CompactionPolicy = CompactionPolicy { generation: 4, stride: 1, moves: 3, ..COMPACTION };
    let (_dir, conn) = database();
    let all = Statements::prepare(&conn).unwrap();
    let mut boxes = OfflineBoxes::with_policy(STEADY);
    let keep_on = |boxes: &mut OfflineBoxes, mids: std::ops::Range<i64>| {
        for mid in mids {
            boxes.keep(&all, UserId(mid % 5), Mid(mid), 0, b"{}", false).unwrap();
        }
        rows_in(&conn, "intake")
    };
    for old in [1, 100] {
        keep_on(&mut boxes, old..old + 4);
        assert!(boxes.compaction.cursor().rows > 0, "a generation is on its way");
        // The first stays in one of the two cases, and what follows is confirmed at once.
        for mid in old..old + 60 {
            keep_on(&mut boxes, mid + 4..mid + 5);
            let spared = if old == 100 { 100 } else { i64::MAX };
            (0..5).filter(|user| *user != spared % 5).for_each(|user| {
                boxes.drop_kept(&all, UserId(user), Mid(mid + 4)).unwrap();
            });
        }
        let rows = keep_on(&mut boxes, old + 70..old + 90);
        assert!(rows <= 3 * STEADY.generation as i64, "{rows} rows");
    }
}

#[test]
fn what_expires_may_lie_in_the_intake() {
    let (_dir, conn) = database();
    let all = Statements::prepare(&conn).unwrap();
    let mut boxes = OfflineBoxes::new();
    boxes.keep(&all, UserId(1), Mid(1), 10, b"old", false).unwrap();
    boxes.keep(&all, UserId(1), Mid(2), 30, b"new", false).unwrap();
    let expired = boxes.expire(&all, 20, None, 1_000, 1_000).unwrap();
    assert_eq!(expired, ExpiredKept { messages: 1, users: vec![UserId(1)], next: None });
    let left = boxes.kept(&all, UserId(1), Mid(0), 10, 1_000).unwrap();
    assert_eq!(left, [StoredMessage { mid: Mid(2), body: b"new".to_vec(), sent: false }]);
    assert_eq!(rows_in(&conn, "intake"), 0, "all has moved on");
}

#[test]
fn a_flood_that_has_ended_expires_in_calls_that_follow_at_once() {
    const MESSAGES: i64 = 3 * EXPIRE_MOVES as i64 / 2;
    let (_dir, conn) = database();
    let all = Statements::prepare(&conn).unwrap();
    let mut boxes = OfflineBoxes::new();
    conn.execute_batch("BEGIN").unwrap();
    for mid in 1..=MESSAGES {
        boxes.keep(&all, UserId(mid % 7 + 1), Mid(mid), 10, b"{}", false).unwrap();
    }
    let (mut removed, mut calls, mut next) = (0, 0, None);
    loop {
        let expired = boxes.expire(&all, 20, next, 10_000, 1_000).unwrap();
        removed += expired.messages as i64;
        calls += 1;
        next = expired.next;
        if next.is_none() {
            break;
        }
    }
    assert_eq!(removed, MESSAGES);
    assert!((2..6).contains(&calls), "{calls} calls: each moves a bounded number");
}

#[test]
fn the_pages_of_a_flood_are_kept_until_it_has_moved_on_even_if_its_transaction_fails() {
    let (_dir, conn) = database();
    let all = Statements::prepare(&conn).unwrap();
    let mut boxes = OfflineBoxes::new();
    let cache_kib = || -conn.query_row("PRAGMA cache_size", (), |row| row.get::<_, i64>(0)).unwrap();
    connect::fit_cache(&conn, false).unwrap();
    let calm_kib = cache_kib();
    let keep = |boxes: &mut OfflineBoxes, mids: std::ops::Range<i64>| {
        mids.for_each(|mid| boxes.keep(&all, UserId(mid % 7 + 1), Mid(mid), 10, b"{}", false).unwrap());
    };
    conn.execute_batch("BEGIN").unwrap();
    keep(&mut boxes, 1..FLOOD as i64);
    assert_eq!(cache_kib(), calm_kib);
    conn.execute_batch("COMMIT; BEGIN").unwrap();
    keep(&mut boxes, FLOOD as i64..FLOOD as i64 + 100);
    assert!(cache_kib() > 10 * calm_kib, "{} KiB", cache_kib());
    conn.execute_batch("ROLLBACK").unwrap();
    boxes.forget();
    let mut next = None;
    for _ in 0..20 {
        next = boxes.expire(&all, 0, next, 10_000, 1_000).unwrap().next;
    }
    assert_eq!((next, rows_in(&conn, "intake")), (None, 0));
    assert_eq!(cache_kib(), calm_kib);
}

#[test]
fn a_message_for_many_is_stored_once_and_gone_with_its_last_copy() {
    const RECEIVERS: i64 = 1_000;
    let (_dir, conn) = database();
    let all = Statements::prepare(&conn).unwrap();
    let mut boxes = OfflineBoxes::with_policy(CompactionPolicy { copies: 1_500, ..COMPACTION });
    let body = vec![b'x'; 60_000];
    let copies = |mid| -> Vec<BoxCopy> {
        (1..=RECEIVERS).map(|user| BoxCopy { user: UserId(user), mid: Mid(mid), sent: false }).collect()
    };
    conn.execute_batch("BEGIN").unwrap();
    // The second begins a generation, and most of the first moves on.
    for mid in 1..=2 {
        boxes.keep_copies(&all, &copies(mid), 0, &body).unwrap();
    }
    conn.execute_batch("COMMIT").unwrap();
    assert!(boxes.compaction.cursor().rows > 0 || rows_in(&conn, "box") > 0, "some have moved on");
    let pages: i64 = conn.query_row("PRAGMA page_count", (), |row| row.get(0)).unwrap();
    assert!(pages * 4096 < 1_000_000, "{pages} pages for two bodies of 60,000 bytes");
    for user in 1..=RECEIVERS {
        assert_eq!(rows_in(&conn, "message"), 2);
        let usage = boxes.drop_kept(&all, UserId(user), Mid(2)).unwrap();
        assert_eq!(usage, BoxUsage { count: 2, bytes: 120_000 });
    }
    assert_eq!((rows_in(&conn, "message"), rows_in(&conn, "kept")), (0, 0));
    assert_eq!(boxes.total(&all).unwrap(), 0);
}

#[test]
fn copies_expire_by_their_age_like_all_else() {
    let (_dir, conn) = database();
    let all = Statements::prepare(&conn).unwrap();
    let mut boxes = OfflineBoxes::new();
    let copies = [1, 2].map(|user| BoxCopy { user: UserId(user), mid: Mid(1), sent: false });
    boxes.keep_copies(&all, &copies, 10, b"old").unwrap();
    let (mut removed, mut next) = (0, None);
    for _ in 0..5 {
        let expired = boxes.expire(&all, 20, next, 1_000, 1_000).unwrap();
        removed += expired.messages;
        next = expired.next;
    }
    assert_eq!((removed, rows_in(&conn, "message"), boxes.total(&all).unwrap()), (2, 0, 0));
}
