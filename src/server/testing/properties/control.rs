//! What is said on the control socket reads back as it was meant.

use crate::admin::ban_protocol::{BanList, Unbanned};
use crate::admin::departures::Departures;
use crate::admin::protocol::{
    AdminRequest, Channels, Draining, KickReason, Kicked, MAX_REASON_BYTES, QueueState, Stats, Users,
    answer_line, failure_line, parse_answer,
};
use crate::admin::target::Target;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::fmt::Debug;

/// How much longer than what was sent a refusal may be: what is quoted may be escaped twice.
const ESCAPED: usize = 16;
/// Bytes of a refusal beside what it quotes.
const REFUSAL_MAX: usize = 300;

pub(super) fn holds(input: &[u8]) {
    match AdminRequest::parse(input) {
        Ok(ask) => {
            let line = ask.to_line().unwrap();
            is_one_line(&line);
            assert_eq!(AdminRequest::parse(&line).unwrap(), ask);
        }
        Err(error) => {
            let line = failure_line(&error.to_string());
            is_one_line(&line);
            assert!(line.len() <= REFUSAL_MAX + ESCAPED * input.len(), "{} of {}", line.len(), input.len());
            let read: Value = serde_json::from_slice(&line).unwrap();
            assert_eq!((&read["ok"], read["error"].as_str()), (&false.into(), Some(&*error.to_string())));
        }
    }
    reads_back::<Users>(input);
    reads_back::<Channels>(input);
    reads_back::<QueueState>(input);
    reads_back::<Kicked>(input);
    reads_back::<Draining>(input);
    reads_back::<Departures>(input);
    reads_back::<BanList>(input);
    reads_back::<Unbanned>(input);
    // Doubles are not compared: reading one may be off by its last bit.
    if let Ok(stats) = parse_answer::<Stats>(input) {
        is_one_line(&answer_line(&stats).unwrap());
    }
    if let Ok(text) = std::str::from_utf8(input) {
        if let Ok(target) = Target::parse(text) {
            assert_eq!(Target::parse(&target.to_string()), Ok(target));
        }
        if let Ok(reason) = text.parse::<KickReason>() {
            assert!(reason.as_str() == text && text.len() <= MAX_REASON_BYTES);
            assert!(!text.chars().any(char::is_control));
        }
    }
}

fn reads_back<T: Serialize + DeserializeOwned + PartialEq + Debug>(input: &[u8]) {
    if let Ok(answer) = parse_answer::<T>(input) {
        let line = answer_line(&answer).unwrap();
        is_one_line(&line);
        assert_eq!(parse_answer::<T>(&line).unwrap(), answer);
    }
}

fn is_one_line(line: &[u8]) {
    assert_eq!(line.iter().position(|byte| *byte == b'\n'), Some(line.len() - 1));
    std::str::from_utf8(line).unwrap();
}
