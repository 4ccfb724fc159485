//! Reads an object that is one line of nothing but plain strings and integers: its fields and its end, in one pass.
//!
//! Plain functions, used by any thread. Most requests are such objects. Whatever else JSON has (escapes, line ends, other
//! values), and whatever is no JSON, is left to [`framing`](crate::protocol::json::framing) and [`super::object`]: nothing is refused here, only
//! given up. What is read here, those two read in the same way.

use super::string_scan::not_plain;

/// Fields of an object that is read here. A chat of an old client has six.
const FIELDS_MAX: usize = 12;

/// A part of the input, from its first byte to behind its last.
#[derive(Clone, Copy)]
struct Span {
    start: u32,
    end: u32,
}

/// Reads the object at the very front of `input`, if `known` knows all its keys, and answers its text. `each` is handed
/// every field in order, its key and its value as raw text, once all of them are read. None where a key is not known, or
/// the object is not whole or not of the kind that is read here.
pub(in crate::protocol) fn read<'a, K: Copy>(
    input: &'a [u8],
    known: impl Fn(&[u8]) -> Option<K>,
    mut each: impl FnMut(K, &'a str),
) -> Option<&'a str> {
    let mut way = Cursor { rest: input.strip_prefix(b"{")? };
    let mut fields = [None; FIELDS_MAX];
    for field in &mut fields {
        let key = known(way.word()?)?;
        way.expect(b':')?;
        let value = way.value()?.len();
        let end = input.len() - way.rest.len();
        *field = Some((key, Span { start: (end - value) as u32, end: end as u32 }));
        if way.expect(b',').is_none() {
            way.expect(b'}')?;
            let text = str::from_utf8(&input[..input.len() - way.rest.len()]).ok()?;
            for (key, place) in fields.iter().map_while(|field| *field) {
                each(key, &text[place.start as usize..place.end as usize]);
            }
            return Some(text);
        }
    }
    None
}

/// Where in the input the reader is. A method that does not find what it looks for answers none, which ends the reading.
struct Cursor<'a> {
    rest: &'a [u8],
}

impl<'a> Cursor<'a> {
    /// Passes a byte that may have blanks in front.
    fn expect(&mut self, byte: u8) -> Option<()> {
        if self.rest.first() != Some(&byte) {
            self.skip_blanks();
        }
        self.rest = self.rest.strip_prefix(&[byte])?;
        Some(())
    }

    fn skip_blanks(&mut self) {
        while let [b' ' | b'\t', rest @ ..] = self.rest {
            self.rest = rest;
        }
    }

    /// Passes a quoted word; answers what is between its quotes, whatever it is.
    fn word(&mut self) -> Option<&'a [u8]> {
        self.expect(b'"')?;
        let (word, rest) = self.rest.split_at_checked(self.rest.iter().position(|&byte| byte == b'"')?)?;
        self.rest = rest.strip_prefix(b"\"")?;
        Some(word)
    }

    /// Passes a string without escapes or an integer; answers its raw text.
    fn value(&mut self) -> Option<&'a [u8]> {
        self.skip_blanks();
        let from = self.rest;
        self.rest = match from {
            [b'"', inside @ ..] => inside.get(not_plain(inside)?..)?.strip_prefix(b"\"")?,
            number => behind_integer(number)?,
        };
        from.get(..from.len() - self.rest.len())
    }
}

/// What is behind an integer of any size. What makes another number of it (a fraction, an exponent) is no end of a field,
/// and found there.
fn behind_integer(text: &[u8]) -> Option<&[u8]> {
    let unsigned = text.strip_prefix(b"-").unwrap_or(text);
    let count = unsigned.iter().position(|byte| !byte.is_ascii_digit())?;
    let (digits, rest) = unsigned.split_at_checked(count)?;
    matches!(digits, [b'0'] | [b'1'..=b'9', ..]).then_some(rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHAT: &str =
        r#"{"id":13,"name":"zhang san","toid":-17, "msg" :	"hello, 你好" ,"time":"","msgid":6}"#;

    /// A key of one letter, if it is one.
    fn letter(key: &[u8]) -> Option<u8> {
        key.first().copied().filter(|first| key.len() == 1 && first.is_ascii_lowercase())
    }

    fn is_read(object: &str) -> bool {
        read(object.as_bytes(), letter, |_, _| {}) == Some(object)
    }

    #[test]
    fn a_chat_is_read_up_to_its_end_and_no_further() {
        let input = format!("{CHAT}\0{CHAT}");
        let any = |key: &[u8]| Some(key.len());
        let mut read_fields = Vec::new();
        assert_eq!(read(input.as_bytes(), any, |key, raw| read_fields.push((key, raw))), Some(CHAT));
        let fields =
            [(2, "13"), (4, "\"zhang san\""), (4, "-17"), (3, "\"hello, 你好\""), (4, "\"\""), (5, "6")];
        assert_eq!(read_fields, fields);
        for end in 0..CHAT.len() {
            assert!(read(&CHAT.as_bytes()[..end], any, |_, _| {}).is_none(), "{end} bytes are not whole");
        }
    }

    #[test]
    fn what_is_not_flat_is_given_up() {
        for value in ["0", "-0", "10", "-123456789012345678901234567890", "\"\"", "\"}'{[\u{7f}é\""] {
            assert!(is_read(&format!("{{\"a\":{value},\"b\":{value}}}")), "{value}");
        }
        for value in [
            "",
            "-",
            "+1",
            "01",
            "-01",
            "00",
            "1.0",
            "1e3",
            "1E3",
            "0x1",
            "true",
            "null",
            "[]",
            "{}",
            "[1]",
            "'a'",
            "\"\\n\"",
            "\"\\\"\"",
            "\"\n\"",
            "\"\0\"",
            "\"\u{1f}\"",
            "\"a",
            "a\"",
            "\"a\"\"b\"",
            "1 2",
            "1\n",
            "\n1",
        ] {
            assert!(!is_read(&format!("{{\"a\":{value},\"b\":1}}")), "{value}");
            assert!(!is_read(&format!("{{\"b\":1,\"a\":{value}}}")), "{value}");
        }
        for object in [
            "{}",
            "{\"a\"}",
            "{\"a\":}",
            "{a:1}",
            "{\"a\":1,}",
            "{,\"a\":1}",
            "{\"a\":1 \"b\":2}",
            "{\"a\":1;\"b\":2}",
            "{\"a\":1]",
            "[\"a\":1}",
            "{\"A\":1}",
            "{\"\\u0061\":1}",
            " {\"a\":1}",
        ] {
            assert!(!is_read(object), "{object}");
        }
    }

    #[test]
    fn what_is_not_utf_8_is_given_up() {
        assert!(read(b"{\"a\":\"\xc3\xa4\"}", letter, |_, _| {}).is_some());
        assert!(read(b"{\"a\":\"\xc3\"}", letter, |_, _| {}).is_none());
    }

    #[test]
    fn an_object_of_more_fields_than_there_is_room_for_is_given_up() {
        let object = |count: usize| format!("{{{}}}", vec!["\"a\":1"; count].join(","));
        assert!(is_read(&object(FIELDS_MAX)));
        assert!(!is_read(&object(FIELDS_MAX + 1)));
    }
}
