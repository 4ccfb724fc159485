//! The offline queue and main's side of it: departures, the drain, the history, the grace.

mod aside;
pub(crate) mod batch;
pub(crate) mod by_session;
pub mod departure;
pub mod drain;
mod ending;
mod expiry;
pub mod kicker;
pub mod mail;
pub mod queue;
pub mod reconcile;
pub mod stages;
mod stop;
#[cfg(test)]
mod tests;

pub use departure::{Departure, Milestone, Parting, Receipt, Settlement, Torn};
pub use kicker::Kicker;
pub use mail::{ChannelReport, Mail, Origin, Outlet, Settles};
pub use queue::{ControlAsk, DrainAsk, Entry, Ghost, GhostFault, GhostName, OfflineQueue, QueueReport};
