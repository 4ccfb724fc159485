//! Lines are found as splitting at LF finds them, and what is written is one line.

use super::splits;
use crate::protocol::line::{LineFramed, LineFramer, opening, said, write_chat, write_error};

pub(super) fn holds(input: &[u8]) {
    for limit in [1, 20, 8192] {
        let expected = plainly(input, limit);
        for pieces in splits(input) {
            assert_eq!(framed(&pieces, limit), expected, "limit {limit}, pieces {pieces:?}");
        }
        for line in expected.0 {
            is_understood(&line);
        }
    }
    if let Ok(text) = std::str::from_utf8(input) {
        let (name, said) = text.split_once(':').unwrap_or(("ann", text));
        let mut written = Vec::new();
        write_chat(&mut written, name, None, said);
        is_one_line(&written, "from : \n".len() + longest(name) + said.len());
        let mut written = Vec::new();
        write_chat(&mut written, "ann", Some(name), said);
        is_one_line(&written, "from ann@: \n".len() + longest(name) + said.len());
        let mut written = Vec::new();
        write_error(&mut written, text);
        is_one_line(&written, "error: \n".len() + text.len());
    }
}

/// The lines, and whether the next one is too long.
fn framed(pieces: &[&[u8]], limit: usize) -> (Vec<Vec<u8>>, bool) {
    let (mut framer, mut held, mut found) = (LineFramer::default(), Vec::new(), Vec::new());
    for piece in pieces {
        held.extend_from_slice(piece);
        loop {
            match framer.next(&held, limit) {
                LineFramed::More => break,
                LineFramed::Line { len, used } => {
                    found.push(held[..len].to_vec());
                    held.drain(..used);
                }
                LineFramed::TooLong => return (found, true),
            }
        }
        assert!(held.len() <= limit + "\r".len(), "what is kept is a line at most");
    }
    (found, false)
}

fn plainly(input: &[u8], limit: usize) -> (Vec<Vec<u8>>, bool) {
    let mut lines: Vec<&[u8]> = input.split(|byte| *byte == b'\n').collect();
    let stripped = lines.iter_mut().map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    let mut found: Vec<Vec<u8>> = stripped.map(<[u8]>::to_vec).collect();
    if let Some(long) = found.iter().position(|line| line.len() > limit) {
        found.truncate(long);
        (found, true)
    } else {
        // What is behind the last LF is no line yet.
        found.pop();
        (found, false)
    }
}

fn is_understood(line: &[u8]) {
    if let Ok(opening) = opening(line) {
        assert!(!opening.name.is_empty());
        assert!(!opening.name.contains(|c: char| c == ',' || c == ':' || c.is_whitespace()));
        assert!(opening.name.len() + opening.password.map_or(0, str::len) <= line.len());
    }
    if let Ok(said) = said(line) {
        assert!(said.to().all(|name| !name.is_empty() && name == name.trim() && !name.contains([',', ':'])));
        assert!(said.to().count() > 0);
        assert_eq!(said.text, said.text.trim());
        assert!(said.to().map(str::len).sum::<usize>() + said.text.len() < line.len());
    }
}

/// Bytes of a written name, at most: one that is escaped becomes six.
fn longest(name: &str) -> usize {
    if name.is_empty() { "\\u{}".len() } else { "\\u{3a}".len() * name.len() }
}

fn is_one_line(written: &[u8], longest: usize) {
    let text = std::str::from_utf8(written).unwrap();
    let line = text.strip_suffix('\n').expect("a line has an end");
    assert!(line.chars().all(|c| c == '\t' || !c.is_control()), "{line:?}");
    assert!(text.len() <= longest);
}
