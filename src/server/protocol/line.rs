//! The line protocol: bytes in, lines out, and what a line means. No I/O, no clock.
//!
//! Plain data and functions, used by workers. What a text from the other protocol contains never becomes a line
//! of its own here: see [`write_chat`].

use std::borrow::Cow;
use std::collections::HashSet;

use super::name::composed;
use super::written_name::{read_name, write_sender};

/// The most names that one line goes to.
pub const RECEIVERS_MAX: usize = 100;

/// What the stream holds next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LineFramed {
    /// No whole line yet. Present the same bytes again with more behind them.
    More,
    /// `input[..len]` is a line without its end; `input[..used]` is done with.
    Line {
        /// Bytes of the line.
        len: usize,
        /// Bytes of the line and its end.
        used: usize,
    },
    /// The line under way is longer than allowed.
    TooLong,
}

/// Finds line ends in a byte stream, across any split.
#[derive(Clone, Copy, Debug, Default)]
pub struct LineFramer {
    /// Bytes at the start of the input that hold no line end.
    scanned: usize,
}

impl LineFramer {
    /// Looks for the next line in `input`, which begins where the latest line ended.
    pub fn next(&mut self, input: &[u8], max_line: usize) -> LineFramed {
        let Some(at) = memchr::memchr(b'\n', &input[self.scanned..]) else {
            self.scanned = input.len();
            // The last byte may be the first of the line's end.
            let line = input.strip_suffix(b"\r").unwrap_or(input);
            return if line.len() > max_line { LineFramed::TooLong } else { LineFramed::More };
        };
        let end = self.scanned + at;
        self.scanned = 0;
        let line = input[..end].strip_suffix(b"\r").unwrap_or(&input[..end]);
        if line.len() > max_line {
            return LineFramed::TooLong;
        }
        LineFramed::Line { len: line.len(), used: end + 1 }
    }
}

/// The first line of a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Opening<'a> {
    /// Who.
    pub name: &'a str,
    /// The password of a registered name.
    pub password: Option<&'a str>,
}

/// Any other line.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Summary<'a> {
    /// The first of those whom it is for.
    first: &'a str,
    /// The others. Most lines have none.
    others: Vec<&'a str>,
    /// What is said to them.
    pub text: &'a str,
}

impl<'a> Summary<'a> {
    /// Whom it is for, as it is written: at most [`RECEIVERS_MAX`], each once, in however many ways it is written.
    pub fn to(&self) -> impl Iterator<Item = &'a str> {
        std::iter::once(self.first).chain(self.others.iter().copied())
    }
}

/// Reads the first line: `name`, or `name password`. Whether a guest may take the name is not asked here: who exists keeps
/// any name.
///
/// # Errors
/// What is wrong with it, as a sentence.
pub fn opening(line: &[u8]) -> Result<Opening<'_>, &'static str> {
    let line = std::str::from_utf8(line).map_err(|_| NOT_UTF8)?.trim();
    let (name, password) = match line.split_once(char::is_whitespace) {
        Some((name, password)) => (name, Some(password.trim())),
        None => (line, None),
    };
    if name.is_empty() {
        return Err("the first line is a name, or a name and its password");
    }
    if name.contains([',', ':']) {
        return Err("a name here has no comma, colon or white space");
    }
    Ok(Opening { name, password })
}

/// Reads any other line: `dest1, dest2: text`.
///
/// # Errors
/// What is wrong with it, as a sentence.
pub fn said(line: &[u8]) -> Result<Summary<'_>, &'static str> {
    let line = std::str::from_utf8(line).map_err(|_| NOT_UTF8)?;
    let (to, text) = line.split_once(':').ok_or("a line reads `name, name: text`; this one has no colon")?;
    let mut names = to.split(',').map(str::trim).filter(|name| !name.is_empty());
    let first = names.next().ok_or("there is no name before the colon")?;
    let (form, mut seen, mut others) = (one_form(first), HashSet::new(), Vec::new());
    for name in names {
        let other = one_form(name);
        if other != form && seen.insert(other) {
            others.push(name);
        }
        if others.len() == RECEIVERS_MAX {
            return Err("a line goes to at most 100 names; nobody got this one");
        }
    }
    Ok(Summary { first, others, text: text.trim() })
}

/// The form that all ways to write a name have in common: without escapes, and composed.
fn one_form(word: &str) -> Cow<'_, str> {
    let name = read_name(word);
    composed(&name).map_or(name, Cow::Owned)
}

const NOT_UTF8: &str = "the line is not UTF-8";

/// Appends a delivered chat, with the end of its line. In the text, control characters but the tab become spaces, line ends
/// above all.
pub fn write_chat(out: &mut Vec<u8>, from: &str, group: Option<&str>, text: &str) {
    out.extend_from_slice(b"from ");
    write_sender(out, from, group);
    out.extend_from_slice(b": ");
    write_clean(out, text);
    out.push(b'\n');
}

