//! Which settings cannot work together, each pair with what to change. Plain data and functions.
//!
//! A pair stands here when a server with it would refuse or end something that each setting by itself allows. Where one
//! of two settings only comes first (`--idle` before a ping, `--address-failures` before `--login-failures`,
//! `--box-bytes` before `--box-messages`), both do what they say, so such a pair is taken. Any other two settings are
//! independent. What depends on the machine is judged where the machine is asked (`process::fd_budget`).

use std::net::SocketAddr;

use super::value::{duration_text, size_text};
use super::{Config, ConfigError};

/// What the server may add to a chat before it is kept, in bytes: the sender's id and name, time, number.
const ADDED_BYTES: usize = 1 << 10;

/// Two settings, and when they can work together.
struct Rule {
    keys: [&'static str; 2],
    values: fn(&Config) -> [String; 2],
    holds: fn(&Config) -> bool,
    /// Why they cannot, and what to change, as the end of a sentence.
    change: &'static str,
}

const RULES: &[Rule] = &[
    Rule {
        keys: ["listen", "listen"],
        values: |config| [twice(&config.listen), twice(&config.listen)],
        holds: |config| {
            (1..config.listen.len()).all(|at| !is_among(&config.listen[at], &config.listen[..at]))
        },
        change: "one address takes one listener; leave one of them out",
    },
    Rule {
        keys: ["listen", "line"],
        values: |config| [(); 2].map(|()| config.line.map_or_else(String::new, |line| line.to_string())),
        holds: |config| config.line.is_none_or(|line| !is_among(&line, &config.listen)),
        change: "one address speaks one protocol; give --line another port",
    },
    Rule {
        keys: ["user-timeout", "write-timeout"],
        values: |config| [config.user_timeout, config.write_timeout].map(duration_text),
        holds: |config| config.user_timeout > config.write_timeout,
        change: "the kernel would end slow readers first, as network_timeout; make --user-timeout longer than \
                 --write-timeout",
    },
    Rule {
        keys: ["max-frame", "out-limit"],
        values: |config| [config.max_frame, config.out_limit].map(|bytes| size_text(bytes as u64)),
        holds: |config| config.out_limit >= config.max_frame,
        change: "two chats as large as requests may be would make a reader slow; make --out-limit at least as large \
                 as --max-frame",
    },
    Rule {
        keys: ["max-frame", "box-bytes"],
        values: |config| [config.max_frame, config.box_bytes].map(|bytes| size_text(bytes as u64)),
        holds: |config| config.box_bytes >= config.max_frame + ADDED_BYTES,
        change: "a chat as large as a request may be would fit no box; make --box-bytes at least 1 KiB larger than \
                 --max-frame",
    },
];

/// Judges every pair.
///
/// # Errors
/// The first pair that cannot work together.
pub(super) fn check(config: &Config) -> Result<(), ConfigError> {
    match RULES.iter().find(|rule| !(rule.holds)(config)) {
        None => Ok(()),
        Some(rule) => {
            let (keys, values) = (rule.keys, (rule.values)(config));
            Err(ConfigError::Pair { keys, values, change: rule.change })
        }
    }
}

/// Port 0 may be there often: each picks another.
fn is_among(address: &SocketAddr, others: &[SocketAddr]) -> bool {
    address.port() != 0 && others.contains(address)
}

/// The first address that is there twice.
fn twice(listen: &[SocketAddr]) -> String {
    let twice = listen.iter().enumerate().find(|(at, address)| is_among(address, &listen[..*at]));
    twice.map_or_else(String::new, |(_, address)| address.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judge(file: &str) -> Result<(), String> {
        Config::of_file(file).map(drop).map_err(|error| error.to_string())
    }

    /// Each rule with settings at its edge that it takes, others that it refuses, and the values that it names.
    #[test]
    fn each_rule_takes_what_works_and_names_what_does_not_with_its_values() {
        for (keys, good, bad, values) in [
            (
                ["listen", "listen"],
                "listen = ['127.0.0.1:0', '127.0.0.1:0', '[::1]:1', '127.0.0.1:1']",
                "listen = ['127.0.0.1:1', '[::1]:1', '127.0.0.1:1']",
                ["127.0.0.1:1", "127.0.0.1:1"],
            ),
            (
                ["listen", "line"],
                "line = '127.0.0.1:0'\nlisten = '127.0.0.1:0'",
                "line = '127.0.0.1:6000'",
                ["127.0.0.1:6000", "127.0.0.1:6000"],
            ),
            (
                ["user-timeout", "write-timeout"],
                "user-timeout = '10001ms'",
                "user-timeout = '10s'",
                ["10s", "10s"],
            ),
            (["max-frame", "out-limit"], "max-frame = '1MiB'", "out-limit = 65535", ["64KiB", "65535 bytes"]),
            (["max-frame", "box-bytes"], "box-bytes = '65KiB'", "box-bytes = '64KiB'", ["64KiB", "64KiB"]),
        ] {
            assert_eq!(judge(good), Ok(()), "{good}");
            let told = judge(bad).unwrap_err();
            for (key, value) in keys.iter().zip(values) {
                assert!(told.contains(&format!("--{key} {value}")), "{told}");
            }
            assert!(!told.contains('\n') && told.contains("; "), "one line that says what to change: {told}");
        }
    }

    #[test]
    fn every_rule_has_a_case_above_and_names_settings_that_exist() {
        let source = include_str!("rules.rs");
        let cases = source.split_once("mod tests").expect("this is in it").1;
        for rule in RULES {
            assert!(cases.contains(&format!("{:?}", rule.keys)), "{:?}", rule.keys);
            for key in rule.keys {
                assert!(super::super::SETTINGS.iter().any(|setting| setting.key == key), "{key}");
            }
        }
    }
}
