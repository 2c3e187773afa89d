//! Which addresses are out on the internet, and which lead inside.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Blocks of IPv4 that are not out on the internet, as address and length of the prefix.
///
/// From the IANA IPv4 Special-Purpose Address Registry: whatever is not globally reachable there, and multicast. What
/// is listed inside `192.0.0.0/24` as reachable is refused with the rest of it; no receiver is there.
const INSIDE_V4: &[(Ipv4Addr, u32)] = &[
    (Ipv4Addr::new(0, 0, 0, 0), 8),
    (Ipv4Addr::new(10, 0, 0, 0), 8),
    (Ipv4Addr::new(100, 64, 0, 0), 10),
    (Ipv4Addr::new(127, 0, 0, 0), 8),
    (Ipv4Addr::new(169, 254, 0, 0), 16),
    (Ipv4Addr::new(172, 16, 0, 0), 12),
    (Ipv4Addr::new(192, 0, 0, 0), 24),
    (Ipv4Addr::new(192, 0, 2, 0), 24),
    (Ipv4Addr::new(192, 88, 99, 0), 24),
    (Ipv4Addr::new(192, 168, 0, 0), 16),
    (Ipv4Addr::new(198, 18, 0, 0), 15),
    (Ipv4Addr::new(198, 51, 100, 0), 24),
    (Ipv4Addr::new(203, 0, 113, 0), 24),
    // Multicast, what is reserved, and the broadcast address.
    (Ipv4Addr::new(224, 0, 0, 0), 3),
];

/// Providers' own addresses that look public: the metadata of Azure's and of Alibaba's machines.
const METADATA: &[Ipv4Addr] = &[Ipv4Addr::new(168, 63, 129, 16), Ipv4Addr::new(100, 100, 100, 200)];

/// Blocks inside of `2000::/3`, the only part of IPv6 that is given out, which are not out on the internet.
const INSIDE_V6: &[(Ipv6Addr, u32)] = &[
    // Protocol assignments, Teredo, benchmarking, ORCHID.
    (Ipv6Addr::new(0x2001, 0, 0, 0, 0, 0, 0, 0), 23),
    // Documentation.
    (Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0), 32),
    (Ipv6Addr::new(0x3fff, 0, 0, 0, 0, 0, 0, 0), 20),
    // 6to4 carries an IPv4 address, and no one relays it any more.
    (Ipv6Addr::new(0x2002, 0, 0, 0, 0, 0, 0, 0), 16),
];

/// Blocks of IPv4 that organizations use inside: RFC 1918, and the shared space of RFC 6598.
const PRIVATE_V4: &[(Ipv4Addr, u32)] = &[
    (Ipv4Addr::new(10, 0, 0, 0), 8),
    (Ipv4Addr::new(100, 64, 0, 0), 10),
    (Ipv4Addr::new(172, 16, 0, 0), 12),
    (Ipv4Addr::new(192, 168, 0, 0), 16),
];

/// Unique local addresses of RFC 4193.
const PRIVATE_V6: (Ipv6Addr, u32) = (Ipv6Addr::new(0xfc00, 0, 0, 0, 0, 0, 0, 0), 7);

/// Unique local addresses at which AWS's and Google's machines find their metadata.
const METADATA_V6: &[Ipv6Addr] = &[
    Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254),
    Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x23),
    Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254),
];

fn within_v4(address: Ipv4Addr, (net, length): (Ipv4Addr, u32)) -> bool {
    (u32::from(address) ^ u32::from(net)).leading_zeros() >= length
}

fn within_v6(address: Ipv6Addr, (net, length): (Ipv6Addr, u32)) -> bool {
    (u128::from(address) ^ u128::from(net)).leading_zeros() >= length
}

/// Whether an address is in a private network, and not one at which a provider's machines find their metadata.
///
/// Loopback and link-local addresses are not: what listens there trusts its own machine.
pub fn is_private(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => PRIVATE_V4.iter().any(|block| within_v4(v4, *block)) && !METADATA.contains(&v4),
        IpAddr::V6(v6) => within_v6(v6, PRIVATE_V6) && !METADATA_V6.contains(&v6),
    }
}

/// Whether an address is out on the internet.
///
/// What carries an IPv4 address inside an IPv6 one (mapped, compatible, translated, 6to4, Teredo) is not, whatever it
/// carries: a name with such an address has another one too, or is up to something.
pub fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => !INSIDE_V4.iter().any(|block| within_v4(v4, *block)) && !METADATA.contains(&v4),
        IpAddr::V6(v6) => {
            within_v6(v6, (Ipv6Addr::new(0x2000, 0, 0, 0, 0, 0, 0, 0), 3))
                && !INSIDE_V6.iter().any(|block| within_v6(v6, *block))
        }
    }
}
