//! What threads tell each other. Plain values: a thread that has one owns it, and hands it on through a queue or a mailbox.
//!
//! | from | to | values |
//! |---|---|---|
//! | workers, auth threads, admin socket | main | [`event`], with [`request`] and [`disconnect`] in it |
//! | main, the admin socket, other workers | workers | [`command`], with [`chat`], [`reply`] and [`presence`] in it |
//!
//! [`delivery`] is the one value that several threads share.

pub mod chat;
pub mod command;
pub mod delivery;
pub mod disconnect;
pub mod event;
pub mod fingerprint;
pub mod presence;
pub mod reply;
pub mod reply_to;
pub mod request;
