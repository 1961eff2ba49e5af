//! URLs as they stand in flags: `http://host:port` and `https://host:port`.

use std::fmt;
use std::net::{SocketAddr, ToSocketAddrs};
use std::str::FromStr;

/// With or without TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme {
    /// In the clear.
    Http,
    /// TLS.
    Https,
}

/// Where to listen or connect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Url {
    /// With or without TLS.
    pub scheme: Scheme,
    /// A name or an address; IPv6 in brackets.
    pub host: String,
    /// The port.
    pub port: u16,
}

impl Url {
    /// The address to listen on.
    ///
    /// # Errors
    /// When the name is unknown.
    pub fn socket_address(&self) -> std::io::Result<SocketAddr> {
        let unknown = || {
            std::io::Error::new(
                std::io::ErrorKind::NotFound,
                format!("the host of {self} is unknown"),
            )
        };
        let host = self.host.trim_start_matches('[').trim_end_matches(']');
        let addresses: Vec<SocketAddr> = (host, self.port).to_socket_addrs()?.collect();
        // "localhost" may name both families; etcd listens on IPv4 then.
        addresses
            .iter()
            .find(|address| address.is_ipv4())
            .or(addresses.first())
            .copied()
            .ok_or_else(unknown)
    }

    /// `host:port`.
    #[must_use]
    pub fn authority(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = match self.scheme {
            Scheme::Http => "http",
            Scheme::Https => "https",
        };
        write!(f, "{scheme}://{}:{}", self.host, self.port)
    }
}

impl FromStr for Url {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (scheme, rest) = if let Some(rest) = text.strip_prefix("https://") {
            (Scheme::Https, rest)
        } else if let Some(rest) = text.strip_prefix("http://") {
            (Scheme::Http, rest)
        } else {
            return Err(format!("{text:?}: URL scheme must be http or https"));
        };
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        if rest.contains('/') {
            return Err(format!("{text:?}: URL must not contain a path"));
        }
        let (host, port) = rest
            .rsplit_once(':')
            .ok_or_else(|| format!("{text:?}: URL address does not have the form \"host:port\""))?;
        let port = port
            .parse()
            .map_err(|_| format!("{text:?}: {port:?} is not a port"))?;
        if host.is_empty() || (host.contains(':') && !host.starts_with('[')) {
            return Err(format!("{text:?}: {host:?} is not a host"));
        }
        Ok(Self {
            scheme,
            host: host.to_owned(),
            port,
        })
    }
}

/// A member in `--initial-cluster`: its name and peer URLs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InitialMember {
    /// Its name.
    pub name: String,
    /// Its peer URLs.
    pub peer_urls: Vec<Url>,
}

/// Reads `name=url,name=url`; a name that comes again has several URLs.
///
/// # Errors
/// When a piece is not `name=url`.
pub fn parse_initial_cluster(text: &str) -> Result<Vec<InitialMember>, String> {
    let mut members: Vec<InitialMember> = Vec::new();
    for piece in text.split(',').filter(|piece| !piece.is_empty()) {
        let (name, url) = piece
            .split_once('=')
            .ok_or_else(|| format!("--initial-cluster: {piece:?} is not NAME=URL"))?;
        let url: Url = url
            .parse()
            .map_err(|error| format!("--initial-cluster: {error}"))?;
        match members.iter_mut().find(|member| member.name == name) {
            Some(member) => member.peer_urls.push(url),
            None => members.push(InitialMember {
                name: name.to_owned(),
                peer_urls: vec![url],
            }),
        }
    }
    if members.is_empty() {
        return Err("--initial-cluster: no members".into());
    }
    Ok(members)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_read_and_written_alike() {
        for text in ["http://localhost:2379", "https://[::1]:1", "http://0.0.0.0:0"] {
            assert_eq!(text.parse::<Url>().map(|url| url.to_string()), Ok(text.into()));
        }
        for text in [
            "localhost:1",
            "http://localhost",
            "http://a:b",
            "http://a:1/x",
            "unix://x:1",
        ] {
            assert!(text.parse::<Url>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_member_may_have_several_urls() -> Result<(), String> {
        let members = parse_initial_cluster("a=http://x:1,b=http://y:1,a=http://z:1")?;
        assert_eq!(members.len(), 2);
        assert_eq!(members[0].peer_urls.len(), 2);
        assert!(parse_initial_cluster("a").is_err());
        Ok(())
    }
}
