//! The messages between client and server: writes requests, reads answers and chats.
//!
//! Plain values and functions, without sockets or clock. Senders may put any fields into a chat, so a field is read only
//! where it is needed, and a malformed one affects nothing else.

use std::collections::HashMap;

use serde::de::DeserializeOwned;
use serde_json::json;
use serde_json::value::RawValue;

/// What this client asks for at login; a server ignores what it does not know.
const CAPS: [&str; 4] = ["ack", "presence", "ping", "resume"];

/// One object from the server.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Incoming {
    /// The login succeeded.
    LoggedIn(LoggedIn),
    /// The login was refused.
    LoginRefused(Refusal),
    /// The registration succeeded.
    Registered,
    /// The registration was refused.
    RegisterRefused(Refusal),
    /// A chat.
    Chat(Chat),
    /// A friend came or went.
    Presence(Presence),
    /// The server's ping.
    Ping,
    /// The answer to this client's ping.
    Pong,
    /// The server ends the connection.
    Goodbye(Goodbye),
    /// The answer to a request with `seq`, or an error that names none.
    Answer(Answer),
    /// An object that this client does not know or cannot read.
    Other,
}

/// Why something was refused.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Refusal {
    pub(super) errno: i64,
    pub(super) text: String,
}

/// A granted login.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct LoggedIn {
    pub(super) id: i64,
    pub(super) name: String,
    pub(super) offline: Vec<Chat>,
    pub(super) friends: Vec<Member>,
    pub(super) groups: Vec<Group>,
    /// Logs in once more without the password, where the server issues tokens.
    pub(super) token: Option<String>,
}

/// A friend, or a member of a group.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Member {
    pub(super) id: i64,
    pub(super) name: String,
    pub(super) online: bool,
}

/// A group that the user is in.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Group {
    pub(super) id: i64,
    pub(super) name: String,
    pub(super) users: Vec<Member>,
}

/// A delivered chat.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Chat {
    pub(super) id: i64,
    pub(super) name: String,
    pub(super) msg: String,
    /// The group, if it came through one.
    pub(super) group: Option<i64>,
    /// What the sender or the server says of the time.
    pub(super) time: Option<String>,
    /// Its number, where it is to be confirmed.
    pub(super) mid: Option<i64>,
}

/// A friend's new state.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Presence {
    pub(super) id: i64,
    pub(super) name: String,
    pub(super) online: bool,
    /// Rises with every session of that user.
    pub(super) epoch: i64,
}

/// What a client should do after a goodbye. A word that is not known counts as `Reconnect`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Advice {
    Reconnect,
    RetryAfter,
    Stop,
}

/// The last message of a connection.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Goodbye {
    pub(super) reason: String,
    pub(super) text: String,
    pub(super) advice: Advice,
    pub(super) retry_after_ms: Option<u64>,
}

/// The answer to a request.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Answer {
    /// That of the request; none where the server could not read it.
    pub(super) seq: Option<String>,
    /// 0 when it succeeded.
    pub(super) errno: i64,
    pub(super) text: String,
    /// A new group's number.
    pub(super) id: Option<i64>,
    /// Members of a group whose box is full.
    pub(super) full: Vec<i64>,
}

/// Reads one object.
pub(super) fn read(object: &[u8]) -> Incoming {
    let Some(fields) = Fields::of(object) else { return Incoming::Other };
    let received = match fields.read::<i64>("msgid") {
        Some(2) if fields.errno() == 0 => logged_in(&fields).map(Incoming::LoggedIn),
        Some(2) => Some(Incoming::LoginRefused(fields.refusal())),
        Some(5) if fields.errno() == 0 => Some(Incoming::Registered),
        Some(5) => Some(Incoming::RegisterRefused(fields.refusal())),
        Some(6 | 10) => chat(&fields).map(Incoming::Chat),
        Some(20) => Some(Incoming::Goodbye(goodbye(&fields))),
        Some(21) => presence(&fields).map(Incoming::Presence),
        Some(22) => Some(Incoming::Ping),
        Some(23) => Some(Incoming::Pong),
        Some(0) => Some(Incoming::Answer(answer(&fields))),
        _ => None,
    };
    received.unwrap_or(Incoming::Other)
}

