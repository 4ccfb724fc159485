//! Users and groups by name: the protocol has numbers, people type names.
//!
//! Plain data of a session. Names come from the lists of friends and of groups, and from received chats; the protocol has
//! no request for a name.

use std::collections::BTreeMap;

use super::messages::{Group, LoggedIn, Member, Presence};
use linger_server::protocol::written_name::read_name;

/// What is known of users and groups.
#[derive(Debug, Default)]
pub(super) struct Contacts {
    users: BTreeMap<i64, User>,
    groups: BTreeMap<i64, Group>,
}

#[derive(Clone, Debug)]
struct User {
    /// None while only the number is known.
    name: Option<String>,
    friend: bool,
    /// None while the server has not said.
    online: Option<bool>,
    /// The session that `online` is about.
    epoch: i64,
}

/// The receiver of a chat.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Target {
    /// To that user.
    User(i64),
    /// To that group.
    Group(i64),
}

/// Why a word names no user and no group.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub(super) enum Unknown {
    #[error("no id known for {0}; use /to ID or /add ID")]
    User(String),
    #[error("no group {0} here; /friends lists yours, /join ID joins one")]
    Group(String),
    #[error("several groups have the name {name}; use one of the ids {ids}")]
    Ambiguous { name: String, ids: String },
}

impl Contacts {
    /// Replaces friends and groups by those of a login's answer.
    pub(super) fn logged_in(&mut self, login: &LoggedIn) {
        for user in self.users.values_mut() {
            (user.friend, user.online) = (false, None);
        }
        self.groups = login.groups.iter().map(|group| (group.id, group.clone())).collect();
        for member in login.groups.iter().flat_map(|group| &group.users) {
            self.learn_member(member);
        }
        for friend in &login.friends {
            self.learn_member(friend);
            self.add_friend(friend.id);
        }
        self.learn_name(login.id, &login.name);
    }

    /// Remembers the name of a user.
    pub(super) fn learn_name(&mut self, id: i64, name: &str) {
        self.user(id).name = Some(name.to_owned());
    }

    /// Makes that user a friend.
    pub(super) fn add_friend(&mut self, id: i64) {
        self.user(id).friend = true;
    }

    /// Adds a group that the user has joined.
    pub(super) fn add_group(&mut self, id: i64, name: &str) {
        let group = || Group { id, name: name.to_owned(), users: Vec::new() };
        self.groups.entry(id).or_insert_with(group);
    }

    /// Takes a friend's new state; false where a newer one is known.
    pub(super) fn presence(&mut self, presence: &Presence) -> bool {
        let user = self.user(presence.id);
        if presence.epoch < user.epoch {
            return false;
        }
        (user.online, user.epoch) = (Some(presence.online), presence.epoch);
        user.name = Some(presence.name.clone());
        true
    }

    /// The number of a user, given as such or by name.
    pub(super) fn find_user(&self, word: &str) -> Result<i64, Unknown> {
        if let Some(id) = number(word) {
            return Ok(id);
        }
        let name = read_name(word);
        let named = |user: &User| user.name.as_deref() == Some(&*name);
        let found = self.users.iter().find(|(_, user)| named(user));
        found.map(|(id, _)| *id).ok_or_else(|| Unknown::User(word.to_owned()))
    }

    /// The number of a group, given as such or by name. Names of groups are not unique.
    pub(super) fn find_group(&self, word: &str) -> Result<i64, Unknown> {
        if let Some(id) = number(word) {
            return Ok(id);
        }
        let name = read_name(word);
        let ids: Vec<i64> = self.groups.values().filter(|group| group.name == name).map(|g| g.id).collect();
        match ids[..] {
            [id] => Ok(id),
            [] => Err(Unknown::Group(word.to_owned())),
            _ => {
                let ids = ids.iter().map(i64::to_string).collect::<Vec<_>>().join(", ");
                Err(Unknown::Ambiguous { name: word.to_owned(), ids })
            }
        }
    }

