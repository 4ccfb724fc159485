//! Sockets and the poller that watches them.
//!
//! | file | duty |
//! |---|---|
//! | `poller` | which sources are ready, and how a waiting thread is woken |
//! | `registered` | a source that a poller watches, for exactly as long as it is there |
//! | `listener` | listening sockets, one a worker on every address |
//! | `transport` | what a worker does with a connection, so that a made-up network can stand in for the kernel |

pub mod listener;
pub mod poller;
pub mod registered;
pub mod transport;

pub use poller::{Events, Poller};
pub use registered::Registered;
