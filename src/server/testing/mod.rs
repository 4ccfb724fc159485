//! Made-up surroundings for tests of the core: a store without a disk, connections without a network, a clock that
//! moves by hand. Everything runs on the test's own thread, in the order that the test says.
//!
//! | file | stands in for |
//! |---|---|
//! | `memory` | `linger.db`, with faults to order |
//! | `letterbox` | the workers, as main sees them |
//! | `wire` | a connection, and the client at its other end |
//! | `desk` | main alone: entries in, letters out |
//! | `bench` | workers alone: bytes and letters in, bytes and entries out |
//! | `whole` | main and workers together, passwords verified at once |
//! | `models` | chance: small pieces in every order of their threads |
//! | `properties` | chance: what holds for every input, for fuzzing and for every test run |
//! | `simulation` | chance: a whole server, its clients, network, clock and disk, by seeds |
//! | `words` | nobody: the few words that tests compare |

pub(crate) mod bench;
pub(crate) mod commons;
pub(crate) mod desk;
pub(crate) mod letterbox;
pub(crate) mod memory;
#[cfg(test)]
mod models;
pub(crate) mod properties;
#[cfg(test)]
mod simulation;
pub(crate) mod whole;
pub(crate) mod wire;
pub(crate) mod words;
