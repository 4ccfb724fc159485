//! Text of others as it may reach a terminal: nothing in it moves the cursor, hides, or makes a second line.
//!
//! A plain function, used by every thread that prints for people.

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
}
