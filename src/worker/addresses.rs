//! How many channels each address has. Shared by all workers; loopback is exempt.

use crate::sync::Lock;
use std::collections::HashMap;
use std::net::IpAddr;

/// Channels by address.
#[derive(Debug)]
pub struct Addresses {
    max: usize,
    counts: Lock<HashMap<IpAddr, usize>>,
}

impl Addresses {
    /// None yet; each address may have `max`.
    pub fn new(max: usize) -> Self {
        Addresses { max, counts: Lock::new(HashMap::new()) }
    }

    /// Counts a channel in. False when its address has too many with it.
    pub fn enter(&self, address: IpAddr) -> bool {
        if address.is_loopback() {
            return true;
        }
        let mut counts = self.counts.lock();
        let count = counts.entry(address).or_insert(0);
        *count += 1;
        *count <= self.max
    }

    /// Counts a channel out that was counted in.
    pub fn leave(&self, address: IpAddr) {
        if address.is_loopback() {
            return;
        }
        let mut counts = self.counts.lock();
        if let Some(count) = counts.get_mut(&address) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_room_again_when_one_of_its_channels_leaves() {
        let addresses = Addresses::new(1);
        let far = IpAddr::from([192, 0, 2, 1]);
        assert!(addresses.enter(far));
        assert!(!addresses.enter(far));
        addresses.leave(far);
        addresses.leave(far);
        assert!(addresses.enter(far));
        assert!(addresses.enter(IpAddr::from([192, 0, 2, 2])), "another address has its own");
    }

    #[test]
    fn loopback_is_exempt() {
        let addresses = Addresses::new(0);
        assert!(addresses.enter(IpAddr::from([127, 0, 0, 9])));
    }
}
