//! Writes everything the server says of its own, one JSON object each, without terminator.
//!
//! Plain functions, used by any thread: they append to a buffer and do nothing else. Keys come in the order of
//! the contract, because some old clients search for text instead of parsing.

pub use super::chat_object::{Delivered, To, chat_object, number, read_delivered};
use super::errno::Errno;
use super::json::object::{ObjectWriter, push_string};
use super::msgid::Msgid;
use crate::channel::Reason;
use crate::ids::{Epoch, GroupId, UserId};

/// Bytes that a login answer has at most, its terminator included. What does not fit of `friends` and `groups` is left
/// out; `offlinemsg` goes first, and is bounded where it is read.
pub const LOGIN_ANSWER_MAX: usize = 1 << 20;
/// What a friend takes of a login answer at least, beside the name, in bytes.
pub const FRIEND_MIN: usize = 47;
/// The same for a group, beside its name, description and members.
pub const GROUP_MIN: usize = 63;
/// The same for a member of a group, beside name and role.
pub const MEMBER_MIN: usize = 91;

/// What a login answer says where something is left out.
const MORE: &[u8] = b",\"more\":true";

/// Everything a granted login is answered with. The lists are written as they come, and nothing of them is copied before.
#[derive(Clone, Copy, Debug)]
pub struct LoginAnswer<'a, O, F, G> {
    /// The user's number.
    pub id: UserId,
    /// The user's name.
    pub name: &'a str,
    /// The oldest messages that were kept; each appends its object.
    pub offline: O,
    /// The users whom this one added.
    pub friends: F,
    /// The groups that the user is in.
    pub groups: G,
    /// True exactly when there are friends or groups that are not among these.
    pub more: bool,
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
pub struct GroupState<'a, M> {
    /// The group's number.
    pub id: GroupId,
    /// The group's name.
    pub name: &'a str,
    /// What its creator said of it.
    pub desc: &'a str,
    /// Everyone in it.
    pub users: M,
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
pub fn logged_in<'a, W: FnOnce(&mut Vec<u8>), M: IntoIterator<Item = MemberState<'a>>>(
    out: &mut Vec<u8>,
    answer: LoginAnswer<
        'a,
        impl IntoIterator<Item = W>,
        impl IntoIterator<Item = FriendState<'a>>,
        impl IntoIterator<Item = GroupState<'a, M>>,
    >,
) {
    let mut end = Vec::new();
    let mut last = ObjectWriter::going_on(&mut end);
    if let Some(token) = answer.token {
        last.text("token", token);
    }
    last.raw_if_some("seq", answer.seq).finish();
    // The byte that ends an object is not written here.
    let limit = out.len() + LOGIN_ANSWER_MAX.saturating_sub(end.len() + MORE.len() + 1);
    ObjectWriter::new(out)
        .integer("msgid", Msgid::LoginAnswer.number())
        .integer("errno", 0)
        .integer("id", answer.id.0)
        .text("name", answer.name);
    let mut scratch = Vec::new();
    push_list(out, "offlinemsg", usize::MAX, 0, answer.offline, |out, write| {
        push_embedded(out, &mut scratch, |inner| {
            write(inner);
            true
        })
    });
    let all_friends = push_list(out, "friends", limit, FRIEND_MIN, answer.friends, |out, friend| {
        push_embedded(out, &mut scratch, |inner| {
            push_friend(inner, &friend);
            true
        })
    });
    let mut member_scratch = Vec::new();
    let all_groups = push_list(out, "groups", limit, GROUP_MIN, answer.groups, |out, group| {
        let room = limit.saturating_sub(out.len());
        push_embedded(out, &mut scratch, |inner| push_group(inner, &mut member_scratch, group, room))
    });
    if answer.more || !all_friends || !all_groups {
        out.extend_from_slice(MORE);
    }
    out.append(&mut end);
}

