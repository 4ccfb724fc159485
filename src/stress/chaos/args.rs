//! What `linger stress chaos` is told. Plain data.

use std::num::NonZeroUsize;

use super::fault_injector::Targets;
use crate::Common;

/// Options of `chaos`.
#[derive(Clone, Debug, clap::Args)]
pub struct ChaosArgs {
    #[command(flatten)]
    #[expect(missing_docs, reason = "clap would show it as the help of the scenario")]
    pub common: Common,

    /// For how long.
    #[arg(long, value_name = "S", default_value_t = 10)]
    pub seconds: u64,

    /// Users who send [default: half of --clients].
    #[arg(long, value_name = "N")]
    pub senders: Option<NonZeroUsize>,

    /// Users who receive and confirm [default: half of --clients].
    #[arg(long, value_name = "N")]
    pub receivers: Option<NonZeroUsize>,

    /// How many of the receivers are processes of their own, which are killed with SIGKILL.
    #[arg(long, value_name = "N", default_value_t = 2)]
    pub processes: usize,

    /// Chats of one sender without an answer.
    #[arg(long, value_name = "W", default_value = "16")]
    pub window: NonZeroUsize,

    /// Bytes of a chat's text at most.
    #[arg(long, value_name = "BYTES", default_value_t = 2048)]
    pub size: usize,

    /// Chats on their way to one receiver; well below the server's --box-messages, for a refusal ends a chat.
    #[arg(long, value_name = "N", default_value = "400")]
    pub backlog: NonZeroUsize,

    /// The longest pause of a receiver before it confirms; one in four is ten times as slow.
    #[arg(long, value_name = "MS", default_value_t = 20)]
    pub slow_ms: usize,

    /// The average time between two faults.
    #[arg(long = "blow-ms", value_name = "MS", default_value_t = 20)]
    pub fault_ms: usize,

    /// The average time between two kills of the server, where the command to start it is given.
    #[arg(long, value_name = "MS", default_value_t = 3000)]
    pub server_kill_ms: usize,

    /// Starts this server, kills it with -9 now and then, and starts it again; --target and --data come from its
    /// ready line.
    #[arg(last = true, value_name = "COMMAND")]
    pub serve: Vec<String>,
}

impl ChaosArgs {
    pub(super) fn senders(&self) -> usize {
        self.senders.map_or_else(|| self.half(), NonZeroUsize::get)
    }

    pub(super) fn receivers(&self) -> usize {
        self.receivers.map_or_else(|| self.half(), NonZeroUsize::get)
    }

    fn half(&self) -> usize {
        (self.common.clients(16) / 2).max(1)
    }

    pub(super) fn targets(&self) -> Targets {
        let receivers = self.receivers();
        Targets { senders: self.senders(), receivers, processes: self.processes.min(receivers) }
    }
}
