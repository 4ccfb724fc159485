//! The offline queue and main's side of it: departures, the drain, the history, the grace.

mod aside;
pub(crate) mod batch;
pub(crate) mod by_session;
pub mod drain;
mod ending;
mod expiry;
pub mod reconcile;
pub mod stages;
mod stop;
#[cfg(test)]
mod tests;
