//! Ports and addresses.

use super::*;

/// A port number: 1 to 65535.
pub fn port_number(port: i64) -> Complaints {
    in_range(port, 1, 65535)
}

/// The name of a port, as IANA registers service names (RFC 6335), lower case only.
pub fn port_name(name: &str) -> Complaints {
    let mut complaints = Vec::new();
    if name.len() > 15 {
        complaints.push(max_len_error(15));
    }
    if name.is_empty() || !name.bytes().all(|b| lower_or_digit(b) || b == b'-') {
        complaints.push("must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)".to_owned());
    }
    if !name.bytes().any(|b| b.is_ascii_lowercase()) {
        complaints.push("must contain at least one letter (a-z)".to_owned());
    }
    if name.contains("--") {
        complaints.push("must not contain consecutive hyphens".to_owned());
    }
    if name.starts_with('-') || name.ends_with('-') {
        complaints.push("must not begin or end with a hyphen".to_owned());
    }
    complaints
}

/// Reads an address as leniently as the API does: IPv4 with leading zeros is decimal.
pub fn parse_ip(text: &str) -> Option<IpAddr> {
    if text.contains(':') {
        return text.parse::<Ipv6Addr>().ok().map(IpAddr::V6);
    }
    let mut octets = [0u8; 4];
    let mut parts = text.split('.');
    for octet in &mut octets {
        let part = parts.next()?;
        if part.is_empty() || !part.bytes().all(|b| b.is_ascii_digit()) {
            return None;
        }
        let digits = part.trim_start_matches('0');
        *octet = if digits.is_empty() {
            0
        } else {
            digits.parse().ok()?
        };
    }
    parts
        .next()
        .is_none()
        .then_some(IpAddr::V4(Ipv4Addr::from(octets)))
}

/// Reads an address and its prefix length, as leniently as [`parse_ip`].
pub fn parse_cidr(text: &str) -> Option<(IpAddr, u8)> {
    let (address, length) = text.split_once('/')?;
    let address = parse_ip(address)?;
    if length.is_empty() || !length.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let length: u8 = length.parse().ok()?;
    (length <= if address.is_ipv4() { 32 } else { 128 }).then_some((address, length))
}

/// Whether the address is one of its link alone: 169.254.0.0/16, fe80::/10.
pub fn is_link_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    }
}

/// Whether the address is of a group on its link: 224.0.0.0/24, ff02::/16.
pub fn is_link_local_multicast(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.octets()[..3] == [224, 0, 0],
        IpAddr::V6(address) => address.segments()[0] & 0xff0f == 0xff02,
    }
}

/// Whether the address is of one machine that others can reach: neither loopback nor of a link alone, no group, not all.
/// Private networks count.
pub fn is_global_unicast(address: IpAddr) -> bool {
    let address = address.to_canonical();
    !address.is_loopback()
        && !address.is_unspecified()
        && !address.is_multicast()
        && !is_link_local(address)
        && address != IpAddr::V4(Ipv4Addr::BROADCAST)
}

/// Whether the address is of IPv4, also when it is written as IPv6.
fn is_v4(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(_) => true,
        IpAddr::V6(address) => address.to_ipv4_mapped().is_some(),
    }
}

/// An IP address.
pub fn ip(path: &Path, value: &str) -> Errors {
    match parse_ip(value) {
        Some(_) => Vec::new(),
        None => {
            vec![Error::invalid(
                path,
                value,
                "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)",
            )]
        }
    }
}

/// An IPv4 address.
pub fn ipv4(path: &Path, value: &str) -> Errors {
    match parse_ip(value) {
        Some(address) if is_v4(address) => Vec::new(),
        _ => vec![Error::invalid(path, value, "must be a valid IPv4 address")],
    }
}

/// An IPv6 address.
pub fn ipv6(path: &Path, value: &str) -> Errors {
    match parse_ip(value) {
        Some(address) if !is_v4(address) => Vec::new(),
        _ => vec![Error::invalid(path, value, "must be a valid IPv6 address")],
    }
}

/// A range of addresses.
pub fn cidr(path: &Path, value: &str) -> Errors {
    match parse_cidr(value) {
        Some(_) => Vec::new(),
        None => {
            let detail = "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)";
            vec![Error::invalid(path, value, detail)]
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports() {
        assert!(port_name("http-alt").is_empty() && port_number(65535).is_empty());
        assert_eq!(port_number(0), ["must be between 1 and 65535, inclusive"]);
        for bad in ["", "-a", "a-", "a--b", "1234", "A", "abcdefghijklmnop"] {
            assert!(!port_name(bad).is_empty(), "{bad}");
        }
    }

    #[test]
    fn addresses() {
        let path = Path::new("ip");
        assert!(ip(&path, "010.1.2.3").is_empty() && ip(&path, "::1").is_empty());
        assert!(
            !ip(&path, "1.2.3").is_empty() && !ip(&path, "1.2.3.256").is_empty() && !ip(&path, "").is_empty()
        );
        assert!(ipv4(&path, "::ffff:1.2.3.4").is_empty() && !ipv6(&path, "::ffff:1.2.3.4").is_empty());
        assert!(cidr(&path, "10.0.0.0/8").is_empty() && !cidr(&path, "10.0.0.0/33").is_empty());
        assert!(!cidr(&path, "10.0.0.0").is_empty());
    }
}
