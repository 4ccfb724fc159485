//! Addresses: blocks of them, as `ip:10.0.0.0/8` names one for targets and for bans; what every limit takes for one
//! address; and those of clients, kept small.
//!
//! Plain values, owned by nobody.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::str::FromStr;

/// An address, or all that begin with the same bits. IPv4 inside IPv6 counts as IPv4.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct AddrBlock {
    /// The bits beyond `prefix_len` are zero.
    ip: IpAddr,
    /// At most the width of `ip`.
    prefix_len: u8,
}

/// What every limit takes for one address: an IPv4 address, or an IPv6 /64, for that is what one customer of a network
/// has to choose from. IPv4 inside IPv6 counts as IPv4.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct IpBlock(AddrBlock);

impl IpBlock {
    /// The one that holds `ip`.
    pub fn of(ip: IpAddr) -> IpBlock {
        let ip = ip.to_canonical();
        let prefix_len = if ip.is_ipv4() { IPV4_BITS } else { CUSTOMER_PREFIX_LEN };
        IpBlock(AddrBlock { ip: first_of_block(ip, prefix_len), prefix_len })
    }

    /// True exactly for loopback, which limits on addresses spare by default: everybody on this machine has the same one there.
    pub fn is_loopback(self) -> bool {
        self.0.ip.is_loopback() || self == IpBlock::of(Ipv6Addr::LOCALHOST.into())
    }
}

impl From<IpBlock> for AddrBlock {
    fn from(block: IpBlock) -> AddrBlock {
        block.0
    }
}

/// A client's address, as it is kept for each of them: half as large as a [`SocketAddr`], for most are IPv4.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Peer {
    /// IPv4.
    V4(SocketAddrV4),
    /// IPv6.
    V6(Box<SocketAddrV6>),
}

const _: () = assert!(size_of::<Peer>() <= size_of::<SocketAddr>() / 2);

impl Peer {
    /// The address itself.
    pub fn addr(&self) -> SocketAddr {
        match self {
            Peer::V4(addr) => SocketAddr::V4(*addr),
            Peer::V6(addr) => SocketAddr::V6(**addr),
        }
    }
}

impl From<SocketAddr> for Peer {
    fn from(addr: SocketAddr) -> Self {
        match addr {
            SocketAddr::V4(addr) => Peer::V4(addr),
            SocketAddr::V6(addr) => Peer::V6(Box::new(addr)),
        }
    }
}

/// Why a text is no block of addresses.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("no address; expected a form such as 10.0.0.7 or 10.0.0.0/8")]
pub struct AddrBlockError;

impl AddrBlock {
    /// The block of that length around `ip`; none if it is longer than the address.
    pub fn new(ip: IpAddr, prefix_len: u8) -> Option<AddrBlock> {
        let (ip, prefix_len) = match ip {
            IpAddr::V6(v6) if prefix_len >= MAPPED_PREFIX_LEN && v6.to_ipv4_mapped().is_some() => {
                (ip.to_canonical(), prefix_len - MAPPED_PREFIX_LEN)
            }
            _ => (ip, prefix_len),
        };
        (prefix_len <= width(ip)).then(|| AddrBlock { ip: first_of_block(ip, prefix_len), prefix_len })
    }

    /// Reads what [`Self::stored`] has written.
    ///
    /// # Errors
    /// When it is no block of addresses.
    pub fn from_stored(text: &str) -> Result<AddrBlock, AddrBlockError> {
        match text.parse::<IpAddr>() {
            Ok(ip) => AddrBlock::new(ip, width(ip)).ok_or(AddrBlockError),
            Err(_) => text.parse(),
        }
    }

    /// As it stands in the database: an address without a length is that one address, of IPv6 too.
    pub fn stored(&self) -> String {
        if self.prefix_len == width(self.ip) { self.ip.to_string() } else { self.to_string() }
    }

    /// True exactly when `peer` is in the block.
    pub fn contains(&self, peer: IpAddr) -> bool {
        // An address of the other family never equals ours, whatever is left of it.
        first_of_block(peer.to_canonical(), self.prefix_len) == self.ip
    }

    /// Every block that holds `peer`, from the smallest to the largest.
    pub fn all_around(peer: IpAddr) -> impl Iterator<Item = AddrBlock> {
        let ip = peer.to_canonical();
        (0..=width(ip))
            .rev()
            .map(move |prefix_len| AddrBlock { ip: first_of_block(ip, prefix_len), prefix_len })
    }
}

impl FromStr for AddrBlock {
    type Err = AddrBlockError;

    /// Reads `ADDR/LEN`, or `ADDR` for the [`IpBlock`] around it.
    fn from_str(text: &str) -> Result<AddrBlock, AddrBlockError> {
        let Some((ip, len)) = text.split_once('/') else {
            let ip = IpAddr::from_str(text).map_err(|_| AddrBlockError)?;
            return Ok(IpBlock::of(ip).into());
        };
        // `parse` alone would also take a sign.
        if !len.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(AddrBlockError);
        }
        let (ip, len) = (ip.parse().map_err(|_| AddrBlockError)?, len.parse().map_err(|_| AddrBlockError)?);
        AddrBlock::new(ip, len).ok_or(AddrBlockError)
    }
}

