//! Finds where each request begins and ends in a byte stream, whatever pieces it arrives in.
//!
//! Each channel has one [`Framer`], used by the worker that owns the channel. It looks at brackets and quotes
//! only: whether what is between them is JSON, is judged later, and it never copies or keeps input.

use super::string_scan::quote_or_backslash;

/// Nesting levels whose bracket kinds need no heap.
const FLAT_LEVELS: u32 = u64::BITS;

/// Offsets in a request are kept in 32 bits; nothing larger than this is ever whole.
const MAX_REQUEST_BYTES: usize = u32::MAX as usize;

/// Finds the ends of JSON requests in a byte stream, across any split. Idle it is small and without heap.
#[derive(Debug, Default)]
pub struct Framer {
    /// The request whose end has not arrived; none exactly between requests.
    under_way: Option<Box<UnderWay>>,
    /// True exactly when the byte behind the latest request has not arrived yet.
    terminator_due: bool,
    nul_terminated: bool,
}

const _: () = assert!(size_of::<Framer>() <= 16);

/// How far a request is scanned.
#[derive(Debug, Default)]
struct UnderWay {
    /// The kinds of the outermost open brackets, a bit per level: set for `[`, clear for `{`.
    kinds: u64,
    /// The same for the levels behind, 64 to a word. Empty, so without heap, unless nesting gets that deep.
    deeper: Box<[u64]>,
    /// Open brackets; 0 exactly when nothing is scanned yet.
    depth: u32,
    /// Bytes that need not be looked at again.
    scanned: u32,
    /// True exactly when the scanned bytes end inside a string.
    in_string: bool,
}

/// What a look at the input found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Framed {
    /// Nothing whole yet. The first `skip` bytes are done with; present the rest again with more behind it
    /// (the framer remembers how far it has scanned, so a request arriving byte by byte is linear).
    More {
        /// Bytes to drop from the front of the input.
        skip: usize,
    },
    /// `input[start..end]` is a whole request; `input[..end]` is done with.
    Request {
        /// Where the opening bracket is.
        start: usize,
        /// One behind the closing bracket.
        end: usize,
    },
    /// The request under way is larger than `max_frame` bytes. The framer is of no more use.
    TooLarge,
    /// No end can be found: another byte between requests, or a bracket of the wrong kind. The framer is of no
    /// more use.
    Malformed,
}

impl Framer {
    /// Looks for the next request in `input`, which begins where the last answer said that it was done with.
    ///
    /// A request of exactly `max_frame` bytes is whole, and a larger one is known as such from its first
    /// `max_frame` bytes, so a buffer never has to hold more of it. After [`Framed::TooLarge`] and
    /// [`Framed::Malformed`] nothing further can be told from the stream; do not call again.
    pub fn next(&mut self, input: &[u8], max_frame: usize) -> Framed {
        self.see_due_terminator(input);
        // Most requests arrive whole and need no heap.
        let mut fresh = UnderWay::default();
        let (start, under_way) = match self.under_way.as_deref_mut() {
            Some(under_way) => (0, under_way),
            None => match first_of_request(input) {
                None => return Framed::More { skip: input.len() },
                Some(at) if matches!(input[at], b'{' | b'[') => (at, &mut fresh),
                Some(_) => return Framed::Malformed,
            },
        };
        let seen = &input[start..];
        let limit = max_frame.min(MAX_REQUEST_BYTES);
        match under_way.scan(&seen[..seen.len().min(limit)]) {
            Scan::End(length) => {
                let end = start + length;
                self.under_way = None;
                self.see_terminator(input.get(end));
                Framed::Request { start, end }
            }
            Scan::WrongBracket => Framed::Malformed,
            // The closing bracket alone would make it larger.
            Scan::Open if seen.len() >= limit => Framed::TooLarge,
            Scan::Open => {
                self.under_way.get_or_insert_with(|| Box::new(fresh));
                Framed::More { skip: start }
            }
        }
    }

    /// Lets `read` take the next request off the input by itself: it gets what may belong to the request, and answers
    /// what it has made of it, with the request's length. Where it answers none, or has no chance because the request
    /// is under way, nothing is done with, and [`Framer::next`] is to be asked.
    pub fn whole<'a, T>(
        &mut self,
        input: &'a [u8],
        max_frame: usize,
        read: impl FnOnce(&'a [u8]) -> Option<(T, usize)>,
    ) -> Option<(T, usize)> {
        if self.under_way.is_some() {
            return None;
        }
        self.see_due_terminator(input);
        let seen = &input[first_of_request(input)?..];
        let (made, length) = read(&seen[..seen.len().min(max_frame).min(MAX_REQUEST_BYTES)])?;
        let end = input.len() - seen.len() + length;
        self.see_terminator(input.get(end));
        Some((made, end))
    }

    /// True exactly when the latest whole request, as far as seen, was followed by NUL.
    pub fn nul_terminated(&self) -> bool {
        self.nul_terminated
    }

