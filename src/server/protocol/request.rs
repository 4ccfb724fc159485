//! Turns one framed request into a typed value, or says what is wrong with it.
//!
//! Plain functions, used by any thread. Only the form is judged here: whether a user exists, is logged in or may do that,
//! main and the workers decide. In the usual case nothing is copied.

use std::borrow::Cow;
use std::collections::BTreeSet;

pub use super::chat_object::ChatObject;
use super::hint;
use super::json::fast_path;
use super::json::object::{
    decode_integer, decode_string, inside_quotes, nests_deeper_than, read_object, read_strings,
};
use super::keys::{FORBIDDEN, Key};
use super::msgid::Msgid;
use super::name;
use crate::ids::{GroupId, Mid, UserId};

/// The most characters in what a group's creator says of it.
pub const MAX_GROUPDESC_CHARS: usize = 1_024;
/// The most bytes in a password.
pub const MAX_PASSWORD_BYTES: usize = 256;
/// The most levels of arrays and objects in each other, the request itself included. Receivers must be able to
/// read what passes through, and many parsers give up here.
pub const MAX_LEVELS: usize = 128;

/// The most characters of a client's own key that an error repeats.
const QUOTED_KEY_CHARS: usize = 40;

/// One request, as far as its form goes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Request<'a> {
    /// The raw JSON text of `seq` (a number or a string), if given.
    pub seq: Option<&'a str>,
    /// The user that the client says it is (`id` of msgids 3, 6 to 10).
    pub claimed: Option<UserId>,
    /// What is asked for.
    pub body: Body<'a>,
}

/// What a request asks for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Body<'a> {
    /// msgid 1 with a password.
    Login {
        /// The account.
        who: Who<'a>,
        /// Its password, of any length.
        password: Cow<'a, str>,
        /// What the client can do.
        caps: Caps,
    },
    /// msgid 1 with `token` instead of a password.
    Resume {
        /// What an earlier login answer carried.
        token: Cow<'a, str>,
        /// What the client can do.
        caps: Caps,
    },
    /// msgid 3.
    Logout,
    /// msgid 4. Only the types are checked; see [`name::of_new_user`] and [`password_fault`].
    Register {
        /// The wanted name.
        name: Cow<'a, str>,
        /// The wanted password.
        password: Cow<'a, str>,
    },
    /// msgid 6.
    Chat {
        /// The receiver.
        to: UserId,
        /// What to deliver.
        chat: ChatObject<'a>,
    },
    /// msgid 10.
    GroupChat {
        /// The group whose other members receive it.
        group: GroupId,
        /// What to deliver.
        chat: ChatObject<'a>,
    },
    /// msgid 7.
    AddFriend {
        /// Whom to add.
        friend: UserId,
    },
    /// msgid 8.
    CreateGroup {
        /// As [`name::of_new_group`] gives it.
        name: Cow<'a, str>,
        /// Up to [`MAX_GROUPDESC_CHARS`] characters.
        desc: Cow<'a, str>,
    },
    /// msgid 9.
    JoinGroup {
        /// Which one.
        group: GroupId,
    },
    /// msgid 22.
    Ping,
    /// msgid 23.
    Pong,
    /// msgid 24.
    Confirm {
        /// The last message that has arrived.
        upto: Mid,
    },
}

/// How a login names its account. `id` wins where both are given.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Who<'a> {
    /// By number.
    Id(UserId),
    /// By name.
    Name(Cow<'a, str>),
}

/// What a client says at login that it can do. Words that are not known here are ignored.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "four independent words, not a state")]
pub struct Caps {
    /// It confirms messages.
    pub ack: bool,
    /// It wants to know when friends come and go.
    pub presence: bool,
    /// It answers pings.
    pub ping: bool,
    /// It wants a token to log in again with.
    pub resume: bool,
}