/// The request to log in: by number where `who` is one, which no name is.
pub(super) fn login(who: &str, password: &str) -> String {
    match who.parse::<i64>() {
        Ok(id) => json!({"msgid": 1, "id": id, "password": password, "caps": CAPS}),
        Err(_) => json!({"msgid": 1, "name": who, "password": password, "caps": CAPS}),
    }
    .to_string()
}

/// The request to log in by a token.
pub(super) fn resume(token: &str) -> String {
    json!({"msgid": 1, "token": token, "caps": CAPS}).to_string()
}

/// The request to register.
pub(super) fn register(name: &str, password: &str) -> String {
    json!({"msgid": 4, "name": name, "password": password}).to_string()
}

/// A chat to one user.
pub(super) fn to_user(id: i64, text: &str, seq: &str) -> String {
    json!({"msgid": 6, "toid": id, "msg": text, "seq": seq}).to_string()
}

/// A chat to a group.
pub(super) fn to_group(id: i64, text: &str, seq: &str) -> String {
    json!({"msgid": 10, "groupid": id, "msg": text, "seq": seq}).to_string()
}

/// The request to add a friend.
pub(super) fn add_friend(id: i64, seq: &str) -> String {
    json!({"msgid": 7, "friendid": id, "seq": seq}).to_string()
}

/// The request to create a group.
pub(super) fn create_group(name: &str, seq: &str) -> String {
    json!({"msgid": 8, "groupname": name, "groupdesc": "", "seq": seq}).to_string()
}

/// The request to join a group.
pub(super) fn join_group(id: i64, seq: &str) -> String {
    json!({"msgid": 9, "groupid": id, "seq": seq}).to_string()
}

/// Confirms all chats up to that number.
pub(super) fn confirm(mid: i64) -> String {
    json!({"msgid": 24, "mid": mid}).to_string()
}

/// A ping, which is also the answer to the server's ping.
pub(super) fn ping() -> String {
    json!({"msgid": 22}).to_string()
}

/// An object's fields, each as received.
struct Fields<'a>(HashMap<String, &'a RawValue>);

