//! Recognises a chat that is sent again under the same `seq`.

use super::request::Destination;
use blake2::{Blake2s256, Digest};

/// What `seq`, receiver and text of a chat hash to: equal for a repetition, different for anything else.
pub fn of(seq: &str, to: &Destination, text: &[u8]) -> u128 {
    let (kind, number, name) = match to {
        Destination::User(user) => (0_u8, user.0, ""),
        Destination::Group(group) => (1, group.0, ""),
        Destination::Name(name) => (2, name.len() as i64, &**name),
    };
    let mut hash = Blake2s256::new();
    hash.update([kind]);
    hash.update(number.to_le_bytes());
    hash.update(name.as_bytes());
    hash.update((seq.len() as u64).to_le_bytes());
    hash.update(seq.as_bytes());
    hash.update(text);
    let mut first = [0; 16];
    first.copy_from_slice(&hash.finalize()[..16]);
    u128::from_le_bytes(first)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{GroupId, UserId};

    #[test]
    fn only_the_same_seq_receiver_and_text_are_the_same_message() {
        let user = &Destination::User(UserId(1));
        let same = of("7", user, b"hello");
        assert_eq!(same, of("7", user, b"hello"));
        assert_ne!(same, of("8", user, b"hello"));
        assert_ne!(same, of("7", user, b"hello!"));
        assert_ne!(same, of("7", &Destination::Group(GroupId(1)), b"hello"));
        assert_ne!(of("7", user, b"7x"), of("77", user, b"x"), "the parts do not run into each other");
    }
}
