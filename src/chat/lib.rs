//! `linger chat`: a client for people in a terminal, and for scripts in a pipe.
//!
//! It takes from the server crate the framing of the protocol, the rules for harmless text and names, and the locks.
//!
//! | part | duty | thread |
//! |---|---|---|
//! | `session`, `execute` | the state machine: takes events, returns actions; plain data | the session's |
//! | `outbox`, `contacts`, `backoff`, `command`, `messages` | what a session knows; plain data too | the session's |
//! | `event_loop` | passes events to the session and carries out its actions | the session's |
//! | `connection` | connects and reads | one for each connection |
//! | `pipe` | lines on stdin, stdout, stderr | the session's, and one that reads stdin |
//! | `terminal`, `print_lock` | prompt, history, messages above the input line | the first, which owns the terminal, and a printer |
//! | `render` | output as harmless text | any |
//!
//! The client writes no history file and uses no colour, on purpose.

mod backoff;
mod command;
mod connection;
mod contacts;
mod event_loop;
mod execute;
mod messages;
mod outbox;
mod pipe;
mod print_lock;
mod render;
mod session;
mod terminal;
#[cfg(test)]
mod tests;

use std::io::{self, IsTerminal};
use std::panic::resume_unwind;
use std::thread;

use crossbeam_channel::{Receiver, bounded, never};

use event_loop::Environment;
use pipe::Pipe;
use session::{Account, ExitPolicy, Session};
use signal_hook::consts::{SIGHUP, SIGTERM};
use signal_hook::iterator::Signals;

/// How long the client waits for answers after the end of piped input, in milliseconds: a server may restart meanwhile.
const PIPE_WAIT_MS: u64 = 60_000;

/// How long the client waits for answers after /quit in a terminal, in milliseconds.
const TERMINAL_WAIT_MS: u64 = 3_000;

/// The user and the server.
pub struct Options {
    /// A name, or the number of a user.
    pub name: String,
    /// The password of that user.
    pub password: String,
    /// `host:port` of the server.
    pub server: String,
    /// Register the name before the login.
    pub register: bool,
}

/// Why the client ended without the user having asked for it.
#[derive(Debug, thiserror::Error)]
pub enum ChatError {
    /// The first connection failed.
    #[error("{0}")]
    NotReached(String),
    /// The login or registration was refused.
    #[error("refused: {0}")]
    Refused(String),
    /// The server has ended the session and advises to stop.
    #[error("sent away: {reason}: {text}")]
    SentAway {
        /// Why, as a word.
        reason: String,
        /// Why, as a text.
        text: String,
    },
    /// Requests were unanswered at the end.
    #[error("sent and not answered: {0}")]
    Unanswered(usize),
    /// Lines of a script have failed; each has been told on stderr.
    #[error("lines that failed: {0}")]
    LinesFailed(usize),
    /// The input cannot be read.
    #[error("cannot read the input: {0}")]
    Input(#[source] io::Error),
    /// A system call failed.
    #[error(transparent)]
    System(#[from] io::Error),
}

/// Runs the client until the user leaves or the server ends the session for good. When stdin and stdout are a terminal it
/// shows an input line; otherwise it reads and writes plain lines.
///
/// # Errors
/// When the first connection fails, the login is refused, the server advises to stop, or lines of a script failed.
pub fn run(options: Options) -> Result<(), ChatError> {
    let Options { name, password, server, register } = options;
    let account = Account { who: name, password, register };
    let seed = getrandom::u64().map_err(io::Error::from)?;
    let session = |exit_policy| Session::new(account, exit_policy, seed);
    let render_for_terminal = io::stdin().is_terminal() && io::stdout().is_terminal();
    if render_for_terminal && let Ok((terminal, keyboard, input)) = terminal::open() {
        let session = session(ExitPolicy { wait_ms: TERMINAL_WAIT_MS, strict: false });
        return run_in_terminal(session, &server, terminal, keyboard, input);
    }
    // A terminal in which the line editor cannot work is read as plain lines too.
    let session = session(ExitPolicy { wait_ms: PIPE_WAIT_MS, strict: true });
    let input = pipe::read_stdin()?;
    event_loop::run(session, Environment { server: &server, view: &mut Pipe, input, stop: never() })
}

/// Runs the session on a thread of its own, because this one has to read the keyboard.
fn run_in_terminal(
    session: Session,
    server: &str,
    mut terminal: terminal::Terminal,
    keyboard: terminal::Keyboard,
    input: Receiver<event_loop::Input>,
) -> Result<(), ChatError> {
    let stop = signals()?;
    thread::scope(|scope| {
        let driven = scope.spawn(move || {
            let environment = Environment { server, view: &mut terminal, input, stop };
            event_loop::run(session, environment)
        });
        keyboard.read();
        driven.join().unwrap_or_else(|panic| resume_unwind(panic))
    })
}

/// Ends the session in order at SIGINT, SIGTERM and SIGHUP, so that the terminal is left as it was. This also catches
/// signals that were ignored at the start, as under `nohup`.
fn signals() -> Result<Receiver<()>, ChatError> {
    let (tell, told) = bounded(1);
    let ask = move || {
        // The channel holds one request to stop; a second one adds nothing.
        let _ = tell.try_send(());
    };
    ctrlc::set_handler(ask.clone()).map_err(|error| ChatError::System(io::Error::other(error)))?;
    let mut signals = Signals::new([SIGTERM, SIGHUP])?;
    thread::spawn(move || signals.forever().for_each(|_| ask()));
    Ok(told)
}