/// Appends an error, with the end of its line.
pub fn write_error(out: &mut Vec<u8>, text: &str) {
    out.extend_from_slice(b"error: ");
    write_clean(out, text);
    out.push(b'\n');
}

/// Bytes before the text in the line of a chat to one user.
pub fn chat_prefix(from: &str) -> usize {
    let mut prefix = Vec::new();
    write_chat(&mut prefix, from, None, "");
    prefix.len() - "\n".len()
}

fn write_clean(out: &mut Vec<u8>, text: &str) {
    // ASCII control characters are one byte each, and the others begin with 0xC2.
    if !text.bytes().any(|byte| byte < 0x20 || byte == 0x7f || byte == 0xc2) {
        return out.extend_from_slice(text.as_bytes());
    }
    let clean = |c: char| if c.is_control() && c != '\t' { ' ' } else { c };
    out.extend_from_slice(text.chars().map(clean).collect::<String>().as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(input: &[u8], cuts: &[usize]) -> Vec<Vec<u8>> {
        let mut framer = LineFramer::default();
        let (mut lines, mut held) = (Vec::new(), Vec::new());
        let mut from = 0;
        for cut in cuts.iter().copied().chain([input.len()]) {
            held.extend_from_slice(&input[from..cut]);
            from = cut;
            while let LineFramed::Line { len, used } = framer.next(&held, 100) {
                lines.push(held[..len].to_vec());
                held.drain(..used);
            }
        }
        lines
    }

    #[test]
    fn the_same_bytes_in_any_split_give_the_same_lines() {
        let input = b"ann\r\nbob: hi\n\nbob: a\rb\r\nrest";
        let whole = lines(input, &[]);
        assert_eq!(whole, [&b"ann"[..], b"bob: hi", b"", b"bob: a\rb"]);
        for at in 0..=input.len() {
            assert_eq!(lines(input, &[at]), whole, "split at {at}");
        }
        assert_eq!(lines(input, &(0..input.len()).collect::<Vec<_>>()), whole);
    }

    #[test]
    fn a_line_is_as_long_as_allowed_and_no_longer() {
        assert_eq!(LineFramer::default().next(b"abc\r\n", 3), LineFramed::Line { len: 3, used: 5 });
        assert_eq!(LineFramer::default().next(b"abcd\n", 3), LineFramed::TooLong);
        assert_eq!(LineFramer::default().next(b"abcd", 3), LineFramed::TooLong);
        assert_eq!(LineFramer::default().next(b"abc\r", 3), LineFramed::More);
    }

    #[test]
    fn the_first_line_is_a_name_and_perhaps_a_password() {
        assert_eq!(opening(b" ann "), Ok(Opening { name: "ann", password: None }));
        assert_eq!(opening(b"ann se cret"), Ok(Opening { name: "ann", password: Some("se cret") }));
        for refused in [&b""[..], b"a,b", b"a:b", b"\xff"] {
            assert!(opening(refused).is_err(), "{refused:?}");
        }
    }

    #[test]
    fn later_colons_belong_to_the_text_and_spaces_around_are_dropped() {
        let said = said(b" bob , ,carol:  see: http://x  ").unwrap();
        assert_eq!(said.to().collect::<Vec<_>>(), ["bob", "carol"]);
        assert_eq!(said.text, "see: http://x");
    }

    #[test]
    fn a_line_goes_to_each_name_once_and_to_a_hundred_at_most() {
        let line = |names: usize| {
            let names: Vec<_> = (0..names).flat_map(|n| [format!("n{n}"), " n0 ".to_owned()]).collect();
            format!("{}: hi", names.join(","))
        };
        let most = line(RECEIVERS_MAX);
        let expected: Vec<_> = (0..RECEIVERS_MAX).map(|n| format!("n{n}")).collect();
        assert_eq!(said(most.as_bytes()).unwrap().to().collect::<Vec<_>>(), expected);
        let fault = said(line(RECEIVERS_MAX + 1).as_bytes()).unwrap_err();
        assert!(fault.contains(&format!("{RECEIVERS_MAX} names")), "{fault}");
    }

    #[test]
    fn a_line_goes_once_to_a_name_that_is_written_in_several_ways() {
        let said = said("ren\u{e9}, al\\u{69}ce, rene\u{301}, alice, ren\\u{e9}, al\\u{69}ce: hi".as_bytes())
            .unwrap();
        assert_eq!(said.to().collect::<Vec<_>>(), ["ren\u{e9}", "al\\u{69}ce"]);
    }

    #[test]
    fn a_line_that_names_nobody_is_an_error() {
        for refused in [&b""[..], b"hello", b": text", b" , : text", b"bob: \xff"] {
            assert!(said(refused).is_err(), "{refused:?}");
        }
    }

    #[test]
    fn no_text_becomes_a_second_line() {
        let mut out = Vec::new();
        write_chat(&mut out, "ann", Some("dev\u{85}"), "a\nerror: b\u{7f}\0c");
        assert_eq!(out, "from ann@dev\\u{85}: a error: b  c\n".as_bytes());
    }
}
