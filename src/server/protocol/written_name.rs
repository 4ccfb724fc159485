//! How the name of a sender is written where others read it, and how a written name is read again.
//!
//! Plain functions, used by workers and by `linger chat`. A line client reads `from NAME: TEXT` or
//! `from NAME@GROUP: TEXT`, a script `NAME: TEXT` or `NAME@GROUP: TEXT`. What in a name could be taken for a part of that
//! form, or could not be seen, is written as an escape such as `\u{3a}`. So two different senders never give the same
//! bytes: [`read_name`] gives back each name as it is.

use std::borrow::Cow;
use std::fmt::Write as _;

use unicode_security::confusable_detection::skeleton;

use super::name::is_mark;
use crate::escape::{chars_and_emoji, is_hidden};

/// How an empty name is written. Only a row that another program has written can have one.
const EMPTY: &str = "\\u{}";

/// The most hexadecimal digits in an escape.
const MAX_DIGITS: usize = 6;

/// The name of a sender, and of the group through which a chat came.
pub fn written_sender(name: &str, group: Option<&str>) -> String {
    let mut out = String::with_capacity(name.len());
    write_name(&mut out, name, Part::Name);
    if let Some(group) = group {
        out.push('@');
        write_name(&mut out, group, Part::Group);
    }
    out
}

/// Appends what [`written_sender`] gives.
pub fn write_sender(out: &mut Vec<u8>, name: &str, group: Option<&str>) {
    if group.is_none() && is_plain(name) {
        out.extend_from_slice(name.as_bytes());
    } else {
        out.extend_from_slice(written_sender(name, group).as_bytes());
    }
}

/// The name that somebody has written, with escapes or without. What is no escape is itself.
pub fn read_name(word: &str) -> Cow<'_, str> {
    if !word.contains('\\') {
        return Cow::Borrowed(word);
    }
    let mut name = String::with_capacity(word.len());
    let mut rest = word;
    while let Some(at) = rest.find('\\') {
        name.push_str(&rest[..at]);
        rest = &rest[at..];
        let (c, len) = escape(rest).unwrap_or((Some('\\'), 1));
        name.extend(c);
        rest = &rest[len..];
    }
    name.push_str(rest);
    Cow::Owned(name)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    Name,
    Group,
}

/// True exactly when a name is written as it is, whatever part it is. Most are so.
fn is_plain(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_graphic() && !b":@\\".contains(&byte))
}

fn write_name(out: &mut String, name: &str, part: Part) {
    if name.is_empty() {
        return out.push_str(EMPTY);
    }
    if is_plain(name) {
        return out.push_str(name);
    }
    let mut behind_space = true;
    for (at, c, in_emoji) in chars_and_emoji(name) {
        let rest = &name[at + c.len_utf8()..];
        let is_escaped = !in_emoji
            && match c {
                ' ' => behind_space || rest.is_empty(),
                // A backslash that begins no escape says nothing but itself.
                '\\' => escape(&name[at..]).is_some(),
                c => {
                    let is_first = at == 0;
                    looks_like(c, ':')
                        || looks_like(c, '@') && !(is_first && part == Part::Name)
                        || is_hidden(c)
                        || is_first && is_mark(c)
                }
            };
        if is_escaped {
            // Writing to a string cannot fail.
            let _ = write!(out, "\\u{{{:x}}}", u32::from(c));
        } else {
            out.push(c);
        }
        behind_space = c == ' ';
    }
}

/// True exactly when a character is the other one, or can be mistaken for it.
fn looks_like(c: char, other: char) -> bool {
    if c.is_ascii() || is_plain_letter(c) {
        return c == other;
    }
    skeleton(c.encode_utf8(&mut [0; 4])).any(|looks| looks == other)
}

/// Characters of East Asia, which look like nothing else here. They spare most names a look into tables.
fn is_plain_letter(c: char) -> bool {
    matches!(c, '\u{3041}'..='\u{3096}' | '\u{30a1}'..='\u{30fa}' | '\u{3400}'..='\u{4dbf}' | '\u{4e00}'..='\u{9fff}'
        | '\u{ac00}'..='\u{d7a3}')
}

