//! Text of others as it may reach a terminal: nothing in it moves the cursor, hides, or makes a second line.
//!
//! Plain functions, used by every thread that prints for people.

use std::fmt::{self, Write as _};
use std::path::Path;

use unicode_properties::{GeneralCategoryGroup, UnicodeGeneralCategory};
use unicode_security::confusable_detection::skeleton;
use unicode_segmentation::UnicodeSegmentation;

/// Characters that show nothing, although no table says so.
const BLANKS: [char; 5] = ['\u{13441}', '\u{13442}', '\u{16fe4}', '\u{1d159}', '\u{fffc}'];

/// The text, with escapes for what would move the cursor, turn the reading direction around, or not be seen. So names that
/// differ are shown differently.
pub fn shown(text: &str) -> String {
    escaped(text, is_hidden)
}

/// The same for what somebody has written in a chat, where wide spaces, blanks of drawings and variants of letters are part
/// of the text.
pub fn shown_chat(text: &str) -> String {
    escaped(text, is_harmful)
}

/// What [`shown`] makes of a path, which need not be UTF-8: what is not is shown byte by byte.
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
        write_shown(f, self.0, |c| is_hidden(c) || matches!(c, '"' | '\\'))?;
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

fn escaped(text: &str, is_escaped: fn(char) -> bool) -> String {
    let mut out = String::with_capacity(text.len());
    // Writing to a string cannot fail.
    let _ = write_shown(&mut out, text, is_escaped);
    out
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

/// True exactly when a character shows nothing where it stands alone, or shows the same as others: control and format
/// characters, fillers, white space other than the space, and what has no meaning in Unicode.
pub(crate) fn is_hidden(c: char) -> bool {
    if c.is_ascii() {
        return c.is_ascii_control();
    }
    let is_odd = match c.general_category_group() {
        GeneralCategoryGroup::Other | GeneralCategoryGroup::Separator => true,
        // What is ignorable has no skeleton, and what looks like a space has that of a space.
        _ => skeleton(c.encode_utf8(&mut [0; 4])).all(char::is_whitespace),
    };
    is_odd || BLANKS.contains(&c)
}

/// True exactly when a character moves the cursor, changes what others look like, or looks like nothing in any text: marks of
/// direction, separators, joiners and fillers.
fn is_harmful(c: char) -> bool {
    let is_invisible = matches!(c,
        '\u{ad}' | '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
        | '\u{3164}' | '\u{feff}' | '\u{ffa0}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}');
    c.is_control() || is_invisible
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::name::of_new_user;

    #[test]
    fn nothing_reaches_the_terminal_but_what_can_be_seen() {
        assert_eq!(shown("a\x1b[2J\r\n\u{9b}\u{202e}b"), "a\\u{1b}[2J\\u{d}\\u{a}\\u{9b}\\u{202e}b");
        assert_eq!(shown("zhang san 张三 é"), "zhang san 张三 é");
        assert_eq!(shown("\u{3164}"), "\\u{3164}");
    }

    #[test]
    fn what_no_new_name_may_have_is_escaped_but_blanks_that_belong_to_a_chat_stay() {
        for c in
            ['\u{2800}', '\u{a0}', '\u{3000}', '\u{115f}', '\u{34f}', '\u{fe0f}', '\u{e0100}', '\u{1d159}']
        {
            let name = format!("al{c}ice");
            let escaped = format!("al{}ice", c.escape_unicode());
            assert!(of_new_user(&name).is_err(), "{escaped}");
            assert_eq!(shown(&name), escaped);
            assert_eq!(format!("{:?}", Quoted(&name)), format!("\"{escaped}\""));
            assert_eq!(shown_chat(&name), name, "{escaped}");
        }
        for c in ('\u{0}'..=char::MAX).filter(|c| is_harmful(*c)) {
            assert!(is_hidden(c), "{c:?}");
        }
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
