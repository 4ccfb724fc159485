//! `linger serve`: settings and logging, then the server until it ends.

use std::io::{self, IsTerminal};

use clap::Args;

use crate::cli::Failure;
use crate::config::{Config, ConfigError, Flags, LogFormat};
use crate::server;

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
    let config = Config::load(&args.flags, |name| std::env::var_os(name))?;
    start_logging(&config)?;
    server::run(&config).map_err(|error| Failure::Failed(error.into()))
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Failure {
        if error.is_usage() { Failure::Usage(error.into()) } else { Failure::Failed(error.into()) }
    }
}

/// Times are UTC, so that the logs of several machines can be laid side by side.
fn start_logging(config: &Config) -> Result<(), Failure> {
    let logs = tracing_subscriber::fmt()
        .with_max_level(config.log)
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal())
        // It would panic on a closed stderr.
        .log_internal_errors(false);
    match config.log_format {
        LogFormat::Text => logs.compact().try_init(),
        LogFormat::Json => logs.json().flatten_event(true).try_init(),
    }
    .map_err(|error| Failure::Failed(anyhow::anyhow!(error)))
}
