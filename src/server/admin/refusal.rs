//! Why the admin socket could not do what it was asked.

use super::history_pool::HistoryPoolError;
use super::protocol::MAX_ASK_BYTES;
use super::target::Target;
use crate::message::event::{BanFault, StaleOnlineFault};
use std::time::Duration;

/// How long the workers and main may take to answer.
pub(super) const ANSWER_MAX: Duration = Duration::from_secs(10);

/// Why an ask could not be answered.
#[derive(Debug, thiserror::Error)]
pub(super) enum Refusal {
    #[error("{0}")]
    Ask(#[from] super::protocol::AdminRequestError),
    #[error("{0} did not answer within {1} s")]
    Silent(&'static str, u64),
    #[error("kicked, but not confirmed within {seconds} s for {channel}: missing {stage}")]
    Unconfirmed { channel: String, stage: &'static str, seconds: u64 },
    #[error(transparent)]
    HistoryPool(#[from] HistoryPoolError),
    #[error("the server is being drained or stopped already")]
    Stopping,
    #[error("the answer could not be written as JSON: {0}")]
    Json(#[from] serde_json::Error),
    #[error("bans: {0}")]
    Bans(#[from] BanFault),
    #[error("{target} has no channel, but {fault}; mend that and kick again")]
    StaleOnline { target: Target, fault: StaleOnlineFault },
    #[error("an ask may have {MAX_ASK_BYTES} bytes at most")]
    TooLong,
}

pub(super) fn silent(who: &'static str) -> Refusal {
    Refusal::Silent(who, ANSWER_MAX.as_secs())
}
