//! Small pieces of the server in every order in which their threads can meet.
//!
//! Each model is one test: its name is the property, its comment says it in full. Built with `--cfg loom`
//! (`scripts/models.sh`), loom tries every interleaving up to a bound of preemptions, and every value that a relaxed
//! load may see. Built without, the same test runs on real threads a few times: quick, and far from complete.
//! `tests/mutations/models` has patches that break the lines which the models guard; `scripts/mutants.sh` applies each one
//! and sees its model fail.
//!
//! | file | of |
//! |---|---|
//! | `close_race` | the one step, sessions, kicks |
//! | `id_pool` | the pool of channel ids, and what a new id shows |
//! | `queue` | the offline queue |
//! | `mailbox` | mailboxes and their wake-up |
//! | `registry` | who is online |

mod close_race;
mod id_pool;
mod mailbox;
mod queue;
mod registry;

#[cfg(loom)]
use loom::thread;
#[cfg(not(loom))]
use std::thread;

use crate::channel::{ChannelId, ChannelTable, SessionNo};
use crate::ids::UserId;
use crate::sync::Arc;

/// Runs on real threads, where loom does not drive.
#[cfg(not(loom))]
const ROUNDS: usize = 50;

const ANN: UserId = UserId(1);

/// Runs a model in every order, or a few times on real threads.
fn model(body: impl Fn() + Send + Sync + 'static) {
    #[cfg(loom)]
    loom::model(body);
    #[cfg(not(loom))]
    (0..ROUNDS).for_each(|_| body());
}

/// A thread of the model.
fn spawn<T: Send + 'static>(body: impl FnOnce() -> T + Send + 'static) -> thread::JoinHandle<T> {
    thread::spawn(body)
}

/// A table with one channel on worker 0, on which Ann is logged in.
fn table_with_ann() -> (Arc<ChannelTable>, ChannelId, SessionNo) {
    let table = Arc::new(ChannelTable::new(1));
    let channel = table.open(0).unwrap();
    let session = table.begin_session(channel, ANN).unwrap();
    (table, channel, session)
}
