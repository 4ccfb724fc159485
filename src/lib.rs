//! Linger: a chat and presence server that gets disconnection right.
//!
//! The README tells how to run it. This page is for whoever reads or changes the code.
//!
//! # Threads, and who may do what
//!
//! ```text
//!   clients ──▶ workers (N) ──▶ offline queue ──▶ main ──▶ SQLite
//!                 ▲   │            ▲    ▲          │
//!                 │   └─▶ auth ────┘    │          │
//!                 │                  control       │
//!                 └─────── mailboxes ──┴───────────┘
//! ```
//!
//! | thread | runs | may | never |
//! |---|---|---|---|
//! | worker | [`worker::run`] | accept, read, parse, route, write its own channels | waits anywhere but in its poller; writes the database; closes the fd of a channel |
//! | main | [`server::run`] with [`main_loop::state`] | decide who is online, write the database, close channels' fds, free names | reads or writes a live socket |
//! | auth | [`auth::pool`] | hash and verify passwords, read users | decides who is online |
//! | control | [`admin::server`] | ask; take the step for a kick | touches a client's socket; holds a lock while it waits |
//! | checkpoint | [`store`] | copy SQLite's log into the database file | writes rows |
//! | log | [`logs`] | wait for stderr | holds what another thread needs |
//!
//! # Invariants
//!
//! 1. **Exactly once.** A channel leaves by one atomic step. Whoever makes it pushes the one departure; everyone
//!    else finds it made. The step is [`channel::state`]; a worker takes it itself, anybody else by
//!    [`offline_queue::Kicker::kick`].
//! 2. **Stale names hit nothing.** A channel's name is slot and generation, in queue entries, mailboxes, targets and
//!    the registry ([`channel::id`]). Main gives a name back after its fd is closed, with the next generation
//!    ([`channel::table`]). A poller key is the bare slot: a source is deregistered before its slot is free.
//! 3. **Offline at once, closed later.** From the step on nothing is routed to the channel. Its worker writes once,
//!    then the goodbye, then ends its side, and reads on only to drop (`worker::close`). What was not begun goes back
//!    whole ([`worker::output_buffer`]). Main keeps the order of departures; after the grace, or early when places run
//!    short, it asks for the socket and closes it (`main_loop::disconnect`).
//! 4. **Two reports.** The departure comes from whoever took the step, the settlement from the owning worker when it
//!    has emptied its mailbox since ([`message::disconnect`]). Until the second, main holds messages for that user and
//!    parks logins (`main_loop::users`), so nothing newer overtakes what was under way.
//! 5. **One order.** [`offline_queue::queue`] is main's one queue: requests may go ahead of ends that wait, an end never
//!    ahead of a request. Each session has an epoch, each write of a state names
//!    it ([`store`]). A push to a mailbox looks at the receiver's step under the mailbox's lock
//!    ([`worker::mailbox`]). No worker writes to a session directly before the owning one has opened it
//!    ([`registry`]). While a channel has a request in main, its later ones follow it there
//!    (`worker::input`).
//! 6. **A kick does not wait for main.** Control finds the target in the registry or the table, takes the step, pushes
//!    the departure and writes to the worker ([`offline_queue::closer`]). Only `--wait`, `queue`, bans and users marked online
//!    without a channel ask main.
//! 7. **Bounded, without deadlock.** No thread blocks on another's full queue. What ends a channel has its place
//!    reserved: a channel has at most one of each. Asks past a bound are refused with errno 18
//!    ([`offline_queue::queue::ASKS_MAX`], [`auth::pool::JOBS_MAX`], [`worker::mailbox::MAIL_MAX`]).
//! 8. **The database follows, in batches.** One transaction takes what waits, up to [`offline_queue::queue::BATCH_MAX`]
//!    entries or [`main_loop::state::BATCH_US`]; ends alone gather for [`main_loop::state::REST`] when there are many. Answers
//!    that promise durability go out after its commit; ends outlive a failed commit, what was asked fails with it
//!    (`main_loop::transaction`). What the database itself refuses for good is given up, never that a user is offline
//!    (`main_loop::poison_write`).
//! 9. **One request, one bounded cost.** What a peer sends costs at most a constant times its bytes and a constant for
//!    each receiver; receivers are bounded; many share one body in memory and in the database. A turn of a worker or of
//!    main ends within its bounds whatever one entry asks for: a chat to a large group (`main_loop::fan_out`) and the lists
//!    of a login (`main_loop::lists`) are put down and taken up again. What a flood has needed is given back (`shrink`).
//!
//! That all of them say the same (table, workers, sessions, registry, rows) is looked at all the time, a slice at a
//! time, and counted where it is not so ([`main_loop::reconcile`]). Every test holds the count to 0.
//!
//! # Map
//!
//! A module uses those above it, never one below. What decides has no sockets, no threads, and no clock of its own; what
//! acts is thin around it.
//!
//! | module | duty |
//! |---|---|
//! | [`channel`] | names with generations, the one step, the table of all channels, reasons |
//! | [`protocol`] | bytes to requests and answers to bytes; no I/O |
//! | [`store`] | what is asked of a store, and its rows; [`store::sqlite`] is the only place that knows SQLite |
//! | [`message`] | what threads tell each other, as plain values |
//! | [`offline_queue`] | main's one queue, and what ends a channel from any thread |
//! | [`registry`] | who is online, for everybody to read |
//! | [`auth`] | the threads that hash passwords, and how often somebody may try |
//! | [`main_loop`] | main: who is online, what is delivered, what is written |
//! | [`config`] | flags, environment and file to one valid configuration |
//! | [`worker`] | the poll loop: listeners, sockets, buffers, mailboxes |
//! | [`admin`] | the admin socket, both ends |
//! | [`server`] | composition: from a configuration to running threads and back |
//! | [`cli`] | one file for each subcommand |
//! | [`chat`] | the terminal client: a session, its connection, a screen or a filter |
//! | [`stress`] | load and faults from outside; shares no protocol code with the server |
//! | [`ids`], [`ip_block`], [`clock`], [`hashing`], [`logs`], [`metrics`], [`escape`], [`sync`] | names, blocks of addresses, time as an argument, maps by number, log lines on their way to stderr, counters, text made harmless, the only locks and atomics |
//!
//! How all of it is tested, and how to run that, is in `docs/testing.md`; what its words mean, in `docs/lexicon.md`.

pub mod admin;
pub mod auth;
pub mod channel;
pub mod chat;
pub mod cli;
pub mod clock;
pub mod config;
pub mod ip_block;

pub mod escape;
pub mod hashing;
pub mod ids;
pub mod logs;
pub mod main_loop;
pub mod message;
pub mod metrics;
pub mod offline_queue;
pub mod protocol;
pub mod registry;
pub mod server;
mod shrink;
pub mod store;
pub mod stress;
pub mod sync;
#[cfg(any(test, fuzzing))]
#[allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#[cfg_attr(fuzzing, allow(dead_code, reason = "fuzzing runs the properties alone"))]
mod testing;
pub mod worker;

/// Checks the properties of a fuzz target for one input. Panics where one does not hold.
#[cfg(fuzzing)]
#[doc(hidden)]
pub fn fuzz(target: &str, input: &[u8]) {
    testing::properties::check(target, input);
}