impl<'a> Fields<'a> {
    fn of(object: &'a [u8]) -> Option<Fields<'a>> {
        serde_json::from_slice(object).ok().map(Fields)
    }

    fn read<T: DeserializeOwned>(&self, key: &str) -> Option<T> {
        serde_json::from_str(self.0.get(key)?.get()).ok()
    }

    fn text(&self, key: &str) -> String {
        self.read(key).unwrap_or_default()
    }

    fn errno(&self) -> i64 {
        self.read("errno").unwrap_or(0)
    }

    fn refusal(&self) -> Refusal {
        Refusal { errno: self.errno(), text: self.text("errmsg") }
    }

    /// The objects that an array of strings holds; one that cannot be read is left out.
    fn embedded<T>(&self, key: &str, read: impl Fn(&Fields<'_>) -> Option<T>) -> Vec<T> {
        let strings: Vec<String> = self.read(key).unwrap_or_default();
        strings.iter().filter_map(|string| read(&Fields::of(string.as_bytes())?)).collect()
    }

    fn online(&self) -> bool {
        self.text("state") == "online"
    }
}

fn logged_in(fields: &Fields<'_>) -> Option<LoggedIn> {
    Some(LoggedIn {
        id: fields.read("id")?,
        name: fields.text("name"),
        offline: fields.embedded("offlinemsg", chat),
        friends: fields.embedded("friends", member),
        groups: fields.embedded("groups", |group| {
            Some(Group {
                id: group.read("id")?,
                name: group.read("groupname")?,
                users: group.embedded("users", member),
            })
        }),
        token: fields.read("token"),
    })
}

fn member(fields: &Fields<'_>) -> Option<Member> {
    Some(Member { id: fields.read("id")?, name: fields.read("name")?, online: fields.online() })
}

fn chat(fields: &Fields<'_>) -> Option<Chat> {
    let through_group = fields.read::<i64>("msgid")? == 10;
    Some(Chat {
        id: fields.read("id")?,
        name: fields.read("name")?,
        msg: fields.read("msg")?,
        group: if through_group { Some(fields.read("groupid")?) } else { None },
        time: fields.read("time"),
        mid: fields.read("mid"),
    })
}

fn presence(fields: &Fields<'_>) -> Option<Presence> {
    Some(Presence {
        id: fields.read("id")?,
        name: fields.read("name")?,
        online: fields.online(),
        epoch: fields.read("epoch").unwrap_or(0),
    })
}

fn goodbye(fields: &Fields<'_>) -> Goodbye {
    Goodbye {
        reason: fields.text("reason"),
        text: fields.text("errmsg"),
        advice: match fields.text("advice").as_str() {
            "stop" => Advice::Stop,
            "retry_after" => Advice::RetryAfter,
            _ => Advice::Reconnect,
        },
        retry_after_ms: fields.read("retry_after_ms"),
    }
}

fn answer(fields: &Fields<'_>) -> Answer {
    Answer {
        seq: fields.read("seq"),
        errno: fields.errno(),
        text: fields.text("errmsg"),
        id: fields.read("id"),
        full: fields.read("full").unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_login_answer_holds_friends_groups_and_what_was_kept() {
        let Incoming::LoggedIn(login) = read(
            br#"{"msgid":2,"errno":0,"id":1,"name":"a","friends":["{\"id\":2,\"name\":\"b\",\"state\":\"online\"}","?"],
            "groups":["{\"id\":3,\"groupname\":\"g\",\"users\":[\"{\\\"id\\\":2,\\\"name\\\":\\\"b\\\"}\"]}"],
            "offlinemsg":["{\"msgid\":6,\"id\":2,\"name\":\"b\",\"msg\":\"hi\",\"time\":\"t\",\"mid\":9}"]}"#,
        ) else {
            panic!("a login");
        };
        assert_eq!((login.id, login.name.as_str()), (1, "a"));
        assert_eq!(login.friends, [Member { id: 2, name: "b".into(), online: true }]);
        let users = vec![Member { id: 2, name: "b".into(), online: false }];
        assert_eq!(login.groups, [Group { id: 3, name: "g".into(), users }]);
        assert_eq!((login.offline[0].msg.as_str(), login.offline[0].mid), ("hi", Some(9)));
    }

    #[test]
    fn a_chat_is_understood_whatever_its_sender_put_beside_it() {
        let received = read(
            br#"{"msgid":6,"id":2,"name":"b","msg":"hi","groupid":"x","time":7,"full":1e999,"state":[],"reason":{}}"#,
        );
        let chat = Chat { id: 2, name: "b".into(), msg: "hi".into(), group: None, time: None, mid: None };
        assert_eq!(received, Incoming::Chat(chat));
    }

    #[test]
    fn what_is_not_understood_is_nothing_worse() {
        for object in ["", "[]", "{}", r#"{"msgid":99}"#, r#"{"msgid":6,"id":2}"#, "\u{0}", r#"{"msgid":2}"#]
        {
            assert_eq!(read(object.as_bytes()), Incoming::Other, "{object}");
        }
    }

    #[test]
    fn advice_that_is_not_known_is_to_come_back() {
        let Incoming::Goodbye(goodbye) =
            read(br#"{"msgid":20,"reason":"new","errmsg":"e","advice":"dance"}"#)
        else {
            panic!("a goodbye");
        };
        assert_eq!(goodbye.advice, Advice::Reconnect);
    }

    #[test]
    fn a_user_logs_in_by_number_where_the_name_is_one() {
        assert!(login("13", "p").contains(r#""id":13"#));
        assert!(login("bob", "p").contains(r#""name":"bob""#));
    }
}
