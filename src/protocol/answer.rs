//! Writes everything the server says of its own, one JSON object each, without terminator.
//!
//! Plain functions, used by any thread: they append to a buffer and do nothing else. Keys come in the order of
//! the contract, because some old clients search for text instead of parsing.

pub use super::chat::{Delivered, To, chat_object, number, read_delivered};
use super::errno::Errno;
use super::json::{ObjectWriter, push_string};
use crate::channel::Reason;
use crate::ident::{Epoch, GroupId, UserId};

/// Everything a granted login is answered with.
#[derive(Clone, Copy, Debug)]
pub struct LoginAnswer<'a> {
    /// The user's number.
    pub id: UserId,
    /// The user's name.
    pub name: &'a str,
    /// The oldest messages that were kept, as objects.
    pub offline: &'a [&'a [u8]],
    /// The users whom this one added.
    pub friends: &'a [FriendState<'a>],
    /// The groups that the user is in.
    pub groups: &'a [GroupState<'a>],
    /// The raw JSON text of the request's `seq`.
    pub seq: Option<&'a str>,
    /// What the client may log in again with.
    pub token: Option<&'a str>,
}

/// A friend in a login answer.
#[derive(Clone, Copy, Debug)]
pub struct FriendState<'a> {
    /// The friend's number.
    pub id: UserId,
    /// The friend's name.
    pub name: &'a str,
    /// True exactly when the friend has a session.
    pub online: bool,
}

/// A group in a login answer.
#[derive(Clone, Copy, Debug)]
pub struct GroupState<'a> {
    /// The group's number.
    pub id: GroupId,
    /// The group's name.
    pub name: &'a str,
    /// What its creator said of it.
    pub desc: &'a str,
    /// Everyone in it.
    pub users: &'a [MemberState<'a>],
}

/// A member of a group in a login answer.
#[derive(Clone, Copy, Debug)]
pub struct MemberState<'a> {
    /// The member's number.
    pub id: UserId,
    /// The member's name.
    pub name: &'a str,
    /// True exactly when the member has a session.
    pub online: bool,
    /// `creator` or `normal`.
    pub role: &'a str,
}

/// msgid 2, granted.
pub fn logged_in(out: &mut Vec<u8>, answer: &LoginAnswer<'_>) {
    let mut object = ObjectWriter::new(out);
    object.integer("msgid", 2).integer("errno", 0).integer("id", answer.id.0).text("name", answer.name);
    if !answer.offline.is_empty() {
        object.array("offlinemsg", answer.offline, |out, body| {
            // Others may write to the database; a byte that is not UTF-8 must not spoil the answer.
            push_string(out, &String::from_utf8_lossy(body));
        });
    }
    if !answer.friends.is_empty() {
        object.array("friends", answer.friends, |out, friend| {
            push_embedded(out, |inner| push_friend(inner, friend));
        });
    }
    if !answer.groups.is_empty() {
        object.array("groups", answer.groups, |out, group| {
            push_embedded(out, |inner| push_group(inner, group));
        });
    }
    if let Some(token) = answer.token {
        object.text("token", token);
    }
    object.raw_if_some("seq", answer.seq).finish();
}

/// msgid 5, granted.
pub fn registered(out: &mut Vec<u8>, id: UserId, seq: Option<&str>) {
    ObjectWriter::new(out)
        .integer("msgid", 5)
        .integer("errno", 0)
        .integer("id", id.0)
        .raw_if_some("seq", seq)
        .finish();
}

/// msgid 2 or 5, not granted. `seq` is raw JSON text.
pub fn refused(out: &mut Vec<u8>, msgid: i64, errno: Errno, errmsg: &str, seq: Option<&str>) {
    ObjectWriter::new(out)
        .integer("msgid", msgid)
        .integer("errno", errno.number())
        .text("errmsg", errmsg)
        .raw_if_some("seq", seq)
        .finish();
}

