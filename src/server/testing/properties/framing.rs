//! Requests are found as a plain framer finds them, in every split, and taken off as they are then read.

use super::splits;
use crate::protocol::json::framing::{Framed, Framer};
use crate::protocol::json::next_request;
use crate::protocol::json::next_request::Taken;
use crate::protocol::request;

/// How a stream goes on behind its requests.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Rest {
    More,
    TooLarge,
    Malformed,
}

pub(super) fn holds(input: &[u8]) {
    for limit in [1, 16, 300, 65_536] {
        let expected = plainly(input, limit);
        let mut nul = None;
        for pieces in splits(input) {
            let (found, rest, terminator) = framed(&pieces, limit);
            assert_eq!((&found, rest), (&expected.0, expected.1), "limit {limit}, pieces {pieces:?}");
            assert_eq!(*nul.get_or_insert(terminator), terminator, "limit {limit}, pieces {pieces:?}");
        }
        let sent: usize = expected.0.iter().map(Vec::len).sum();
        assert!(sent <= input.len());
        for request in expected.0 {
            let end = request.len();
            assert_eq!(Framer::default().next(&request, limit), Framed::Request { start: 0, end });
        }
    }
}

/// What the framer finds, with the byte that it would end an answer with. The shortest way to a request keeps step.
fn framed(pieces: &[&[u8]], limit: usize) -> (Vec<Vec<u8>>, Rest, u8) {
    let (mut framer, mut held, mut found) = (Framer::default(), Vec::new(), Vec::new());
    let mut shortest = Framer::default();
    for piece in pieces {
        held.extend_from_slice(piece);
        loop {
            let taken = next_request::next(&mut shortest, &held, limit);
            let framed = framer.next(&held, limit);
            assert_eq!(taken, read_then(&framed, &held));
            assert_eq!(shortest.terminator(), framer.terminator());
            match framed {
                Framed::More { skip } => {
                    held.drain(..skip);
                    break;
                }
                Framed::Request { start, end } => {
                    assert!(end - start <= limit);
                    found.push(held[start..end].to_vec());
                    held.drain(..end);
                }
                Framed::TooLarge => return (found, Rest::TooLarge, framer.terminator()),
                Framed::Malformed => return (found, Rest::Malformed, framer.terminator()),
            }
        }
        assert!(held.len() < limit, "what is kept is less than the limit");
    }
    (found, Rest::More, framer.terminator())
}

/// The way of two steps.
fn read_then<'a>(framed: &Framed, held: &'a [u8]) -> Taken<'a> {
    match *framed {
        Framed::More { skip } => Taken::More { skip },
        Framed::Request { start, end } => Taken::Request { request: request::parse(&held[start..end]), end },
        Framed::TooLarge => Taken::TooLarge,
        Framed::Malformed => Taken::Malformed,
    }
}

/// The same by the shortest way to say it: byte by byte, with a stack.
fn plainly(input: &[u8], limit: usize) -> (Vec<Vec<u8>>, Rest) {
    let (mut found, mut request, mut open) = (Vec::new(), Vec::new(), Vec::new());
    let (mut in_string, mut escaped) = (false, false);
    for &byte in input {
        if open.is_empty() && b"\0\n\r \t".contains(&byte) {
            continue;
        }
        if request.is_empty() && byte != b'{' && byte != b'[' {
            return (found, Rest::Malformed);
        }
        request.push(byte);
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            b'{' | b'[' if !in_string => open.push(if byte == b'{' { b'}' } else { b']' }),
            b'}' | b']' if !in_string && open.pop() != Some(byte) => return (found, Rest::Malformed),
            _ => {}
        }
        if open.is_empty() {
            found.push(std::mem::take(&mut request));
        } else if request.len() == limit {
            return (found, Rest::TooLarge);
        }
    }
    (found, Rest::More)
}
