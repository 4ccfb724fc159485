//! Makes the object that is delivered and kept from the object that the sender sent.
//!
//! Plain values, used by any thread. Nothing here decides who receives a chat, or whether.

use std::borrow::Cow;

use super::json::object::{
    ObjectWriter, decode_integer, decode_string, inside_quotes, push_integer, push_string, read_object,
};
use super::keys::is_forbidden;
use super::msgid::Msgid;
use crate::ids::{GroupId, Mid, UserId};

/// Room for what a delivered chat has beyond what was sent, in bytes: a true name, a time, a terminator.
const ADDED_BYTES: usize = 64;

/// The object of a chat request, borrowed from its frame. Only [`super::request::parse`] makes one.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ChatObject<'a> {
    /// A valid JSON object without repeated keys, from its first bracket to its last.
    pub(super) frame: &'a str,
    /// The raw value of `msg`.
    pub(super) raw_text: &'a str,
    /// The decoded value of `msg`.
    pub(super) text: Cow<'a, str>,
    /// The value of `id`.
    pub(super) claimed: Option<UserId>,
    /// The raw value of `id`.
    pub(super) raw_id: Option<&'a str>,
    /// The raw value of `name`.
    pub(super) raw_name: Option<&'a str>,
    /// True exactly when there is a `time`.
    pub(super) has_time: bool,
    /// True exactly when it has no line ends.
    pub(super) one_line: bool,
    /// True exactly when some field must not be delivered.
    pub(super) has_forbidden: bool,
}

impl ChatObject<'_> {
    /// The text of `msg`, decoded.
    pub fn text(&self) -> Cow<'_, str> {
        Cow::Borrowed(&self.text)
    }

    /// The raw JSON text of `msg`, quotes included.
    pub fn raw_text(&self) -> &str {
        self.raw_text
    }

    /// Appends the object as delivered: the sender's true id and name, a `time` if it has none, and without the
    /// fields that are the server's own; every other field passes through. It is one line, without terminator.
    ///
    /// `name` is the sender's. `now` gives `YYYY-MM-DD HH:MM:SS` and is called only where the time is missing.
    pub fn deliver(&self, from: UserId, name: &str, now: impl FnOnce() -> String, out: &mut Vec<u8>) {
        let begin = out.len();
        out.reserve(self.frame.len() + ADDED_BYTES);
        if self.has_forbidden {
            self.rebuild(from, name, now, out);
        } else {
            self.mend(from, name, now, out);
        }
        if !self.one_line {
            join_lines(out, begin);
        }
    }

    /// Copies the object and mends what is wrong or missing: most need nothing.
    fn mend(&self, from: UserId, name: &str, now: impl FnOnce() -> String, out: &mut Vec<u8>) {
        let frame = self.frame.as_bytes();
        let wrong_id = self.raw_id.filter(|_| self.claimed != Some(from));
        let wrong_name = self.raw_name.filter(|raw| !is_plainly(raw, name));
        let mut wrong = [wrong_id.map(|raw| (raw, Wrong::Id)), wrong_name.map(|raw| (raw, Wrong::Name))];
        wrong.sort_by_key(|wrong| wrong.map(|(raw, _)| place_in(self.frame, raw)));
        let mut copied = 0;
        for (raw, what) in wrong.into_iter().flatten() {
            let place = place_in(self.frame, raw);
            out.extend_from_slice(&frame[copied..place]);
            match what {
                Wrong::Id => push_integer(out, from.0),
                Wrong::Name => push_string(out, name),
            }
            copied = place + raw.len();
        }
        if self.raw_id.is_some() && self.raw_name.is_some() && self.has_time {
            out.extend_from_slice(&frame[copied..]);
            return;
        }
        out.extend_from_slice(&frame[copied..frame.len() - 1]);
        // There is a `msg`, so it is not empty.
        let mut object = ObjectWriter::going_on(out);
        self.add_missing(&mut object, from, name, now);
    }

    /// Writes what the sender left out, and the end.
    fn add_missing(
        &self,
        object: &mut ObjectWriter<'_>,
        from: UserId,
        name: &str,
        now: impl FnOnce() -> String,
    ) {
        if self.raw_id.is_none() {
            object.integer("id", from.0);
        }
        if self.raw_name.is_none() {
            object.text("name", name);
        }
        if !self.has_time {
            object.text("time", &now());
        }
        object.finish();
    }

    /// Writes the object anew, without the fields that are the server's own.
    fn rebuild(&self, from: UserId, name: &str, now: impl FnOnce() -> String, out: &mut Vec<u8>) {
        let mut object = ObjectWriter::new(out);
        read_object(self.frame, |key, raw| match &*key {
            "id" => drop(object.integer("id", from.0)),
            "name" => drop(object.text("name", name)),
            key if is_forbidden(key) => {}
            key => drop(object.raw(key, raw)),
        })
        .expect("the same text was read before");
        self.add_missing(&mut object, from, name, now);
    }
}

/// Which field of a sender's object has a wrong value.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Wrong {
    Id,
    Name,
}

/// Where a part of a text begins in it, in bytes.
fn place_in(text: &str, part: &str) -> usize {
    part.as_ptr() as usize - text.as_ptr() as usize
}

/// True exactly when a JSON string is that text without any escape.
fn is_plainly(raw: &str, text: &str) -> bool {
    inside_quotes(raw) == Some(text) && memchr::memchr(b'\\', text.as_bytes()).is_none()
}

/// Where a chat goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum To {
    /// To one user, msgid 6.
    User(UserId),
    /// To the other members of a group, msgid 10.
    Group(GroupId),
}

