//! Renders output as text: one line each, harmless for a terminal.
//!
//! Plain functions. Everything that other users have sent passes through them before it is printed.

use super::session::Output;
use linger_server::escape::{shown, shown_chat};
use linger_server::protocol::written_name::written_sender;

/// A chat for scripts: `name: text`, or `name@group: text`. No two senders look alike.
pub(super) fn chat(from: &str, group: Option<&str>, text: &str) -> String {
    format!("{}: {}", written_sender(from, group), shown_chat(text))
}

/// Any output for a terminal, above the input line.
pub(super) fn render_for_terminal(output: &Output) -> String {
    match output {
        Output::Chat { from, group, text, kept_at } => {
            // A sender may have put anything in place of the time.
            let kept_at =
                kept_at.as_ref().map(|time| format!("[{}] ", shown(&time.replace(['[', ']'], "?"))));
            let mut chat = chat(from, group.as_deref(), text);
            if let Some(first @ ('[' | '*' | '!')) = chat.chars().next() {
                // It would look like a time, or like a line of the program.
                chat.replace_range(..1, &first.escape_unicode().to_string());
            }
            kept_at.unwrap_or_default() + &chat
        }
        Output::Answer(text) => format!("  {}", shown(text)),
        Output::Notice(text) => format!("* {}", shown(text)),
        Output::Error(text) => format!("! {}", shown(text)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_others_sent_is_one_harmless_line() {
        let output = Output::Chat {
            from: "a\x1b[2J".into(),
            group: Some("g\n".into()),
            text: "one\r\ntwo\u{9b}".into(),
            kept_at: Some("\u{7}".into()),
        };
        let line = render_for_terminal(&output);
        assert_eq!(line, "[\\u{7}] a\\u{1b}[2J@g\\u{a}: one\\u{d}\\u{a}two\\u{9b}");
        for output in
            [Output::Answer("\x1b".into()), Output::Notice("\x1b".into()), Output::Error("\x1b".into())]
        {
            assert!(!render_for_terminal(&output).contains('\x1b'));
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
        let render_for_terminal = |from: &str, kept_at: Option<&str>| {
            let kept_at = kept_at.map(str::to_owned);
            render_for_terminal(&Output::Chat { from: from.into(), group: None, text: "hi".into(), kept_at })
        };
        assert_eq!(render_for_terminal("bob", Some("12:30")), "[12:30] bob: hi");
        assert_eq!(render_for_terminal("[12:30] bob", None), "\\u{5b}12\\u{3a}30] bob: hi");
        assert_eq!(render_for_terminal("bob", Some("0] alice: pay 1 [")), "[0? alice: pay 1 ?] bob: hi");
        assert_eq!(render_for_terminal("* alice is online", None), "\\u{2a} alice is online: hi");
        assert_eq!(render_for_terminal("! gone", None), "\\u{21} gone: hi");
        assert_eq!(render_for_terminal("  gone", None), "\\u{20}\\u{20}gone: hi");
    }
}
