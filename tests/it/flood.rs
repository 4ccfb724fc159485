//! `linger stress flood` against a real server, small: what it does is right, and what it finds makes it fail.

use std::process::Command;
use std::time::Duration;

use crate::common::{Finished, Home, LINGER, run_within};
use serde_json::Value;

/// A run comes to its end by itself within this.
const RUN_WITHIN: Duration = Duration::from_secs(90);

/// Small, with bounds that any machine keeps.
const SMALL: &str = "--clients 8 --registrations 40 --lines 1 --members 5 --chats 8 --size 1000 --many-members 9 \
    --small-chats 10 --logins 600 --first-login 10s --take";

/// A run with a server of its own.
fn flood(kinds: &str, bounds: &str) -> Finished {
    let home = Home::new();
    let mut command = Command::new(LINGER);
    command.args(["stress", "flood", "--json", "--kinds", kinds]).args(SMALL.split_whitespace());
    command.args(bounds.split_whitespace()).args(["--", LINGER, "serve", "--data", &home.data_arg()]);
    command.args("--listen 127.0.0.1:0 --line 127.0.0.1:0 --argon2 8,1,1 --log info".split_whitespace());
    run_within(RUN_WITHIN, command)
}

#[test]
fn registrations_of_the_gone_and_chats_to_absent_groups_are_told_with_a_verdict() {
    let done = flood("registrations,groups", "--bound 10s --memory 1GiB");
    assert_eq!(done.code, Some(0), "{done:?}");
    let report: Value = serde_json::from_str(&done.stdout).expect("--json prints one document");
    assert_eq!(report["good"], true, "{report}");
    let figures = &report["figures"];
    assert_eq!(figures["registrations"], 40, "{figures}");
    assert_eq!(figures["first_login_us"]["count"], 5, "{figures}");
    let copies = 8 * 5 + 10 * 9;
    assert_eq!(figures["copies_kept"], copies, "{figures}");
    for measured in ["registrations_login_flood_us", "groups_chat_flood_us", "groups_memory_peak_kib"] {
        assert!(figures.get(measured).is_some(), "{measured}: {figures}");
    }
}

#[test]
fn a_bound_that_is_broken_is_named_and_is_exit_code_1() {
    let done = flood("groups", "--bound 10s --memory 0");
    assert_eq!(done.code, Some(1), "{done:?}");
    assert!(done.stdout.is_empty() && done.stderr.contains("groups: memory grew by"), "{done:?}");
}

#[test]
fn lines_to_thousands_and_a_log_that_nobody_reads_hold_up_nobody() {
    let done = flood("receivers,log-pipe", "--bound 10s --memory 256MiB");
    assert_eq!(done.code, Some(0), "{done:?}");
    let report: Value = serde_json::from_str(&done.stdout).expect("--json prints one document");
    let figures = &report["figures"];
    assert_eq!(figures["lines"], 2, "{figures}");
    assert!(figures["log_pipe_logins"].as_u64() >= Some(600), "{figures}");
    assert!(figures["stopped_ms"].is_number(), "{figures}");
}
