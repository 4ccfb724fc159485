//! Composition: builds the server's threads, runs main and joins them. Not built yet.

use crate::config::Config;

/// Why the server ended otherwise than in order.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// There is no server yet.
    #[error("not built yet (data would be in {})", .0.data.display())]
    NotBuilt(Box<Config>),
}

/// Runs the server until it is stopped.
///
/// # Errors
/// Always, until it is built.
pub fn run(config: Config) -> Result<(), ServerError> {
    Err(ServerError::NotBuilt(Box::new(config)))
}
