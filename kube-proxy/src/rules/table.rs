//! An nftables table as data.

use std::collections::BTreeMap;

/// Which addresses a table is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// nft's name of the family, and of its header in matches.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::V4 => "ip",
            Self::V6 => "ip6",
        }
    }

    /// nft's name of an address's type.
    #[must_use]
    pub fn address_type(self) -> &'static str {
        match self {
            Self::V4 => "ipv4_addr",
            Self::V6 => "ipv6_addr",
        }
    }

    /// Whether this is the family of an address.
    #[must_use]
    pub fn has(self, address: std::net::IpAddr) -> bool {
        address.is_ipv6() == self.is_v6()
    }

    /// Whether this is IPv6.
    #[must_use]
    pub fn is_v6(self) -> bool {
        self == Self::V6
    }
}

/// A table: everything in it is named, so that two tables can be compared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    /// Which addresses it is about.
    pub family: Family,
    /// Its name.
    pub name: String,
    /// Sets and maps.
    pub sets: BTreeMap<String, Set>,
    /// Chains.
    pub chains: BTreeMap<String, Chain>,
}

/// A set, or a map if its elements have values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Set {
    /// `set` or `map`.
    pub kind: SetKind,
    /// What stands between the braces of its declaration.
    pub declaration: String,
    /// Keys, and values for maps. Sets that packets fill have none here.
    pub elements: BTreeMap<String, String>,
}

/// Sets and maps are declared with different words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SetKind {
    /// Keys only.
    Set,
    /// Keys with values.
    Map,
}

/// A chain.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Chain {
    /// Where the kernel enters it: `type … hook … priority …;`. Empty for chains that others jump to.
    pub hook: String,
    /// Rules in order.
    pub rules: Vec<String>,
}

impl Set {
    /// An empty set.
    #[must_use]
    pub fn keys(declaration: impl Into<String>) -> Self {
        Self {
            kind: SetKind::Set,
            declaration: declaration.into(),
            elements: BTreeMap::new(),
        }
    }

    /// An empty map.
    #[must_use]
    pub fn map(declaration: impl Into<String>) -> Self {
        Self {
            kind: SetKind::Map,
            declaration: declaration.into(),
            elements: BTreeMap::new(),
        }
    }
}
