//! What the machine offers: programs, addresses, capabilities.

use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

/// Where programs are looked for besides `PATH`: an administrator's `PATH` may lack the system folders.
pub(crate) const SYSTEM_FOLDERS: [&str; 4] = ["/usr/local/sbin", "/usr/sbin", "/sbin", "/usr/local/bin"];

/// Where distributions and upstream keep CNI plugins.
const CNI_FOLDERS: [&str; 3] = ["/usr/lib/cni", "/opt/cni/bin", "/usr/libexec/cni"];

/// CAP_SYS_RESOURCE, capabilities(7): without it nobody may lower an OOM score.
const CAP_SYS_RESOURCE: u32 = 24;

/// The path of a program, if it is installed.
pub(crate) fn program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(SYSTEM_FOLDERS.iter().map(PathBuf::from))
        .map(|folder| folder.join(name))
        .find(|candidate| candidate.is_file())
}

/// The folder that has all `plugins`, or the names of those missing from the most likely one.
pub(crate) fn cni_bin_dir(plugins: &[&str]) -> Result<PathBuf, Vec<String>> {
    let missing = |folder: &Path| -> Vec<String> {
        plugins
            .iter()
            .filter(|p| !folder.join(p).is_file())
            .map(|p| (*p).to_owned())
            .collect()
    };
    let folders = || CNI_FOLDERS.iter().map(PathBuf::from);
    match folders().find(|folder| missing(folder).is_empty()) {
        Some(folder) => Ok(folder),
        None => Err(folders()
            .map(|folder| missing(&folder))
            .min_by_key(Vec::len)
            .unwrap_or_default()),
    }
}

/// The statically linked busybox.
pub(crate) fn busybox() -> Option<PathBuf> {
    ["/bin/busybox", "/usr/bin/busybox"]
        .iter()
        .map(PathBuf::from)
        .chain(program("busybox"))
        .find(|path| std::fs::read(path).is_ok_and(|bytes| crate::images::is_static_elf(&bytes)))
}

/// The host's name as a node's: lower case, RFC 1123.
pub(crate) fn host_name() -> anyhow::Result<String> {
    let name = nix::unistd::gethostname().context("reading the host's name")?;
    let name = name.to_string_lossy().to_lowercase();
    if name.is_empty() {
        bail!("the host has no name; choose one with --node-name");
    }
    Ok(name)
}

/// The address the default route uses; without one, that of the first interface that leaves the machine.
pub(crate) fn default_address() -> anyhow::Result<IpAddr> {
    // Connecting a datagram socket sends nothing; it only makes the kernel choose a source address.
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).context("opening a socket")?;
    if socket.connect((Ipv4Addr::new(198, 51, 100, 1), 9)).is_ok()
        && let Ok(address) = socket.local_addr()
        && !address.ip().is_loopback()
    {
        return Ok(address.ip());
    }
    nix::ifaddrs::getifaddrs()
        .context("listing network interfaces")?
        .filter_map(|interface| Some(interface.address?.as_sockaddr_in()?.ip()))
        .find(|address| !address.is_loopback() && !address.is_link_local())
        .map(IpAddr::V4)
        .context("this machine has no network address besides loopback; give one with --node-ip")
}

/// The folder of keeladm itself.
pub(crate) fn own_dir() -> anyhow::Result<PathBuf> {
    let own = std::env::current_exe().context("finding keeladm's own folder")?;
    Ok(own.parent().map(Path::to_path_buf).unwrap_or_default())
}

/// Where the static programs for images are: as given, in the build's `image` folder, or beside the daemons.
pub(crate) fn image_bin_dir(given: Option<&Path>, bin_dir: &Path) -> anyhow::Result<PathBuf> {
    if let Some(given) = given {
        return Ok(std::path::absolute(given)?);
    }
    let built = bin_dir.join("../image");
    if built.join("keelson-pause").is_file() {
        return built
            .canonicalize()
            .with_context(|| format!("reading {}", built.display()));
    }
    Ok(bin_dir.to_path_buf())
}

/// Whether this process, and so its children, may lower OOM scores.
pub(crate) fn may_lower_oom_scores() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    has_capability(&status, CAP_SYS_RESOURCE)
}

fn has_capability(status: &str, capability: u32) -> bool {
    status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .is_some_and(|mask| mask >> capability & 1 == 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capabilities_are_read_from_the_mask() {
        assert!(!has_capability("CapEff:\t000001fffeffffff\n", CAP_SYS_RESOURCE));
        assert!(has_capability(
            "Name:\tx\nCapEff:\t000001ffffffffff\n",
            CAP_SYS_RESOURCE
        ));
    }

    #[test]
    fn programs_are_found_in_system_folders_too() {
        assert!(program("sh").is_some());
        assert!(program("no-such-program-anywhere").is_none());
    }
}
