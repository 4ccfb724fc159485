//! Tables and values as people read them in a terminal.
//!
//! Plain functions. No text from a client reaches the terminal except through [`shown`].

use std::fmt::Display;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use unicode_width::UnicodeWidthStr;

pub(super) use linger_server::escape::shown;

/// Spaces between two columns.
const GAP: usize = 2;

/// Columns as wide as their widest cell, the last one as it is. Cells are made harmless here.
pub(super) fn render<const N: usize>(
    header: [&str; N],
    rows: impl IntoIterator<Item = [String; N]>,
) -> String {
    let mut lines = vec![header.map(str::to_owned)];
    lines.extend(rows.into_iter().map(|row| row.map(|cell| shown(&cell))));
    let mut widths = [0; N];
    for line in &lines {
        for (widest, cell) in widths.iter_mut().zip(line) {
            *widest = (*widest).max(cell.width());
        }
    }
    let mut text = String::new();
    for line in &lines {
        let start = text.len();
        for (cell, widest) in line.iter().zip(widths) {
            text.push_str(cell);
            text.extend(std::iter::repeat_n(' ', widest + GAP - cell.width()));
        }
        text.truncate(start + text[start..].trim_end_matches(' ').len());
        text.push('\n');
    }
    text
}

/// The value, or a dash where there is none.
pub(super) fn or_dash(value: Option<impl Display>) -> String {
    value.map_or_else(|| "-".into(), |value| value.to_string())
}

/// A length of time in its two largest units: `3m12s`.
pub(super) fn age(ms: u64) -> String {
    let seconds = ms / 1_000;
    let (minutes, hours, days) = (seconds / 60, seconds / 3_600, seconds / 86_400);
    match (days, hours, minutes, seconds) {
        (0, 0, 0, 0) => format!("{ms}ms"),
        (0, 0, 0, _) => format!("{seconds}s"),
        (0, 0, ..) => format!("{minutes}m{:02}s", seconds % 60),
        (0, ..) => format!("{hours}h{:02}m", minutes % 60),
        _ => format!("{days}d{:02}h", hours % 24),
    }
}

/// A short length of time: `60us`, `1.9ms`, `2.5s`.
pub(super) fn micros(us: u64) -> String {
    match us {
        0..1_000 => format!("{us}us"),
        1_000..1_000_000 => format!("{}.{}ms", us / 1_000, us % 1_000 / 100),
        _ => format!("{}.{}s", us / 1_000_000, us % 1_000_000 / 100_000),
    }
}

/// A moment in local time.
pub(super) fn local_time(unix_ms: i64) -> String {
    match Timestamp::from_millisecond(unix_ms) {
        Ok(moment) => moment.to_zoned(TimeZone::system()).strftime("%F %T").to_string(),
        Err(_) => unix_ms.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_under_wide_names_too() {
        let rows = [["13", "张三", "x"], ["2", "bob", "y"], ["3", "👨‍👩‍👧", "z"], ["4", "e\u{301}", "w"]];
        let rows = rows.map(|row| row.map(str::to_owned));
        let table = "id  name  z\n13  张三  x\n2   bob   y\n3   👨‍👩‍👧    z\n4   e\u{301}     w\n";
        assert_eq!(render(["id", "name", "z"], rows), table);
        assert_eq!(render(["id", "name"], []), "id  name\n");
    }

    #[test]
    fn a_name_plays_no_tricks_on_the_terminal() {
        let name = "a\x1b[2J\r\n\u{9b}\u{202e}b";
        assert_eq!(render(["n"], [[name.to_owned()]]).lines().count(), 2);
    }

    #[test]
    fn ages_are_short() {
        let cases = [
            (0, "0ms"),
            (999, "999ms"),
            (59_999, "59s"),
            (192_000, "3m12s"),
            (3_660_000, "1h01m"),
            (90_000_000, "1d01h"),
        ];
        for (ms, text) in cases {
            assert_eq!(age(ms), text);
        }
        assert_eq!([60, 1_900, 2_540_000].map(micros), ["60us", "1.9ms", "2.5s"]);
    }

    #[test]
    fn a_moment_beyond_the_calendar_is_still_shown() {
        assert_eq!(local_time(i64::MAX), i64::MAX.to_string());
    }
}
