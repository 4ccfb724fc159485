//! `linger chat`: options and the password, then the client until it ends.

use std::ffi::OsString;
use std::io;

use anyhow::{Context, anyhow};
use clap::Args;

use super::Failure;
use linger_chat::{ChatError, Options};

const PASSWORD: &str = "LINGER_PASSWORD";

const EXAMPLES: &str = "\
The password is asked for, or taken from LINGER_PASSWORD. In the terminal /help lists the commands.

When stdin or stdout is not a terminal, lines are read as `13: text`, `bob: text`, `@group: text` or commands, and
each message is written as one line, `bob: text` or `bob@group: text`. At the end of the input the chat ends as soon
as all that was sent is answered.

Examples:
  linger chat alice --register
  linger chat alice --server chat.example.org:6000
  echo '13: the backup is done' | LINGER_PASSWORD=wonder linger chat robot

Exit codes: 0 left, 1 refused, sent away for good, or a line of a script failed (each is told on stderr), 2 usage.";

#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Chat {
    /// Who you are: a name, or a user's number.
    name: String,
    /// Address of the server, with its port.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:6000")]
    server: String,
    /// Register the name first.
    #[arg(long)]
    register: bool,
}

pub(super) fn run(args: Chat) -> Result<(), Failure> {
    let Chat { name, server, register } = args;
    let password = password(&name)?;
    Ok(linger_chat::run(Options { name, password, server, register })?)
}

impl From<ChatError> for Failure {
    fn from(error: ChatError) -> Failure {
        Failure::Failed(error.into())
    }
}

/// From the environment, else from the terminal, without echo.
fn password(name: &str) -> Result<String, Failure> {
    // As everywhere, a variable that is set to nothing counts as not set.
    if let Some(password) = std::env::var_os(PASSWORD).filter(|password| !password.is_empty()) {
        return OsString::into_string(password)
            .map_err(|_| Failure::Usage(anyhow!("{PASSWORD} is not UTF-8")));
    }
    match rpassword::prompt_password(format!("Password of {}: ", linger_server::escape::shown(name))) {
        Ok(password) => Ok(password),
        Err(error) if error.kind() == io::ErrorKind::Interrupted => {
            Err(Failure::Failed(anyhow!("no password")))
        }
        Err(error) => Err(error)
            .with_context(|| format!("there is no terminal to ask for the password; set {PASSWORD}"))
            .map_err(Failure::Usage),
    }
}
