//! Sockets and the poller that watches them.
//!
//! | file | duty |
//! |---|---|
//! | `poller` | which sources are ready, and the wake-up of whoever waits for them |
//! | `registered` | a source that a poller watches, for exactly as long as it is there |

pub mod poller;
pub mod registered;

pub use poller::{Events, Poller};
pub use registered::Registered;
