//! Transactions that fail, statements that are planned once, and plans that read no whole table.

use super::*;
use crate::ids::{Epoch, GroupId, Mid};
use crate::store::sqlite::Durability;
use crate::store::{BoxUsage, FriendsGroups, OfflineBox, Tokens, Users};
use rusqlite::StatementStatus;

fn opened() -> (tempfile::TempDir, SqliteStore) {
    let dir = tempfile::tempdir().unwrap();
    let opened = SqliteStore::open(dir.path(), Durability::Normal, 0).unwrap();
    (dir, opened.store)
}

fn pragma(store: &SqliteStore, name: &str) -> i64 {
    store.conn().pragma_query_value(None, name, |row| row.get(0)).unwrap()
}

fn keep_until_full(store: &mut SqliteStore) -> StorageError {
    let body = [b' '; 4_096];
    (1..10_000)
        .find_map(|mid| store.keep(UserId(1), Mid(mid), 0, &body, false).err())
        .expect("the page limit is far lower")
}

#[test]
fn the_durability_level_is_sqlites_synchronous() {
    for (durability, expected) in [(Durability::Normal, 1), (Durability::Full, 2)] {
        let dir = tempfile::tempdir().unwrap();
        let store = SqliteStore::open(dir.path(), durability, 0).unwrap().store;
        assert_eq!(pragma(&store, "synchronous"), expected);
    }
}

#[test]
fn the_writer_never_checkpoints_by_itself_and_checks_no_foreign_keys() {
    let (_dir, store) = opened();
    assert_eq!(pragma(&store, "wal_autocheckpoint"), 0);
    assert_eq!(pragma(&store, "foreign_keys"), 0);
}

#[test]
fn a_statement_is_planned_once_whatever_values_it_is_given() {
    let (_dir, mut store) = opened();
    store.begin().unwrap();
    for user in (1..5).map(UserId) {
        store.add_user(&user.to_string(), None).unwrap().unwrap();
        store.set_online(user, Epoch(user.0)).unwrap();
        store.user(user).unwrap();
        store.friends(user, UserId(user.0 - 9), 9 + user.0 as usize).unwrap();
        store.groups_of(user, GroupId(user.0), 9 + user.0 as usize).unwrap();
        store.members(GroupId(user.0), user, 9 + user.0 as usize).unwrap();
        store.count_friends(user, 9 + user.0 as usize).unwrap();
        store.count_groups(user, 9 + user.0 as usize).unwrap();
        store.box_usage(user).unwrap();
        store.kept(user, Mid(0), 4 + user.0 as usize, 1024).unwrap();
        store.user_marks(user, 4 + user.0 as usize).unwrap();
        store.set_offline(user, Epoch(user.0)).unwrap();
        store.end_tokens(user, Epoch(user.0), user.0).unwrap();
    }
    store.commit().unwrap();
    for statement in sql::ALL {
        let again = store.prepared.with(|all| all.get(*statement).get_status(StatementStatus::RePrepare));
        assert_eq!(again, 0, "{}", statement.text);
    }
}

#[test]
fn a_full_disk_voids_the_transaction_and_room_makes_the_store_work_again() {
    let (_dir, mut store) = opened();
    let limit = pragma(&store, "page_count") + 20;
    store.conn().pragma_update(None, "max_page_count", limit).unwrap();

    store.begin().unwrap();
    let error = keep_until_full(&mut store).to_string();
    assert!(error.contains("keeping a message"), "{error}");
    assert!(error.contains("linger.db"), "{error}");
    assert!(error.contains("make room"), "{error}");
    // SQLite has rolled back by itself here; a write would be a transaction of its own.
    assert!(store.set_online(UserId(1), Epoch(1)).is_err());
    assert!(store.commit().is_err());
    store.rollback();
    assert_eq!(store.box_usage(UserId(1)).unwrap(), BoxUsage::default());

    store.conn().pragma_update(None, "max_page_count", limit + 1_000).unwrap();
    store.begin().unwrap();
    store.keep(UserId(1), Mid(1), 0, b"{}", false).unwrap();
    store.commit().unwrap();
    assert_eq!(store.box_usage(UserId(1)).unwrap(), BoxUsage { count: 1, bytes: 2 });
}

