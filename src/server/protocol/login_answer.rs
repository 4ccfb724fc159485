//! The answer to a login that succeeded: msgid 2, with what the user has.
//!
//! Plain values and functions, used by any thread. Main makes the lists, the channel's worker writes them as they come, and
//! nothing of them is copied before.

use super::json::object::{ObjectWriter, push_string};
use super::msgid::Msgid;
use super::responses::state;
use crate::ids::{GroupId, UserId};
use crate::sync::Arc;
use ecow::EcoString;

/// Bytes that a login answer has at most, its terminator included. What does not fit of `friends` and `groups` is left
/// out; `offlinemsg` goes first, and is bounded where it is read.
pub const LOGIN_ANSWER_MAX: usize = 1 << 20;
/// What a friend takes of a login answer at least, beside the name, in bytes.
pub const FRIEND_MIN: usize = 47;
/// The same for a group, beside its name, description and members.
pub const GROUP_MIN: usize = 63;
/// The same for a member of a group, beside name and role.
pub const MEMBER_MIN: usize = 91;

/// Written where friends or groups are left out.
const MORE: &[u8] = b",\"more\":true";

/// Everything a granted login is answered with. `O` gives the oldest messages that were kept: each appends its object.
#[derive(Clone, Copy, Debug)]
pub struct LoginAnswer<'a, O> {
    /// The user's number.
    pub id: UserId,
    /// The user's name.
    pub name: &'a str,
    /// The messages.
    pub offline: O,
    /// The users whom this one added.
    pub friends: &'a [FriendState],
    /// The groups that the user is in.
    pub groups: &'a [GroupState],
    /// True exactly when there are friends or groups that are not among these.
    pub more: bool,
    /// The raw JSON text of the request's `seq`.
    pub seq: Option<&'a str>,
    /// What the client may log in again with.
    pub token: Option<&'a str>,
}

/// A friend at the moment of a login.
#[derive(Debug)]
pub struct FriendState {
    /// The friend's number.
    pub id: UserId,
    /// The friend's name.
    pub name: EcoString,
    /// True exactly when the friend had a session.
    pub online: bool,
}

/// A group at the moment of a login.
#[derive(Debug)]
pub struct GroupState {
    /// The group, shared with other answers.
    pub group: Arc<ListedGroup>,
    /// For each member, true exactly when the member had a session.
    pub online: Box<[bool]>,
}

/// A group as login answers list it.
#[derive(Debug)]
pub struct ListedGroup {
    /// The group's number.
    pub id: GroupId,
    /// Its name.
    pub name: EcoString,
    /// What its creator said of it.
    pub desc: EcoString,
    /// Its members, by number.
    pub members: Vec<ListedMember>,
}

/// A member of a group as login answers list one.
#[derive(Debug)]
pub struct ListedMember {
    /// The member's number.
    pub id: UserId,
    /// The member's name.
    pub name: EcoString,
    /// `creator` or `normal`.
    pub role: EcoString,
}

