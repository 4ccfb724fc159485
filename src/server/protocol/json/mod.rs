//! The little of JSON that the protocol needs beside `serde_json`.
//!
//! | file | duty |
//! |---|---|
//! | [`next_request`] | the next request off a stream, by the fast path or by framing and reading |
//! | `fast_path` | an object of plain strings and integers, in one pass |
//! | `object` | any object's raw fields in, one object out |
//! | `string_scan` | where a string ends |

pub(super) mod fast_path;
pub mod next_request;
pub(super) mod object;
pub(super) mod string_scan;
