//! The messages of a JSON client: writes requests, reads answers. Plain data, without sockets or clock.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::json;

/// The password of every user that stress makes. It protects nothing: the users exist to be thrown out.
const PASSWORD: &str = "linger stress";

/// The largest answer that is waited for, in bytes. A server that sends more without an end is not understood.
const MAX_ANSWER_BYTES: usize = 16 << 20;

/// The errnos of the protocol that scenarios know.
pub(super) mod errno {
    /// Wrong id, name or password; no such user.
    pub(crate) const WRONG: i64 = 1;
    /// Already online.
    pub(crate) const ONLINE: i64 = 2;
    /// The receiver's box is full.
    pub(crate) const FULL: i64 = 20;
    /// Too busy, try again.
    pub(crate) const BUSY: i64 = 18;
}

/// One object from the server, as far as scenarios need it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum ServerMessage {
    /// The login succeeded. `kept` are the chats that lay in the box.
    LoggedIn { id: i64, kept: Vec<ReceivedChat> },
    /// The login was refused.
    LoginRefused { errno: i64, text: String },
    /// The registration succeeded.
    Registered,
    /// The registration was refused.
    RegisterRefused { errno: i64, text: String },
    /// A chat from a user.
    Chat(ReceivedChat),
    /// A request with `seq` succeeded.
    Done { seq: u64 },
    /// An error that answers something else, or that came unasked.
    Error { errno: i64, text: String, seq: Option<u64> },
    /// The server ends the channel.
    Goodbye { reason: String, text: String },
    /// Anything that no scenario asks for.
    Other,
    /// Bytes that are no answer of the protocol.
    Garbage,
}

/// A received chat.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct ReceivedChat {
    pub(super) msg: String,
    /// Its number, where the client has asked for numbers.
    pub(super) mid: Option<i64>,
    /// True exactly when the server says that it was sent before.
    pub(super) again: bool,
}

/// The request to log in.
pub(super) fn login(name: &str) -> String {
    json!({"msgid": 1, "name": name, "password": PASSWORD}).to_string()
}

/// The request to log in as a client that confirms what it gets.
pub(super) fn login_confirming(name: &str) -> String {
    json!({"msgid": 1, "name": name, "password": PASSWORD, "caps": ["ack"]}).to_string()
}

