//! A configuration that is accepted is within its bounds, and a complaint is one line.

use crate::config::{Config, MAX_GRACE, duration, duration_text};
use crate::main_loop::shutdown::MAX_STOP_DRAIN;
use std::net::SocketAddr;
use std::time::Duration;

/// How much longer than what was written a complaint may be: what is quoted is escaped.
const ESCAPED: usize = 16;
/// Bytes of a complaint beside what it quotes.
const COMPLAINT_MAX: usize = 400;

pub(super) fn holds(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    if let Some(length) = duration(text) {
        assert_eq!(duration(&duration_text(length)), Some(length), "{text:?}");
    }
    if asks_for_a_host(text) {
        return;
    }
    match Config::of_file(text) {
        Ok(config) => is_within_bounds(&config),
        Err(error) => {
            let complaint = error.to_string();
            assert!(!complaint.contains(char::is_control), "{complaint:?}");
            assert!(complaint.len() <= COMPLAINT_MAX + ESCAPED * text.len(), "{complaint}");
            assert!(error.is_usage());
        }
    }
}

/// True when reading it would ask the network for a host's address.
fn asks_for_a_host(text: &str) -> bool {
    let Ok(table) = text.parse::<toml::Table>() else { return false };
    let list = |value: &toml::Value| match value {
        toml::Value::Array(items) => items.iter().map(ToString::to_string).collect(),
        other => vec![other.to_string()],
    };
    let addresses = table.iter().filter(|(key, _)| matches!(key.as_str(), "listen" | "line"));
    let texts: Vec<String> = addresses.flat_map(|(_, value)| list(value)).collect();
    texts.iter().flat_map(|text| text.split(',')).map(|one| one.trim_matches(['"', '\'', ' '])).any(|one| {
        let port = one.rsplit_once(':').and_then(|(_, port)| port.parse::<u16>().ok());
        port.is_some() && one.parse::<SocketAddr>().is_err()
    })
}

fn is_within_bounds(config: &Config) {
    assert!(config.grace <= MAX_GRACE && config.stop_drain <= MAX_STOP_DRAIN);
    assert!((1..=256).contains(&config.workers));
    assert!((256..=16 << 20).contains(&config.max_frame));
    assert!(config.out_limit >= 1024 && config.box_bytes >= 1024);
    assert!((1..=16).contains(&config.listen.len()));
    assert!(config.user_timeout > config.write_timeout && config.write_timeout > Duration::ZERO);
    assert!(config.idle != Some(Duration::ZERO) && config.login_timeout > Duration::ZERO);
    assert!(config.request_rate != Some(0) && config.max_channels != Some(0));
    assert!(config.argon2.memory_kib >= 8 * config.argon2.lanes && config.argon2.passes > 0);
}