/// msgid 2, granted.
pub fn logged_in<W: FnOnce(&mut Vec<u8>)>(
    out: &mut Vec<u8>,
    answer: LoginAnswer<'_, impl IntoIterator<Item = W>>,
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
            push_friend(inner, friend);
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

fn push_friend(out: &mut Vec<u8>, friend: &FriendState) {
    ObjectWriter::new(out)
        .integer("id", friend.id.0)
        .text("name", &friend.name)
        .text("state", state(friend.online))
        .finish();
}

/// Appends a group with its members; false as soon as it is larger than `room`.
fn push_group(out: &mut Vec<u8>, scratch: &mut Vec<u8>, state: &GroupState, room: usize) -> bool {
    let GroupState { group, online } = state;
    let mut fits = true;
    let mut object = ObjectWriter::new(out);
    object.integer("id", group.id.0).text("groupname", &group.name).text("groupdesc", &group.desc);
    object.array("users", group.members.iter().zip(online), |out, (member, online)| {
        fits &= out.len() <= room;
        if fits {
            push_embedded(out, scratch, |inner| {
                push_member(inner, member, *online);
                true
            });
        }
    });
    object.finish();
    fits
}

fn push_member(out: &mut Vec<u8>, member: &ListedMember, online: bool) {
    ObjectWriter::new(out)
        .integer("id", member.id.0)
        .text("name", &member.name)
        .text("state", state(online))
        .text("role", &member.role)
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

#[cfg(test)]
mod tests {
    use super::*;

    fn text(write: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        write(&mut out);
        String::from_utf8(out).unwrap()
    }

    type Write = fn(&mut Vec<u8>);

    fn bare<'a>() -> LoginAnswer<'a, Vec<Write>> {
        LoginAnswer {
            id: UserId(13),
            name: "zhang san",
            offline: Vec::new(),
            friends: &[],
            groups: &[],
            more: false,
            seq: None,
            token: None,
        }
    }

    fn friend(id: i64, name: &str, online: bool) -> FriendState {
        FriendState { id: UserId(id), name: name.into(), online }
    }

    fn member(id: i64, name: &str, role: &str) -> ListedMember {
        ListedMember { id: UserId(id), name: name.into(), role: role.into() }
    }

    fn group(id: i64, name: &str, desc: &str, online: bool, members: Vec<ListedMember>) -> GroupState {
        let online = vec![online; members.len()].into();
        let group = ListedGroup { id: GroupId(id), name: name.into(), desc: desc.into(), members };
        GroupState { group: Arc::new(group), online }
    }

    #[test]
    fn a_login_answer_without_lists_reads_like_the_contract() {
        let granted = text(|out| logged_in(out, bare()));
        assert_eq!(granted, r#"{"msgid":2,"errno":0,"id":13,"name":"zhang san"}"#);
    }

    const KEPT: &[u8] = br#"{"msgid":6,"msg":"\"hi\""}"#;

    #[test]
    fn lists_of_a_login_answer_are_strings_that_hold_objects() {
        let answer = LoginAnswer {
            offline: vec![(|out| out.extend_from_slice(KEPT)) as Write, |out| out.push(b'\xff')],
            friends: &[friend(2, "b", true)],
            groups: &[group(3, "g", "", false, vec![member(1, "a", "creator")])],
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
                let friends: Vec<_> = (0..100).map(|_| friend(pad, "\"ann\"", false)).collect();
                let users = |members| (0..members).map(|id| member(id, "ann", "normal")).collect();
                let group = |id, members| group(id, "g", "d", true, users(members));
                let groups: Vec<_> =
                    [group(1, members)].into_iter().chain((2..30_000).map(|id| group(id, 1))).collect();
                let answer = LoginAnswer {
                    id: UserId(13),
                    name: &name,
                    offline: Vec::<Write>::new(),
                    friends: &friends,
                    groups: &groups,
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
        let length = |answer: LoginAnswer<'_, Vec<Write>>| text(|out| logged_in(out, answer)).len();
        let none = length(bare());
        let friend = |online| friend(1, "", online);
        for online in [true, false] {
            let two = [friend(online), friend(online)];
            let both = length(LoginAnswer { friends: &two, ..bare() });
            let one = length(LoginAnswer { friends: &two[..1], ..bare() });
            assert!((FRIEND_MIN..=FRIEND_MIN + 2).contains(&(both - one)), "{}", both - one);
            let with = |members| {
                let users = (0..members).map(|_| member(1, "", "")).collect();
                length(LoginAnswer { groups: &[group(1, "", "", online, users)], ..bare() })
            };
            let member = with(2) - with(1);
            assert!((MEMBER_MIN..=MEMBER_MIN + 2).contains(&member), "{member}");
            let group = with(0) - none - ",\"groups\":[]".len();
            assert!((GROUP_MIN..=GROUP_MIN + 2).contains(&group), "{group}");
        }
    }
}