/// The confirmation of all chats up to that number.
pub(super) fn confirmation(mid: i64) -> String {
    format!(r#"{{"msgid":24,"mid":{mid}}}"#)
}

/// The request to register.
pub(super) fn register(name: &str) -> String {
    json!({"msgid": 4, "name": name, "password": PASSWORD}).to_string()
}

/// A chat to one user. `msg` holds no character that JSON escapes.
pub(super) fn chat(to: i64, msg: &str) -> String {
    format!(r#"{{"msgid":6,"toid":{to},"msg":"{msg}"}}"#)
}

/// The same with a number that asks for an answer, and makes a repetition the same chat.
pub(super) fn chat_with_seq(to: i64, msg: &str, seq: u64) -> String {
    format!(r#"{{"msgid":6,"toid":{to},"msg":"{msg}","seq":{seq}}}"#)
}

/// The request to create a group, answered.
pub(super) fn create_group(name: &str, seq: u64) -> String {
    json!({"msgid": 8, "groupname": name, "groupdesc": "", "seq": seq}).to_string()
}

/// The request to join a group, answered.
pub(super) fn join_group(group: i64, seq: u64) -> String {
    json!({"msgid": 9, "groupid": group, "seq": seq}).to_string()
}

/// A chat to a group, answered. `msg` holds no character that JSON escapes.
pub(super) fn group_chat(group: i64, msg: &str, seq: u64) -> String {
    format!(r#"{{"msgid":10,"groupid":{group},"msg":"{msg}","seq":{seq}}}"#)
}

/// Cuts what arrives into objects.
#[derive(Default, Debug)]
pub(super) struct Splitter {
    /// The beginning of an object whose end has not come.
    partial: Vec<u8>,
    depth: usize,
    in_string: bool,
    escaped: bool,
}

impl Splitter {
    /// Takes the next bytes and hands out what they complete.
    pub(super) fn take(&mut self, bytes: &[u8], mut handle: impl FnMut(ServerMessage)) {
        let mut start = 0;
        for (at, &byte) in bytes.iter().enumerate() {
            if self.in_string {
                match byte {
                    _ if self.escaped => self.escaped = false,
                    b'\\' => self.escaped = true,
                    b'"' => self.in_string = false,
                    _ => {}
                }
                continue;
            }
            match byte {
                b'{' | b'[' => {
                    if self.depth == 0 {
                        start = at;
                    }
                    self.depth += 1;
                }
                b'}' | b']' if self.depth > 0 => {
                    self.depth -= 1;
                    if self.depth == 0 {
                        if self.partial.is_empty() {
                            handle(parse(&bytes[start..=at]));
                        } else {
                            self.partial.extend_from_slice(&bytes[start..=at]);
                            handle(parse(&self.partial));
                            // A new one: thousands of idle clients keep no buffers.
                            self.partial = Vec::new();
                        }
                        start = at + 1;
                    }
                }
                b'"' if self.depth > 0 => self.in_string = true,
                0 | b'\n' | b'\r' | b' ' | b'\t' => {}
                _ if self.depth > 0 => {}
                _ => handle(ServerMessage::Garbage),
            }
        }
        if self.depth > 0 {
            self.partial.extend_from_slice(&bytes[start..]);
            if self.partial.len() > MAX_ANSWER_BYTES {
                *self = Self::default();
                handle(ServerMessage::Garbage);
            }
        }
    }
}

#[derive(Deserialize)]
struct Answer<'a> {
    msgid: i64,
    #[serde(default)]
    errno: i64,
    id: Option<i64>,
    #[serde(borrow)]
    errmsg: Option<Cow<'a, str>>,
    #[serde(borrow)]
    reason: Option<Cow<'a, str>>,
    #[serde(borrow)]
    msg: Option<Cow<'a, str>>,
    mid: Option<i64>,
    #[serde(default)]
    again: bool,
    seq: Option<u64>,
    #[serde(default)]
    offlinemsg: Vec<String>,
}

fn parse(object: &[u8]) -> ServerMessage {
    let Ok(answer) = serde_json::from_slice::<Answer<'_>>(object) else { return ServerMessage::Garbage };
    let text = answer.errmsg.unwrap_or_default().into_owned();
    match (answer.msgid, answer.errno) {
        (2, 0) => logged_in(answer.id, &answer.offlinemsg).unwrap_or(ServerMessage::Garbage),
        (2, errno) => ServerMessage::LoginRefused { errno, text },
        (5, 0) => ServerMessage::Registered,
        (5, errno) => ServerMessage::RegisterRefused { errno, text },
        (6, _) => answer.msg.map_or(ServerMessage::Garbage, |msg| {
            ServerMessage::Chat(ReceivedChat { msg: msg.into_owned(), mid: answer.mid, again: answer.again })
        }),
        (20, _) => answer.reason.map_or(ServerMessage::Garbage, |reason| ServerMessage::Goodbye {
            reason: reason.into_owned(),
            text,
        }),
        (0, 0) => answer.seq.map_or(ServerMessage::Other, |seq| ServerMessage::Done { seq }),
        (0, errno) => ServerMessage::Error { errno, text, seq: answer.seq },
        _ => ServerMessage::Other,
    }
}

/// None where what lay in the box cannot be read.
fn logged_in(id: Option<i64>, offline: &[String]) -> Option<ServerMessage> {
    let mut kept = Vec::new();
    for object in offline {
        match parse(object.as_bytes()) {
            ServerMessage::Chat(letter) => kept.push(letter),
            ServerMessage::Garbage => return None,
            // A chat to a group: nobody here is in one.
            _ => {}
        }
    }
    Some(ServerMessage::LoggedIn { id: id?, kept })
}

#[cfg(test)]
mod tests {
    use super::*;

    const STREAM: &[u8] = b"{\"msgid\":2,\"errno\":0,\"id\":13,\"name\":\"a\"}\0\n\
        {\"msgid\":6,\"id\":1,\"msg\":\"a } \\\" ] b \\\\\"}{\"msgid\":20,\"reason\":\"kicked\",\"errmsg\":\"spam\"}\r\n\
        {\"msgid\":0,\"errno\":12,\"errmsg\":\"no\",\"re\":6}{\"msgid\":0,\"errno\":0,\"seq\":7,\"re\":6}";

    fn whole() -> Vec<ServerMessage> {
        vec![
            ServerMessage::LoggedIn { id: 13, kept: Vec::new() },
            ServerMessage::Chat(ReceivedChat { msg: "a } \" ] b \\".into(), ..ReceivedChat::default() }),
            ServerMessage::Goodbye { reason: "kicked".into(), text: "spam".into() },
            ServerMessage::Error { errno: 12, text: "no".into(), seq: None },
            ServerMessage::Done { seq: 7 },
        ]
    }

    #[test]
    fn objects_are_found_wherever_the_stream_is_cut() {
        for cut in 0..=STREAM.len() {
            let (mut splitter, mut messages) = (Splitter::default(), Vec::new());
            splitter.take(&STREAM[..cut], |one| messages.push(one));
            splitter.take(&STREAM[cut..], |one| messages.push(one));
            assert_eq!(messages, whole(), "cut at {cut}");
        }
    }

    #[test]
    fn objects_are_found_byte_by_byte() {
        let (mut splitter, mut messages) = (Splitter::default(), Vec::new());
        for byte in STREAM {
            splitter.take(&[*byte], |one| messages.push(one));
        }
        assert_eq!(messages, whole());
    }

    #[test]
    fn what_is_no_answer_is_garbage_and_not_fatal() {
        let (mut splitter, mut messages) = (Splitter::default(), Vec::new());
        splitter.take(b"?{}{\"msgid\":2,\"errno\":0}{\"msgid\":5,\"errno\":0}", |one| messages.push(one));
        assert_eq!(
            messages,
            [
                ServerMessage::Garbage,
                ServerMessage::Garbage,
                ServerMessage::Garbage,
                ServerMessage::Registered
            ]
        );
    }

    #[test]
    fn what_lay_in_the_box_and_answers_with_seq_are_understood() {
        let kept = r#"{"msgid":2,"errno":0,"id":3,"offlinemsg":["{\"msgid\":6,\"msg\":\"a\",\"mid\":7,\"again\":true}"]}"#;
        let letter = ReceivedChat { msg: "a".into(), mid: Some(7), again: true };
        assert_eq!(parse(kept.as_bytes()), ServerMessage::LoggedIn { id: 3, kept: vec![letter] });
        assert_eq!(parse(br#"{"msgid":2,"errno":0,"id":3,"offlinemsg":["?"]}"#), ServerMessage::Garbage);
        assert_eq!(parse(br#"{"msgid":0,"errno":0,"seq":9,"re":6}"#), ServerMessage::Done { seq: 9 });
        let refused = parse(br#"{"msgid":0,"errno":20,"errmsg":"full","seq":9,"re":6}"#);
        assert_eq!(refused, ServerMessage::Error { errno: 20, text: "full".into(), seq: Some(9) });
    }

    #[test]
    fn a_chat_is_valid_json_with_what_it_was_given() {
        let value: serde_json::Value = serde_json::from_str(&chat(7, "1 2 xx")).unwrap();
        assert_eq!(value, json!({"msgid": 6, "toid": 7, "msg": "1 2 xx"}));
        let value: serde_json::Value = serde_json::from_str(&chat_with_seq(7, "1 2 xx", 5)).unwrap();
        assert_eq!(value, json!({"msgid": 6, "toid": 7, "msg": "1 2 xx", "seq": 5}));
    }
}
