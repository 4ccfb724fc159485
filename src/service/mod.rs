//! What a request means: accounts, sessions, chat, groups. Plain decisions, without sockets.

mod accounts;
pub mod bans;
pub(crate) mod chats;
pub(crate) mod fan_out;
pub(crate) mod groups;
pub(crate) mod lists;
pub(crate) mod people;
pub mod presence;
pub mod repetitions;
pub mod tokens;
pub mod unconfirmed;
mod watching;
