//! Reads the raw fields of an object, by `serde_json`, and writes an object.
//!
//! Plain functions, used by any thread. A value is decoded only when it is asked for.

use std::borrow::Cow;
use std::fmt;

use serde::Deserializer as _;
use serde::de::{DeserializeSeed, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

/// Room that an object gets at once, in bytes: most answers need no more.
const OBJECT_BYTES: usize = 80;

/// Hands every field of one JSON object to `each`, in order: its key, decoded, and its value as raw text.
///
/// # Errors
/// When the text is not one valid JSON object; `each` has then had the fields in front of the error.
pub(in crate::protocol) fn read_object<'a>(
    text: &'a str,
    each: impl FnMut(Cow<'a, str>, &'a str),
) -> Result<(), serde_json::Error> {
    let mut deserializer = serde_json::Deserializer::from_str(text);
    deserializer.deserialize_map(Fields(each))?;
    deserializer.end()
}

/// Hands every string of one JSON array to `each`, decoded.
///
/// # Errors
/// When the text is not an array of strings.
pub(in crate::protocol) fn read_strings(text: &str, each: impl FnMut(&str)) -> Result<(), serde_json::Error> {
    serde_json::Deserializer::from_str(text).deserialize_seq(Strings(each))
}

/// What is between the quotes of a raw value that is a string, escapes as they are.
pub(in crate::protocol) fn inside_quotes(raw: &str) -> Option<&str> {
    raw.strip_prefix('"')?.strip_suffix('"')
}

/// The text of a raw value that is a string; none where it is something else or has half of a surrogate pair.
pub(in crate::protocol) fn decode_string(raw: &str) -> Option<Cow<'_, str>> {
    let inner = inside_quotes(raw)?;
    if memchr::memchr(b'\\', inner.as_bytes()).is_none() {
        return Some(Cow::Borrowed(inner));
    }
    serde_json::from_str(raw).ok().map(Cow::Owned)
}

/// The number of a raw value that is an integer of 64 bits, without fraction or exponent.
pub(in crate::protocol) fn decode_integer(raw: &str) -> Option<i64> {
    raw.parse().ok()
}

/// True exactly when a raw value has arrays or objects in each other more than `levels` deep.
pub(in crate::protocol) fn nests_deeper_than(levels: usize, raw: &str) -> bool {
    if !raw.starts_with(['{', '[']) {
        return false;
    }
    let (mut depth, mut in_string, mut escaped) = (0, false, false);
    for byte in raw.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => in_string = !in_string,
            b'{' | b'[' if !in_string => {
                depth += 1;
                if depth > levels {
                    return true;
                }
            }
            b'}' | b']' if !in_string => depth -= 1,
            _ => {}
        }
    }
    false
}

/// Appends a text as a JSON string, quotes included.
pub(in crate::protocol) fn push_string(out: &mut Vec<u8>, text: &str) {
    serde_json::to_writer(out, text).expect("a Vec takes every byte");
}

/// Appends a number.
pub(in crate::protocol) fn push_integer(out: &mut Vec<u8>, number: impl Into<i128>) {
    serde_json::to_writer(out, &number.into()).expect("a Vec takes every byte");
}

/// Writes one JSON object at the end of a buffer, field by field.
pub(in crate::protocol) struct ObjectWriter<'o> {
    out: &'o mut Vec<u8>,
    /// True exactly when the next field is the first.
    empty: bool,
}

impl<'o> ObjectWriter<'o> {
    pub(in crate::protocol) fn new(out: &'o mut Vec<u8>) -> Self {
        out.reserve(OBJECT_BYTES);
        out.push(b'{');
        Self { out, empty: true }
    }

    /// Goes on with an object that has fields and no end yet.
    pub(in crate::protocol) fn going_on(out: &'o mut Vec<u8>) -> Self {
        Self { out, empty: false }
    }

    pub(in crate::protocol) fn integer(&mut self, key: &str, value: impl Into<i128>) -> &mut Self {
        push_integer(self.begin(key), value);
        self
    }

    pub(in crate::protocol) fn text(&mut self, key: &str, value: &str) -> &mut Self {
        push_string(self.begin(key), value);
        self
    }

    /// `value` is JSON already.
    pub(in crate::protocol) fn raw(&mut self, key: &str, value: &str) -> &mut Self {
        self.begin(key).extend_from_slice(value.as_bytes());
        self
    }

    pub(in crate::protocol) fn raw_if_some(&mut self, key: &str, value: Option<&str>) -> &mut Self {
        if let Some(value) = value {
            self.raw(key, value);
        }
        self
    }

