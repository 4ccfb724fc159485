//! How many channels each address has, until main has their sockets. Shared by all workers; loopback is exempt.

use crate::ip_block::IpBlock;
use crate::shrink::Shrink;
use crate::sync::Mutex;
use std::collections::HashMap;

/// Channels by address.
#[derive(Debug)]
pub struct IpLimit {
    max: usize,
    counts: Mutex<HashMap<IpBlock, usize>>,
}

impl IpLimit {
    /// None yet; each address may have `max`.
    pub fn new(max: usize) -> Self {
        IpLimit { max, counts: Mutex::new(HashMap::new()) }
    }

    /// Counts a channel. False when its address has too many without it; then it is not counted, or a client that tries
    /// again and again would never be let in.
    pub fn enter(&self, address: IpBlock) -> bool {
        if address.is_loopback() {
            return true;
        }
        let mut counts = self.counts.lock();
        let count = counts.entry(address).or_insert(0);
        let has_room = *count < self.max;
        *count += usize::from(has_room);
        has_room
    }

    /// A channel that was counted is gone.
    pub fn leave(&self, address: IpBlock) {
        if address.is_loopback() {
            return;
        }
        let mut counts = self.counts.lock();
        if let Some(count) = counts.get_mut(&address) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&address);
                counts.shrink();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(text: &str) -> IpBlock {
        IpBlock::of(text.parse().unwrap())
    }

    #[test]
    fn an_address_has_room_again_when_one_of_its_channels_leaves() {
        let addresses = IpLimit::new(1);
        let far = block("192.0.2.1");
        assert!(addresses.enter(far));
        for _ in 0..3 {
            assert!(!addresses.enter(far), "who is refused takes no place");
        }
        addresses.leave(far);
        assert!(addresses.enter(far));
        assert!(addresses.enter(block("192.0.2.2")), "another address has its own");
        assert!(addresses.enter(block("2001:db8::1")));
        assert!(!addresses.enter(block("2001:db8::2")), "an IPv6 /64 is one address");
    }

    #[test]
    fn nothing_is_kept_of_an_address_without_channels() {
        let addresses = IpLimit::new(1);
        let far = block("192.0.2.1");
        assert!(addresses.enter(far) && !addresses.enter(far));
        addresses.leave(far);
        assert!(addresses.counts.lock().is_empty());
    }

    #[test]
    fn loopback_is_exempt() {
        let addresses = IpLimit::new(0);
        assert!(addresses.enter(block("127.0.0.9")));
    }
}
