//! A chat for one receiver: its content, and who waits for its delivery.

use super::delivery::DeliveryTracker;
use super::reply_to::ReplyTo;
use crate::clock::local_time;
use crate::ids::{Mid, UserId};
use crate::protocol::chat_object::{To, chat_object, number, read_delivered};
use crate::protocol::line;
use crate::sync::Arc;
use ecow::EcoString;

/// A chat on its way to one user.
#[derive(Clone, Debug)]
pub struct Chat {
    /// What is said.
    pub body: Body,
    /// The group's name, where it was said to a group; for receivers who speak lines.
    pub group: Option<Arc<str>>,
    /// Counted off when this copy is safe.
    pub tracker: Option<Arc<DeliveryTracker>>,
    /// Who else has it.
    pub other_copy: OtherCopy,
    /// Who is told when this copy cannot be kept.
    pub on_failure: OnFailure,
}

/// Where else the chat is, which decides what becomes of this copy when it cannot be handed over.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OtherCopy {
    /// Nowhere: this copy is given back.
    Here,
    /// In the receiver's box under that number, until it is in the kernel.
    Box(Mid),
    /// With main under that number, until the client confirms it.
    Unconfirmed {
        /// Its number.
        mid: Mid,
        /// True exactly when it was sent in an earlier session.
        again: bool,
    },
}

/// The content of a chat, in the form of the sender's protocol until a receiver needs the other one.
#[derive(Clone, Debug)]
pub enum Body {
    /// The JSON object as delivered, without a terminator.
    Object(Arc<[u8]>),
    /// A line's text.
    Text {
        /// Who says it.
        sender: Arc<Sender>,
        /// To whom.
        to: UserId,
        /// When, in Unix milliseconds.
        at_ms: i64,
        /// What.
        text: Arc<str>,
    },
}

/// A user who is logged in, as chats name the sender. All threads share one value.
#[derive(PartialEq, Eq, Debug)]
pub struct Sender {
    /// The user's number.
    pub id: UserId,
    /// The user's name.
    pub name: EcoString,
}

// There is one for each user who is online.
const _: () = assert!(size_of::<Sender>() <= 24);

/// Who is told when a copy cannot be kept.
#[derive(Clone, Debug)]
pub enum OnFailure {
    /// The sender, by an error.
    Sender(Box<ReplyTo>),
    /// The sender, by the tracker's answer.
    ByTicket,
    /// The sender of a group chat, by the list of members whose boxes are full.
    Group,
    /// Nobody: it was accepted before, and is kept whatever the box holds.
    Nobody,
}

impl Chat {
    /// A chat that was accepted before.
    pub fn accepted(body: Body, tracker: Option<Arc<DeliveryTracker>>) -> Self {
        Chat { body, group: None, tracker, other_copy: OtherCopy::Here, on_failure: OnFailure::Nobody }
    }

    /// A chat that somebody else has too.
    pub fn copied(body: Body, group: Option<Arc<str>>, other_copy: OtherCopy) -> Self {
        Chat { body, group, tracker: None, other_copy, on_failure: OnFailure::Nobody }
    }

    /// Appends the JSON object that a receiver gets, without a terminator: with its number where that is confirmed.
    pub fn write_object(&self, out: &mut Vec<u8>) {
        let begin = out.len();
        self.body.write_object(out);
        if let OtherCopy::Unconfirmed { mid, again } = self.other_copy {
            number(out, begin, mid, again);
        }
    }

    /// Appends the line that a receiver who speaks lines gets.
    pub fn write_line(&self, out: &mut Vec<u8>) {
        match &self.body {
            Body::Text { sender, text, .. } => {
                line::write_chat(out, &sender.name, self.group.as_deref(), text);
            }
            Body::Object(object) => match read_delivered(object) {
                Some(said) => line::write_chat(out, &said.name, self.group.as_deref(), &said.msg),
                // Only another process can have put such a thing into a box.
                None => line::write_error(out, "a kept message could not be read"),
            },
        }
    }
}

impl Body {
    /// The JSON object, for a box.
    pub fn object(&self) -> Arc<[u8]> {
        match self {
            Body::Object(object) => Arc::clone(object),
            Body::Text { .. } => {
                let mut out = Vec::new();
                self.write_object(&mut out);
                out.into()
            }
        }
    }

    /// Appends the JSON object, without a terminator.
    pub fn write_object(&self, out: &mut Vec<u8>) {
        match self {
            Body::Object(object) => out.extend_from_slice(object),
            Body::Text { sender, to, at_ms, text } => {
                let time = local_time(*at_ms);
                out.extend(chat_object(sender.id, &sender.name, To::User(*to), text, &time));
            }
        }
    }

    /// About how many bytes it takes.
    pub fn size(&self) -> usize {
        match self {
            Body::Object(object) => object.len(),
            Body::Text { text, .. } => text.len(),
        }
    }

    /// The same for a receiver who is known only now.
    #[must_use]
    pub fn addressed_to(self, user: UserId) -> Self {
        match self {
            Body::Text { sender, at_ms, text, .. } => Body::Text { sender, to: user, at_ms, text },
            object @ Body::Object(_) => object,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Body {
        let sender = Sender { id: UserId(1), name: "ann".into() };
        Body::Text { sender: Arc::new(sender), to: UserId(2), at_ms: 0, text: text.into() }
    }

    #[test]
    fn a_line_becomes_an_object_and_the_object_the_same_line() {
        let body = text("say \"hi\": \\o/");
        let mut direct = Vec::new();
        Chat::accepted(body.clone(), None).write_line(&mut direct);
        assert_eq!(direct, b"from ann: say \"hi\": \\o/\n");
        let mut detour = Vec::new();
        Chat::accepted(Body::Object(body.object()), None).write_line(&mut detour);
        assert_eq!(direct, detour);
    }

    #[test]
    fn an_object_that_is_none_is_said_to_be_unreadable() {
        let mut out = Vec::new();
        Chat::accepted(Body::Object((*b"nonsense").into()), None).write_line(&mut out);
        assert!(out.starts_with(b"error: "));
    }
}