    /// The byte behind each object for a client that speaks like this: NUL where it ends its own with NUL, else LF.
    pub fn terminator(&self) -> u8 {
        if self.nul_terminated() { 0 } else { b'\n' }
    }

    /// The first byte of the input may be the one behind the latest request.
    fn see_due_terminator(&mut self, input: &[u8]) {
        if self.terminator_due && !input.is_empty() {
            self.see_terminator(input.first());
        }
    }

    fn see_terminator(&mut self, byte: Option<&u8>) {
        self.nul_terminated = byte == Some(&0);
        self.terminator_due = byte.is_none();
    }
}

impl UnderWay {
    /// Goes on where the last scan of the same request stopped.
    fn scan(&mut self, request: &[u8]) -> Scan {
        let mut at = self.scanned as usize;
        // Only a limit that was lowered in the middle of a request leads behind its end.
        while at < request.len() {
            if self.in_string {
                match string_end(request, at) {
                    StringEnd::Behind(quote) => at = quote,
                    StringEnd::NotBefore(resume) => {
                        at = resume;
                        break;
                    }
                }
                self.in_string = false;
            }
            let Some(offset) = request[at..].iter().position(|&byte| STRUCTURAL[byte as usize]) else {
                at = request.len();
                break;
            };
            let byte = request[at + offset];
            at += offset + 1;
            match byte {
                b'"' => self.in_string = true,
                b'{' | b'[' => self.open(byte == b'['),
                _ => {
                    if !self.close(byte == b']') {
                        return Scan::WrongBracket;
                    }
                    if self.depth == 0 {
                        return Scan::End(at);
                    }
                }
            }
        }
        self.scanned = at as u32;
        Scan::Open
    }

    fn open(&mut self, array: bool) {
        let level = self.depth;
        let bit = 1 << (level % u64::BITS);
        let word = self.word(level);
        if array {
            *word |= bit;
        } else {
            *word &= !bit;
        }
        self.depth += 1;
    }

    /// False when the innermost open bracket is of the other kind.
    fn close(&mut self, array: bool) -> bool {
        self.depth -= 1;
        let level = self.depth;
        let was_array = *self.word(level) & (1 << (level % u64::BITS)) != 0;
        was_array == array
    }

    /// The word that holds a level's bit.
    fn word(&mut self, level: u32) -> &mut u64 {
        if level < FLAT_LEVELS {
            return &mut self.kinds;
        }
        let index = (level / u64::BITS - 1) as usize;
        if index >= self.deeper.len() {
            let mut words = std::mem::take(&mut self.deeper).into_vec();
            // Doubled, because each growth copies.
            words.resize((index + 1) * 2, 0);
            self.deeper = words.into_boxed_slice();
        }
        &mut self.deeper[index]
    }
}

enum Scan {
    /// The request is that many bytes long.
    End(usize),
    Open,
    WrongBracket,
}

enum StringEnd {
    /// The index behind the closing quote.
    Behind(usize),
    /// No closing quote yet; the index to resume at, which is never between a backslash and what it escapes.
    NotBefore(usize),
}

/// Finds the end of a string that `at` is inside of.
fn string_end(request: &[u8], mut at: usize) -> StringEnd {
    loop {
        let rest = &request[at..];
        match quote_or_backslash(rest) {
            None => return StringEnd::NotBefore(request.len()),
            Some(offset) if rest[offset] == b'"' => return StringEnd::Behind(at + offset + 1),
            Some(offset) if offset + 1 == rest.len() => return StringEnd::NotBefore(at + offset),
            Some(offset) => at += offset + 2,
        }
    }
}

/// Where the first byte is that does not separate requests.
pub(in crate::protocol) fn first_of_request(input: &[u8]) -> Option<usize> {
    input.iter().position(|&byte| !is_separator(byte))
}

fn is_separator(byte: u8) -> bool {
    matches!(byte, 0 | b'\n' | b'\r' | b' ' | b'\t')
}

/// True for the bytes that matter outside strings.
const STRUCTURAL: [bool; 256] = {
    let mut table = [false; 256];
    table[b'"' as usize] = true;
    table[b'{' as usize] = true;
    table[b'}' as usize] = true;
    table[b'[' as usize] = true;
    table[b']' as usize] = true;
    table
};

#[cfg(test)]
mod tests {
    use super::*;

    const MAX: usize = 1 << 16;

    #[test]
    fn requests_are_found_with_and_without_separators() {
        let input = b" {\"a\":\"}\"}[1]\0\n{}\r\n";
        let mut framer = Framer::default();
        assert_eq!(framer.next(input, MAX), Framed::Request { start: 1, end: 10 });
        assert_eq!(framer.next(&input[10..], MAX), Framed::Request { start: 0, end: 3 });
        assert_eq!(framer.next(&input[13..], MAX), Framed::Request { start: 2, end: 4 });
        assert_eq!(framer.next(&input[17..], MAX), Framed::More { skip: 2 });
    }

