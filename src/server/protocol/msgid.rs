//! The numbers that say what a JSON object is, declared once.
//!
//! Plain values, owned by nobody.

macro_rules! msgids {
    ($($(#[doc = $doc:literal])+ $name:ident $number:literal $from:ident;)*) => {
        /// What a JSON object is, as its `msgid` says.
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
        pub enum Msgid { $($(#[doc = $doc])+ $name,)* }

        impl Msgid {
            /// All of them, by number.
            pub const ALL: &'static [Msgid] = &[$(Msgid::$name,)*];

            /// The number on the wire.
            pub const fn number(self) -> i64 {
                match self { $(Msgid::$name => $number,)* }
            }

            /// The one with that number.
            pub fn from_number(number: i64) -> Option<Msgid> {
                match number { $($number => Some(Msgid::$name),)* _ => None }
            }

            /// True exactly when clients send it.
            pub const fn is_request(self) -> bool {
                match self { $(Msgid::$name => msgids!(@$from),)* }
            }
        }
    };
    (@client) => { true };
    (@both) => { true };
    (@server) => { false };
}

msgids! {
    /// What became of a request that has no answer of its own.
    Answer 0 server;
    /// A login, by password or token.
    Login 1 client;
    /// The answer to a login.
    LoginAnswer 2 server;
    /// The end of a session, at the client's wish.
    Logout 3 client;
    /// A new user.
    Register 4 client;
    /// The answer to a registration.
    RegisterAnswer 5 server;
    /// A chat to one user.
    Chat 6 both;
    /// A new friend.
    AddFriend 7 client;
    /// A new group.
    CreateGroup 8 client;
    /// A group that the user joins.
    JoinGroup 9 client;
    /// A chat to the other members of a group.
    GroupChat 10 both;
    /// The last thing that a client hears.
    Goodbye 20 server;
    /// A friend came or went.
    Presence 21 server;
    /// Asks for a sign of life.
    Ping 22 both;
    /// The answer to a ping.
    Pong 23 both;
    /// Confirms messages.
    Confirm 24 client;
}

impl Msgid {
    /// What refuses a login or registration: old clients wait for that number.
    #[must_use]
    pub const fn login_answer(self) -> Msgid {
        match self {
            Msgid::Register => Msgid::RegisterAnswer,
            _ => Msgid::LoginAnswer,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_number_is_that_of_one_kind_and_clients_send_those_of_the_contract() {
        for msgid in Msgid::ALL {
            assert_eq!(Msgid::from_number(msgid.number()), Some(*msgid));
        }
        let requests = Msgid::ALL.iter().filter(|msgid| msgid.is_request());
        let numbers: Vec<_> = requests.map(|msgid| msgid.number()).collect();
        assert_eq!(numbers, [1, 3, 4, 6, 7, 8, 9, 10, 22, 23, 24]);
    }
}
