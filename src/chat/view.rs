//! What is shown as text: one line each, harmless for a terminal.
//!
//! Plain functions. This is the only way from what others sent to what is printed.

use super::session::Show;
use crate::shown::shown;

/// A chat as scripts read it: `name: text`, or `name@group: text`.
pub(super) fn chat(from: &str, group: Option<&str>, text: &str) -> String {
    let group = group.map(|group| format!("@{}", shown(group))).unwrap_or_default();
    format!("{}{group}: {}", shown(from), shown(text))
}

/// Anything as people read it above their input line.
pub(super) fn for_people(show: &Show) -> String {
    match show {
        Show::Chat { from, group, text, kept_at } => {
            let kept_at = kept_at.as_ref().map(|time| format!("[{}] ", shown(time))).unwrap_or_default();
            kept_at + &chat(from, group.as_deref(), text)
        }
        Show::Answer(text) => format!("  {}", shown(text)),
        Show::Event(text) => format!("* {}", shown(text)),
        Show::Trouble(text) => format!("! {}", shown(text)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_others_sent_is_one_harmless_line() {
        let show = Show::Chat {
            from: "a\x1b[2J".into(),
            group: Some("g\n".into()),
            text: "one\r\ntwo\u{9b}".into(),
            kept_at: Some("\u{7}".into()),
        };
        let line = for_people(&show);
        assert_eq!(line, "[\\u{7}] a\\u{1b}[2J@g\\u{a}: one\\u{d}\\u{a}two\\u{9b}");
        for show in [Show::Answer("\x1b".into()), Show::Event("\x1b".into()), Show::Trouble("\x1b".into())] {
            assert!(!for_people(&show).contains('\x1b'));
        }
    }

    #[test]
    fn a_script_reads_name_and_text() {
        assert_eq!(chat("bob", None, "hi: there"), "bob: hi: there");
        assert_eq!(chat("bob", Some("team"), "hi"), "bob@team: hi");
    }
}
