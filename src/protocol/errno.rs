//! The numbers of refusals and errors, the same in every answer.
//!
//! Plain values, owned by nobody. What each means for the channel is not decided here.

macro_rules! errnos {
    ($($(#[$doc:meta])* $name:ident $number:literal $text:literal;)*) => {
        /// Why a request was refused.
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
        pub enum Errno { $($(#[$doc])* $name,)* }

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
        }
    };
}

errnos! {
    /// A login or registration that is not granted. To a login it never says which part was wrong.
    Refused 1 "wrong id, name or password";
    /// The user has a session already, and the policy is to refuse another.
    AlreadyOnline 2 "this account is already online, use another one";
    /// Not a request that can be understood.
    Malformed 10 "the request could not be understood";
    /// The request needs a session.
    LoginFirst 11 "log in first";
    /// The `id` of the request is not that of the session.
    WrongId 12 "`id` is not the user logged in on this connection";
    /// Nobody has that number.
    NoSuchUser 13 "there is no such user";
    /// No group has that number.
    NoSuchGroup 14 "there is no such group";
    /// The user is not in that group.
    NotMember 15 "you are not a member of this group";
    /// Larger than the frame limit.
    TooLarge 16 "the request is larger than this server accepts";
    /// Too many requests, attempts or registrations, or a ban.
    TooMany 17 "too many requests, slow down";
    /// The server cannot take this now.
    Busy 18 "the server is too busy, try again in a moment";
    /// Nothing was accepted, because nothing could be stored.
    NotStored 19 "this could not be stored, try again later";
    /// The receiver's offline box is full.
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