impl Request<'_> {
    /// The kind of request, as answers repeat it in `re`.
    pub fn msgid(&self) -> Msgid {
        match self.body {
            Body::Login { .. } | Body::Resume { .. } => Msgid::Login,
            Body::Logout => Msgid::Logout,
            Body::Register { .. } => Msgid::Register,
            Body::Chat { .. } => Msgid::Chat,
            Body::AddFriend { .. } => Msgid::AddFriend,
            Body::CreateGroup { .. } => Msgid::CreateGroup,
            Body::JoinGroup { .. } => Msgid::JoinGroup,
            Body::GroupChat { .. } => Msgid::GroupChat,
            Body::Ping => Msgid::Ping,
            Body::Pong => Msgid::Pong,
            Body::Confirm { .. } => Msgid::Confirm,
        }
    }
}

/// A request that cannot be understood: the answer is errno 10.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{text}")]
pub struct Fault {
    /// The request's msgid, where an integer was seen.
    pub re: Option<i64>,
    /// The raw JSON text of the request's `seq`, where a number or string was seen.
    pub seq: Option<Box<str>>,
    /// One sentence for `errmsg`; names the field at fault.
    pub text: String,
}

impl Fault {
    /// True exactly when the request has a `msgid` that means nothing here, whatever else is wrong with it.
    pub fn is_of_unknown_kind(&self) -> bool {
        self.re.is_some_and(|number| request_kind(number).is_none())
    }
}

/// What is said to a request whose `msgid` is not known.
const UNKNOWN_MSGID: &str = "`msgid` is not one that clients send";

/// The kind of request that has that `msgid`.
fn request_kind(number: i64) -> Option<Msgid> {
    Msgid::from_number(number).filter(|msgid| msgid.is_request())
}

/// Reads one framed request.
///
/// # Errors
/// When it is not a valid JSON object, repeats a key, has no known `msgid`, or a field is missing or of the wrong
/// type.
pub fn parse(frame: &[u8]) -> Result<Request<'_>, Fault> {
    let Ok(text) = std::str::from_utf8(frame) else {
        // What is still legible tells the client which request it was.
        let legible = String::from_utf8_lossy(frame);
        let mut fields = Fields::default();
        let _ = fields.read(&legible);
        return Err(fields.fault("the request is not valid UTF-8".to_owned()));
    };
    let text = text.trim_ascii();
    let mut fields = Fields::default();
    fields.read(text).and_then(|()| fields.request(text)).map_err(|text| fields.fault(text))
}

/// Reads the request at the very front of some input, in one pass, and answers its length too. None where it is not
/// whole, not as plain as most are, or not right: that is for [`parse`] to tell.
pub(super) fn parse_flat(input: &[u8]) -> Option<(Request<'_>, usize)> {
    let mut fields = Fields { flat: true, ..Fields::default() };
    let mut repeated = false;
    let text = fast_path::read(input, Key::from_word, |key, raw| {
        repeated |= fields.known[key as usize].replace(raw).is_some();
    })?;
    if repeated {
        return None;
    }
    Some((fields.request(text).ok()?, text.len()))
}

/// What is wrong with a password that somebody wants to register with, if anything.
pub fn password_fault(password: &str) -> Option<&'static str> {
    if password.is_empty() {
        Some("a password must not be empty")
    } else if password.len() > MAX_PASSWORD_BYTES {
        Some("a password has at most 256 bytes")
    } else {
        None
    }
}

/// The top level of one request.
#[derive(Default)]
struct Fields<'a> {
    /// The raw value of each known key.
    known: [Option<&'a str>; Key::COUNT],
    /// The other keys, only to find repetitions. A tree, so that the cost does not grow with the square of their number.
    others: BTreeSet<Cow<'a, str>>,
    /// The first thing found wrong with a field that no other field can mend.
    wrong: Option<String>,
    /// True exactly when they are read by [`fast_path`](super::json): no string has an escape, and all is one line.
    flat: bool,
}

impl<'a> Fields<'a> {
    /// Collects the fields, all of them even when one is wrong: `msgid` and `seq` may come later.
    fn read(&mut self, text: &'a str) -> Result<(), String> {
        if !text.starts_with('{') {
            return Err("a request must be a JSON object".to_owned());
        }
        if let Err(error) = read_object(text, |key, raw| self.take(key, raw)) {
            // What is no JSON has no fields, wherever the first mistake is.
            self.known = Default::default();
            return Err(hint::invalid(text, &error));
        }
        self.wrong.take().map_or(Ok(()), Err)
    }

