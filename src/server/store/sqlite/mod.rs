//! The store: `linger.db`, and the only place that knows SQLite.
//!
//! | who | has | may |
//! |---|---|---|
//! | main | [`SqliteStore`] | everything, in transactions of its own |
//! | each auth thread | [`SqliteLookup`] | read users |
//! | control | [`History`] | read departures |
//! | its own thread | [`Checkpointer`] | move the log into the database file, outside main's turn |
//!
//! Each has a connection to itself, so no statement ever waits for another thread's lock in here. The database
//! is in WAL mode: readers and the one writer never wait for each other, two writers do, for at most
//! [`BUSY_TIMEOUT`]. Other processes may be either.
//!
//! `sqlite_store` has the transaction; `users`, `departures`, `bans`, `tokens`, `friends_groups`, `dedup_log` and `offline_box` have
//! what is done in it. Every statement's text is in `sql`.
//!
//! Deliberately absent: exclusive locking, and automatic checkpoints, which would stretch one of main's commits
//! at random. Nothing here decides what a request means; that is [`crate::main_loop`].

mod bans;
mod checkpoint;
mod connect;
mod dedup_log;
mod departures;
mod error;
mod format;
mod friends_groups;
mod history;
mod offline_box;
mod open;
mod opened_files;

mod private;
mod row;
mod schema;
mod sql;
mod sqlite_store;
mod statements;
mod tokens;
mod user_reader;
mod users;

pub use checkpoint::Checkpointer;
pub use connect::{BUSY_TIMEOUT, DATABASE_FILE, OpenError};
pub use dedup_log::storage::EXPIRE_ACCEPTED_BATCH;
pub use history::{Filter, History, StoredDeparture};
pub use open::{Durability, Opened};
pub use opened_files::OpenedFiles;
pub use schema::{APPLICATION_ID, SCHEMA_VERSION};
pub use sqlite_store::{EXPIRE_BATCH, SqliteStore};
pub use user_reader::{SqliteLookup, online_users};
