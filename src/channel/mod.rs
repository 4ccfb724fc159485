//! A channel: one connection's name, its one atomic step from live to offline, and why it was taken.

pub mod gate;
pub mod id;
pub mod reason;
pub mod table;

pub use gate::{Left, Stage};
pub use id::{ChannelId, SessionNo};
pub use reason::{Advice, Initiator, Reason};
pub use table::ChannelTable;
