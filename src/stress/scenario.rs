//! What `linger stress` is told: which scenario, with its options. Plain data.

use super::args::{ChurnArgs, Common, KeepArgs, KickArgs, RelayArgs, StormArgs, VanishArgs};
use super::chaos::{ChaosArgs, ReceiveArgs};
use super::flood::FloodArgs;

/// What `linger stress` is told.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// What to do to the server.
    #[command(subcommand)]
    pub scenario: Scenario,
}

/// A scenario, with its options.
#[derive(Clone, Debug, clap::Subcommand)]
pub enum Scenario {
    /// Everybody is online, then everybody is gone at once.
    Vanish(VanishArgs),
    /// Lanes connect, log in and leave, again and again.
    Churn(ChurnArgs),
    /// Everybody is online and is kicked over the control socket.
    Kick(KickArgs),
    /// Pairs exchange chats as fast as a window allows.
    Relay(RelayArgs),
    /// Users write with `seq` to users who are away, and each answer means that the message is on the disk.
    Keep(KeepArgs),
    /// A crowd is lost at once while others chat, log in and are kicked.
    Storm(StormArgs),
    /// Chats with confirmations on both ends, while clients are kicked, reset and taken over and processes killed.
    Chaos(ChaosArgs),
    /// Registrations, receivers, groups and a full log pipe, while bystanders chat, log in and are kicked.
    Flood(FloodArgs),
    /// A receiver of `chaos` in a process of its own; started by it.
    #[command(hide = true)]
    Receive(ReceiveArgs),
}

impl Scenario {
    /// Its name, and the options that every scenario has.
    pub(super) fn parts(&self) -> (&'static str, &Common) {
        match self {
            Self::Vanish(args) => ("vanish", &args.common),
            Self::Churn(args) => ("churn", &args.common),
            Self::Kick(args) => ("kick", &args.common),
            Self::Relay(args) => ("relay", &args.common),
            Self::Keep(args) => ("keep", &args.common),
            Self::Storm(args) => ("storm", &args.common),
            Self::Chaos(args) => ("chaos", &args.common),
            Self::Flood(args) => ("flood", &args.common),
            Self::Receive(args) => ("receive", &args.common),
        }
    }
}
