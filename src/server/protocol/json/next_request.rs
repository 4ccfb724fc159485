//! Takes the next request off a stream: in one pass where it is whole and plain, as most are, else framed first and
//! read then.
//!
//! Plain functions, used by the worker that owns the channel. Both ways give the same request, byte for byte.

use crate::protocol::json::framing::{Framed, Framer};
use crate::protocol::request::{Fault, Request, parse, parse_flat};

/// What a look at the input found; see [`Framed`].
#[derive(PartialEq, Eq, Debug)]
pub enum Taken<'a> {
    /// Nothing whole yet.
    More {
        /// Bytes to drop from the front of the input.
        skip: usize,
    },
    /// A whole request; `input[..end]` is done with.
    Request {
        /// What is asked, or what is wrong with it.
        request: Result<Request<'a>, Fault>,
        /// One behind the closing bracket.
        end: usize,
    },
    /// The request under way is larger than `max_frame` bytes.
    TooLarge,
    /// No end can be found.
    Malformed,
}

/// Takes the next request off `input`, which begins where the last answer said that it was done with; see
/// [`Framer::next`].
pub fn next<'a>(framer: &mut Framer, input: &'a [u8], max_frame: usize) -> Taken<'a> {
    if let Some((request, end)) = framer.whole(input, max_frame, parse_flat) {
        return Taken::Request { request: Ok(request), end };
    }
    match framer.next(input, max_frame) {
        Framed::More { skip } => Taken::More { skip },
        Framed::Request { start, end } => Taken::Request { request: parse(&input[start..end]), end },
        Framed::TooLarge => Taken::TooLarge,
        Framed::Malformed => Taken::Malformed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chat_as_most_are_is_read_in_one_pass() {
        for chat in [
            r#"{"msgid":6,"toid":17,"msg":"hello"}"#,
            r#"{"msgid": 6, "to": 17, "msg": "hello", "seq": "a1"}"#,
            r#"{"id":13,"msg":"hello, 你好","msgid":6,"name":"zhang san","time":"2026-11-21 02:41:29","toid":17}"#,
            r#"{"msgid":10,"id":13,"name":"zhang san","groupid":1,"msg":"hello","time":""}"#,
        ] {
            let (request, length) = parse_flat(chat.as_bytes()).expect(chat);
            assert_eq!((Ok(request), length), (parse(chat.as_bytes()), chat.len()));
        }
    }
}
