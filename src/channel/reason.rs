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
    ($($(#[$doc:meta])* $name:ident $word:literal $initiator:ident $advice:ident;)*) => {
        /// Why a channel or a session ended.
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
        pub enum Reason { $($(#[$doc])* $name,)* }

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
        }
    };
}

reasons! {
    /// The user logged out, or logged in anew on the same channel.
    ClientQuit "client_quit" Client Reconnect;
    /// The client ended its side.
    PeerClosed "peer_closed" Client Reconnect;
    /// No end of a request could be found.
    MalformedFrame "malformed_frame" Client Stop;
    /// A request was larger than the limit.
    FrameTooLarge "frame_too_large" Client Reconnect;
    /// Too many errors in a row.
    ProtocolViolation "protocol_violation" Client Stop;
    /// The connection was reset.
    PeerReset "peer_reset" Network Reconnect;
    /// No input after the server's ping.
    KeepaliveTimeout "keepalive_timeout" Network Reconnect;
    /// The kernel gave the connection up (`ETIMEDOUT`).
    NetworkTimeout "network_timeout" Network Reconnect;
    /// Reading failed in another way.
    ReadError "read_error" Network Reconnect;
    /// Writing failed in another way.
    WriteError "write_error" Network Reconnect;
    /// Nobody logged in for too long.
    LoginTimeout "login_timeout" Server Reconnect;
    /// A refused first line, or too many failed logins on one channel.
    AuthFailed "auth_failed" Server Stop;
    /// Too many requests.
    RateExceeded "rate_exceeded" Server RetryAfter;
    /// The client read too slowly.
    SlowConsumer "slow_consumer" Server RetryAfter;
    /// No input for too long.
    IdleTimeout "idle_timeout" Server Reconnect;
    /// As many channels as the server takes.
    ServerFull "server_full" Server RetryAfter;
    /// As many channels as one address may have.
    IpLimit "ip_limit" Server RetryAfter;
    /// Memory or file descriptors ran out.
    ResourceExhausted "resource_exhausted" Server Reconnect;
    /// The same user logged in on another channel.
    Replaced "replaced" Server Stop;
    /// The server was stopped in order.
    ServerShutdown "server_shutdown" Server Reconnect;
    /// The server was killed; written at its next start.
    ServerCrash "server_crash" Server Reconnect;
    /// A fault of the server's own.
    InternalError "internal_error" Server Reconnect;
    /// An admin sent the channel away.
    Kicked "kicked" Admin RetryAfter;
    /// An admin banned the user or address.
    Banned "banned" Admin RetryAfter;
    /// An admin drained the server.
    ServerDrain "server_drain" Admin Reconnect;
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
