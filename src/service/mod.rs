//! What a request means: accounts, sessions, chat, groups. Plain decisions, without sockets.

mod accounts;
pub mod answer;
pub mod ask;
pub mod attempts;
pub mod auth;
pub mod bans;
pub mod chat;
pub(crate) mod chats;
pub(crate) mod fan_out;
pub mod fingerprint;
pub(crate) mod groups;
pub(crate) mod lists;
pub mod password;
pub(crate) mod people;
pub mod presence;
pub mod registry;
pub mod repetitions;
pub mod ticket;
pub mod tokens;
pub mod unconfirmed;
mod watching;
