//! A channel's name: slot and generation. The slot is reused, the pair never is.

use std::fmt;
use std::str::FromStr;

/// Names one connection for all time: a stale name hits nothing.
///
/// It is written as `7.3`: slot 7, third use. Generations start at 1 and wrap after 2^32 - 1 uses of one slot.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ChannelId {
    /// The place in the channel table.
    pub slot: u32,
    /// Which use of the slot.
    pub generation: u32,
}

impl ChannelId {
    /// The name of the slot's next use.
    #[must_use]
    pub fn next_use(self) -> Self {
        ChannelId { slot: self.slot, generation: self.generation.wrapping_add(1).max(1) }
    }
}

impl fmt::Display for ChannelId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.slot, self.generation)
    }
}

/// Text that does not name a channel.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("a channel is named SLOT.GENERATION, such as 7.3")]
pub struct NotAChannel;

impl FromStr for ChannelId {
    type Err = NotAChannel;

    fn from_str(text: &str) -> Result<Self, NotAChannel> {
        let (slot, generation) = text.split_once('.').ok_or(NotAChannel)?;
        let number = |part: &str| {
            let plain = !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
            plain.then(|| part.parse().ok()).flatten().ok_or(NotAChannel)
        };
        Ok(ChannelId { slot: number(slot)?, generation: number(generation)? })
    }
}

/// Counts the sessions that one channel has had: its first login begins session 1.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct SessionNo(pub u32);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_reads_back_as_itself() {
        let id = ChannelId { slot: 7, generation: 3 };
        assert_eq!(id.to_string(), "7.3");
        assert_eq!("7.3".parse(), Ok(id));
    }

    #[test]
    fn anything_else_is_not_a_name() {
        for text in ["", "7", "7.", ".3", "+7.3", "7.3.1", "4294967296.1", "a.b"] {
            assert_eq!(text.parse::<ChannelId>(), Err(NotAChannel), "{text}");
        }
    }
}
