//! Which addresses are of somebody in public, and which lead inside: to this machine, its network, or nowhere.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Networks of IPv4 that are not public: first address, bits, and what they are for.
const PRIVATE_V4: [([u8; 4], u32); 16] = [
    ([0, 0, 0, 0], 8),          // this network
    ([10, 0, 0, 0], 8),         // RFC 1918
    ([100, 64, 0, 0], 10),      // shared by carriers
    ([127, 0, 0, 0], 8),        // loopback
    ([169, 254, 0, 0], 16),     // link-local, and the metadata of clouds
    ([172, 16, 0, 0], 12),      // RFC 1918
    ([192, 0, 0, 0], 24),       // protocol assignments
    ([192, 0, 2, 0], 24),       // documentation
    ([192, 88, 99, 0], 24),     // relays of 6to4
    ([192, 168, 0, 0], 16),     // RFC 1918
    ([198, 18, 0, 0], 15),      // benchmarks
    ([198, 51, 100, 0], 24),    // documentation
    ([203, 0, 113, 0], 24),     // documentation
    ([224, 0, 0, 0], 4),        // multicast
    ([240, 0, 0, 0], 4),        // reserved
    ([255, 255, 255, 255], 32), // broadcast
];

/// Networks of IPv6 that are not public, or whose addresses contain others that cannot be told.
const PRIVATE_V6: [([u16; 8], u32); 9] = [
    ([0x64, 0xff9b, 1, 0, 0, 0, 0, 0], 48),  // NAT64 of one's own
    ([0x100, 0, 0, 0, 0, 0, 0, 0], 64),      // discarded
    ([0x2001, 0, 0, 0, 0, 0, 0, 0], 23),     // protocol assignments, Teredo among them
    ([0x2001, 0xdb8, 0, 0, 0, 0, 0, 0], 32), // documentation
    ([0x3fff, 0, 0, 0, 0, 0, 0, 0], 20),     // documentation
    ([0xfc00, 0, 0, 0, 0, 0, 0, 0], 7),      // unique local
    ([0xfe80, 0, 0, 0, 0, 0, 0, 0], 10),     // link-local
    ([0xfec0, 0, 0, 0, 0, 0, 0, 0], 10),     // site-local
    ([0xff00, 0, 0, 0, 0, 0, 0, 0], 8),      // multicast
];

/// The host of a URL in one form: an address, or a name in small letters without a dot at its end. `None` for what is
/// neither, and for numbers that some resolvers take for addresses.
pub(super) fn host(written: &str) -> Option<String> {
    if let Some(address) = written.strip_prefix('[') {
        return Some(address.strip_suffix(']')?.parse::<Ipv6Addr>().ok()?.to_string());
    }
    let name = written.strip_suffix('.').unwrap_or(written).to_ascii_lowercase();
    if let Ok(address) = name.parse::<Ipv4Addr>() {
        return Some(address.to_string());
    }
    let legal = |label: &str| {
        !label.is_empty()
            && label.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_')
    };
    let last = name.rsplit('.').next()?;
    let is_number = last.starts_with("0x") || last.bytes().all(|b| b.is_ascii_digit());
    (name.split('.').all(legal) && !is_number).then_some(name)
}

/// Whether an address leads inside.
pub(super) fn is_private(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_private_v4(address),
        IpAddr::V6(address) => match inner(address) {
            Some(inner) => is_private_v4(inner),
            None => PRIVATE_V6.iter().any(|(network, bits)| {
                let shift = u128::BITS - bits;
                address.to_bits() >> shift == Ipv6Addr::from(*network).to_bits() >> shift
            }),
        },
    }
}

fn is_private_v4(address: Ipv4Addr) -> bool {
    PRIVATE_V4.iter().any(|(network, bits)| {
        let shift = u32::BITS - bits;
        address.to_bits() >> shift == Ipv4Addr::from(*network).to_bits() >> shift
    })
}

/// The address of IPv4 that one of IPv6 contains: mapped, compatible (loopback and none among them), behind NAT64, of 6to4.
fn inner(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let from = |high: u16, low: u16| Some(Ipv4Addr::from_bits(u32::from(high) << 16 | u32::from(low)));
    match address.segments() {
        [0, 0, 0, 0, 0, 0 | 0xffff, high, low] | [0x64, 0xff9b, 0, 0, 0, 0, high, low] => from(high, low),
        [0x2002, high, low, ..] => from(high, low),
        _ => None,
    }
}
