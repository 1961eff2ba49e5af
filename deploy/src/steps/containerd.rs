//! The container runtime's configuration: a containerd of our own, beside any that the host runs for itself.

use std::fmt::Write;
use std::path::Path;

use anyhow::Context;
use nix::mount::{MntFlags, MsFlags, mount, umount2};

use super::preflight::Machine;
use crate::cluster::{Cluster, write_file};
use crate::system;

pub(crate) async fn run(cluster: &Cluster, machine: &Machine) -> anyhow::Result<((), String)> {
    let paths = &cluster.paths;
    let root = paths.dir.join("containerd");
    for folder in [&root, &paths.cni_config(), &paths.run_dir.join("containerd")] {
        std::fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
    }
    let snapshotter = if overlay_works(&root) {
        "overlayfs"
    } else {
        "native"
    };
    let text = configuration(cluster, machine, snapshotter, system::may_lower_oom_scores());
    write_file(&paths.config("containerd.toml"), text.as_bytes(), 0o644)?;
    Ok(((), format!("configured, snapshots by {snapshotter}")))
}

fn configuration(
    cluster: &Cluster,
    machine: &Machine,
    snapshotter: &str,
    may_lower_oom_scores: bool,
) -> String {
    let Cluster { paths, .. } = cluster;
    let quoted = |path: &Path| format!("{:?}", path.display().to_string());
    let mut text = String::from("version = 2\n");
    let mut section = |header: &str, lines: &[(&str, String)]| {
        if !header.is_empty() {
            let _ = write!(text, "\n[{header}]\n");
        }
        for (name, value) in lines {
            let _ = writeln!(text, "{name} = {value}");
        }
    };
    section(
        "",
        &[
            ("root", quoted(&paths.dir.join("containerd"))),
            ("state", quoted(&paths.run_dir.join("containerd"))),
            ("oom_score", "0".into()),
            // Snapshotters that probe for devices and file systems at every start.
            (
                "disabled_plugins",
                r#"["io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.zfs"]"#.into(),
            ),
        ],
    );
    section("grpc", &[("address", quoted(&paths.runtime_socket()))]);
    section(
        r#"plugins."io.containerd.internal.v1.opt""#,
        &[("path", quoted(&paths.dir.join("containerd/opt")))],
    );
    section(
        r#"plugins."io.containerd.grpc.v1.cri""#,
        &[
            ("sandbox_image", format!("{:?}", crate::images::PAUSE)),
            ("stream_server_address", r#""127.0.0.1""#.into()),
            ("stream_server_port", r#""0""#.into()),
            // Without the capability, pods that ask for a score below ours would not start at all.
            ("restrict_oom_score_adj", (!may_lower_oom_scores).to_string()),
            ("max_container_log_line_size", "16384".into()),
        ],
    );
    section(
        r#"plugins."io.containerd.grpc.v1.cri".cni"#,
        &[
            ("bin_dir", quoted(&machine.cni_bin_dir)),
            ("conf_dir", quoted(&paths.cni_config())),
            ("max_conf_num", "1".into()),
        ],
    );
    section(
        r#"plugins."io.containerd.grpc.v1.cri".containerd"#,
        &[
            ("snapshotter", format!("{snapshotter:?}")),
            ("default_runtime_name", r#""runc""#.into()),
        ],
    );
    section(
        r#"plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc"#,
        &[("runtime_type", r#""io.containerd.runc.v2""#.into())],
    );
    section(
        r#"plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options"#,
        // cgroupfs, as the kubelet: there may be no systemd to ask.
        &[
            ("SystemdCgroup", "false".into()),
            ("Root", quoted(&paths.run_dir.join("runc"))),
        ],
    );
    section(
        r#"plugins."io.containerd.grpc.v1.cri".registry"#,
        &[("config_path", quoted(&paths.dir.join("containerd/certs.d")))],
    );
    text
}

/// Whether the kernel can stack folders of this file system; it cannot where that is an overlay itself.
fn overlay_works(folder: &Path) -> bool {
    let trial = folder.join("overlay-trial");
    let made = ["lower", "upper", "work", "merged"]
        .iter()
        .all(|name| std::fs::create_dir_all(trial.join(name)).is_ok());
    let options = format!(
        "lowerdir={0}/lower,upperdir={0}/upper,workdir={0}/work",
        trial.display()
    );
    let merged = trial.join("merged");
    let works = made
        && mount(
            Some("overlay"),
            &merged,
            Some("overlay"),
            MsFlags::empty(),
            Some(options.as_str()),
        )
        .is_ok();
    if works {
        let _ = umount2(&merged, MntFlags::MNT_DETACH);
    }
    let _ = std::fs::remove_dir_all(&trial);
    works
}
