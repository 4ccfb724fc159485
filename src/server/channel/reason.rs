//! Why a channel or a session ended: a closed enumeration, the same word everywhere.
//!
//! Goodbyes, logs, metrics, `linger why` and the column `departure.reason` all use [`Reason::word`].

/// Who brought an end about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Initiator {
    /// The client, by what it sent or by closing.
    Client,
    /// The network between, or the client's machine.
    Network,
    /// The server, by one of its rules.
    Server,
    /// A person with the admin command.
    Admin,
}

/// What a client should do after a goodbye.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Advice {
    /// Connect again at once.
    Reconnect,
    /// Connect again later; the goodbye may say when.
    RetryAfter,
    /// Do not connect again by yourself: it would end the same way.
    Stop,
}

macro_rules! reasons {
    ($($(#[doc = $doc:literal])+ $name:ident $word:literal $initiator:ident $advice:ident $sentence:literal;)*) => {
        /// Why a channel or a session ended.
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
        pub enum Reason { $($(#[doc = $doc])+ $name,)* }

        impl Reason {
            /// Every reason, in the order of the contract.
            pub const ALL: &'static [Reason] = &[$(Reason::$name,)*];

            /// The word that users see.
            pub const fn word(self) -> &'static str {
                match self { $(Reason::$name => $word,)* }
            }

            /// Who brought it about.
            pub const fn initiator(self) -> Initiator {
                match self { $(Reason::$name => Initiator::$initiator,)* }
            }

            /// What the client should do next.
            pub const fn advice(self) -> Advice {
                match self { $(Reason::$name => Advice::$advice,)* }
            }

            /// What a goodbye says when there is no text of its own.
            pub const fn sentence(self) -> &'static str {
                match self { $(Reason::$name => $sentence,)* }
            }

            /// When it happens, for the documents.
            pub const fn meaning(self) -> &'static str {
                match self { $(Reason::$name => concat!($($doc),+).trim_ascii(),)* }
            }
        }
    };
}

reasons! {
    /// The user logged out, or logged in anew on the same channel.
    ClientQuit "client_quit" Client Reconnect "you logged out";
    /// The client ended its side.
    PeerClosed "peer_closed" Client Reconnect "you ended the connection";
    /// No end of a request could be found: a byte that begins no request, or a bracket of the wrong kind.
    MalformedFrame "malformed_frame" Client Stop "no end of the request can be found";
    /// A request or line was larger than the limit (errno 16).
    FrameTooLarge "frame_too_large" Client Reconnect "the request is larger than the server takes";
    /// 100 faulty requests in a row (errno 10 to 12).
    ProtocolViolation "protocol_violation" Client Stop "too many faulty requests in a row";
    /// The connection was reset (`ECONNRESET`, `EPIPE`).
    PeerReset "peer_reset" Network Reconnect "the connection was reset";
    /// No input after the server's ping (`--ping-timeout`).
    KeepaliveTimeout "keepalive_timeout" Network Reconnect "the ping was not answered in time";
    /// The kernel gave the connection up (`ETIMEDOUT`, `EHOSTUNREACH`, `ENETUNREACH`).
    NetworkTimeout "network_timeout" Network Reconnect "the network did not answer in time";
    /// Reading failed in another way.
    ReadError "read_error" Network Reconnect "reading from the connection failed";
    /// Writing failed in another way.
    WriteError "write_error" Network Reconnect "writing to the connection failed";
    /// No login for too long (`--login-timeout`).
    LoginTimeout "login_timeout" Server Reconnect "nobody logged in in time";
    /// A refused first line of the line protocol, or 10 failed logins on one channel.
    AuthFailed "auth_failed" Server Stop "the login was refused";
    /// 100 requests in a row that were refused for their rate (`--request-rate`).
    RateExceeded "rate_exceeded" Server RetryAfter "too many requests";
    /// The client read too slowly (`--out-limit`, `--write-timeout`).
    SlowConsumer "slow_consumer" Server RetryAfter "messages were not read fast enough; they are kept";
    /// No input for too long (`--idle`).
    IdleTimeout "idle_timeout" Server Reconnect "nothing was heard for too long";
    /// The server has as many channels as it takes (`--max-channels`).
    ServerFull "server_full" Server RetryAfter "the server is full";
    /// The address has as many channels as it may have (`--address-channels`).
    IpLimit "ip_limit" Server RetryAfter "too many connections from this address";
    /// Memory or file descriptors ran out.
    ResourceExhausted "resource_exhausted" Server Reconnect "the server is out of memory or file descriptors";
    /// The same user logged in on another channel (`--duplicate takeover`).
    Replaced "replaced" Server Stop "the same user logged in elsewhere";
    /// The server was stopped in order.
    ServerShutdown "server_shutdown" Server Reconnect "the server is shutting down";
    /// The server was killed; written at its next start.
    ServerCrash "server_crash" Server Reconnect "the server was killed";
    /// A fault of the server's own.
    InternalError "internal_error" Server Reconnect "a fault of the server's own";
    /// An administrator sent the channel away (`linger kick`).
    Kicked "kicked" Admin RetryAfter "an administrator ended the connection";
    /// An administrator banned the user or address (`linger kick --ban`).
    Banned "banned" Admin RetryAfter "an administrator has banned you";
    /// An administrator drained the server (`linger drain`).
    ServerDrain "server_drain" Admin Reconnect "the server is being emptied";
}

impl Initiator {
    /// The word in column `departure.initiator`.
    pub const fn word(self) -> &'static str {
        match self {
            Initiator::Client => "client",
            Initiator::Network => "network",
            Initiator::Server => "server",
            Initiator::Admin => "admin",
        }
    }
}

impl Advice {
    /// The word in a goodbye.
    pub const fn word(self) -> &'static str {
        match self {
            Advice::Reconnect => "reconnect",
            Advice::RetryAfter => "retry_after",
            Advice::Stop => "stop",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_a_word_of_its_own() {
        let mut words: Vec<_> = Reason::ALL.iter().map(|r| r.word()).collect();
        words.sort_unstable();
        words.dedup();
        assert_eq!(words.len(), Reason::ALL.len());
    }
}
