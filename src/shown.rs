//! Text of others as it may reach a terminal: nothing in it moves the cursor, hides, or makes a second line.
//!
//! Plain functions, used by every thread that prints for people.

use std::fmt::{self, Write as _};
use std::path::Path;

use unicode_segmentation::UnicodeSegmentation;

/// The text, with escapes for what would move the cursor, hide, or turn the reading direction around.
pub fn shown(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    // Writing to a string cannot fail.
    let _ = write_shown(&mut out, text, is_harmful);
    out
}

/// The same for a path, which need not be UTF-8: what is not is shown byte by byte.
pub fn shown_path(path: &Path) -> String {
    let mut out = String::new();
    for chunk in path.as_os_str().as_encoded_bytes().utf8_chunks() {
        out += &shown(chunk.valid());
        out.extend(chunk.invalid().iter().map(|byte| format!("\\x{byte:02x}")));
    }
    out
}

/// Text between quotes, as a log has it: what [`shown`] escapes is escaped, and so are quotes and backslashes.
pub struct Quoted<'a>(pub &'a str);

impl fmt::Debug for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_char('"')?;
        write_shown(f, self.0, |c| is_harmful(c) || matches!(c, '"' | '\\'))?;
        f.write_char('"')
    }
}

/// The characters of a text, each with its place, and whether it is part of an emoji that Unicode makes of several.
/// There, joiners and other characters that hide elsewhere belong to what is seen.
pub fn chars_and_emoji(text: &str) -> impl Iterator<Item = (usize, char, bool)> {
    text.grapheme_indices(true).flat_map(|(place, cluster)| {
        let is_sequence = cluster.chars().nth(1).is_some() && emojis::get(cluster).is_some();
        cluster.char_indices().map(move |(at, c)| (place + at, c, is_sequence))
    })
}

fn write_shown(out: &mut impl fmt::Write, text: &str, is_escaped: impl Fn(char) -> bool) -> fmt::Result {
    if !text.chars().any(&is_escaped) {
        return out.write_str(text);
    }
    for (_, c, in_emoji) in chars_and_emoji(text) {
        match c {
            '"' | '\\' if is_escaped(c) => write!(out, "\\{c}")?,
            c if is_escaped(c) && !in_emoji => write!(out, "{}", c.escape_unicode())?,
            c => out.write_char(c)?,
        }
    }
    Ok(())
}

fn is_harmful(c: char) -> bool {
    c.is_control() || is_invisible(c)
}

/// Marks of direction, separators, joiners and fillers: they change what others look like, or look like nothing.
fn is_invisible(c: char) -> bool {
    matches!(c,
        '\u{ad}' | '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
        | '\u{3164}' | '\u{feff}' | '\u{ffa0}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_reaches_the_terminal_but_what_can_be_seen() {
        assert_eq!(shown("a\x1b[2J\r\n\u{9b}\u{202e}b"), "a\\u{1b}[2J\\u{d}\\u{a}\\u{9b}\\u{202e}b");
        assert_eq!(shown("zhang san 张三 é"), "zhang san 张三 é");
        assert_eq!(shown("\u{3164}"), "\\u{3164}");
    }

    #[test]
    fn an_emoji_of_several_characters_is_shown_whole_and_a_joiner_elsewhere_is_not() {
        for emoji in ["👨‍👩‍👧", "👩🏽‍💻", "🏳️‍🌈", "🏴󠁧󠁢󠁥󠁮󠁧󠁿"]
        {
            assert_eq!(shown(&format!("\x1b{emoji}!")), format!("\\u{{1b}}{emoji}!"));
        }
        assert_eq!(shown("a\u{200d}b"), "a\\u{200d}b");
        assert_eq!(shown("😀\u{200d}😀"), "😀\\u{200d}😀");
        assert_eq!(shown("👨‍👩‍👧\u{202e}x"), "👨‍👩‍👧\\u{202e}x");
    }

    #[test]
    fn quotes_have_one_end() {
        assert_eq!(format!("{:?}", Quoted("a\" name=\"b\\\n👨‍👩‍👧")), "\"a\\\" name=\\\"b\\\\\\u{a}👨‍👩‍👧\"");
        assert_eq!(format!("{:?}", Quoted("zhang san")), "\"zhang san\"");
    }

    #[test]
    fn a_path_that_is_no_text_is_shown_whole() {
        use std::os::unix::ffi::OsStrExt;
        let path = Path::new(std::ffi::OsStr::from_bytes(b"data \n\xff/\xc3\xbc"));
        assert_eq!(shown_path(path), "data \\u{a}\\xff/ü");
    }
}