/// Appends a list, if it has items, as far as they fit below `limit`; each takes `least` bytes or more. `write` appends
/// one, or answers false where it does not fit. Answers whether all are there.
fn push_list<T>(
    out: &mut Vec<u8>,
    key: &str,
    limit: usize,
    least: usize,
    items: impl IntoIterator<Item = T>,
    mut write: impl FnMut(&mut Vec<u8>, T) -> bool,
) -> bool {
    let before = out.len();
    out.extend_from_slice(b",\"");
    out.extend_from_slice(key.as_bytes());
    out.extend_from_slice(b"\":[");
    let first = out.len();
    let mut all = true;
    for item in items {
        let end = out.len();
        if end.saturating_add(least) > limit {
            all = false;
            break;
        }
        if end > first {
            out.push(b',');
        }
        // One byte is for the bracket behind the list.
        if !write(out, item) || out.len() >= limit {
            out.truncate(end);
            all = false;
        }
    }
    if out.len() > first {
        out.push(b']');
    } else {
        out.truncate(before);
    }
    all
}

/// msgid 5, granted.
pub fn registered(out: &mut Vec<u8>, id: UserId, seq: Option<&str>) {
    ObjectWriter::new(out)
        .integer("msgid", Msgid::RegisterAnswer.number())
        .integer("errno", 0)
        .integer("id", id.0)
        .raw_if_some("seq", seq)
        .finish();
}

/// msgid 2 or 5, not granted: the answer to a login, or to a registration. `seq` is raw JSON text.
pub fn refused(out: &mut Vec<u8>, re: Msgid, errno: Errno, errmsg: &str, seq: Option<&str>) {
    ObjectWriter::new(out)
        .integer("msgid", re.login_answer().number())
        .integer("errno", errno.number())
        .text("errmsg", errmsg)
        .raw_if_some("seq", seq)
        .finish();
}

/// msgid 0, what is wrong with a request. `re` is the request's msgid, `seq` its raw JSON text, where it had one.
pub fn error(out: &mut Vec<u8>, errno: Errno, errmsg: &str, re: Option<i64>, seq: Option<&str>) {
    let mut object = ObjectWriter::new(out);
    object
        .integer("msgid", Msgid::Answer.number())
        .integer("errno", errno.number())
        .text("errmsg", errmsg)
        .raw_if_some("seq", seq);
    if let Some(re) = re {
        object.integer("re", re);
    }
    object.finish();
}

/// msgid 0, a request with `seq` that succeeded. `id` is a new group's; `full` are the members whose box was full.
pub fn done(out: &mut Vec<u8>, re: Msgid, seq: &str, id: Option<i64>, full: &[UserId]) {
    let mut object = ObjectWriter::new(out);
    object
        .integer("msgid", Msgid::Answer.number())
        .integer("errno", 0)
        .raw("seq", seq)
        .integer("re", re.number());
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
        .integer("msgid", Msgid::Goodbye.number())
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
    ObjectWriter::new(out).integer("msgid", Msgid::Ping.number()).finish();
}

/// msgid 23, the answer to a client's ping. `seq` is raw JSON text.
pub fn pong(out: &mut Vec<u8>, seq: Option<&str>) {
    ObjectWriter::new(out).integer("msgid", Msgid::Pong.number()).raw_if_some("seq", seq).finish();
}