    /// Splits a line of the form `name: text`, `13: text` or `@group: text`. A name may contain colons, so the line is
    /// split at the first colon behind a known name. None for a line without a colon.
    pub(super) fn parse_addressed<'a>(&self, line: &'a str) -> Option<Result<(Target, &'a str), Unknown>> {
        let mut first = None;
        for (at, _) in line.match_indices(':') {
            let (to, text) = (line[..at].trim(), line[at + 1..].trim());
            let found = self.find_user(to).map(Target::User).or_else(|unknown| match to.strip_prefix('@') {
                Some(group) => self.find_group(group).map(Target::Group),
                None => Err(unknown),
            });
            match found {
                Ok(target) => return Some(Ok((target, text))),
                Err(unknown) => first = first.or(Some(Err(unknown))),
            }
        }
        first
    }

    /// A user's name, or else the number.
    pub(super) fn name(&self, id: i64) -> String {
        self.users.get(&id).and_then(|user| user.name.clone()).unwrap_or_else(|| id.to_string())
    }

    /// A group's name, or else the number.
    pub(super) fn group_name(&self, id: i64) -> String {
        self.groups.get(&id).map_or_else(|| id.to_string(), |group| group.name.clone())
    }

    /// A receiver's name, or else the number.
    pub(super) fn target_name(&self, target: Target) -> String {
        match target {
            Target::User(id) => self.name(id),
            Target::Group(id) => format!("@{}", self.group_name(id)),
        }
    }

    /// Friends and groups with their states, a line for each.
    pub(super) fn summary(&self) -> Vec<String> {
        let friends: Vec<String> = self
            .users
            .iter()
            .filter(|(_, user)| user.friend)
            .map(|(id, user)| format!("{} ({id}) {}", self.name(*id), state(user.online)))
            .collect();
        let mut lines = Vec::new();
        if !friends.is_empty() {
            lines.push(format!("friends: {}", friends.join(", ")));
        }
        for group in self.groups.values() {
            let users: Vec<String> = group
                .users
                .iter()
                .map(|member| format!("{} {}", member.name, state(self.online(member))))
                .collect();
            let users = if users.is_empty() {
                "members are shown after the next login".into()
            } else {
                users.join(", ")
            };
            lines.push(format!("group {} ({}): {users}", group.name, group.id));
        }
        lines
    }

    /// A member's state, where it is known.
    fn online(&self, member: &Member) -> Option<bool> {
        self.users.get(&member.id).and_then(|user| user.online)
    }

    fn learn_member(&mut self, member: &Member) {
        let user = self.user(member.id);
        user.name = Some(member.name.clone());
        user.online = Some(member.online);
    }

    fn user(&mut self, id: i64) -> &mut User {
        self.users.entry(id).or_insert(User { name: None, friend: false, online: None, epoch: 0 })
    }
}

/// A number, which no name is.
fn number(word: &str) -> Option<i64> {
    if word.bytes().all(|byte| byte.is_ascii_digit()) { word.parse().ok() } else { None }
}

fn state(online: Option<bool>) -> &'static str {
    match online {
        Some(true) => "online",
        Some(false) => "offline",
        None => "(state not known)",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(id: i64, name: &str, online: bool) -> Member {
        Member { id, name: name.into(), online }
    }

    fn contacts() -> Contacts {
        let mut contacts = Contacts::default();
        contacts.logged_in(&LoggedIn {
            id: 1,
            name: "alice".into(),
            offline: Vec::new(),
            friends: vec![member(2, "bob", true)],
            groups: vec![
                Group { id: 5, name: "team".into(), users: vec![member(3, "zhang san", false)] },
                Group { id: 6, name: "twin".into(), users: Vec::new() },
                Group { id: 7, name: "twin".into(), users: Vec::new() },
            ],
            token: None,
        });
        contacts.learn_name(4, "a:b");
        contacts
    }

    #[test]
    fn a_name_is_known_from_friends_members_and_writers() {
        let contacts = contacts();
        for (word, id) in [("bob", 2), ("zhang san", 3), ("a:b", 4), ("alice", 1), ("99", 99)] {
            assert_eq!(contacts.find_user(word), Ok(id), "{word}");
        }
        let unknown = contacts.find_user("carol").unwrap_err();
        assert_eq!(unknown.to_string(), "no id known for carol; use /to ID or /add ID");
    }

    #[test]
    fn a_group_is_found_by_number_and_by_a_name_that_is_the_only_one() {
        let contacts = contacts();
        assert_eq!(contacts.find_group("team"), Ok(5));
        assert_eq!(contacts.find_group("9"), Ok(9));
        assert!(contacts.find_group("twin").unwrap_err().to_string().ends_with("6, 7"));
        assert!(matches!(contacts.find_group("x"), Err(Unknown::Group(_))));
    }

    #[test]
    fn a_line_is_cut_behind_the_first_name_that_is_known() {
        let contacts = contacts();
        assert_eq!(contacts.parse_addressed("bob: see: this"), Some(Ok((Target::User(2), "see: this"))));
        assert_eq!(contacts.parse_addressed("a:b: hi"), Some(Ok((Target::User(4), "hi"))));
        assert_eq!(contacts.parse_addressed(" 13 :  hi "), Some(Ok((Target::User(13), "hi"))));
        assert_eq!(contacts.parse_addressed("@team: hi"), Some(Ok((Target::Group(5), "hi"))));
        assert_eq!(contacts.parse_addressed("carol: a: b"), Some(Err(Unknown::User("carol".into()))));
        assert_eq!(contacts.parse_addressed(": hi"), Some(Err(Unknown::User(String::new()))));
        assert_eq!(contacts.parse_addressed("no colon"), None);
    }

    #[test]
    fn a_late_event_changes_nothing() {
        let mut contacts = contacts();
        let event = |online, epoch| Presence { id: 2, name: "bob".into(), online, epoch };
        assert!(contacts.presence(&event(true, 8)));
        assert!(!contacts.presence(&event(false, 7)));
        assert!(contacts.presence(&event(false, 8)));
        assert_eq!(contacts.summary()[0], "friends: bob (2) offline");
    }

    #[test]
    fn a_summary_names_everybody_with_their_state() {
        let mut contacts = contacts();
        contacts.add_friend(9);
        assert_eq!(
            contacts.summary()[..2],
            ["friends: bob (2) online, 9 (9) (state not known)", "group team (5): zhang san offline"]
        );
    }
}
