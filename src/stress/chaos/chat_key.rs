//! The text of a chat: whose it is, for whom, which one, so that it is told apart from every other, and filled up to
//! a size. Plain functions.

use std::fmt::Write as _;

use crate::rng::Rng;

/// One chat: its sender, its receiver, and the sender's own count, from 0. The count is the `seq` too.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) struct Key {
    pub(super) sender: usize,
    pub(super) receiver: usize,
    pub(super) serial: u64,
}

/// Words of a text behind the run's, the filling included.
const WORDS: usize = 5;

/// The text of a chat: `RUN SENDER RECEIVER SERIAL FILLING xxx…`. The same each time, for a repetition has to be.
pub(super) fn text(run: &str, key: Key, largest: usize) -> String {
    let Key { sender, receiver, serial } = key;
    let filling = Rng(serial ^ ((sender as u64) << 40)).below(largest + 1);
    let mut text = String::with_capacity(run.len() + filling + 32);
    let _ = write!(text, "{run} {sender} {receiver} {serial} {filling} ");
    text.extend(std::iter::repeat_n('x', filling));
    text
}

/// What a text turns out to be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Origin {
    /// A chat of this run.
    Ours(Key),
    /// One of another run, or of somebody else.
    Foreign,
    /// One of this run that is not as it was sent.
    Damaged,
}

/// Which chat a text is.
pub(super) fn read(run: &str, text: &str) -> Origin {
    match text.strip_prefix(run).and_then(|rest| rest.strip_prefix(' ')) {
        None => Origin::Foreign,
        Some(rest) => read_words(rest).map_or(Origin::Damaged, Origin::Ours),
    }
}

fn read_words(words: &str) -> Option<Key> {
    let mut words = words.splitn(WORDS, ' ');
    let key = Key {
        sender: words.next()?.parse().ok()?,
        receiver: words.next()?.parse().ok()?,
        serial: words.next()?.parse().ok()?,
    };
    let filling: usize = words.next()?.parse().ok()?;
    let rest = words.next()?;
    (rest.len() == filling && rest.bytes().all(|byte| byte == b'x')).then_some(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_read_back_by_its_own_run_only_and_only_whole() {
        for serial in 0..50 {
            let key = Key { sender: 3, receiver: 12, serial };
            let written = text("ab", key, 40);
            assert_eq!(read("ab", &written), Origin::Ours(key));
            assert_eq!(read("cd", &written), Origin::Foreign);
            assert_eq!(read("ab", &format!("{written}x")), Origin::Damaged);
            assert_eq!(text("ab", key, 40), written);
        }
        assert_eq!(read("ab", "ab 1 2 3"), Origin::Damaged);
        assert_eq!(read("ab", ""), Origin::Foreign);
    }
}
