//! Which channel asked, and what an answer completes there.

use crate::channel::ChannelId;
use crate::protocol::msgid::Msgid;
use crate::sync::Arc;

/// The channel that asked, and what the answer must repeat.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ReplyTo {
    /// The channel that asked.
    pub channel: ChannelId,
    /// The request's msgid.
    pub re: Msgid,
    /// The request's `seq`, as raw JSON.
    pub seq: Option<Arc<str>>,
}

/// What an answer completes at the channel that asked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Completes {
    /// A login or registration: what was behind it may go on.
    Login,
    /// A request that went through main.
    Request,
    /// The delivery of a chat with `seq`, apart from its way through main.
    Chat,
    /// Both at once.
    RequestAndChat,
    /// Nothing: the request is completed already.
    Nothing,
}