/// The escape at the front of a text, and how many bytes it has.
fn escape(text: &str) -> Option<(Option<char>, usize)> {
    let (digits, _) = text.strip_prefix("\\u{")?.split_once('}')?;
    let len = "\\u{}".len() + digits.len();
    if digits.is_empty() {
        return Some((None, len));
    }
    // Reading a number alone would also take a sign.
    if digits.len() > MAX_DIGITS || !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let c = u32::from_str_radix(digits, 16).ok().and_then(char::from_u32)?;
    Some((Some(c), len))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn written(name: &str) -> String {
        written_sender(name, None)
    }

    #[test]
    fn a_name_that_cannot_be_mistaken_is_written_as_it_is() {
        for name in
            ["alice", "zhang san", "张三", "a,b", "@all", "#7.3", "\"quoted\"\\", "a\\b", "👨‍👩‍👧 ❤️", "é"]
        {
            assert_eq!(written(name), name);
        }
        assert_eq!(written_sender("zhang san", Some("two words")), "zhang san@two words");
    }

    #[test]
    fn what_could_be_mistaken_is_escaped() {
        for (name, text) in [
            ("alice: pay 1", "alice\\u{3a} pay 1"),
            ("alice： pay 1", "alice\\u{ff1a} pay 1"),
            ("alice@staff", "alice\\u{40}staff"),
            ("alice＠staff", "alice\\u{ff20}staff"),
            ("alice\\u{3a}", "alice\\u{5c}u{3a}"),
            (" alice ", "\\u{20}alice\\u{20}"),
            ("zhang  san", "zhang \\u{20}san"),
            ("a\u{200d}b", "a\\u{200d}b"),
            ("\u{3164}", "\\u{3164}"),
            ("\u{301}a", "\\u{301}a"),
            ("a\r\nb", "a\\u{d}\\u{a}b"),
            ("", "\\u{}"),
        ] {
            assert_eq!(written(name), text);
        }
        assert_eq!(written_sender("@x", Some("@y: z")), "@x@\\u{40}y\\u{3a} z");
    }

    #[test]
    fn what_is_no_escape_reads_as_itself() {
        for word in ["a\\b", "\\u{", "\\u{110000}", "\\u{+3a}", "\\u{0000041}", "\\x3a", "\\"] {
            assert_eq!(read_name(word), word);
        }
        assert_eq!(read_name("a\\u{2c}\\u{3A}b\\u{}"), "a,:b");
    }

    /// Texts with much of what could be mistaken.
    fn tricky() -> impl Strategy<Value = String> {
        let piece = prop_oneof![
            "[a@:\\\\u{}3 ]{0,4}",
            any::<char>().prop_map(String::from),
            prop::sample::select(vec![
                "\\u{3a}",
                "\\u{}",
                "👨‍👩‍👧",
                "\u{200d}",
                "❤️",
                "：",
                "\u{301}",
                ": ",
                "@"
            ])
            .prop_map(str::to_owned),
        ];
        prop::collection::vec(piece, 0..5).prop_map(|pieces| pieces.concat())
    }

    /// What a reader makes of a written sender.
    fn read(sender: &str) -> (String, Option<String>) {
        let at = sender.char_indices().skip(1).find(|(_, c)| *c == '@').map(|(at, _)| at);
        let (name, group) = at.map_or((sender, None), |at| (&sender[..at], Some(&sender[at + 1..])));
        (read_name(name).into(), group.map(|group| read_name(group).into()))
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, cases: 2_000, ..ProptestConfig::default() })]

        /// What reads back as itself is written differently for each.
        #[test]
        fn every_sender_reads_back_as_the_same(name in tricky(), group in prop::option::of(tricky()), text in tricky()) {
            let sender = written_sender(&name, group.as_deref());
            prop_assert_eq!(read(&sender), (name.clone(), group.clone()));
            prop_assert!(!sender.contains(':') && !sender.chars().any(char::is_control));
            let line = format!("{sender}: {text}");
            prop_assert_eq!(line.split_once(": "), Some((&*sender, &*text)));
            let mut out = Vec::new();
            write_sender(&mut out, &name, group.as_deref());
            prop_assert_eq!(out, sender.as_bytes());
        }
    }
}
