//! Says what is wrong with input that is no request. The sender is often a person who tries the server out in a terminal, or
//! a program that speaks another protocol.
//!
//! Plain functions, used by any thread. What they say is for people; what is accepted is not decided here.

use super::json::framing::first_of_request;

/// A request that can be typed as it stands.
const EXAMPLE: &str = r#"{"msgid":4,"name":"alice","password":"wonder"}"#;

/// The first byte of a TLS handshake.
const TLS_HANDSHAKE: u8 = 0x16;

/// How the methods of HTTP begin.
const HTTP_INITIALS: &[u8] = b"CDGHOPT";

/// Why no end of a request can be found in `input`. The first byte alone decides, for more of it may not have come yet.
pub fn without_end(input: &[u8]) -> String {
    let what = match first_of_request(input).map(|at| input[at]) {
        Some(b'{' | b'[') => {
            return "no end of the request can be found: a bracket is of the wrong kind".to_owned();
        }
        Some(TLS_HANDSHAKE) => "this is a TLS handshake; the server speaks JSON here, without TLS",
        Some(byte) if HTTP_INITIALS.contains(&byte) => "this is not JSON, and HTTP is not spoken here",
        Some(b'"' | b'-' | b'0'..=b'9') => "this is not a JSON object",
        _ => "this is not JSON",
    };
    // In the answer's JSON the quotes have backslashes, which are not to be typed.
    format!("{what}. A request is an object, typed without backslashes, such as {EXAMPLE}")
}

/// What is wrong with a text that is no JSON object.
pub(super) fn invalid(text: &str, error: &serde_json::Error) -> String {
    let line = text.lines().nth(error.line().saturating_sub(1)).unwrap_or_default();
    let rest = line.as_bytes().get(error.column().saturating_sub(1)..).unwrap_or_default();
    let advice = match rest.first() {
        Some(b'\'') => "strings stand in double quotes, not in single ones",
        // The first two bytes of the quotes that word processors put.
        Some(0xE2) if rest.starts_with(&[0xE2, 0x80]) => "strings stand in straight double quotes",
        Some(byte) if is_key(line, error.column()) && (byte.is_ascii_alphanumeric() || *byte == b'_') => {
            "keys stand in double quotes"
        }
        _ => return format!("the request is not valid JSON: {error}"),
    };
    format!("the request is not valid JSON: {error}; {advice}, and no backslashes, as in {EXAMPLE}")
}

/// True exactly when a key belongs in that column, counted from 1.
fn is_key(line: &str, column: usize) -> bool {
    let before = line.as_bytes().get(..column.saturating_sub(1)).unwrap_or_default();
    matches!(before.trim_ascii_end().last(), Some(b'{' | b','))
}

#[cfg(test)]
mod tests {
    use super::super::json::framing::Framer;
    use super::*;
    use crate::protocol::json::next_request;
    use crate::protocol::json::next_request::Taken;

    /// What the server says to `input`.
    fn said(input: &[u8]) -> String {
        match next_request::next(&mut Framer::default(), input, 1 << 16) {
            Taken::Malformed => without_end(input),
            Taken::Request { request: Err(fault), .. } => fault.text,
            taken => panic!("{taken:?}"),
        }
    }

    #[test]
    fn whoever_sends_no_request_is_told_what_it_is_and_how_one_looks() {
        for (input, hint) in [
            (&b"hello\r\n"[..], "this is not JSON."),
            (b" \n1\n", "this is not a JSON object."),
            (b"\"hello\"", "this is not a JSON object."),
            (b"GET / HTTP/1.1\r\n\r\n", "HTTP is not spoken here"),
            (b"OPTIONS * HTTP/1.1\r\n\r\n", "HTTP is not spoken here"),
            (b"\0-1", "this is not a JSON object."),
            (b"\x16\x03\x01\x02\x00", "this is a TLS handshake"),
            (b"\xff\xfb\x1f", "this is not JSON."),
            (b"{'msgid':1}", "not in single ones"),
            (br#"{"msgid":4,"name":'alice'}"#, "not in single ones"),
            (b"{msgid:1}", "keys stand in double quotes"),
            (br#"{"msgid":1, name:"alice"}"#, "keys stand in double quotes"),
            ("{“msgid”:1}".as_bytes(), "straight double quotes"),
            ("{\n\"msgid\":‘1’}".as_bytes(), "straight double quotes"),
        ] {
            let said = said(input);
            assert!(said.contains(hint) && said.ends_with(EXAMPLE), "{}: {said}", input.escape_ascii());
            assert!(said.len() < 256 && !said.contains('<'), "{said}");
        }
    }

    #[test]
    fn what_is_nearly_json_is_told_only_where_it_is_wrong() {
        for input in ["{\"msgid\":1,}", "{\"msgid\":nul}", "{\"msgid\":x}", "{,}", "{}}"] {
            let said = said(input.as_bytes());
            assert!(said.starts_with("the request is not valid JSON: ") || input == "{}}", "{said}");
            assert!(!said.ends_with(EXAMPLE), "{said}");
        }
        assert!(said(b"{]").ends_with("a bracket is of the wrong kind"));
    }
}