    /// `item` appends one item, without comma.
    pub(in crate::protocol) fn array<T>(
        &mut self,
        key: &str,
        items: impl IntoIterator<Item = T>,
        mut item: impl FnMut(&mut Vec<u8>, T),
    ) -> &mut Self {
        let out = self.begin(key);
        out.push(b'[');
        for (index, value) in items.into_iter().enumerate() {
            if index > 0 {
                out.push(b',');
            }
            item(out, value);
        }
        out.push(b']');
        self
    }

    pub(in crate::protocol) fn finish(&mut self) {
        self.out.push(b'}');
    }

    /// Everything in front of a value.
    fn begin(&mut self, key: &str) -> &mut Vec<u8> {
        if !self.empty {
            self.out.push(b',');
        }
        self.empty = false;
        if key.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
            self.out.push(b'"');
            self.out.extend_from_slice(key.as_bytes());
            self.out.extend_from_slice(b"\":");
        } else {
            push_string(self.out, key);
            self.out.push(b':');
        }
        self.out
    }
}

/// Visits the fields of an object.
struct Fields<F>(F);

impl<'a, F: FnMut(Cow<'a, str>, &'a str)> Visitor<'a> for Fields<F> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'a>>(mut self, mut map: A) -> Result<(), A::Error> {
        while let Some(key) = map.next_key_seed(Key)? {
            let value: &'a RawValue = map.next_value()?;
            (self.0)(key, value.get());
        }
        Ok(())
    }
}

/// Visits the strings of an array.
struct Strings<F>(F);

impl<'a, F: FnMut(&str)> Visitor<'a> for Strings<F> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of strings")
    }

    fn visit_seq<A: SeqAccess<'a>>(mut self, mut strings: A) -> Result<(), A::Error> {
        while let Some(text) = strings.next_element::<Cow<'a, str>>()? {
            (self.0)(&text);
        }
        Ok(())
    }
}

/// A key, borrowed unless it has escapes; serde's own `Cow` always copies.
struct Key;

impl<'a> DeserializeSeed<'a> for Key {
    type Value = Cow<'a, str>;

    fn deserialize<D: serde::Deserializer<'a>>(self, deserializer: D) -> Result<Cow<'a, str>, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'a> Visitor<'a> for Key {
    type Value = Cow<'a, str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_borrowed_str<E>(self, key: &'a str) -> Result<Cow<'a, str>, E> {
        Ok(Cow::Borrowed(key))
    }

    fn visit_str<E>(self, key: &str) -> Result<Cow<'a, str>, E> {
        Ok(Cow::Owned(key.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(text: &str) -> (Vec<(String, String)>, bool) {
        let mut fields = Vec::new();
        let whole = read_object(text, |key, raw| fields.push((key.into_owned(), raw.to_owned()))).is_ok();
        (fields, whole)
    }

    #[test]
    fn fields_come_raw_in_order_with_decoded_keys() {
        let (fields, whole) = fields(r#"{ "b" : [1, 2] , "\u0061":"\u0062", "b": 1e400 }"#);
        assert!(whole);
        let expected = [("b", "[1, 2]"), ("a", r#""\u0062""#), ("b", "1e400")];
        assert!(fields.iter().map(|(k, v)| (&**k, &**v)).eq(expected));
    }

    #[test]
    fn what_is_in_front_of_an_error_is_seen() {
        for text in
            [r#"{"a":1,"b":}"#, r#"{"a":1 "b":2}"#, r#"{"a":1,}"#, r#"{"a":1}{"#, "{\"a\":1,\"b\":\"\n\"}"]
        {
            let (fields, whole) = fields(text);
            assert!(!whole, "{text}");
            assert_eq!(fields, [("a".to_owned(), "1".to_owned())], "{text}");
        }
    }

    #[test]
    fn strings_are_borrowed_unless_they_have_escapes() {
        assert!(matches!(decode_string(r#""plain""#), Some(Cow::Borrowed("plain"))));
        assert_eq!(decode_string(r#""\ud83d\ude00\n""#).as_deref(), Some("😀\n"));
        for other in [r#""\ud83d""#, "1", "null", "[]", "{}", r#"[""]"#] {
            assert_eq!(decode_string(other), None, "{other}");
        }
    }

    #[test]
    fn integers_are_judged_by_their_text() {
        assert_eq!(decode_integer("-9223372036854775808"), Some(i64::MIN));
        assert_eq!(decode_integer("9223372036854775807"), Some(i64::MAX));
        for other in ["9223372036854775808", "1.0", "1e3", "\"1\"", "null", "true"] {
            assert_eq!(decode_integer(other), None, "{other}");
        }
    }

    #[test]
    fn depth_is_counted_outside_strings() {
        assert!(!nests_deeper_than(2, r#"[["[[[\"[[["],{"[":"\\"}]"#));
        assert!(nests_deeper_than(2, r#"[[],[{"a":[]}]]"#));
        assert!(!nests_deeper_than(0, r#""[[[""#));
    }
}