    fn take(&mut self, key: Cow<'a, str>, raw: &'a str) {
        if nests_deeper_than(MAX_LEVELS - 1, raw) {
            self.wrong.get_or_insert_with(|| format!("`{}` is nested too deeply", quoted(&key)));
        }
        if let Some(known) = Key::from_word(key.as_bytes()) {
            let place = &mut self.known[known as usize];
            if place.is_some() {
                self.wrong.get_or_insert_with(|| format!("`{}` is given more than once", known.word()));
            }
            place.get_or_insert(raw);
        } else if self.others.contains(&key) {
            self.wrong.get_or_insert_with(|| format!("`{}` is given more than once", quoted(&key)));
        } else {
            self.others.insert(key);
        }
    }

    fn request(&self, text: &'a str) -> Result<Request<'a>, String> {
        let msgid = self.need(Key::Msgid, self.integer(Key::Msgid)?)?;
        let msgid = request_kind(msgid).ok_or(UNKNOWN_MSGID)?;
        if self.raw(Key::Seq).is_some() && self.seq().is_none() {
            return Err("`seq` must be a number or a string".to_owned());
        }
        let claimed = match msgid {
            Msgid::Register | Msgid::Ping | Msgid::Pong | Msgid::Confirm => None,
            _ => self.integer(Key::Id)?.map(UserId),
        };
        let body = match msgid {
            Msgid::Login => {
                return Ok(Request { seq: self.seq(), claimed: None, body: self.login(claimed)? });
            }
            Msgid::Logout => Body::Logout,
            Msgid::Register => {
                let name = self.need(Key::Name, self.string(Key::Name)?)?;
                Body::Register { name, password: self.need(Key::Password, self.password()?)? }
            }
            Msgid::Chat => {
                let key = if self.raw(Key::Toid).is_some() { Key::Toid } else { Key::To };
                let to = UserId(self.need(Key::Toid, self.integer(key)?)?);
                Body::Chat { to, chat: self.chat(text, claimed)? }
            }
            Msgid::AddFriend => {
                Body::AddFriend { friend: UserId(self.need(Key::Friendid, self.integer(Key::Friendid)?)?) }
            }
            Msgid::CreateGroup => self.create_group()?,
            Msgid::JoinGroup => Body::JoinGroup { group: self.group()? },
            Msgid::GroupChat => Body::GroupChat { group: self.group()?, chat: self.chat(text, claimed)? },
            Msgid::Ping => Body::Ping,
            Msgid::Pong => Body::Pong,
            Msgid::Confirm => Body::Confirm { upto: Mid(self.need(Key::Mid, self.integer(Key::Mid)?)?) },
            _ => return Err(UNKNOWN_MSGID.to_owned()),
        };
        Ok(Request { seq: self.seq(), claimed, body })
    }

    fn login(&self, id: Option<UserId>) -> Result<Body<'a>, String> {
        let name = self.string(Key::Name)?;
        let caps = match self.raw(Key::Caps) {
            None => Caps::default(),
            Some(raw) => caps(raw).ok_or("`caps` must be an array of strings")?,
        };
        let password = self.password()?;
        if password.is_none()
            && let Some(token) = self.string(Key::Token)?
        {
            return Ok(Body::Resume { token, caps });
        }
        let who = match (id, name) {
            (Some(id), _) => Who::Id(id),
            (None, Some(name)) => Who::Name(name),
            (None, None) => return Err("`id` or `name` is missing".to_owned()),
        };
        Ok(Body::Login { who, password: self.need(Key::Password, password)?, caps })
    }

