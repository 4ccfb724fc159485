//! `linger serve`: settings and logging, then the server until it ends.

use std::io::{self, IsTerminal};

use anyhow::Context;
use clap::Args;

use super::Failure;
use super::log_fields::LogFields;
use linger_server::config::{Config, ConfigError, Flags, LogFormat};
use linger_server::logs::{self, Logs};
use linger_server::server;

const EXAMPLES: &str = "\
A flag wins over the environment, that over the file, that over the default.
In the file each option has its own name as the key: grace = \"5s\"

Examples:
  linger serve
  linger serve --data /var/lib/linger --listen 0.0.0.0:6000 --listen [::]:6000
  linger serve --config /etc/linger.toml --log debug
  LINGER_GRACE=60s linger serve --line 127.0.0.1:6001";

#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Serve {
    #[command(flatten)]
    flags: Flags,
}

pub(super) fn run(args: &Serve) -> Result<(), Failure> {
    let done = serve(args);
    if let Err(failure) = &done {
        // The reason still has to be said, and the pipe that it goes to may be full.
        logs::end_soon(failure.code());
    }
    done
}

fn serve(args: &Serve) -> Result<(), Failure> {
    server::block_signals_of_writing().context("cannot block signals")?;
    let config = Config::load(&args.flags, |name| std::env::var_os(name))?;
    let logs = Logs::start().context("cannot start a thread")?;
    start_logging(&config, &logs)?;
    let done = server::run(&config, &logs);
    logs.flush();
    done.map_err(|error| Failure::Failed(error.into()))
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Failure {
        if error.is_usage() { Failure::Usage(error.into()) } else { Failure::Failed(error.into()) }
    }
}

/// Times are UTC, so that the logs of several machines can be laid side by side.
fn start_logging(config: &Config, logs: &Logs) -> Result<(), Failure> {
    let events = tracing_subscriber::fmt()
        .with_max_level(config.log)
        .with_writer(logs.clone())
        .with_ansi(io::stderr().is_terminal())
        // It would write to stderr by itself.
        .log_internal_errors(false);
    match config.log_format {
        LogFormat::Text => events.compact().fmt_fields(LogFields).try_init(),
        LogFormat::Json => events.json().flatten_event(true).try_init(),
    }
    .map_err(|error| Failure::Failed(anyhow::anyhow!(error)))
}
