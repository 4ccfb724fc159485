//! What the README says of the options of `linger serve` is what the program says of them.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::process::Command;

const README: &str = include_str!("../README.md");

/// Each option of `linger serve --help` with its default, as far as it has one.
fn options() -> Vec<(String, Option<String>)> {
    let output = Command::new(env!("CARGO_BIN_EXE_linger")).args(["serve", "--help"]).output().unwrap();
    let help = String::from_utf8(output.stdout).unwrap();
    let mut options: Vec<(String, Option<String>)> = Vec::new();
    for line in help.lines().map(str::trim) {
        if line.starts_with("--") {
            options.push((line.split(' ').next().unwrap_or(line).to_owned(), None));
        } else if let (Some(last), Some((_, rest))) = (options.last_mut(), line.split_once("[default: ")) {
            last.1 = rest.split_once(']').map(|(default, _)| default.to_owned());
        }
    }
    options
}

#[test]
fn the_options_table_names_every_option_with_its_default() {
    let options = options();
    assert!(options.len() > 10, "{options:?}");
    for (option, default) in &options {
        let row = README.lines().find(|line| line.starts_with(&format!("| `{option} ")));
        let row = row.unwrap_or_else(|| panic!("{option} is missing"));
        let told = default.as_ref().map_or("| none |".to_owned(), |default| format!("| `{default}` |"));
        assert!(row.contains(&told), "{option} has default {default:?}, but the README says {row}");
    }
}

#[test]
fn the_options_table_names_no_option_that_is_not_there() {
    let known: Vec<String> = options().into_iter().map(|(option, _)| option).collect();
    let rows = README.lines().filter_map(|line| line.strip_prefix("| `--")).map(|row| row.split(' ').next());
    for option in rows.flatten() {
        assert!(known.contains(&format!("--{option}")), "--{option}");
    }
}
