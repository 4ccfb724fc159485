//! What the README says of options and limits is what the program says of them.

use std::fs;
use std::path::Path;
use std::process::Command;

const README: &str = include_str!("../../README.md");

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

/// The rows of the table of limits, by columns.
fn limits() -> Vec<Vec<&'static str>> {
    let (_, section) = README.split_once("\n## Limits\n").unwrap();
    let (section, _) = section.split_once("\n## ").unwrap();
    let rows = section.lines().filter_map(|line| line.strip_prefix("| ")?.strip_suffix(" |"));
    rows.skip(1).map(|row| row.split(" | ").collect()).collect()
}

/// The text of every file of the program's source.
fn source(directory: &Path, text: &mut String) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            source(&path, text);
        } else {
            text.push_str(&fs::read_to_string(&path).unwrap());
        }
    }
}

#[test]
fn the_limits_table_has_the_defaults_of_options_and_constants_that_are_there() {
    let options = options();
    let mut code = String::new();
    source(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut code);
    let rows = limits();
    assert!(rows.len() > 40, "{rows:?}");
    for row in rows {
        let [_, bound, _, set_by] = row[..] else { panic!("four columns: {row:?}") };
        for name in set_by.split(", ").map(|name| name.trim_matches('`')) {
            if name.starts_with("--") {
                let (_, default) = options.iter().find(|(option, _)| option == name).unwrap();
                let default = default.as_ref().unwrap();
                assert!(bound.starts_with(&format!("`{default}`")), "{name} has {default}: {row:?}");
            } else {
                assert!(code.contains(&format!("const {name}: ")), "no constant {name}: {row:?}");
            }
        }
    }
}

#[test]
fn the_limits_table_has_every_option_that_is_a_limit() {
    // How the server works, not what it bears.
    let others = [
        "--config",
        "--data",
        "--listen",
        "--line",
        "--workers",
        "--duplicate",
        "--durability",
        "--ping-interval",
        "--argon2",
        "--log",
        "--log-format",
        "--help",
    ];
    let limits = limits();
    for (option, _) in options() {
        let is_limit = limits.iter().any(|row| row[3] == format!("`{option}`"));
        assert_ne!(is_limit, others.contains(&option.as_str()), "{option}");
    }
}
