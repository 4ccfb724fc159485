//! The keys of requests, and those that no sender may put into what a receiver gets.

macro_rules! keys {
    ($($name:ident $word:literal)*) => {
        /// The keys that mean something in some request.
        #[derive(Clone, Copy)]
        pub(super) enum Key { $($name,)* }

        impl Key {
            pub(super) const COUNT: usize = [$(Key::$name,)*].len();

            pub(super) fn from_word(word: &[u8]) -> Option<Key> {
                match word { $(word if word == $word.as_bytes() => Some(Key::$name),)* _ => None }
            }

            pub(super) fn word(self) -> &'static str {
                match self { $(Key::$name => $word,)* }
            }
        }
    };
}

keys! {
    Msgid "msgid" Seq "seq" Id "id" Name "name" Msg "msg" Toid "toid" To "to" Time "time" Groupid "groupid"
    Password "password" Passwd "passwd" Pwd "pwd" Token "token" Caps "caps"
    Friendid "friendid" Groupname "groupname" Groupdesc "groupdesc"
    Mid "mid" Again "again" Re "re" Errno "errno"
}

/// What a receiver must never get from a sender: these words are the server's.
pub(super) const FORBIDDEN: [Key; 7] =
    [Key::Mid, Key::Again, Key::Seq, Key::Re, Key::Errno, Key::Caps, Key::Token];

/// True exactly when a field of that (decoded) name must not reach a receiver.
pub(super) fn is_forbidden(key: &str) -> bool {
    FORBIDDEN.iter().any(|forbidden| forbidden.word() == key)
}
