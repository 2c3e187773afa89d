//! Classification of IP addresses: public, private, or neither.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Blocks of IPv4 that are not reachable from the internet, as network address and prefix length.
///
/// The source is the IANA IPv4 Special-Purpose Address Registry: every block that is not globally reachable, and
/// multicast. The reachable addresses inside `192.0.0.0/24` are rejected with the rest of that block, because no
/// receiver uses them.
const NON_PUBLIC_V4: &[(Ipv4Addr, u32)] = &[
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
    // Multicast, reserved addresses and the broadcast address.
    (Ipv4Addr::new(224, 0, 0, 0), 3),
];

/// Public-looking addresses of cloud metadata services: Azure and Alibaba Cloud.
const METADATA: &[Ipv4Addr] = &[Ipv4Addr::new(168, 63, 129, 16), Ipv4Addr::new(100, 100, 100, 200)];

/// Blocks inside `2000::/3`, the only allocated part of IPv6, that are not reachable from the internet.
const NON_PUBLIC_V6: &[(Ipv6Addr, u32)] = &[
    // Protocol assignments, Teredo, benchmarking, ORCHID.
    (Ipv6Addr::new(0x2001, 0, 0, 0, 0, 0, 0, 0), 23),
    // Documentation.
    (Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0), 32),
    (Ipv6Addr::new(0x3fff, 0, 0, 0, 0, 0, 0, 0), 20),
    // 6to4 embeds an IPv4 address, and its relays are deprecated.
    (Ipv6Addr::new(0x2002, 0, 0, 0, 0, 0, 0, 0), 16),
];

/// Private blocks of IPv4: RFC 1918 and the shared address space of RFC 6598.
const PRIVATE_V4: &[(Ipv4Addr, u32)] = &[
    (Ipv4Addr::new(10, 0, 0, 0), 8),
    (Ipv4Addr::new(100, 64, 0, 0), 10),
    (Ipv4Addr::new(172, 16, 0, 0), 12),
    (Ipv4Addr::new(192, 168, 0, 0), 16),
];

/// Unique local addresses of IPv6 (RFC 4193).
const PRIVATE_V6: (Ipv6Addr, u32) = (Ipv6Addr::new(0xfc00, 0, 0, 0, 0, 0, 0, 0), 7);

/// Unique local addresses of the metadata services of AWS and Google Cloud.
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

/// Returns whether an address belongs to a private network and is not the address of a cloud metadata service.
///
/// Loopback and link-local addresses are not private in this sense, because their services trust the local machine.
pub fn is_private(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => PRIVATE_V4.iter().any(|block| within_v4(v4, *block)) && !METADATA.contains(&v4),
        IpAddr::V6(v6) => within_v6(v6, PRIVATE_V6) && !METADATA_V6.contains(&v6),
    }
}

/// Returns whether an address is reachable from the internet.
///
/// An IPv6 address that embeds an IPv4 address (mapped, compatible, translated, 6to4, Teredo) is never public,
/// whichever address it embeds: a legitimate host has another address as well.
pub fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => !NON_PUBLIC_V4.iter().any(|block| within_v4(v4, *block)) && !METADATA.contains(&v4),
        IpAddr::V6(v6) => {
            within_v6(v6, (Ipv6Addr::new(0x2000, 0, 0, 0, 0, 0, 0, 0), 3))
                && !NON_PUBLIC_V6.iter().any(|block| within_v6(v6, *block))
        }
    }
}
