//! Who is who: the protocol speaks of numbers, people of names.
//!
//! Plain data of a session. A name is known from friends, from members of groups, and from whoever has written;
//! there is no way to ask the server.

use std::collections::BTreeMap;

use super::wire::{Group, LoggedIn, Member, Presence};
use linger_server::protocol::written_name::read_name;

/// What is known of users and groups.
#[derive(Debug, Default)]
pub(super) struct People {
    users: BTreeMap<i64, User>,
    groups: BTreeMap<i64, Group>,
}

#[derive(Clone, Debug)]
struct User {
    /// None for one who was only ever named by number.
    name: Option<String>,
    friend: bool,
    /// None where nobody has said.
    online: Option<bool>,
    /// The session that `online` is about.
    epoch: i64,
}

/// Where a chat goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Target {
    /// To that user.
    User(i64),
    /// To that group.
    Group(i64),
}

/// Why a word names nobody.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub(super) enum Unknown {
    #[error("no id known for {0}; use /to ID or /add ID")]
    User(String),
    #[error("no group {0} here; /friends lists yours, /join ID joins one")]
    Group(String),
    #[error("several groups have the name {name}; use one of the ids {ids}")]
    Ambiguous { name: String, ids: String },
}

impl People {
    /// Takes in a login's answer. What it says of friends and groups replaces what was known.
    pub(super) fn logged_in(&mut self, login: &LoggedIn) {
        for user in self.users.values_mut() {
            (user.friend, user.online) = (false, None);
        }
        self.groups = login.groups.iter().map(|group| (group.id, group.clone())).collect();
        for member in login.groups.iter().flat_map(|group| &group.users) {
            self.see(member);
        }
        for friend in &login.friends {
            self.see(friend);
            self.add_friend(friend.id);
        }
        self.met(login.id, &login.name);
    }

    /// Somebody of that number and name has written.
    pub(super) fn met(&mut self, id: i64, name: &str) {
        self.user(id).name = Some(name.to_owned());
    }

    /// That user is a friend from now on.
    pub(super) fn add_friend(&mut self, id: i64) {
        self.user(id).friend = true;
    }

    /// The user is in that group from now on.
    pub(super) fn add_group(&mut self, id: i64, name: &str) {
        let group = || Group { id, name: name.to_owned(), users: Vec::new() };
        self.groups.entry(id).or_insert_with(group);
    }

    /// Takes a friend's new state; false where something newer is known.
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

    /// Cuts a line of the form `name: text`, `13: text` or `@group: text`. A name may have colons of its own, so the
    /// first cut in front of which somebody is known counts. None for a line without a colon.
    pub(super) fn addressed<'a>(&self, line: &'a str) -> Option<Result<(Target, &'a str), Unknown>> {
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

    /// What to call a user: the name, or else the number.
    pub(super) fn name(&self, id: i64) -> String {
        self.users.get(&id).and_then(|user| user.name.clone()).unwrap_or_else(|| id.to_string())
    }

    /// What to call a group: the name, or else the number.
    pub(super) fn group_name(&self, id: i64) -> String {
        self.groups.get(&id).map_or_else(|| id.to_string(), |group| group.name.clone())
    }

    /// What to call a target.
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

    /// A member's state as far as it is known now.
    fn online(&self, member: &Member) -> Option<bool> {
        self.users.get(&member.id).and_then(|user| user.online)
    }

    fn see(&mut self, member: &Member) {
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

    fn people() -> People {
        let mut people = People::default();
        people.logged_in(&LoggedIn {
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
        people.met(4, "a:b");
        people
    }

    #[test]
    fn a_name_is_known_from_friends_members_and_writers() {
        let people = people();
        for (word, id) in [("bob", 2), ("zhang san", 3), ("a:b", 4), ("alice", 1), ("99", 99)] {
            assert_eq!(people.find_user(word), Ok(id), "{word}");
        }
        let unknown = people.find_user("carol").unwrap_err();
        assert_eq!(unknown.to_string(), "no id known for carol; use /to ID or /add ID");
    }

    #[test]
    fn a_group_is_found_by_number_and_by_a_name_that_is_the_only_one() {
        let people = people();
        assert_eq!(people.find_group("team"), Ok(5));
        assert_eq!(people.find_group("9"), Ok(9));
        assert!(people.find_group("twin").unwrap_err().to_string().ends_with("6, 7"));
        assert!(matches!(people.find_group("x"), Err(Unknown::Group(_))));
    }

    #[test]
    fn a_line_is_cut_behind_the_first_name_that_is_known() {
        let people = people();
        assert_eq!(people.addressed("bob: see: this"), Some(Ok((Target::User(2), "see: this"))));
        assert_eq!(people.addressed("a:b: hi"), Some(Ok((Target::User(4), "hi"))));
        assert_eq!(people.addressed(" 13 :  hi "), Some(Ok((Target::User(13), "hi"))));
        assert_eq!(people.addressed("@team: hi"), Some(Ok((Target::Group(5), "hi"))));
        assert_eq!(people.addressed("carol: a: b"), Some(Err(Unknown::User("carol".into()))));
        assert_eq!(people.addressed(": hi"), Some(Err(Unknown::User(String::new()))));
        assert_eq!(people.addressed("no colon"), None);
    }

    #[test]
    fn a_late_event_changes_nothing() {
        let mut people = people();
        let event = |online, epoch| Presence { id: 2, name: "bob".into(), online, epoch };
        assert!(people.presence(&event(true, 8)));
        assert!(!people.presence(&event(false, 7)));
        assert!(people.presence(&event(false, 8)));
        assert_eq!(people.summary()[0], "friends: bob (2) offline");
    }

    #[test]
    fn a_summary_names_everybody_with_their_state() {
        let mut people = people();
        people.add_friend(9);
        assert_eq!(
            people.summary()[..2],
            ["friends: bob (2) online, 9 (9) (state not known)", "group team (5): zhang san offline"]
        );
    }
}
