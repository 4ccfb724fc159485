//! What happened in a run, line by line. It is recorded only when a seed is replayed.

use super::sim_link::{Received, ReceivedChat};
use crate::message::event::Event;
use crate::message::request::Ask;
use std::fmt::Display;

/// The lines of a trace. The same seed makes the same trace.
#[derive(Debug, Default)]
pub(super) struct Trace {
    lines: Vec<String>,
    is_traced: bool,
}

impl Trace {
    pub(super) fn new(is_traced: bool) -> Self {
        Trace { lines: Vec::new(), is_traced }
    }

    /// Tells what happened at that moment of the simulated time.
    pub(super) fn tell<T: Display>(&mut self, at_us: u64, what: impl FnOnce() -> T) {
        if self.is_traced {
            let (seconds, us) = (at_us / 1_000_000, at_us % 1_000_000);
            self.lines.push(format!("{seconds:>6}.{us:06} s  {}", what()));
        }
    }

    pub(super) fn lines(&self) -> &[String] {
        &self.lines
    }
}

/// What main takes, in a few words.
pub(super) fn entry<S>(entry: &Event<S>) -> String {
    match entry {
        Event::Departure(departure) => {
            let what = if departure.stays { "the end of a session on" } else { "the departure of" };
            format!("{what} {}: {}", departure.channel, departure.close_info.reason.word())
        }
        Event::DeliveryReport(settlement) => {
            format!("the settlement of {} with {} unsent", settlement.channel, settlement.unsent.len())
        }
        Event::HandBack { channel, .. } => format!("the socket of {channel}, and closes it"),
        Event::Ask(ask) => {
            let what = match ask {
                Ask::Login(login) if login.proven => "a proven login",
                Ask::Login(_) => "a login",
                Ask::Resume(_) => "a login by token",
                Ask::Chat(_) => "a chat",
                Ask::Fence { .. } => "a placeholder",
                _ => "a request",
            };
            format!("{what} of {}", ask.reply_to().channel)
        }
        Event::TakenOver { user, upto, .. } => format!("that {user} has taken over all up to {upto:?}"),
        Event::Confirmed { user, .. } => format!("a confirmation of {user}"),
        Event::Handed { .. } => "that a copy is in the kernel".into(),
        Event::Audited { worker, .. } => format!("what worker {worker} holds"),
        Event::Short { worker } => format!("that worker {worker} has no names left"),
        _ => "a word".into(),
    }
}

/// What the server has written, in a few words. Tokens are left out: they differ from run to run.
pub(super) fn heard(heard: &Received) -> String {
    let chat = |chat: &ReceivedChat| {
        let again = if chat.again { " again" } else { "" };
        let number = chat.mid.map_or(String::new(), |mid| format!(" under {mid}"));
        format!("{} of {}{number}{again}", chat.text, chat.from)
    };
    match heard {
        Received::Welcome { user, kept, friends, .. } => {
            let kept: Vec<String> = kept.iter().map(chat).collect();
            let friend = |(user, online): &(_, bool)| format!("{}{user}", if *online { '+' } else { '-' });
            let friends: Vec<String> = friends.iter().map(friend).collect();
            format!("welcome {user} [{}] ({})", kept.join(", "), friends.join(" "))
        }
        Received::Chat(seen) => chat(seen),
        other => format!("{other:?}"),
    }
}
