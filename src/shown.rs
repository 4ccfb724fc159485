//! Text of others as it may reach a terminal: nothing in it moves the cursor, hides, or makes a second line.
//!
//! A plain function, used by every thread that prints for people.

use std::path::Path;

/// The text, with escapes for what would move the cursor, hide, or turn the reading direction around.
pub fn shown(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() || is_invisible(c) {
            out.extend(c.escape_unicode());
        } else {
            out.push(c);
        }
    }
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

/// Marks of direction, separators and joiners: they change what others look like.
fn is_invisible(c: char) -> bool {
    matches!(c,
        '\u{ad}' | '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
        | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_reaches_the_terminal_but_what_can_be_seen() {
        assert_eq!(shown("a\x1b[2J\r\n\u{9b}\u{202e}b"), "a\\u{1b}[2J\\u{d}\\u{a}\\u{9b}\\u{202e}b");
        assert_eq!(shown("zhang san 张三 é"), "zhang san 张三 é");
    }

    #[test]
    fn a_path_that_is_no_text_is_shown_whole() {
        use std::os::unix::ffi::OsStrExt;
        let path = Path::new(std::ffi::OsStr::from_bytes(b"data \n\xff/\xc3\xbc"));
        assert_eq!(shown_path(path), "data \\u{a}\\xff/ü");
    }
}
