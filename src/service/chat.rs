//! A chat for one receiver: the object as delivered, and what is owed for it.

use super::ticket::Ticket;
use crate::ident::Mid;
use crate::sync::Arc;

/// A chat on its way to one channel.
#[derive(Clone, Debug)]
pub struct Chat {
    /// The JSON object, without a terminator.
    pub body: Arc<[u8]>,
    /// Counted off when this copy is safe.
    pub ticket: Option<Arc<Ticket>>,
    /// Its number in the receiver's box, if it still lies there.
    pub kept: Option<Mid>,
}
