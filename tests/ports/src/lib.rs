//! Ports for the servers that tests start.
//!
//! A test chooses a port, and a moment later another program listens on it. In between the port must not go to
//! another test of this or any other program, nor to an outgoing connection.

use std::io;
use std::net::TcpListener;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};

use parking_lot::Mutex;
use rand::seq::SliceRandom;

/// Above the well-known ports of the cluster's daemons, below `NodePort`s (30000 and up) and below those that Linux
/// gives to outgoing connections (32768 and up).
const RANGE: std::ops::Range<u16> = 12_000..30_000;

/// What says to other programs that a port is taken, for as long as this one runs.
static MARKS: Mutex<Vec<UnixListener>> = Mutex::new(Vec::new());

/// A port nobody listens on, which no other caller in this network namespace gets while this program runs.
///
/// # Errors
/// When there is none left.
pub fn free() -> io::Result<u16> {
    let mut ports: Vec<u16> = RANGE.collect();
    ports.shuffle(&mut rand::rng());
    for port in ports {
        // Abstract names belong to a network namespace, as ports do, and go with the program that bound them.
        let name = SocketAddr::from_abstract_name(format!("keelson-port-{port}"))?;
        let Ok(mark) = UnixListener::bind_addr(&name) else {
            continue;
        };
        if TcpListener::bind(("0.0.0.0", port)).is_err() {
            continue;
        }
        MARKS.lock().push(mark);
        return Ok(port);
    }
    Err(io::Error::new(io::ErrorKind::AddrInUse, "no port is free"))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn no_port_is_given_twice() -> io::Result<()> {
        let ports = (0..300).map(|_| free()).collect::<io::Result<BTreeSet<_>>>()?;
        assert_eq!(ports.len(), 300);
        assert!(ports.iter().all(|port| RANGE.contains(port)));
        Ok(())
    }

    #[test]
    fn other_programs_see_that_it_is_taken() -> io::Result<()> {
        let port = free()?;
        let name = SocketAddr::from_abstract_name(format!("keelson-port-{port}"))?;
        assert!(UnixListener::bind_addr(&name).is_err());
        Ok(())
    }
}
