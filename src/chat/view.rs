//! What is shown as text: one line each, harmless for a terminal.
//!
//! Plain functions. This is the only way from what others sent to what is printed.

use super::session::Show;
use linger_server::escape::{shown, shown_chat};
use linger_server::protocol::written_name::written_sender;

/// A chat as scripts read it: `name: text`, or `name@group: text`. No two senders look alike.
pub(super) fn chat(from: &str, group: Option<&str>, text: &str) -> String {
    format!("{}: {}", written_sender(from, group), shown_chat(text))
}

/// Anything as people read it above their input line.
pub(super) fn for_people(show: &Show) -> String {
    match show {
        Show::Chat { from, group, text, kept_at } => {
            // A sender may have put anything in place of the time.
            let kept_at =
                kept_at.as_ref().map(|time| format!("[{}] ", shown(&time.replace(['[', ']'], "?"))));
            let mut chat = chat(from, group.as_deref(), text);
            if let Some(first @ ('[' | '*' | '!')) = chat.chars().next() {
                // It would read as a time, or as something that nobody has said.
                chat.replace_range(..1, &first.escape_unicode().to_string());
            }
            kept_at.unwrap_or_default() + &chat
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
        assert_eq!(chat("👨‍👩‍👧", None, "👩🏽‍💻"), "👨‍👩‍👧: 👩🏽‍💻");
    }

    #[test]
    fn nobody_passes_for_somebody_else_or_for_the_program() {
        assert_eq!(chat("alice: pay 1", None, "hi"), "alice\\u{3a} pay 1: hi");
        assert_eq!(chat("alice@team", None, "hi"), "alice\\u{40}team: hi");
        let for_people = |from: &str, kept_at: Option<&str>| {
            let kept_at = kept_at.map(str::to_owned);
            for_people(&Show::Chat { from: from.into(), group: None, text: "hi".into(), kept_at })
        };
        assert_eq!(for_people("bob", Some("12:30")), "[12:30] bob: hi");
        assert_eq!(for_people("[12:30] bob", None), "\\u{5b}12\\u{3a}30] bob: hi");
        assert_eq!(for_people("bob", Some("0] alice: pay 1 [")), "[0? alice: pay 1 ?] bob: hi");
        assert_eq!(for_people("* alice is online", None), "\\u{2a} alice is online: hi");
        assert_eq!(for_people("! gone", None), "\\u{21} gone: hi");
        assert_eq!(for_people("  gone", None), "\\u{20}\\u{20}gone: hi");
    }
}
