//! The numbers of refusals and errors, the same in every answer.
//!
//! Plain values, owned by nobody. What each means for the channel is not decided here.

macro_rules! errnos {
    ($($(#[doc = $doc:literal])+ $name:ident $number:literal $text:literal;)*) => {
        /// Why a request was refused.
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
        pub enum Errno { $($(#[doc = $doc])+ $name,)* }

        impl Errno {
            /// Every number, in rising order.
            pub const ALL: &'static [Errno] = &[$(Errno::$name,)*];

            /// The number that clients see as `errno`.
            pub const fn number(self) -> u8 {
                match self { $(Errno::$name => $number,)* }
            }

            /// What to say as `errmsg` where nothing more exact is known.
            pub const fn text(self) -> &'static str {
                match self { $(Errno::$name => $text,)* }
            }

            /// When it is answered, for the documents.
            pub const fn meaning(self) -> &'static str {
                match self { $(Errno::$name => concat!($($doc),+).trim_ascii(),)* }
            }
        }
    };
}

errnos! {
    /// A login or registration that is not granted: wrong id, name or password; a used or expired token; a name that is
    /// taken or not acceptable. To a login it never says which part was wrong.
    Refused 1 "wrong id, name or password";
    /// The user is online already, and `--duplicate` is `reject`.
    AlreadyOnline 2 "this account is already online, use another one";
    /// A request that cannot be understood. Where no end of it can be found, the goodbye `malformed_frame` follows.
    Malformed 10 "the request could not be understood";
    /// The request needs a login first.
    LoginFirst 11 "log in first";
    /// The `id` of the request is not the user logged in on this channel.
    WrongId 12 "`id` is not the user logged in on this connection";
    /// There is no user with that number.
    NoSuchUser 13 "there is no such user";
    /// There is no group with that number.
    NoSuchGroup 14 "there is no such group";
    /// The user is not in that group.
    NotMember 15 "you are not a member of this group";
    /// The request is larger than the frame limit. The goodbye `frame_too_large` follows.
    TooLarge 16 "the request is larger than this server accepts";
    /// Too many requests, failed logins or registrations; or a ban, and then the goodbye `banned` follows.
    TooMany 17 "too many requests, slow down";
    /// The server cannot take this now; it may be able to in a moment.
    Busy 18 "the server is too busy, try again in a moment";
    /// It could not be stored, and nothing of it was accepted.
    NotStored 19 "this could not be stored, try again later";
    /// The receiver's box is full, or all boxes together; or the user has as many friends or groups, or the group as many
    /// members, as there may be.
    BoxFull 20 "the receiver's box is full";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_rise_and_every_one_says_something() {
        let numbers: Vec<_> = Errno::ALL.iter().map(|errno| errno.number()).collect();
        assert_eq!(numbers, [1, 2, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20]);
        assert!(Errno::ALL.iter().all(|errno| !errno.text().is_empty()));
    }
}
