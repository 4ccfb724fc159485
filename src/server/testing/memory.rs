//! A store without a disk: all of `Storage` on plain maps, with faults to order.
//!
//! It answers as `crate::store::sqlite` does, which a test below compares, and is stricter in two places: a message number
//! or an epoch that does not rise is refused, because nobody in the server may ever ask for that.
//!
//! | file | duty |
//! |---|---|
//! | `disk` | what outlives a server, the faults that are to come, and what tests look at |
//! | `tables` | the rows |
//! | `transaction` | connections: reading, writing, committing, failing |
//! | `storage` | each operation of `Storage` |

mod disk;
mod storage;
mod tables;
mod transaction;

pub(crate) use disk::{Disk, text};
#[cfg(test)]
pub(crate) use disk::{Fault, Standing};
#[cfg(test)]
pub(crate) use tables::Departed;
pub(crate) use transaction::MemoryStore;

#[cfg(test)]
mod tests;
