//! Ranges of numbers: the addresses of a network, or ports.

use std::net::IpAddr;

use ipnet::IpNet;
use keelson_api::validation::parse_ip;

/// Networks larger than this are used only up to here.
const SIZE_MAX: u128 = 1 << 62;

/// What numbers there are, and how they are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Range {
    /// The addresses of a network, without its own address and, for IPv4, without the broadcast address.
    Addresses(IpNet),
    /// Ports, both ends included.
    Ports(u16, u16),
}

impl Range {
    fn first(&self) -> u128 {
        match self {
            Self::Addresses(IpNet::V4(net)) => u128::from(u32::from(net.network())) + 1,
            Self::Addresses(IpNet::V6(net)) => u128::from(net.network()) + 1,
            Self::Ports(first, _) => u128::from(*first),
        }
    }

    /// How many numbers there are.
    pub fn size(&self) -> u128 {
        match self {
            Self::Addresses(IpNet::V4(net)) => (u128::from(u32::from(net.broadcast()))
                - u128::from(u32::from(net.network())))
            .saturating_sub(1),
            Self::Addresses(IpNet::V6(net)) => {
                (u128::from(net.broadcast()) - u128::from(net.network())).min(SIZE_MAX)
            }
            Self::Ports(first, last) => u128::from(last - first) + 1,
        }
    }

    /// The first so many numbers are for those who choose by hand, as long as there are others.
    fn reserved(&self) -> u128 {
        let size = self.size();
        let (share, most) = match self {
            Self::Addresses(_) => (16, 256),
            Self::Ports(..) => (32, 128),
        };
        if size < 16 {
            0
        } else {
            (size / share).clamp(16, most).min(size)
        }
    }

    /// Whether the number is one of the range.
    pub fn contains(&self, number: u128) -> bool {
        number >= self.first() && number - self.first() < self.size()
    }

    /// The number that a text stands for, whether it is in the range or not.
    pub fn number(&self, text: &str) -> Option<u128> {
        match (self, parse_ip(text)) {
            (Self::Addresses(IpNet::V4(_)), Some(IpAddr::V4(address))) => Some(u32::from(address).into()),
            (Self::Addresses(IpNet::V6(_)), Some(IpAddr::V6(address))) => Some(address.into()),
            (Self::Addresses(_), _) => None,
            (Self::Ports(..), _) => text.parse::<u16>().ok().map(u128::from),
        }
    }

    /// How a number is written.
    pub fn text(&self, number: u128) -> String {
        match self {
            Self::Addresses(IpNet::V4(_)) => {
                std::net::Ipv4Addr::from(u32::try_from(number).unwrap_or_default()).to_string()
            }
            Self::Addresses(IpNet::V6(_)) => std::net::Ipv6Addr::from(number).to_string(),
            Self::Ports(..) => number.to_string(),
        }
    }

    /// The first number from a random start on that suits, wrapping around: among the unreserved ones, then among all.
    pub fn search(&self, start: u64, suits: impl Fn(u128) -> bool) -> Option<u128> {
        let (first, size, reserved) = (self.first(), self.size(), self.reserved());
        let within = |from: u128, count: u128| {
            (count > 0)
                .then(|| {
                    (0..count)
                        .map(|i| first + from + (u128::from(start) + i) % count)
                        .find(|n| suits(*n))
                })
                .flatten()
        };
        within(reserved, size - reserved).or_else(|| within(0, reserved))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_and_ports() {
        let range = Range::Addresses("10.96.0.0/12".parse().expect("a network"));
        assert_eq!(range.size(), (1 << 20) - 2);
        let number = range.number("10.96.0.1").expect("an address");
        assert!(range.contains(number) && range.text(number) == "10.96.0.1");
        assert!(!range.contains(range.number("10.96.0.0").expect("an address")));
        assert!(!range.contains(range.number("10.111.255.255").expect("an address")));
        assert_eq!(range.number("::1"), None);
        let ports = Range::Ports(30000, 32767);
        assert_eq!((ports.size(), ports.contains(36000)), (2768, false));
    }

    #[test]
    fn low_numbers_come_last() {
        let ports = Range::Ports(30000, 30099);
        for start in 0..200 {
            assert!(ports.search(start, |_| true).expect("a port") >= 30016);
        }
        assert!(ports.search(0, |n| n < 30016).is_some());
        assert_eq!(ports.search(0, |_| false), None);
        let tiny = Range::Ports(1, 2);
        assert_eq!(tiny.search(1, |n| n == 1), Some(1));
    }
}
