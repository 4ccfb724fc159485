//! The command line: one file per subcommand, and what they have in common.
//!
//! Runs on the first thread, before and beside the server. Nothing here exits the process or panics on a closed
//! pipe: every end is a [`Failure`] or none, and `main` makes an exit code of it.

mod bans;
mod channels;
mod chat;
mod drain;
mod kick;
mod log_fields;
mod queue;
mod serve;
mod stats;
mod stress;
mod table;
mod who;
mod why;

use std::ffi::OsString;
use std::fmt;
use std::io::{self, ErrorKind, Write};
use std::path::PathBuf;

use anyhow::Context;
use clap::{Args, Parser, Subcommand};
use serde::Serialize;
use serde::de::DeserializeOwned;

use linger_server::admin::client;
use linger_server::admin::client::AdminError;
use linger_server::admin::protocol::AdminRequest;

/// The end of a command that did not do what it was asked.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The command line was read otherwise than as a command: an error, or a wish for help.
    CommandLine(Box<clap::Error>),
    /// What was asked for makes no sense.
    Usage(anyhow::Error),
    /// It could not be done.
    Failed(anyhow::Error),
    /// The targets matched nothing.
    NoMatch(String),
}

impl Failure {
    /// The exit code: 1 failed, 2 usage, 3 no match; 0 after help.
    pub(crate) fn code(&self) -> u8 {
        match self {
            Failure::CommandLine(error) => u8::from(error.use_stderr()) * 2,
            Failure::Failed(_) => 1,
            Failure::Usage(_) => 2,
            Failure::NoMatch(_) => 3,
        }
    }

    /// Says why, in one line on stderr; help goes to stdout. A pipe that is closed stays silent.
    pub(crate) fn report(&self) {
        // There is nowhere left to say that stderr is gone.
        let _ = match self {
            Failure::CommandLine(error) if error.use_stderr() => {
                writeln!(io::stderr(), "linger: {}", one_line(error))
            }
            Failure::CommandLine(error) => error.print(),
            other => writeln!(io::stderr(), "linger: {}", table::shown(&other.to_string())),
        };
    }
}

/// A usage error, without the several lines that clap would make of it.
fn one_line(error: &clap::Error) -> String {
    let text = error.to_string();
    let what = text.lines().find(|line| !line.trim().is_empty()).unwrap_or_default();
    format!("{} (see --help)", table::shown(what.trim_start_matches("error: ")))
}

/// All causes in one line, each once: some messages hold theirs already.
fn causes(error: &anyhow::Error) -> String {
    error.chain().map(ToString::to_string).fold(String::new(), |mut said, cause| {
        if said.is_empty() {
            cause
        } else {
            if !said.contains(&cause) {
                said = format!("{said}: {cause}");
            }
            said
        }
    })
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::CommandLine(error) => error.fmt(f),
            Failure::Usage(error) | Failure::Failed(error) => f.write_str(&causes(error)),
            Failure::NoMatch(text) => f.write_str(text),
        }
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Failure {
        Failure::Failed(error)
    }
}

impl From<AdminError> for Failure {
    fn from(error: AdminError) -> Failure {
        Failure::Failed(error.into())
    }
}

/// Runs the command that `args` ask for; the first is the program's name.
///
/// # Errors
/// When it did not do what it was asked.
pub(crate) fn run(args: impl IntoIterator<Item = OsString>) -> Result<(), Failure> {
    let line = CommandLine::try_parse_from(args).map_err(|error| Failure::CommandLine(Box::new(error)))?;
    match line.command {
        Command::Serve(args) => serve::run(&args),
        Command::Kick(args) => kick::run(args),
        Command::Who(reach) => who::run(&reach),
        Command::Channels(args) => channels::run(&args),
        Command::Queue(reach) => queue::run(&reach),
        Command::Why(args) => why::run(args),
        Command::Stats(reach) => stats::run(&reach),
        Command::Drain(args) => drain::run(&args),
        Command::Bans(reach) => bans::run(&reach),
        Command::Unban(args) => bans::unban(args),
        Command::Chat(args) => chat::run(args),
        Command::Stress(args) => stress::run(&args),
    }
}