/// Makes the object of a chat from its parts, for senders that do not speak JSON. `time` is
/// `YYYY-MM-DD HH:MM:SS`.
pub fn chat_object(from: UserId, name: &str, to: To, text: &str, time: &str) -> Vec<u8> {
    let mut out = Vec::new();
    let (msgid, key, id) = match to {
        To::User(id) => (Msgid::Chat, "toid", id.0),
        To::Group(id) => (Msgid::GroupChat, "groupid", id.0),
    };
    ObjectWriter::new(&mut out)
        .integer("msgid", msgid.number())
        .integer("id", from.0)
        .text("name", name)
        .integer(key, id)
        .text("msg", text)
        .text("time", time)
        .finish();
    out
}

/// What a receiver that does not speak JSON is shown of a delivered chat.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Delivered<'a> {
    /// The sender's number.
    pub id: UserId,
    /// The sender's name.
    pub name: Cow<'a, str>,
    /// The text, which may hold control characters and line ends.
    pub msg: Cow<'a, str>,
    /// The group, if it came through one.
    pub groupid: Option<GroupId>,
}

/// Reads a delivered or kept object; `None` where it is not a chat, as a database that others write to may hold.
pub fn read_delivered(body: &[u8]) -> Option<Delivered<'_>> {
    let text = std::str::from_utf8(body).ok()?;
    let (mut msgid, mut id, mut name, mut msg, mut groupid) = (None, None, None, None, None);
    read_object(text, |key, raw| match &*key {
        "msgid" => msgid = decode_integer(raw),
        "id" => id = decode_integer(raw),
        "name" => name = decode_string(raw),
        "msg" => msg = decode_string(raw),
        "groupid" => groupid = decode_integer(raw),
        _ => {}
    })
    .ok()?;
    let groupid = match Msgid::from_number(msgid?)? {
        // A sender may have put anything under `groupid` here.
        Msgid::Chat => None,
        Msgid::GroupChat => Some(GroupId(groupid?)),
        _ => return None,
    };
    Some(Delivered { id: UserId(id?), name: name?, msg: msg?, groupid })
}

/// Puts a message's number into the object that begins at `begin`, for a receiver that confirms. What is not an
/// object, as a database that others write to may hold, stays as it is.
pub fn number(out: &mut Vec<u8>, begin: usize, mid: Mid, again: bool) {
    let object = out[begin..].trim_ascii_end();
    let Some((b'}', rest)) = object.split_last() else { return };
    let first = rest.trim_ascii_end().last() == Some(&b'{');
    let end = begin + rest.len();
    out.truncate(end);
    if !first {
        out.push(b',');
    }
    out.extend_from_slice(b"\"mid\":");
    out.extend_from_slice(mid.0.to_string().as_bytes());
    if again {
        out.extend_from_slice(b",\"again\":true");
    }
    out.push(b'}');
}

/// Takes the line ends out of everything from `begin` on. In valid JSON they are only white space between tokens
/// and never the only thing between two, but a receiver that reads by lines would see several.
fn join_lines(out: &mut Vec<u8>, begin: usize) {
    let joined: Vec<u8> = out.drain(begin..).filter(|byte| !matches!(byte, b'\n' | b'\r')).collect();
    out.extend_from_slice(&joined);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_passed_through_only_where_its_json_is_the_name_itself() {
        assert!(is_plainly("\"zhang san\"", "zhang san"));
        assert!(!is_plainly("\"ann\"", "bob"));
        assert!(!is_plainly("\"\\u0061nn\"", "ann"), "the name in other words");
        assert!(!is_plainly("\"a\\b\"", "a\\b"), "a control character under a name with a backslash");
        assert!(!is_plainly("\"", ""));
        assert!(!is_plainly("7", "7"));
    }

    fn delivered(frame: &str) -> String {
        let request = crate::protocol::request::parse(frame.as_bytes()).expect("a chat");
        let crate::protocol::request::Body::Chat { chat, .. } = request.body else { panic!("no chat") };
        let mut out = Vec::new();
        chat.deliver(UserId(7), "ann", || "now".to_owned(), &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn what_is_wrong_is_mended_in_its_place_and_what_is_missing_comes_last() {
        let mended = r#"{"name":"ann", "msgid":6,"toid":2,"id":7,"msg":"x","time":"t"}"#;
        for (name, id) in [("bob", 70), ("bob", 7), ("ann", 70), ("ann", 7)] {
            let sent = format!(r#"{{"name":"{name}", "msgid":6,"toid":2,"id":{id},"msg":"x","time":"t"}}"#);
            assert_eq!(delivered(&sent), mended);
        }
        assert_eq!(
            delivered(r#"{"id":70,"msgid":6,"toid":2,"name":"bob","msg":"x" }"#),
            r#"{"id":7,"msgid":6,"toid":2,"name":"ann","msg":"x" ,"time":"now"}"#
        );
        assert_eq!(
            delivered(r#"{"msgid":6,"toid":2,"msg":"x"}"#),
            r#"{"msgid":6,"toid":2,"msg":"x","id":7,"name":"ann","time":"now"}"#
        );
    }

    fn numbered(body: &str, again: bool) -> String {
        let mut out = b"before".to_vec();
        out.extend_from_slice(body.as_bytes());
        number(&mut out, b"before".len(), Mid(7), again);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_number_goes_behind_the_last_field_of_its_object() {
        assert_eq!(numbered(r#"{"msg":"}"}"#, false), r#"before{"msg":"}","mid":7}"#);
        assert_eq!(numbered(r#"{"a":1 } "#, true), r#"before{"a":1 ,"mid":7,"again":true}"#);
        assert_eq!(numbered("{ }", false), r#"before{ "mid":7}"#);
        assert_eq!(numbered("nonsense", false), "beforenonsense");
    }
}