/// msgid 0, what is wrong with a request. `re` is the request's msgid, `seq` its raw JSON text, where it had one.
pub fn error(out: &mut Vec<u8>, errno: Errno, errmsg: &str, re: Option<i64>, seq: Option<&str>) {
    let mut object = ObjectWriter::new(out);
    object
        .integer("msgid", 0)
        .integer("errno", errno.number())
        .text("errmsg", errmsg)
        .raw_if_some("seq", seq);
    if let Some(re) = re {
        object.integer("re", re);
    }
    object.finish();
}

/// msgid 0, a request with `seq` that succeeded. `id` is a new group's; `full` are the members whose box was full.
pub fn done(out: &mut Vec<u8>, re: i64, seq: &str, id: Option<i64>, full: &[UserId]) {
    let mut object = ObjectWriter::new(out);
    object.integer("msgid", 0).integer("errno", 0).raw("seq", seq).integer("re", re);
    if let Some(id) = id {
        object.integer("id", id);
    }
    if !full.is_empty() {
        object.array("full", full, |out, user| out.extend_from_slice(user.to_string().as_bytes()));
    }
    object.finish();
}

/// msgid 20, the last thing a client hears. `retry_after_ms` is in milliseconds.
pub fn goodbye(out: &mut Vec<u8>, reason: Reason, errmsg: &str, retry_after_ms: Option<u64>) {
    let mut object = ObjectWriter::new(out);
    object
        .integer("msgid", 20)
        .text("reason", reason.word())
        .text("errmsg", errmsg)
        .text("advice", reason.advice().word());
    if let Some(retry_after_ms) = retry_after_ms {
        object.integer("retry_after_ms", retry_after_ms);
    }
    object.finish();
}

/// msgid 22.
pub fn ping(out: &mut Vec<u8>) {
    ObjectWriter::new(out).integer("msgid", 22).finish();
}

/// msgid 23, the answer to a client's ping. `seq` is raw JSON text.
pub fn pong(out: &mut Vec<u8>, seq: Option<&str>) {
    ObjectWriter::new(out).integer("msgid", 23).raw_if_some("seq", seq).finish();
}

/// msgid 21, a friend came or went.
pub fn presence(out: &mut Vec<u8>, id: UserId, name: &str, online: bool, epoch: Epoch) {
    ObjectWriter::new(out)
        .integer("msgid", 21)
        .integer("id", id.0)
        .text("name", name)
        .text("state", state(online))
        .integer("epoch", epoch.0)
        .finish();
}

fn push_friend(out: &mut Vec<u8>, friend: &FriendState<'_>) {
    ObjectWriter::new(out)
        .integer("id", friend.id.0)
        .text("name", friend.name)
        .text("state", state(friend.online))
        .finish();
}

fn push_group(out: &mut Vec<u8>, group: &GroupState<'_>) {
    ObjectWriter::new(out)
        .integer("id", group.id.0)
        .text("groupname", group.name)
        .text("groupdesc", group.desc)
        .array("users", group.users, |out, member| push_embedded(out, |inner| push_member(inner, member)))
        .finish();
}

fn push_member(out: &mut Vec<u8>, member: &MemberState<'_>) {
    ObjectWriter::new(out)
        .integer("id", member.id.0)
        .text("name", member.name)
        .text("state", state(member.online))
        .text("role", member.role)
        .finish();
}

/// Appends an object as a JSON string that holds its text, the form of every list in a login answer.
fn push_embedded(out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    let mut inner = Vec::new();
    write(&mut inner);
    push_string(out, &String::from_utf8_lossy(&inner));
}