impl fmt::Display for AddrBlock {
    /// Writes what reads back as the same. IPv6 always has its length, for without one it would be a /64.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.prefix_len == IPV4_BITS && self.ip.is_ipv4() {
            self.ip.fmt(f)
        } else {
            write!(f, "{}/{}", self.ip, self.prefix_len)
        }
    }
}

/// Bits before the IPv4 address in `::ffff:1.2.3.4`.
const MAPPED_PREFIX_LEN: u8 = 96;

/// Bits of an IPv4 address.
const IPV4_BITS: u8 = 32;
/// Bits of an IPv6 address that name a customer's network; the customer chooses the others.
const CUSTOMER_PREFIX_LEN: u8 = 64;

fn width(ip: IpAddr) -> u8 {
    if ip.is_ipv4() { IPV4_BITS } else { 128 }
}

/// `ip` with all bits beyond `prefix_len` zero.
fn first_of_block(ip: IpAddr, prefix_len: u8) -> IpAddr {
    let free = u32::from(width(ip).saturating_sub(prefix_len));
    match ip {
        // A shift by the whole width is none at all: the block of length 0 has no fixed bit.
        IpAddr::V4(v4) => IpAddr::V4((v4.to_bits() & u32::MAX.checked_shl(free).unwrap_or(0)).into()),
        IpAddr::V6(v6) => IpAddr::V6((v6.to_bits() & u128::MAX.checked_shl(free).unwrap_or(0)).into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clients_address_is_kept_whole() {
        for text in ["192.0.2.7:6000", "[2001:db8::1]:6000", "[::ffff:192.0.2.7]:1", "[fe80::1%3]:6000"] {
            let addr: SocketAddr = text.parse().unwrap();
            assert_eq!(Peer::from(addr).addr(), addr);
        }
    }

    fn block(ip: &str, len: u8) -> AddrBlock {
        AddrBlock::new(ip.parse().unwrap(), len).unwrap()
    }

    #[test]
    fn a_block_holds_its_addresses_and_no_others() {
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        assert!(block("10.1.2.3", 8).contains(ip("10.255.0.1")));
        assert!(!block("10.1.2.3", 8).contains(ip("11.0.0.1")));
        assert!(block("10.1.2.3", 8).contains(ip("::ffff:10.0.0.1")));
        assert!(block("0.0.0.0", 0).contains(ip("255.1.1.1")));
        assert!(!block("0.0.0.0", 0).contains(ip("::1")));
        assert!(!block("::", 0).contains(ip("10.0.0.1")));
        assert!(block("fe80::", 10).contains(ip("febf::1")));
        assert!(!block("::1", 128).contains(ip("::2")));
    }

    #[test]
    fn all_blocks_around_an_address_hold_it_and_are_found_as_written() {
        for peer in ["10.1.2.3", "::ffff:10.1.2.3", "2001:db8::7"] {
            let peer: IpAddr = peer.parse().unwrap();
            assert!(AddrBlock::all_around(peer).all(|block| block.contains(peer)));
        }
        let around: Vec<_> = AddrBlock::all_around("::ffff:10.1.2.3".parse().unwrap()).collect();
        assert_eq!(around.len(), 33);
        assert!(around.contains(&"10.0.0.0/8".parse().unwrap()));
        assert!(around.contains(&"::ffff:10.1.2.3".parse().unwrap()));
        assert!(!around.contains(&"11.0.0.0/8".parse().unwrap()));
    }

    #[test]
    fn limits_count_an_ipv4_address_or_an_ipv6_64() {
        let of = |text: &str| IpBlock::of(text.parse().unwrap());
        assert_eq!(of("2001:db8::1"), of("2001:db8::ffff:ffff:ffff:ffff"));
        assert_ne!(of("2001:db8::1"), of("2001:db8:0:1::1"));
        assert_ne!(of("10.0.0.1"), of("10.0.0.2"));
        assert_eq!(of("::ffff:10.0.0.1"), of("10.0.0.1"), "v4-mapped is v4");
        for loopback in ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"] {
            assert!(of(loopback).is_loopback(), "{loopback}");
        }
        assert!(!of("10.0.0.1").is_loopback() && !of("fe80::1").is_loopback());
    }

    #[test]
    fn an_address_without_a_length_is_what_limits_count_and_a_length_is_taken_as_it_is() {
        for (text, block) in [
            ("2001:db8::1", "2001:db8::/64"),
            ("2001:db8::1/128", "2001:db8::1/128"),
            ("2001:db8::1/32", "2001:db8::/32"),
            ("10.0.0.7", "10.0.0.7"),
            ("10.0.0.7/32", "10.0.0.7"),
            ("::ffff:10.0.0.7", "10.0.0.7"),
        ] {
            let read: AddrBlock = text.parse().unwrap();
            assert_eq!(read.to_string(), block, "{text}");
            assert_eq!(block.parse(), Ok(read), "{text}");
            assert_eq!(AddrBlock::from_stored(&read.stored()), Ok(read), "{text}");
        }
        assert_eq!(block("2001:db8::1", 128).stored(), "2001:db8::1", "as databases have it");
    }
}
