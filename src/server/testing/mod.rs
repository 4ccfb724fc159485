//! Harnesses for tests of the core: a store without a disk, connections without a network, a clock that the test advances.
//! Everything runs on the test's own thread, in the order that the test says.
//!
//! | file | what it replaces or tries |
//! |---|---|
//! | `memory` | the store; tests can order faults |
//! | `recording_mailboxes` | the workers, as main sees them |
//! | `fake_socket` | a connection, and the client at its other end |
//! | `fixtures`, `builders` | shared parts of a test server; requests and short forms of commands |
//! | `main_harness` | main alone: events in, commands out |
//! | `worker_harness` | workers alone: bytes and commands in, bytes and events out |
//! | `server_harness` | main and workers together; passwords are verified at once |
//! | `models` | small pieces in every order of their threads |
//! | `properties` | what holds for every input, for fuzzing and for every test run |
//! | `simulation` | a whole server, its clients, network, clock and disk, from seeds |

pub(crate) mod builders;
pub(crate) mod fake_socket;
pub(crate) mod fixtures;
pub(crate) mod main_harness;
pub(crate) mod memory;
#[cfg(test)]
mod models;
pub(crate) mod properties;
pub(crate) mod recording_mailboxes;
pub(crate) mod server_harness;
#[cfg(test)]
mod simulation;
pub(crate) mod worker_harness;