fn state(online: bool) -> &'static str {
    if online { "online" } else { "offline" }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(write: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        write(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn answers_read_like_the_contract() {
        let bare = LoginAnswer {
            id: UserId(13),
            name: "zhang san",
            offline: &[],
            friends: &[],
            groups: &[],
            seq: None,
            token: None,
        };
        let granted = text(|out| logged_in(out, &bare));
        assert_eq!(granted, r#"{"msgid":2,"errno":0,"id":13,"name":"zhang san"}"#);
        let registered = text(|out| registered(out, UserId(13), None));
        assert_eq!(registered, r#"{"msgid":5,"errno":0,"id":13}"#);
        let refused = text(|out| refused(out, 2, Errno::Refused, "no", Some("\"s\"")));
        assert_eq!(refused, r#"{"msgid":2,"errno":1,"errmsg":"no","seq":"s"}"#);
        let wrong_id = text(|out| error(out, Errno::WrongId, "…", Some(6), None));
        assert_eq!(wrong_id, r#"{"msgid":0,"errno":12,"errmsg":"…","re":6}"#);
        let unknown = text(|out| error(out, Errno::Malformed, "…", None, None));
        assert_eq!(unknown, r#"{"msgid":0,"errno":10,"errmsg":"…"}"#);
        let stored = text(|out| done(out, 6, "7", None, &[]));
        assert_eq!(stored, r#"{"msgid":0,"errno":0,"seq":7,"re":6}"#);
        let created = text(|out| done(out, 8, "7", Some(3), &[]));
        assert_eq!(created, r#"{"msgid":0,"errno":0,"seq":7,"re":8,"id":3}"#);
        let skipped = text(|out| done(out, 10, "7", None, &[UserId(1), UserId(2)]));
        assert_eq!(skipped, r#"{"msgid":0,"errno":0,"seq":7,"re":10,"full":[1,2]}"#);
        let kicked = text(|out| goodbye(out, Reason::Kicked, "spam", Some(600_000)));
        assert_eq!(
            kicked,
            r#"{"msgid":20,"reason":"kicked","errmsg":"spam","advice":"retry_after","retry_after_ms":600000}"#
        );
        let stopped = text(|out| goodbye(out, Reason::ServerShutdown, "bye", None));
        assert_eq!(stopped, r#"{"msgid":20,"reason":"server_shutdown","errmsg":"bye","advice":"reconnect"}"#);
        assert_eq!(text(ping), r#"{"msgid":22}"#);
        assert_eq!(text(|out| pong(out, None)), r#"{"msgid":23}"#);
        assert_eq!(text(|out| pong(out, Some("7"))), r#"{"msgid":23,"seq":7}"#);
        let came = text(|out| presence(out, UserId(5), "a\"b", true, Epoch(9)));
        assert_eq!(came, r#"{"msgid":21,"id":5,"name":"a\"b","state":"online","epoch":9}"#);
    }

    #[test]
    fn lists_of_a_login_answer_are_strings_that_hold_objects() {
        let kept = br#"{"msgid":6,"msg":"\"hi\""}"#;
        let answer = LoginAnswer {
            id: UserId(1),
            name: "a",
            offline: &[kept, b"\xff"],
            friends: &[FriendState { id: UserId(2), name: "b", online: true }],
            groups: &[GroupState {
                id: GroupId(3),
                name: "g",
                desc: "",
                users: &[MemberState { id: UserId(1), name: "a", online: false, role: "creator" }],
            }],
            seq: Some("1"),
            token: Some("t"),
        };
        let value: serde_json::Value = serde_json::from_str(&text(|out| logged_in(out, &answer))).unwrap();
        assert_eq!(value["offlinemsg"][0], std::str::from_utf8(kept).unwrap());
        assert_eq!(value["friends"][0], r#"{"id":2,"name":"b","state":"online"}"#);
        let group: serde_json::Value = serde_json::from_str(value["groups"][0].as_str().unwrap()).unwrap();
        assert_eq!(group["groupname"], "g");
        assert_eq!(group["users"][0], r#"{"id":1,"name":"a","state":"offline","role":"creator"}"#);
        assert_eq!(value["seq"], 1);
        assert_eq!(value["token"], "t");
    }
}