#[test]
fn all_boxes_are_counted_at_the_start_and_by_nothing_that_is_undone_again() {
    let (dir, mut store) = opened();
    let kept = |store: &mut SqliteStore, mid| {
        store.begin().unwrap();
        store.keep(UserId(1), Mid(mid), 0, b"{}", false).unwrap();
    };
    kept(&mut store, 1);
    store.commit().unwrap();
    store.close().unwrap();
    let mut store = SqliteStore::open(dir.path(), Durability::Normal, 0).unwrap().store;
    kept(&mut store, 2);
    let with_both = store.kept_bytes().unwrap();
    store.rollback();
    assert_eq!(store.kept_bytes().unwrap() * 2, with_both);
    let counts = store.prepared.with(|all| all.get(sql::BOXED_TOTAL).get_status(StatementStatus::Run));
    assert_eq!(counts, 1);
}

fn plan_of(store: &SqliteStore, statement: Sql, params: impl Params) -> Vec<String> {
    let mut plan = store.conn().prepare(&format!("EXPLAIN QUERY PLAN {}", statement.text)).unwrap();
    let steps = plan.query_map(params, |row| row.get::<_, String>(3)).unwrap();
    steps.map(Result::unwrap).collect()
}

#[test]
fn a_row_with_the_largest_number_does_not_use_up_all_numbers() {
    let (_dir, mut store) = opened();
    for table in ["user", "chatgroup"] {
        let last = format!("INSERT INTO {table} (id, name) VALUES (9223372036854775807, 'last')");
        store.conn().execute(&last, ()).unwrap();
    }
    store.begin().unwrap();
    assert_eq!(store.add_user("ann", None).unwrap(), Ok(UserId(1)));
    assert!(store.add_user("ann", None).unwrap().is_err(), "the name is taken");
    assert_eq!(store.add_user("bob", None).unwrap(), Ok(UserId(2)));
    assert_eq!(store.add_group(UserId(1), "all", "").unwrap(), GroupId(1));
    store.commit().unwrap();
}

#[test]
fn finding_the_next_box_is_one_seek() {
    let (_dir, store) = opened();
    let steps = plan_of(&store, sql::NEXT_BOX, (1, 9));
    assert_eq!(steps, ["SEARCH box USING PRIMARY KEY (user>?)"]);
}

#[test]
fn finding_names_that_look_alike_never_reads_all_users() {
    let (_dir, store) = opened();
    let adding = plan_of(&store, sql::ADD_USER, ("a", "hash", "a", "b"));
    let filling = plan_of(&store, sql::WITHOUT_SKELETON, (9,));
    assert!(adding.iter().any(|step| step.contains("INDEX user_by_cased_skeleton")), "{adding:?}");
    assert!(adding.iter().any(|step| step.contains("INDEX user_by_skeleton")), "{adding:?}");
    assert_eq!(filling, ["SEARCH user USING INDEX user_by_skeleton (skeleton=?)"]);
    assert!(adding.iter().all(|step| !step.starts_with("SCAN user")), "{adding:?}");
}

#[test]
fn lists_are_read_from_where_they_go_on_and_nothing_is_sorted() {
    let (_dir, store) = opened();
    for statement in [sql::FRIENDS, sql::GROUPS_OF, sql::MEMBERS, sql::COUNT_FRIENDS, sql::COUNT_GROUPS] {
        let mut plan = store.conn().prepare(&format!("EXPLAIN QUERY PLAN {}", statement.text)).unwrap();
        let params = rusqlite::params_from_iter(vec![1; plan.parameter_count()]);
        let steps = plan.query_map(params, |row| row.get::<_, String>(3)).unwrap();
        for step in steps.map(Result::unwrap) {
            let is_read_through = step.starts_with("SCAN") && !step.contains("(subquery");
            assert!(!is_read_through && !step.contains("TEMP"), "{}: {step}", statement.text);
        }
    }
}

#[test]
fn a_commit_that_fails_leaves_no_transaction_behind_the_rollback() {
    let (_dir, mut store) = opened();
    // A deferred foreign key is the one way to have COMMIT itself fail and the transaction stay open.
    store
        .conn()
        .execute_batch(
            "PRAGMA foreign_keys = ON;
            CREATE TEMP TABLE parent (x PRIMARY KEY);
            CREATE TEMP TABLE child (x REFERENCES parent DEFERRABLE INITIALLY DEFERRED);",
        )
        .unwrap();
    store.begin().unwrap();
    let user = store.add_user("alice", None).unwrap().unwrap();
    store.conn().execute("INSERT INTO child VALUES (1)", ()).unwrap();
    let error = store.commit().unwrap_err().to_string();
    assert!(error.contains("committing"), "{error}");
    assert!(!store.conn().is_autocommit(), "the test needs a transaction that is still open");
    store.rollback();
    assert!(store.conn().is_autocommit());
    assert_eq!(store.user(user).unwrap(), None);

    store.begin().unwrap();
    store.add_user("alice", None).unwrap().unwrap();
    store.commit().unwrap();
}