const EXAMPLES: &str = "\
Examples:
  linger serve --data /var/lib/linger --listen 0.0.0.0:6000
  linger who
  linger kick alice --reason \"see the rules\"

Exit codes: 0 done, 1 failed, 2 usage, 3 the target matched nothing.";

/// A chat and presence server that gets disconnection right.
#[derive(Parser)]
#[command(name = "linger", version, after_help = EXAMPLES, max_term_width = 100)]
struct CommandLine {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the server in the foreground.
    Serve(serve::Serve),
    /// Take channels offline now.
    Kick(kick::Kick),
    /// List the users online.
    #[command(after_help = who::EXAMPLES)]
    Who(Reach),
    /// List every channel, or those who left last.
    Channels(channels::Channels),
    /// Show the offline queue.
    #[command(after_help = queue::EXAMPLES)]
    Queue(Reach),
    /// Tell how a user, a channel or an address last left.
    Why(why::Why),
    /// Show counters and gauges.
    #[command(after_help = stats::EXAMPLES)]
    Stats(Reach),
    /// Send everyone away politely, then end the server.
    Drain(drain::Drain),
    /// List who may not log in.
    #[command(after_help = bans::EXAMPLES)]
    Bans(Reach),
    /// Let somebody log in again.
    Unban(bans::Unban),
    /// Chat from the terminal, or from a script.
    Chat(chat::Chat),
    /// Put load and faults on a running server, and judge how it stood them.
    #[command(after_help = stress::EXAMPLES)]
    Stress(linger_stress::Args),
}

const DATA_HELP: &str = "Data directory of the running server [default: linger-data] [env: LINGER_DATA]";

/// Where the server is, and how its answer is shown.
#[derive(Args)]
struct Reach {
    #[arg(long, value_name = "DIR", help = DATA_HELP)]
    data: Option<PathBuf>,
    /// Print one JSON document and nothing else.
    #[arg(long)]
    json: bool,
}

impl Reach {
    /// Asks the server. `T` is the answer that [`AdminRequest`] names.
    fn ask<T: DeserializeOwned>(&self, ask: &AdminRequest) -> Result<T, Failure> {
        Ok(client::ask(&self.data_dir(), ask)?)
    }

    /// The same rule as for `linger serve`: a variable that is set to nothing counts as not set.
    fn data_dir(&self) -> PathBuf {
        let from_env = || std::env::var_os("LINGER_DATA").filter(|dir| !dir.is_empty()).map(PathBuf::from);
        self.data.clone().or_else(from_env).unwrap_or_else(|| "linger-data".into())
    }

    /// Prints an answer: as JSON, or as `people` would read it.
    fn show<T: Serialize>(&self, answer: &T, people: impl FnOnce(&T) -> String) -> Result<(), Failure> {
        let text = if self.json {
            serde_json::to_string(answer).context("cannot write the answer as JSON")? + "\n"
        } else {
            people(answer)
        };
        print(&text)
    }

    /// The targets matched nothing. As JSON that is an answer too, an empty list.
    fn show_nothing<T: Serialize>(&self, answer: &T, why: String) -> Result<(), Failure> {
        if self.json {
            self.show(answer, |_| String::new())?;
        }
        Err(Failure::NoMatch(why))
    }
}

/// Writes to stdout. A reader who has seen enough is no failure.
fn print(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            Err(anyhow::Error::new(error).context("cannot write to stdout").into())
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        CommandLine::command().debug_assert();
    }

    #[test]
    fn every_option_has_help() {
        for command in CommandLine::command().get_subcommands() {
            assert!(command.get_about().is_some(), "{}", command.get_name());
            assert!(command.get_after_help().is_some(), "{}", command.get_name());
            for arg in command.get_arguments() {
                assert!(arg.get_help().is_some(), "{} {}", command.get_name(), arg.get_id());
            }
        }
    }

    #[test]
    fn a_failure_takes_one_line_whatever_is_in_it() {
        let failure = Failure::Failed(anyhow::anyhow!("a\nb\x1b[31m").context("outer"));
        assert_eq!(table::shown(&failure.to_string()), "outer: a\\u{a}b\\u{1b}[31m");
    }
}
