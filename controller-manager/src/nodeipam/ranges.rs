//! A network cut into equal ranges, and which of them are taken.

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A network in CIDR notation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Network {
    /// The address, as a number with the family's width.
    base: u128,
    prefix: u8,
    width: u8,
}

impl std::str::FromStr for Network {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("\"{text}\" is not a network (as in 10.244.0.0/16)");
        let (address, prefix) = text.trim().split_once('/').ok_or_else(wrong)?;
        let address: IpAddr = address.parse().map_err(|_| wrong())?;
        let prefix: u8 = prefix.parse().map_err(|_| wrong())?;
        let (base, width) = match address {
            IpAddr::V4(address) => (u128::from(u32::from(address)), 32),
            IpAddr::V6(address) => (u128::from(address), 128),
        };
        if prefix > width {
            return Err(wrong());
        }
        let network = Self { base, prefix, width };
        Ok(Self {
            base: base & !network.host_mask(),
            ..network
        })
    }
}

impl std::fmt::Display for Network {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let address = if self.is_v4() {
            IpAddr::V4(Ipv4Addr::from(u32::try_from(self.base).unwrap_or_default()))
        } else {
            IpAddr::V6(Ipv6Addr::from(self.base))
        };
        write!(f, "{address}/{}", self.prefix)
    }
}

impl Network {
    /// Whether the network is of IPv4.
    #[must_use]
    pub fn is_v4(&self) -> bool {
        self.width == 32
    }

    fn host_mask(&self) -> u128 {
        match self.width - self.prefix {
            128 => u128::MAX,
            bits => (1 << bits) - 1,
        }
    }

    fn last(&self) -> u128 {
        self.base | self.host_mask()
    }
}

/// The ranges of one network.
#[derive(Debug)]
pub struct Ranges {
    network: Network,
    /// The prefix length of a range.
    prefix: u8,
    taken: HashSet<u128>,
    /// Where the search for a free range begins: ranges are reused as late as possible.
    next: u128,
}

impl Ranges {
    /// Cuts `network` into ranges of `prefix`.
    ///
    /// # Errors
    /// When a range would be bigger than the network, or there would be more than 65,536 of them.
    pub fn new(network: Network, prefix: u8) -> Result<Self, String> {
        if prefix < network.prefix || prefix > network.width {
            return Err(format!("a node's range of /{prefix} does not fit into {network}"));
        }
        if prefix - network.prefix > 16 {
            return Err(format!("{network} has more than 65536 ranges of /{prefix}"));
        }
        Ok(Self {
            network,
            prefix,
            taken: HashSet::new(),
            next: 0,
        })
    }

    /// Whether the ranges are of IPv4.
    #[must_use]
    pub fn is_v4(&self) -> bool {
        self.network.is_v4()
    }

    fn count(&self) -> u128 {
        1 << (self.prefix - self.network.prefix)
    }

    fn shift(&self) -> u32 {
        u32::from(self.network.width - self.prefix)
    }

    fn indices(&self, other: &Network) -> Option<std::ops::RangeInclusive<u128>> {
        let overlaps = other.width == self.network.width
            && other.base <= self.network.last()
            && other.last() >= self.network.base;
        if !overlaps {
            return None;
        }
        let index = |address: u128| (address - self.network.base) >> self.shift();
        let first = index(other.base.max(self.network.base));
        let last = index(other.last().min(self.network.last()));
        Some(first..=last)
    }

    /// Marks every range that overlaps `other` as taken.
    pub fn occupy(&mut self, other: &Network) {
        self.taken.extend(self.indices(other).into_iter().flatten());
    }

    /// Gives the ranges that overlap `other` back.
    pub fn release(&mut self, other: &Network) {
        for index in self.indices(other).into_iter().flatten() {
            self.taken.remove(&index);
        }
    }

    /// Takes a free range; `None` if there is none.
    pub fn take(&mut self) -> Option<Network> {
        let count = self.count();
        let index = (0..count)
            .map(|step| (self.next + step) % count)
            .find(|index| !self.taken.contains(index))?;
        self.taken.insert(index);
        self.next = (index + 1) % count;
        let base = self.network.base + (index << self.shift());
        Some(Network {
            base,
            prefix: self.prefix,
            width: self.network.width,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(text: &str) -> Network {
        text.parse().expect("a network")
    }

    #[test]
    fn ranges_are_taken_once_and_given_back() {
        let mut ranges = Ranges::new(network("10.244.0.0/22"), 24).expect("ranges");
        ranges.occupy(&network("10.244.0.0/24"));
        let first = ranges.take().expect("a range");
        assert_eq!(first.to_string(), "10.244.1.0/24");
        assert_eq!(
            ranges.take().map(|range| range.to_string()).as_deref(),
            Some("10.244.2.0/24")
        );
        assert_eq!(
            ranges.take().map(|range| range.to_string()).as_deref(),
            Some("10.244.3.0/24")
        );
        assert_eq!(ranges.take(), None);
        ranges.release(&first);
        assert_eq!(ranges.take(), Some(first));
    }

    #[test]
    fn services_keep_their_range() {
        let mut ranges = Ranges::new(network("10.0.0.0/8"), 24).expect("ranges");
        ranges.occupy(&network("10.0.0.0/16"));
        assert_eq!(
            ranges.take().map(|range| range.to_string()).as_deref(),
            Some("10.1.0.0/24")
        );
        ranges.occupy(&network("fd00::/64"));
    }

    #[test]
    fn version_six() {
        let mut ranges = Ranges::new(network("fd00:10:244::/48"), 64).expect("ranges");
        assert_eq!(
            ranges.take().map(|range| range.to_string()).as_deref(),
            Some("fd00:10:244::/64")
        );
        assert_eq!(
            ranges.take().map(|range| range.to_string()).as_deref(),
            Some("fd00:10:244:1::/64")
        );
        assert!(Ranges::new(network("10.0.0.0/24"), 16).is_err());
        assert!("10.0.0.0/33".parse::<Network>().is_err() && "10.0.0.0".parse::<Network>().is_err());
    }
}
