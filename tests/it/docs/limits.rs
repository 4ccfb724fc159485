//! `docs/limits.md` has every option that is a limit, and the bound of each row is what its option or constants say.

use super::generated::{Offered, offered};
use super::{read, root, source};

/// Options that say how the server works, not what it bears.
const NO_LIMITS: [&str; 11] = [
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
];

/// A row of the tables, without its last cell, and the names in that.
struct Row {
    text: String,
    set_by: Vec<String>,
}

fn rows() -> Vec<Row> {
    let page = read(&root().join("docs/limits.md"));
    let cells = page.lines().filter_map(|line| line.strip_prefix("| ")?.strip_suffix(" |"));
    let rows: Vec<Vec<&str>> = cells.map(|row| row.split(" | ").collect()).collect();
    let rows = rows.into_iter().filter(|row| row[0] != "what").map(|row| {
        assert_eq!(row.len(), 4, "four columns: {row:?}");
        let names = row[3].split(", ").map(|name| name.trim_matches('`').to_owned());
        Row { text: row[..3].join(" | "), set_by: names.collect() }
    });
    rows.collect()
}

#[test]
fn every_bound_is_that_of_its_option_or_constants() {
    let options = offered();
    let mut code = String::new();
    source(&root().join("src"), &mut code);
    let rows = rows();
    assert!(rows.len() > 90, "{} rows", rows.len());
    for Row { text, set_by } in rows {
        for name in set_by {
            let ways = if name.starts_with("--") {
                let option = options.iter().find(|known| known.option == name);
                let option = option.unwrap_or_else(|| panic!("no option {name}: {text}"));
                vec![format!("`{}`", option.default.as_ref().unwrap())]
            } else {
                let values = values(&code, &name);
                assert!(!values.is_empty(), "no constant {name}: {text}");
                let declared = code.matches(&format!("const {name}: ")).count();
                assert_eq!(declared, 1, "constants of the name {name}: {text}");
                values.into_iter().flat_map(Value::ways).collect()
            };
            assert!(ways.iter().any(|way| has(&text, way)), "{name} is one of {ways:?}: {text}");
        }
    }
}

#[test]
fn every_option_that_is_a_limit_has_a_row() {
    let rows = rows();
    for option in offered() {
        let is_limit = rows.iter().any(|row| row.set_by == [option.option.as_str()]);
        assert_ne!(is_limit, NO_LIMITS.contains(&option.option.as_str()), "{}", option.option);
    }
}

#[test]
fn the_options_of_the_readme_have_the_defaults_of_the_program() {
    let readme = read(&root().join("README.md"));
    let rows: Vec<&str> = readme.lines().filter(|line| line.starts_with("| `--")).collect();
    assert_eq!(rows.len(), 10);
    let options = offered();
    for row in rows {
        let is_it = |option: &&Offered| row.starts_with(&format!("| `{} ", option.option));
        let option = options.iter().find(is_it).unwrap_or_else(|| panic!("no such option: {row}"));
        let default =
            option.default.as_ref().map_or("| none |".to_owned(), |default| format!("| `{default}` |"));
        assert!(row.contains(&default), "{default}: {row}");
    }
}

/// True exactly when that is in the text, and not as a part of a longer number or word.
fn has(text: &str, what: &str) -> bool {
    text.match_indices(what).any(|(at, _)| {
        let (before, after) = (&text[..at], &text[at + what.len()..]);
        let goes_on = after.strip_prefix([',', '.']).unwrap_or(after);
        let is_longer =
            after.starts_with(char::is_alphanumeric) || goes_on.starts_with(|c: char| c.is_ascii_digit());
        !before.ends_with(|c: char| c.is_alphanumeric() || c == ',') && !is_longer
    })
}

/// What a constant says, and in which unit.
enum Value {
    Number(u128),
    Bytes(u128),
    Nanoseconds(u128),
}

impl Value {
    /// The ways in which the page may write it.
    fn ways(self) -> Vec<String> {
        match self {
            Value::Number(number) => {
                let mut ways = vec![grouped(number)];
                ways.extend(in_units(number, &[("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30)]));
                ways
            }
            Value::Bytes(bytes) => in_units(bytes, &[("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30)]),
            Value::Nanoseconds(length) => {
                let mut ways = in_units(length, &[("ms", 1_000_000), ("s", 1_000_000_000)]);
                let longer =
                    [("minute", 60_000_000_000), ("h", 3_600_000_000_000), ("day", 86_400_000_000_000)];
                let longer = in_units(length, &longer);
                ways.extend(longer.iter().map(|way| format!("{way}s")));
                ways.extend(longer);
                ways
            }
        }
    }
}

/// `65_536` as "65,536".
fn grouped(number: u128) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// In every unit of which it is a whole number.
fn in_units(value: u128, units: &[(&str, u128)]) -> Vec<String> {
    let whole = units.iter().filter(|(_, unit)| value >= *unit && value.is_multiple_of(*unit));
    whole.map(|(name, unit)| format!("{} {name}", grouped(value / unit))).collect()
}

/// What the constants of that name say; where one is more than a sum or product, each number in it.
fn values(code: &str, name: &str) -> Vec<Value> {
    let begin = format!("const {name}: ");
    let mut values = Vec::new();
    for (at, _) in code.match_indices(&begin) {
        let (kind, rest) = code[at + begin.len()..].split_once(" =").unwrap();
        let (expression, _) = rest.split_once(';').unwrap();
        let unit = |value: u128| match (kind, name) {
            ("Duration", _) => Value::Nanoseconds(value),
            (_, name) if name.ends_with("_US") => Value::Nanoseconds(value * 1_000),
            (_, name) if name.ends_with("_MS") => Value::Nanoseconds(value * 1_000_000),
            (_, name) if name.ends_with("_KIB") => Value::Bytes(value << 10),
            _ => Value::Number(value),
        };
        match computed(code, expression) {
            Some(value) => values.push(unit(value)),
            None => values.extend(numbers(expression).into_iter().map(unit)),
        }
    }
    values
}

/// The value of a number, another constant, a product, a shift or a duration.
fn computed(code: &str, expression: &str) -> Option<u128> {
    let expression = expression.trim();
    for (function, unit) in [
        ("Duration::from_millis(", 1_000_000),
        ("Duration::from_secs(", 1_000_000_000),
        ("Duration::from_mins(", 60_000_000_000),
        ("Duration::from_hours(", 3_600_000_000_000),
    ] {
        if let Some(inner) = expression.strip_prefix(function) {
            return Some(computed(code, inner.strip_suffix(')')?)? * unit);
        }
    }
    if let Some((value, by)) = expression.split_once(" << ") {
        return Some(computed(code, value)? << computed(code, by)?);
    }
    if let Some((value, by)) = expression.split_once(" * ") {
        return Some(computed(code, value)? * computed(code, by)?);
    }
    if let Some((_, rest)) = code.split_once(&format!("const {expression}: ")) {
        let (_, rest) = rest.split_once(" =")?;
        return computed(code, rest.split_once(';')?.0);
    }
    expression.replace('_', "").parse().ok()
}

fn numbers(expression: &str) -> Vec<u128> {
    let parts = expression.split(|c: char| !c.is_ascii_digit() && c != '_');
    parts.filter_map(|part| part.replace('_', "").parse().ok()).collect()
}
