//! A chat for one receiver: the object as delivered, and what is owed for it.

use super::ask::Asker;
use super::ticket::Ticket;
use crate::ident::Mid;
use crate::sync::Arc;

/// A chat on its way to one user.
#[derive(Clone, Debug)]
pub struct Chat {
    /// The JSON object, without a terminator.
    pub body: Arc<[u8]>,
    /// Counted off when this copy is safe.
    pub ticket: Option<Arc<Ticket>>,
    /// Its number in the receiver's box, if it still lies there.
    pub kept: Option<Mid>,
    /// Who hears of it should it not be possible to keep this copy.
    pub told: Told,
}

/// Who hears of a copy that cannot be kept.
#[derive(Clone, Debug)]
pub enum Told {
    /// The sender, by an error.
    Sender(Box<Asker>),
    /// The sender of a group chat, by the list of members whose boxes are full.
    Group,
    /// Nobody: it was accepted before, and is kept whatever the box holds.
    Nobody,
}

impl Chat {
    /// A chat that was accepted before.
    pub fn accepted(body: Arc<[u8]>, ticket: Option<Arc<Ticket>>) -> Self {
        Chat { body, ticket, kept: None, told: Told::Nobody }
    }

    /// A chat that lies in the receiver's box.
    pub fn kept(body: Arc<[u8]>, mid: Mid) -> Self {
        Chat { body, ticket: None, kept: Some(mid), told: Told::Nobody }
    }
}
