//! What a request means: accounts, sessions, chat, groups. Plain decisions, without sockets or threads.

pub mod storage;
