//! The parts of pages that the program can write itself.
//!
//! They stand between `<!-- generated: NAME -->` and `<!-- end -->`. With `LINGER_WRITE_DOCS=1` the test writes them.

use std::collections::BTreeSet;
use std::env;
use std::fmt::Write as _;
use std::fs;

use linger_server::channel::{Advice, Reason};
use linger_server::message::disconnect::CloseInfo;
use linger_server::metrics::Metrics;
use linger_server::protocol::errno::Errno;
use linger_server::protocol::responses;

use super::{files, pages, read, root};
use crate::common::linger;

/// Set to anything, it has the pages written instead of compared.
const WRITE: &str = "LINGER_WRITE_DOCS";

/// Writes a part.
type Writer = fn() -> String;

/// Each part.
const PARTS: &[(&str, Writer)] = &[
    ("commands", commands),
    ("counters", counters),
    ("errnos", errnos),
    ("errors", errors),
    ("goodbyes", goodbyes),
    ("options", options),
    ("reasons", reasons),
];

/// Reasons with which nobody is told goodbye: the client or the network has ended the connection, the session ended
/// alone, or the server was not there any more.
const UNTOLD: [Reason; 7] = [
    Reason::ClientQuit,
    Reason::PeerClosed,
    Reason::PeerReset,
    Reason::NetworkTimeout,
    Reason::ReadError,
    Reason::WriteError,
    Reason::ServerCrash,
];

/// Errors that no dialogue can show: they take a flood, or a disk that fails.
pub(super) const UNPLAYED: [Errno; 2] = [Errno::Busy, Errno::NotStored];

#[test]
fn what_is_generated_is_what_the_program_says() {
    let mut written = BTreeSet::new();
    for page in pages() {
        let text = read(&page);
        let mut fresh = String::new();
        let mut rest = text.as_str();
        while let Some((before, after)) = rest.split_once("<!-- generated: ") {
            let (name, after) = after.split_once(" -->\n").expect("the name of the part");
            let (_, after) = after.split_once("<!-- end -->\n").expect("the end of the part");
            let (_, part) = PARTS.iter().find(|(known, _)| *known == name).expect("a part that is known");
            let _ = write!(fresh, "{before}<!-- generated: {name} -->\n{}<!-- end -->\n", part());
            assert!(written.insert(name.to_owned()), "{name} is there twice");
            rest = after;
        }
        fresh.push_str(rest);
        if fresh != text && env::var_os(WRITE).is_some() {
            fs::write(&page, &fresh).unwrap();
        } else if let Some((is, says)) = fresh.lines().zip(text.lines()).find(|(is, says)| is != says) {
            let page = page.display();
            panic!("{page} is stale; {WRITE}=1 has it written.\nit says  {says}\nit is    {is}");
        } else {
            assert_eq!(fresh, text, "{} is stale; {WRITE}=1 has it written", page.display());
        }
    }
    assert!(written.iter().eq(PARTS.iter().map(|(name, _)| name)), "each part is on a page: {written:?}");
}

/// An option of `linger serve`, as its help has it.
#[derive(Debug, Default)]
pub(super) struct Offered {
    pub(super) option: String,
    value: String,
    help: String,
    allowed: Option<String>,
    pub(super) default: Option<String>,
}

/// Each option of `linger serve --help`.
pub(super) fn offered() -> Vec<Offered> {
    let help = linger(&["serve", "--help"]).stdout;
    let (_, help) = help.split_once("\nOptions:\n").unwrap();
    let mut all: Vec<Offered> = Vec::new();
    for line in help.lines().take_while(|line| line.is_empty() || line.starts_with(' ')).map(str::trim) {
        if line.starts_with('-') {
            let (option, value) = line.split_once(' ').unwrap_or((line, ""));
            let value = value.trim_matches(['<', '>']).to_owned();
            all.push(Offered { option: option.to_owned(), value, ..Offered::default() });
        } else if let Some(last) = all.last_mut() {
            // Long lines are wrapped.
            last.help.push_str(if last.help.is_empty() { "" } else { " " });
            last.help.push_str(line);
        }
    }
    all.retain(|offered| offered.option.starts_with("--"));
    for offered in &mut all {
        let text = offered.help.trim().to_owned();
        let (text, _) = text.split_once(" [env: ").unwrap_or((&text, ""));
        let (text, default) = text.split_once(" [default: ").unwrap_or((text, ""));
        let (text, allowed) = text.split_once(" Allowed: ").unwrap_or((text, ""));
        offered.default = default.strip_suffix(']').map(ToOwned::to_owned);
        offered.allowed = allowed.strip_suffix('.').map(ToOwned::to_owned);
        offered.help = text.trim_end_matches('.').into();
    }
    assert!(all.len() > 30, "{all:?}");
    all
}

