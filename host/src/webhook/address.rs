//! Which addresses are public.
//!
//! What is not comes from IANA's registries of special-purpose addresses. IPv6 is the other way
//! round: only what was given out as global unicast can be public.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// IPv4 networks that are not public, with the lengths of their prefixes.
const PRIVATE_V4: &[(Ipv4Addr, u32)] = &[
    (Ipv4Addr::new(0, 0, 0, 0), 8),       // this network
    (Ipv4Addr::new(10, 0, 0, 0), 8),      // private
    (Ipv4Addr::new(100, 64, 0, 0), 10),   // behind a carrier's NAT
    (Ipv4Addr::new(127, 0, 0, 0), 8),     // this machine
    (Ipv4Addr::new(169, 254, 0, 0), 16),  // this link; clouds tell their secrets here
    (Ipv4Addr::new(172, 16, 0, 0), 12),   // private
    (Ipv4Addr::new(192, 0, 0, 0), 24),    // protocol assignments
    (Ipv4Addr::new(192, 0, 2, 0), 24),    // documentation
    (Ipv4Addr::new(192, 88, 99, 0), 24),  // relays of 6to4
    (Ipv4Addr::new(192, 168, 0, 0), 16),  // private
    (Ipv4Addr::new(198, 18, 0, 0), 15),   // benchmarks
    (Ipv4Addr::new(198, 51, 100, 0), 24), // documentation
    (Ipv4Addr::new(203, 0, 113, 0), 24),  // documentation
    (Ipv4Addr::new(224, 0, 0, 0), 4),     // multicast
    (Ipv4Addr::new(240, 0, 0, 0), 4),     // reserved, and broadcast
];

/// Global unicast, and what of it is not public.
const GLOBAL_V6: (Ipv6Addr, u32) = (Ipv6Addr::new(0x2000, 0, 0, 0, 0, 0, 0, 0), 3);
const PRIVATE_V6: &[(Ipv6Addr, u32)] = &[
    (Ipv6Addr::new(0x2001, 0, 0, 0, 0, 0, 0, 0), 23), // protocol assignments, Teredo
    (Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0), 32), // documentation
    (Ipv6Addr::new(0x2002, 0, 0, 0, 0, 0, 0, 0), 16), // 6to4
    (Ipv6Addr::new(0x3fff, 0, 0, 0, 0, 0, 0, 0), 20), // documentation
];
/// Where NAT64 shows the addresses of IPv4.
const NAT64: (Ipv6Addr, u32) = (Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, 0, 0), 96);

/// Whether anybody on the internet means the same machine by an address.
pub(super) fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    !PRIVATE_V4.iter().any(|(network, length)| {
        address.to_bits() >> (32 - length) == network.to_bits() >> (32 - length)
    })
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    if let Some(mapped) = address.to_ipv4_mapped() {
        return is_public_v4(mapped);
    }
    let is_in = |(network, length): &(Ipv6Addr, u32)| {
        address.to_bits() >> (128 - length) == network.to_bits() >> (128 - length)
    };
    if is_in(&NAT64) {
        let [.., a, b, c, d] = address.octets();
        return is_public_v4(Ipv4Addr::new(a, b, c, d));
    }
    is_in(&GLOBAL_V6) && !PRIVATE_V6.iter().any(is_in)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(addresses: &str, public: bool) {
        for address in addresses.split_whitespace() {
            assert_eq!(is_public(address.parse().unwrap()), public, "{address}");
        }
    }

    #[test]
    fn addresses_of_the_internet_are_public() {
        all("1.1.1.1 8.8.8.8 93.184.216.34 100.63.255.255 100.128.0.0 172.15.0.1 172.32.0.1", true);
        all("169.253.255.255 192.0.1.1 198.17.0.1 198.20.0.1 223.255.255.255 11.0.0.1", true);
        all("2606:4700:4700::1111 2a00:1450:4001::1 2001:4860:4860::8888 3ffe::1", true);
    }

    #[test]
    fn this_machine_and_unspecified_are_not() {
        all("127.0.0.1 127.255.255.255 0.0.0.0 0.1.2.3 ::1 ::", false);
    }

    #[test]
    fn private_networks_are_not() {
        all("10.0.0.1 10.255.255.255 172.16.0.1 172.31.255.255 192.168.0.1", false);
        all("100.64.0.1 100.127.255.255 fc00::1 fd12:3456::1 fec0::1", false);
    }

    #[test]
    fn links_and_the_metadata_of_clouds_are_not() {
        all("169.254.0.1 169.254.169.254 fe80::1 fd00:ec2::254", false);
    }

    #[test]
    fn multicast_and_broadcast_are_not() {
        all("224.0.0.1 239.255.255.255 255.255.255.255 ff02::1 ff0e::1", false);
    }

    #[test]
    fn reserved_networks_and_those_of_documents_are_not() {
        all("192.0.2.1 198.51.100.7 203.0.113.9 198.18.0.1 198.19.255.255 240.0.0.1", false);
        all("192.0.0.1 192.88.99.1 2001:db8::1 3fff::1 100::1 2001::1 2001:20::1 4000::1", false);
    }

    #[test]
    fn an_ipv4_address_inside_an_ipv6_address_counts_as_itself() {
        all("::ffff:127.0.0.1 ::ffff:10.0.0.1 64:ff9b::10.0.0.1 64:ff9b::169.254.169.254", false);
        all("::ffff:8.8.8.8 64:ff9b::8.8.8.8", true);
        // Forms that nobody has a use for any more, or that only mean something locally.
        all("::8.8.8.8 ::127.0.0.1 2002:808:808::1 2002:7f00:1::1 64:ff9b:1::8.8.8.8", false);
    }
}
