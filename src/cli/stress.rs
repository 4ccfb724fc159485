//! `linger stress`: load and faults against a running server, and whether it stood them.

use super::Failure;
use linger_stress::Args;

pub(super) const EXAMPLES: &str = "\
Each user costs one password hash on the first run; start the server with --argon2 8,1,1 for stress.

Examples:
  linger stress vanish --target 127.0.0.1:6000 --clients 1000
  linger stress kick --target 127.0.0.1:6000 --data /var/lib/linger
  linger stress relay --target 127.0.0.1:6000 --window 32 --seconds 10
  linger stress flood --kinds groups --members 500 --chats 10
  linger stress chaos --seed 7 -- linger serve --data scratch --listen 127.0.0.1:0 --argon2 8,1,1";

pub(super) fn run(args: &Args) -> Result<(), Failure> {
    let verdict = linger_stress::run(args).map_err(|error| Failure::Failed(error.into()))?;
    match verdict.reason() {
        None => Ok(()),
        Some(reason) => Err(Failure::Failed(anyhow::anyhow!(reason))),
    }
}
