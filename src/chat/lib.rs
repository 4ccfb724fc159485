//! `linger chat`: a client for people in a terminal, and for scripts in a pipe.
//!
//! Shares nothing with the server but the framing of the protocol.
//!
//! | part | duty | thread |
//! |---|---|---|
//! | `session`, `typed` | what happens next, as plain data | the session's |
//! | `outbox`, `people`, `pauses`, `command`, `wire` | what a session knows, plain data too | the session's |
//! | `drive` | brings the session what happens, does what it asks for | the session's |
//! | `link` | connects and reads | one for each connection |
//! | `filter` | lines on stdin, stdout, stderr | the session's, and one that reads stdin |
//! | `screen`, `gate` | prompt, history, messages above the input line | the first, which owns the terminal, and a printer |
//! | `view` | what is shown as harmless text | any |
//!
//! There is deliberately no file of old lines and no colour.

mod command;
mod drive;
mod filter;
mod gate;
mod link;
mod outbox;
mod pauses;
mod people;
mod screen;
mod session;
#[cfg(test)]
mod tests;
mod typed;
mod view;
mod wire;

use std::io::{self, IsTerminal};
use std::panic::resume_unwind;
use std::thread;

use crossbeam_channel::{Receiver, bounded, never};

use drive::Around;
use filter::Filter;
use session::{Account, Manners, Session};
use signal_hook::consts::{SIGHUP, SIGTERM};
use signal_hook::iterator::Signals;

/// How long a pipe that has ended waits for answers, in milliseconds: a server may be restarted meanwhile.
const PATIENCE_OF_A_PIPE_MS: u64 = 60_000;

/// How long people who want to leave are kept, in milliseconds.
const PATIENCE_OF_PEOPLE_MS: u64 = 3_000;

/// Who chats, and where.
pub struct Options {
    /// A name, or the number of a user.
    pub name: String,
    /// What proves it.
    pub password: String,
    /// `host:port` of the server.
    pub server: String,
    /// Register the name before the login.
    pub register: bool,
}

/// Why a chat ended otherwise than its user wanted.
#[derive(Debug, thiserror::Error)]
pub enum ChatError {
    /// The first connection failed.
    #[error("{0}")]
    NotReached(String),
    /// The login or registration was refused.
    #[error("refused: {0}")]
    Refused(String),
    /// The server has ended the session, with the advice not to come back.
    #[error("sent away: {reason}: {text}")]
    SentAway {
        /// Why, as a word.
        reason: String,
        /// Why, as a text.
        text: String,
    },
    /// The end came before all answers.
    #[error("sent and not answered: {0}")]
    Unanswered(usize),
    /// Lines of a script have failed; each has been told on stderr.
    #[error("lines that failed: {0}")]
    LinesFailed(usize),
    /// The input cannot be read.
    #[error("cannot read the input: {0}")]
    Input(#[source] io::Error),
    /// The system said no.
    #[error(transparent)]
    System(#[from] io::Error),
}

/// Chats until the user leaves or the server does not want to go on. In a terminal it is made for people, otherwise for
/// scripts.
///
/// # Errors
/// When the server cannot be reached at first, refuses, or sends the user away for good; when a script's lines failed.
pub fn run(options: Options) -> Result<(), ChatError> {
    let Options { name, password, server, register } = options;
    let account = Account { who: name, password, register };
    let seed = getrandom::u64().map_err(io::Error::from)?;
    let session = |manners| Session::new(account, manners, seed);
    let for_people = io::stdin().is_terminal() && io::stdout().is_terminal();
    if for_people && let Ok((screen, keyboard, input)) = screen::open() {
        let session = session(Manners { patience_ms: PATIENCE_OF_PEOPLE_MS, strict: false });
        return on_screen(session, &server, screen, keyboard, input);
    }
    // Also for a terminal that can do nothing but lines.
    let session = session(Manners { patience_ms: PATIENCE_OF_A_PIPE_MS, strict: true });
    let input = filter::read_stdin()?;
    drive::drive(session, Around { server: &server, view: &mut Filter, input, stop: never() })
}

/// The session goes to a thread of its own, because this one has to read the keyboard.
fn on_screen(
    session: Session,
    server: &str,
    mut screen: screen::Screen,
    keyboard: screen::Keyboard,
    input: Receiver<drive::Input>,
) -> Result<(), ChatError> {
    let stop = signals()?;
    thread::scope(|scope| {
        let driven = scope.spawn(move || {
            let around = Around { server, view: &mut screen, input, stop };
            drive::drive(session, around)
        });
        keyboard.read();
        driven.join().unwrap_or_else(|panic| resume_unwind(panic))
    })
}

/// Asks for an orderly end at SIGINT, SIGTERM and SIGHUP, so that the terminal is left as it was. Also where some of them
/// were ignored before, as they are in a terminal that was opened under `nohup`.
fn signals() -> Result<Receiver<()>, ChatError> {
    let (tell, told) = bounded(1);
    let ask = move || {
        // One is as good as several.
        let _ = tell.try_send(());
    };
    ctrlc::set_handler(ask.clone()).map_err(|error| ChatError::System(io::Error::other(error)))?;
    let mut signals = Signals::new([SIGTERM, SIGHUP])?;
    thread::spawn(move || signals.forever().for_each(|_| ask()));
    Ok(told)
}
