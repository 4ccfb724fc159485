//! The JSON protocol: bytes in, requests out; answers out as bytes.
//!
//! Plain functions and values, used by any thread. Nothing here reads a socket, keeps a clock, or knows what a request means:
//! main and the workers know that. No input makes it panic.
//!
//! | module | does |
//! |---|---|
//! | [`json::next_request`] | takes the next request off a stream, by the shortest way |
//! | [`request`] | turns one request into a typed value, or says what is wrong with it |
//! | [`name`] | which names new users and groups may have, and which look alike |
//! | [`written_name`] | how the name of a sender is written for people and scripts |
//! | [`chat_object`] | what becomes of a chat between its sender and its receiver |
//! | [`login_answer`] | the answer to a login that succeeded |
//! | [`responses`] | writes everything else that the server says of its own |
//! | [`hint`] | tells people what is wrong with input that is no request |
//! | [`msgid`] | the numbers that say what an object is |
//! | [`errno`] | the numbers of refusals and errors |

pub mod chat_object;
pub mod errno;
pub mod hint;
pub mod json;
mod keys;
pub mod line;
pub mod login_answer;
pub mod msgid;
pub mod name;
pub mod request;
pub mod responses;
pub mod written_name;
