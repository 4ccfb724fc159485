//! Finds where a string ends, eight bytes at a time.
//!
//! Plain functions, used by any thread. Most strings are keys and names, for which a call of `memchr` costs more than the
//! search.

use memchr::memchr2;

const WORD_BYTES: usize = size_of::<u64>();
/// Words of a string that are searched one by one; what follows is worth a call.
const SHORT_WORDS: usize = 3;

/// The first quote or backslash.
pub(in crate::protocol) fn quote_or_backslash(text: &[u8]) -> Option<usize> {
    let words = text.as_chunks::<WORD_BYTES>().0;
    let words = &words[..words.len().min(SHORT_WORDS)];
    first_in(words, |word| zero_bytes(word ^ QUOTES) | zero_bytes(word ^ BACKSLASHES)).or_else(|| {
        let searched = words.len() * WORD_BYTES;
        memchr2(b'"', b'\\', &text[searched..]).map(|at| searched + at)
    })
}

/// The first byte that a string of JSON cannot hold as it is: a quote, a backslash or a control character.
pub(in crate::protocol) fn not_plain(text: &[u8]) -> Option<usize> {
    let (words, rest) = text.as_chunks::<WORD_BYTES>();
    let marked = |word| zero_bytes(word ^ QUOTES) | zero_bytes(word ^ BACKSLASHES) | bytes_below(word, b' ');
    first_in(words, marked).or_else(|| {
        let at = rest.iter().position(|&byte| matches!(byte, b'"' | b'\\' | ..b' '))?;
        Some(words.len() * WORD_BYTES + at)
    })
}

/// The place of the first byte that `marked` sets the highest bit of.
fn first_in(words: &[[u8; WORD_BYTES]], marked: impl Fn(u64) -> u64) -> Option<usize> {
    words.iter().enumerate().find_map(|(place, word)| {
        let found = marked(u64::from_le_bytes(*word));
        (found != 0).then(|| place * WORD_BYTES + (found.trailing_zeros() / u8::BITS) as usize)
    })
}

/// Sets the highest bit of each byte that is zero, and perhaps of some behind the first of them.
fn zero_bytes(word: u64) -> u64 {
    bytes_below(word, 1)
}

/// Sets the highest bit of each byte that is below a bound of 128 at most, and perhaps of some behind the first of them.
fn bytes_below(word: u64, bound: u8) -> u64 {
    word.wrapping_sub(ONES * u64::from(bound)) & !word & (ONES << (u8::BITS - 1))
}

/// 1 in each byte.
const ONES: u64 = u64::from_ne_bytes([1; WORD_BYTES]);
const QUOTES: u64 = ONES * b'"' as u64;
const BACKSLASHES: u64 = ONES * b'\\' as u64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_string_is_found_wherever_it_is_and_whatever_is_around_it() {
        // Neighbours of the bytes that are looked for, and those that borrow from the byte above.
        for filler in [0, 1, b'!', b'"' + 1, b'"' ^ 0x80, b'\\' - 1, b'\\' + 1, b'\\' ^ 0x80, 0xff] {
            for length in 0..50 {
                let mut text = vec![filler; length + 20];
                assert_eq!(quote_or_backslash(&text), None);
                for found in [b'"', b'\\'] {
                    text[length] = found;
                    assert_eq!(
                        quote_or_backslash(&text),
                        Some(length),
                        "{found} behind {length} of {filler}"
                    );
                    text[length + 1] = b'"';
                    text[length + 9] = b'\\';
                    assert_eq!(
                        quote_or_backslash(&text),
                        Some(length),
                        "{found} behind {length} of {filler}"
                    );
                    (text[length + 1], text[length + 9]) = (filler, filler);
                }
            }
        }
    }

    #[test]
    fn what_a_string_cannot_hold_as_it_is_is_found_wherever_it_is_and_whatever_is_around_it() {
        let special = |byte: &u8| *byte < b' ' || matches!(byte, b'"' | b'\\');
        for filler in [b' ', b'!', b'#', b'[', b']', 0x7f, 0x80, 0x9f, b'"' | 0x80, b'\\' | 0x80, 0xff] {
            for length in 0..30 {
                let mut text = vec![filler; length + 10];
                assert_eq!(not_plain(&text), None);
                for found in (0..=u8::MAX).filter(special) {
                    text[length] = found;
                    assert_eq!(not_plain(&text), Some(length), "{found} behind {length} of {filler}");
                }
            }
        }
    }
}