/// msgid 21, a friend came or went.
pub fn presence(out: &mut Vec<u8>, id: UserId, name: &str, online: bool, epoch: Epoch) {
    ObjectWriter::new(out)
        .integer("msgid", Msgid::Presence.number())
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

/// Appends a group with its members; false as soon as it is larger than `room`.
fn push_group<'a, M: IntoIterator<Item = MemberState<'a>>>(
    out: &mut Vec<u8>,
    scratch: &mut Vec<u8>,
    group: GroupState<'a, M>,
    room: usize,
) -> bool {
    let mut fits = true;
    let users = group.users.into_iter();
    let mut object = ObjectWriter::new(out);
    object.integer("id", group.id.0).text("groupname", group.name).text("groupdesc", group.desc);
    object.array("users", users, |out, member| {
        fits &= out.len() <= room;
        if fits {
            push_embedded(out, scratch, |inner| {
                push_member(inner, &member);
                true
            });
        }
    });
    object.finish();
    fits
}

fn push_member(out: &mut Vec<u8>, member: &MemberState<'_>) {
    ObjectWriter::new(out)
        .integer("id", member.id.0)
        .text("name", member.name)
        .text("state", state(member.online))
        .text("role", member.role)
        .finish();
}

/// Appends an object as a JSON string that holds its text, the form of every list in a login answer. `scratch` is room
/// for the object; `write` answers whether there is one.
fn push_embedded(out: &mut Vec<u8>, scratch: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>) -> bool) -> bool {
    scratch.clear();
    let is_there = write(scratch);
    if is_there {
        // Others may write to the database; a byte that is not UTF-8 must not spoil the answer.
        push_string(out, &String::from_utf8_lossy(scratch));
    }
    is_there
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
        let granted = text(|out| logged_in(out, bare()));
        assert_eq!(granted, r#"{"msgid":2,"errno":0,"id":13,"name":"zhang san"}"#);
        let registered = text(|out| registered(out, UserId(13), None));
        assert_eq!(registered, r#"{"msgid":5,"errno":0,"id":13}"#);
        let refused = text(|out| refused(out, Msgid::Login, Errno::Refused, "no", Some("\"s\"")));
        assert_eq!(refused, r#"{"msgid":2,"errno":1,"errmsg":"no","seq":"s"}"#);
        let wrong_id = text(|out| error(out, Errno::WrongId, "…", Some(6), None));
        assert_eq!(wrong_id, r#"{"msgid":0,"errno":12,"errmsg":"…","re":6}"#);
        let unknown = text(|out| error(out, Errno::Malformed, "…", None, None));
        assert_eq!(unknown, r#"{"msgid":0,"errno":10,"errmsg":"…"}"#);
        let stored = text(|out| done(out, Msgid::Chat, "7", None, &[]));
        assert_eq!(stored, r#"{"msgid":0,"errno":0,"seq":7,"re":6}"#);
        let created = text(|out| done(out, Msgid::CreateGroup, "7", Some(3), &[]));
        assert_eq!(created, r#"{"msgid":0,"errno":0,"seq":7,"re":8,"id":3}"#);
        let skipped = text(|out| done(out, Msgid::GroupChat, "7", None, &[UserId(1), UserId(2)]));
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

    type Friends = Vec<FriendState<'static>>;
    type Groups = Vec<GroupState<'static, Vec<MemberState<'static>>>>;
    type Write = fn(&mut Vec<u8>);

    fn bare() -> LoginAnswer<'static, Vec<Write>, Friends, Groups> {
        LoginAnswer {
            id: UserId(13),
            name: "zhang san",
            offline: Vec::new(),
            friends: Vec::new(),
            groups: Vec::new(),
            more: false,
            seq: None,
            token: None,
        }
    }

    fn group(id: i64, members: usize) -> GroupState<'static, Vec<MemberState<'static>>> {
        let member = |n| MemberState { id: UserId(n), name: "ann", online: true, role: "normal" };
        let users = (0..members as i64).map(member).collect();
        GroupState { id: GroupId(id), name: "g", desc: "d", users }
    }

    const KEPT: &[u8] = br#"{"msgid":6,"msg":"\"hi\""}"#;

    #[test]
    fn lists_of_a_login_answer_are_strings_that_hold_objects() {
        let answer = LoginAnswer {
            offline: vec![(|out| out.extend_from_slice(KEPT)) as Write, |out| out.push(b'\xff')],
            friends: vec![FriendState { id: UserId(2), name: "b", online: true }],
            groups: vec![GroupState {
                id: GroupId(3),
                name: "g",
                desc: "",
                users: vec![MemberState { id: UserId(1), name: "a", online: false, role: "creator" }],
            }],
            seq: Some("1"),
            token: Some("t"),
            ..bare()
        };
        let value: serde_json::Value = serde_json::from_str(&text(|out| logged_in(out, answer))).unwrap();
        assert_eq!(value["offlinemsg"][0], std::str::from_utf8(KEPT).unwrap());
        assert_eq!(value["friends"][0], r#"{"id":2,"name":"b","state":"online"}"#);
        let group: serde_json::Value = serde_json::from_str(value["groups"][0].as_str().unwrap()).unwrap();
        assert_eq!(group["groupname"], "g");
        assert_eq!(group["users"][0], r#"{"id":1,"name":"a","state":"offline","role":"creator"}"#);
        assert_eq!(value["seq"], 1);
        assert_eq!(value["token"], "t");
        assert_eq!(value.get("more"), None);
    }

    #[test]
    fn a_login_answer_has_a_mebibyte_at_most_and_says_what_is_left_out() {
        let seq = format!("\"{}\"", "s".repeat(5000));
        for members in [1, 40, 9000, 20_000] {
            // Somewhere the last that fits ends with the very last byte.
            for pad in 0..3 {
                let name = "n".repeat(pad as usize);
                let friend = FriendState { id: UserId(pad), name: "\"ann\"", online: false };
                let groups = [group(1, members)].into_iter().chain((2..30_000).map(|id| group(id, 1)));
                let answer = LoginAnswer {
                    id: UserId(13),
                    name: &name,
                    offline: Vec::<Write>::new(),
                    friends: std::iter::repeat_n(friend, 100),
                    groups,
                    more: false,
                    seq: Some(&seq),
                    token: Some("t"),
                };
                let text = text(|out| logged_in(out, answer));
                assert!(text.len() < LOGIN_ANSWER_MAX && text.len() > LOGIN_ANSWER_MAX - 300);
                let value: serde_json::Value = serde_json::from_str(&text).unwrap();
                assert_eq!((&value["more"], &value["token"]), (&true.into(), &"t".into()));
                assert_eq!(value["friends"].as_array().unwrap().len(), 100);
                let groups = value["groups"].as_array().unwrap();
                // One that does not fit is left out, and those behind it are not.
                let first = if members == 20_000 { r#"{"id":2,"# } else { r#"{"id":1,"# };
                assert!(groups[0].as_str().unwrap().starts_with(first));
                for group in groups {
                    serde_json::from_str::<serde_json::Value>(group.as_str().unwrap()).unwrap();
                }
            }
        }
    }

    #[test]
    fn nothing_takes_less_of_a_login_answer_than_is_counted_for_it() {
        let length = |answer| text(|out| logged_in(out, answer)).len();
        let none = length(bare());
        let friend = |online| FriendState { id: UserId(1), name: "", online };
        for online in [true, false] {
            let two = vec![friend(online), friend(online)];
            let both = length(LoginAnswer { friends: two, ..bare() });
            let one = length(LoginAnswer { friends: vec![friend(online)], ..bare() });
            assert!((FRIEND_MIN..=FRIEND_MIN + 2).contains(&(both - one)), "{}", both - one);
            let with = |members| {
                let member = MemberState { id: UserId(1), name: "", online, role: "" };
                let users = std::iter::repeat_n(member, members).collect();
                let group = GroupState { id: GroupId(1), name: "", desc: "", users };
                length(LoginAnswer { groups: vec![group], ..bare() })
            };
            let member = with(2) - with(1);
            assert!((MEMBER_MIN..=MEMBER_MIN + 2).contains(&member), "{member}");
            let group = with(0) - none - ",\"groups\":[]".len();
            assert!((GROUP_MIN..=GROUP_MIN + 2).contains(&group), "{group}");
        }
    }
}
