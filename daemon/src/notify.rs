//! The service manager's notification protocol, `sd_notify(3)`: datagrams to the socket in `NOTIFY_SOCKET`.

use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// Tells the service manager that start-up is complete. Does nothing where there is none.
pub fn ready() {
    send("READY=1");
}

/// Tells the service manager that the daemon is stopping.
pub fn stopping() {
    send("STOPPING=1");
}

fn send(state: &str) {
    let Some(path) = std::env::var_os("NOTIFY_SOCKET") else {
        return;
    };
    if let Err(error) = try_send(&path.to_string_lossy(), state) {
        tracing::warn!(%error, state, "could not notify the service manager");
    }
}

fn try_send(path: &str, state: &str) -> std::io::Result<()> {
    let address = match path.strip_prefix('@') {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(path)?,
    };
    let socket = UnixDatagram::unbound()?;
    socket.send_to_addr(state.as_bytes(), &address)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_state_arrives_as_one_datagram() -> std::io::Result<()> {
        let dir = tempfile::tempdir()?;
        let path = dir.path().join("notify");
        let socket = UnixDatagram::bind(&path)?;
        try_send(&path.to_string_lossy(), "READY=1")?;
        let mut buffer = [0; 32];
        let read = socket.recv(&mut buffer)?;
        assert_eq!(&buffer[..read], b"READY=1");
        Ok(())
    }
}
