//! A channel: one connection's name, its one atomic step from live to offline, and why it was taken.

pub mod id;
pub mod reason;
pub mod state;
pub mod table;

pub use id::{ChannelId, SessionNo};
pub use reason::{Advice, Initiator, Reason};
pub use state::{Closed, Stage};
pub use table::ChannelTable;
