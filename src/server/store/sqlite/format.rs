//! Names and addresses as the history shows them. Written without `core::fmt`, which took a twentieth of main's
//! instructions in a storm of ends.

use std::net::SocketAddr;

use itoa::Buffer;

use crate::channel::ChannelId;

/// The longest that has to fit without growing: `255.255.255.255:65535`.
const USUAL_BYTES: usize = 21;

/// A channel's name, such as `7.3`.
pub(super) fn channel(id: ChannelId) -> String {
    let mut text = String::with_capacity(USUAL_BYTES);
    text.push_str(Buffer::new().format(id.slot));
    text.push('.');
    text.push_str(Buffer::new().format(id.generation));
    text
}

/// The address of the other end, such as `10.0.0.7:40000`.
pub(super) fn peer(address: SocketAddr) -> String {
    let SocketAddr::V4(address) = address else { return address.to_string() };
    let mut text = String::with_capacity(USUAL_BYTES);
    for (place, octet) in address.ip().octets().into_iter().enumerate() {
        if place > 0 {
            text.push('.');
        }
        text.push_str(Buffer::new().format(octet));
    }
    text.push(':');
    text.push_str(Buffer::new().format(address.port()));
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn names_and_addresses_read_as_everywhere_else(slot: u32, generation: u32, address: SocketAddr) {
            let id = ChannelId { slot, generation };
            prop_assert_eq!(channel(id), id.to_string());
            prop_assert_eq!(peer(address), address.to_string());
        }
    }
}