fn options() -> String {
    let mut table = "| option | default | allowed | meaning |\n|---|---|---|---|\n".to_owned();
    for Offered { option, value, help, allowed, default } in offered() {
        let default = default.map_or("none".to_owned(), |default| format!("`{default}`"));
        let allowed = allowed.unwrap_or_else(|| "a file".to_owned());
        let _ = writeln!(table, "| `{option} {value}` | {default} | {allowed} | {help} |");
    }
    table
}

fn commands() -> String {
    let help = linger(&["--help"]).stdout;
    let (_, commands) = help.split_once("\nCommands:\n").unwrap();
    let mut table = "| command | does |\n|---|---|\n".to_owned();
    for line in commands.lines().take_while(|line| !line.is_empty()) {
        let (name, about) = line.trim().split_once("  ").unwrap();
        if name != "help" {
            let _ = writeln!(table, "| `linger {name}` | {} |", about.trim());
        }
    }
    table
}

fn counters() -> String {
    let mut table = "| counter | counts |\n|---|---|\n".to_owned();
    for (name, description, _) in Metrics::default().counters() {
        if !name.starts_with("left_") {
            let _ = writeln!(table, "| `{name}` | {description} |");
        }
    }
    table
}

fn errnos() -> String {
    let mut table =
        "| errno | when | `errmsg` where nothing more exact is known |\n|---|---|---|\n".to_owned();
    table.push_str("| 0 | It is done. | |\n");
    for errno in Errno::ALL {
        let _ = writeln!(table, "| {} | {} | {} |", errno.number(), errno.meaning(), errno.text());
    }
    table
}

fn errors() -> String {
    let mut block = "```\n".to_owned();
    for errno in UNPLAYED {
        let mut line = Vec::new();
        responses::error(&mut line, errno, errno.text(), Some(6), None);
        block.push_str(std::str::from_utf8(&line).unwrap());
        block.push('\n');
    }
    block.push_str("```\n");
    block
}

fn reasons() -> String {
    let mut table = "| reason | by | advice | when |\n|---|---|---|---|\n".to_owned();
    for reason in Reason::ALL {
        let told = !UNTOLD.contains(reason);
        let advice = if told { format!("`{}`", reason.advice().word()) } else { "no goodbye".to_owned() };
        let (word, by, when) = (reason.word(), reason.initiator().word(), reason.meaning());
        let _ = writeln!(table, "| `{word}` | {by} | {advice} | {when} |");
    }
    table
}

fn goodbyes() -> String {
    let mut block = "```\n".to_owned();
    for reason in Reason::ALL.iter().filter(|reason| !UNTOLD.contains(reason)) {
        let parting = CloseInfo::new(*reason);
        assert_eq!(parting.retry_after_ms.is_some(), reason.advice() == Advice::RetryAfter);
        let mut line = Vec::new();
        responses::goodbye(&mut line, *reason, &parting.text, parting.retry_after_ms);
        block.push_str(std::str::from_utf8(&line).unwrap());
        block.push('\n');
    }
    block.push_str("```\n");
    block
}

#[test]
fn the_page_of_tests_has_a_row_for_each_fuzz_target() {
    let page = read(&root().join("docs/testing.md"));
    for target in files(&root().join("fuzz/targets"), "rs") {
        let name = target.file_stem().unwrap().to_string_lossy();
        assert!(page.contains(&format!("\n| `{name}` |")), "{name}");
    }
}