    #[test]
    fn nul_behind_a_request_is_seen_at_once_or_when_it_comes() {
        let mut framer = Framer::default();
        framer.next(b"{}\0", MAX);
        assert!(framer.nul_terminated());
        framer.next(b"\0{}\n", MAX);
        assert!(!framer.nul_terminated());
        framer.next(b"\n{}\0", MAX);
        framer.next(b"\0{}", MAX);
        assert!(!framer.nul_terminated(), "not seen yet");
        framer.next(b"", MAX);
        framer.next(b"\0", MAX);
        assert!(framer.nul_terminated());
        framer.next(b"\n", MAX);
        assert!(framer.nul_terminated(), "only the byte right behind the request counts");
        framer.next(b"{\"half\":", MAX);
        assert!(framer.nul_terminated(), "the latest whole request counts");
    }

    #[test]
    fn a_string_split_at_an_escape_goes_on_behind_it() {
        let whole = br#"{"k\"\\":"}\\\"]"}"#;
        let mut framer = Framer::default();
        for end in 1..whole.len() {
            assert_eq!(framer.next(&whole[..end], MAX), Framed::More { skip: 0 }, "at {end}");
        }
        assert_eq!(framer.next(whole, MAX), Framed::Request { start: 0, end: whole.len() });
        assert!(framer.under_way.is_none(), "heap is given back");
    }

    #[test]
    fn a_request_may_have_exactly_the_limit() {
        let request = br#"{"a":"0123456789012345678901234567890"}"#;
        let mut framer = Framer::default();
        assert_eq!(framer.next(request, request.len()), Framed::Request { start: 0, end: request.len() });
        let mut framer = Framer::default();
        assert_eq!(framer.next(request, request.len() - 1), Framed::TooLarge);
        let mut framer = Framer::default();
        assert_eq!(framer.next(&request[..20], 20), Framed::TooLarge);
        let mut framer = Framer::default();
        assert_eq!(framer.next(&request[..19], 20), Framed::More { skip: 0 });
    }

    #[test]
    fn separators_do_not_count_against_the_limit() {
        let mut framer = Framer::default();
        assert_eq!(framer.next(b"          {}", 2), Framed::Request { start: 10, end: 12 });
    }

    #[test]
    fn a_limit_lowered_in_the_middle_of_a_request_holds() {
        let mut framer = Framer::default();
        assert_eq!(framer.next(b"{\"a\":[1,2,3", 100), Framed::More { skip: 0 });
        assert_eq!(framer.next(b"{\"a\":[1,2,3]}", 5), Framed::TooLarge);
    }

    #[test]
    fn a_bracket_of_the_wrong_kind_has_no_end() {
        for input in ["{]", "[}", "{\"a\":[}", "[{]"] {
            assert_eq!(Framer::default().next(input.as_bytes(), MAX), Framed::Malformed, "{input}");
        }
    }

    #[test]
    fn any_other_byte_between_requests_has_no_end() {
        for byte in (0..=255_u8).filter(|byte| !b"\0\n\r \t{[".contains(byte)) {
            assert_eq!(Framer::default().next(&[b' ', byte, b'{'], MAX), Framed::Malformed, "{byte}");
        }
    }

    #[test]
    fn brackets_are_told_apart_at_any_depth() {
        for depth in [1_usize, 63, 64, 65, 127, 128, 129, 200, 1000] {
            // A pattern without a period of 64.
            let kinds: Vec<bool> = (0..depth).map(|level| level % 3 == 0 || level % 7 == 2).collect();
            let mut nested: Vec<u8> = kinds.iter().map(|&array| if array { b'[' } else { b'{' }).collect();
            nested.extend(kinds.iter().rev().map(|&array| if array { b']' } else { b'}' }));
            let mut framer = Framer::default();
            assert_eq!(framer.next(&nested, MAX), Framed::Request { start: 0, end: nested.len() });
            assert!(framer.under_way.is_none(), "heap is given back");
            for wrong in depth..nested.len() {
                let mut nested = nested.clone();
                nested[wrong] = if nested[wrong] == b']' { b'}' } else { b']' };
                assert_eq!(Framer::default().next(&nested, MAX), Framed::Malformed);
            }
        }
    }

    #[test]
    fn a_request_that_arrives_byte_by_byte_is_scanned_once() {
        let mut request = vec![b'['; 30_000];
        request.extend(vec![b']'; 30_000]);
        let mut framer = Framer::default();
        for end in 1..request.len() {
            assert_eq!(framer.next(&request[..end], MAX), Framed::More { skip: 0 });
            assert_eq!(framer.under_way.as_ref().map(|request| request.scanned as usize), Some(end));
        }
        assert_eq!(framer.next(&request, MAX), Framed::Request { start: 0, end: request.len() });
    }
}
