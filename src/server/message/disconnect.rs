//! The two reports of an end: the departure, by the thread that took the step, and the delivery report, by the owning
//! worker.

use super::chat::Chat;
use crate::channel::{Advice, ChannelId, Reason, SessionNo};
use crate::sync::Arc;
use crossbeam_channel::Sender;
use std::borrow::Cow;

/// The wait that a goodbye advises where no other is known, in milliseconds.
const RETRY_AFTER_MS: u64 = 3_000;

/// Why a channel is sent away, and what its client is told.
#[derive(Clone, Debug)]
pub struct CloseInfo {
    /// The word.
    pub reason: Reason,
    /// The sentence of the goodbye.
    pub text: Cow<'static, str>,
    /// When to come back, in milliseconds, where that is known.
    pub retry_after_ms: Option<u64>,
    /// The system's error number, where there was one.
    pub errno: Option<i32>,
    /// Who waits for the stages of this end.
    pub watcher: Option<Arc<CloseWatcher>>,
}

impl CloseInfo {
    /// With the reason's own sentence.
    pub fn new(reason: Reason) -> Self {
        let retry_after_ms = (reason.advice() == Advice::RetryAfter).then_some(RETRY_AFTER_MS);
        CloseInfo { reason, text: reason.sentence().into(), retry_after_ms, errno: None, watcher: None }
    }

    /// With a sentence of one's own.
    #[must_use]
    pub fn saying(self, text: &str) -> Self {
        CloseInfo { text: text.to_owned().into(), ..self }
    }

    /// For a user who is banned for that long, with what the administrator said.
    pub fn banned(retry_after_ms: u64, said: Option<&str>) -> Self {
        let text = said.map_or(Cow::Borrowed(Reason::Banned.sentence()), |said| said.to_owned().into());
        CloseInfo { text, retry_after_ms: Some(retry_after_ms), ..CloseInfo::new(Reason::Banned) }
    }

    /// With the system's error number.
    #[must_use]
    pub fn with_errno(self, errno: Option<i32>) -> Self {
        CloseInfo { errno, ..self }
    }
}

/// Where the stages of one end are reported.
#[derive(Clone, Debug)]
pub struct CloseWatcher {
    /// The channel whose end it is; none for a user marked online without one.
    pub channel: Option<ChannelId>,
    /// When it began, on the monotonic clock.
    pub began_us: u64,
    /// Unbounded, so that sending never blocks; each end has a handful of stages.
    pub to: Sender<(Option<ChannelId>, CloseStage)>,
}

/// A stage of an end, in microseconds since it began.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CloseStage {
    /// The goodbye is in the kernel.
    Told(u64),
    /// The server's side is ended.
    ShutDown(u64),
    /// The user's state is committed.
    Offline(u64),
    /// The client does not read: the goodbye waits until it does, or until the grace is over.
    Blocked,
    /// The connection is broken: the client cannot be told.
    Lost,
    /// The fd is closed; nothing else will be reported.
    Closed,
}

impl CloseWatcher {
    /// Reports a stage that was reached now.
    pub fn report(&self, now_us: u64, stage: impl FnOnce(u64) -> CloseStage) {
        // Where the control thread has given up, no thread waits for it.
        let _ = self.to.send((self.channel, stage(now_us.saturating_sub(self.began_us))));
    }
}

/// The first report: the step is taken.
#[derive(Debug)]
pub struct Departure {
    /// Who left.
    pub channel: ChannelId,
    /// The session that ended with it, or that ended alone.
    pub session: Option<SessionNo>,
    /// True exactly when the channel stays: only its session ended.
    pub stays: bool,
    /// When it was noticed, on the monotonic clock.
    pub noticed_us: u64,
    /// When it was put on the queue: a worker does so at the end of its turn.
    pub queued_us: u64,
    /// The same in Unix milliseconds.
    pub at_ms: i64,
    /// Why.
    pub close_info: CloseInfo,
}

/// The second report: the owning worker has emptied its mailbox since the step.
#[derive(Debug)]
pub struct DeliveryReport {
    /// Whose.
    pub channel: ChannelId,
    /// Which session's; none where nobody was logged in.
    pub session: Option<SessionNo>,
    /// Chats that were not yet handed to the kernel, in order.
    pub unsent: Vec<Chat>,
    /// How many were, during the session.
    pub delivered: u64,
}

/// Chats of a session that went out in part only. They counted as delivered when the session ended, for their rest was
/// to go out before anything else.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PartialWrite {
    /// Which session's.
    pub session: SessionNo,
    /// How many: a login answer brings several.
    pub chats: u64,
}