    fn create_group(&self) -> Result<Body<'a>, String> {
        let name = self.need(Key::Groupname, self.string(Key::Groupname)?)?;
        let name = match name {
            Cow::Borrowed(name) => name::of_new_group(name),
            Cow::Owned(name) => name::of_new_group(&name).map(|name| Cow::Owned(name.into_owned())),
        }
        .map_err(|rule| format!("`groupname` is not acceptable: {rule}"))?;
        let desc = self.need(Key::Groupdesc, self.string(Key::Groupdesc)?)?;
        if desc.chars().nth(MAX_GROUPDESC_CHARS).is_some() {
            return Err(format!("`groupdesc` must have at most {MAX_GROUPDESC_CHARS} characters"));
        }
        Ok(Body::CreateGroup { name, desc })
    }

    fn chat(&self, frame: &'a str, claimed: Option<UserId>) -> Result<ChatObject<'a>, String> {
        let text = self.need(Key::Msg, self.string(Key::Msg)?)?;
        // Neither is decoded: the name is replaced, and the time passes through as it is.
        for key in [Key::Name, Key::Time] {
            if self.raw(key).is_some_and(|raw| !raw.starts_with('"')) {
                return Err(wrong_string(key));
            }
        }
        Ok(ChatObject {
            frame,
            raw_text: self.raw(Key::Msg).unwrap_or_default(),
            text,
            claimed,
            raw_id: self.raw(Key::Id),
            raw_name: self.raw(Key::Name),
            has_time: self.raw(Key::Time).is_some(),
            one_line: self.flat || memchr::memchr2(b'\n', b'\r', frame.as_bytes()).is_none(),
            has_forbidden: FORBIDDEN.iter().any(|&key| self.raw(key).is_some()),
        })
    }

    fn group(&self) -> Result<GroupId, String> {
        self.need(Key::Groupid, self.integer(Key::Groupid)?).map(GroupId)
    }

    /// The password under any of its names, the proper one first.
    fn password(&self) -> Result<Option<Cow<'a, str>>, String> {
        let spelled = [Key::Password, Key::Passwd, Key::Pwd].into_iter().find(|&key| self.raw(key).is_some());
        spelled.map_or(Ok(None), |key| self.string(key))
    }

    fn raw(&self, key: Key) -> Option<&'a str> {
        self.known[key as usize]
    }

    fn seq(&self) -> Option<&'a str> {
        self.raw(Key::Seq).filter(|raw| raw.starts_with(|first: char| matches!(first, '"' | '-' | '0'..='9')))
    }

    fn integer(&self, key: Key) -> Result<Option<i64>, String> {
        let wrong =
            || format!("`{}` must be an integer of 64 bits, without fraction or exponent", key.word());
        self.raw(key).map(|raw| decode_integer(raw).ok_or_else(wrong)).transpose()
    }

    fn string(&self, key: Key) -> Result<Option<Cow<'a, str>>, String> {
        let decode = |raw| if self.flat { inside_quotes(raw).map(Cow::Borrowed) } else { decode_string(raw) };
        self.raw(key).map(|raw| decode(raw).ok_or_else(|| wrong_string(key))).transpose()
    }

    #[expect(clippy::unused_self, reason = "reads like its neighbours")]
    fn need<T>(&self, key: Key, value: Option<T>) -> Result<T, String> {
        value.ok_or_else(|| format!("`{}` is missing", key.word()))
    }

    fn fault(&self, text: String) -> Fault {
        let re = self.raw(Key::Msgid).and_then(decode_integer);
        Fault { re, seq: self.seq().map(Box::from), text }
    }
}

fn wrong_string(key: Key) -> String {
    format!("`{}` must be a string of valid Unicode", key.word())
}

/// A client's own key, short enough to be repeated to it.
fn quoted(key: &str) -> String {
    key.chars().take(QUOTED_KEY_CHARS).collect()
}

/// Reads `caps`; none where it is not an array of strings.
fn caps(raw: &str) -> Option<Caps> {
    let mut caps = Caps::default();
    read_strings(raw, |word| match word {
        "ack" => caps.ack = true,
        "presence" => caps.presence = true,
        "ping" => caps.ping = true,
        "resume" => caps.resume = true,
        _ => {}
    })
    .ok()?;
    Some(caps)
}
