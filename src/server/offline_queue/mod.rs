//! The offline queue, and what ends a channel from any thread.

pub mod closer;
pub mod queue;

pub use closer::Kicker;
pub use queue::OfflineQueue;
