//! Everything of the protocol that reads or writes JSON text. Other folders take requests off a stream by [`next_request`], with
//! a [`framing::Framer`] for each channel.
//!
//! | file | duty |
//! |---|---|
//! | [`next_request`] | the next request off a stream, by the fast path or by framing and reading |
//! | [`framing`] | where each request ends in a stream |
//! | `fast_path` | an object of plain strings and integers, in one pass |
//! | `object` | any object's raw fields in, one object out |
//! | `string_scan` | where a string ends |

pub(super) mod fast_path;
pub mod framing;
pub mod next_request;
pub(super) mod object;
mod string_scan;
