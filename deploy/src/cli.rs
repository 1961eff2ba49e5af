//! The commands and their flags.

use std::net::IpAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use ipnet::IpNet;

use crate::cluster::{Cluster, Parameters, Ports};
use crate::{commands, supervisor};

/// Makes Keelson clusters: certificates, configuration, images, processes.
#[derive(Debug, Parser)]
#[command(name = "keeladm", version)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Bring up a cluster on this machine, or say what of it already runs
    Up(Box<UpArgs>),
    /// Stop the cluster and remove everything that `up` and its pods left on this machine
    Down(DownArgs),
    /// Show the cluster's processes
    Status(WhereArgs),
    /// Stop daemons of the cluster, to be started again with `start`
    Stop(DaemonArgs),
    /// Start daemons of the cluster
    Start(DaemonArgs),
    /// Restart daemons of the cluster
    Restart(DaemonArgs),
    /// Build and import container images
    Images(ImagesArgs),
    /// Keep the processes of a cluster running (started by `up`)
    #[command(hide = true)]
    Supervise(WhereArgs),
}

/// Which cluster.
#[derive(Debug, Args)]
pub struct WhereArgs {
    /// The cluster's name; others than the default have their files in /var/lib/keelson-NAME
    #[arg(long, default_value = "keelson")]
    pub name: String,
    /// Where the cluster keeps its files [default: /var/lib/NAME]
    #[arg(long)]
    pub dir: Option<PathBuf>,
    /// Where the cluster keeps sockets and other files of the running system [default: /run/NAME, or DIR/run if --dir is given]
    #[arg(long)]
    pub run_dir: Option<PathBuf>,
}

/// Flags of `up`.
#[derive(Debug, Args)]
pub struct UpArgs {
    #[command(flatten)]
    place: WhereArgs,
    /// Where the daemons' programs are [default: beside keeladm]
    #[arg(long)]
    bin_dir: Option<PathBuf>,
    /// Where the static programs for container images are [default: ../image beside keeladm, else beside it]
    #[arg(long)]
    image_bin_dir: Option<PathBuf>,
    /// A folder of ready-made image archives to import instead of building Keelson's own
    #[arg(long)]
    images: Option<PathBuf>,
    /// The node's name [default: the host's name]
    #[arg(long)]
    node_name: Option<String>,
    /// The node's address [default: the one the default route uses]
    #[arg(long)]
    node_ip: Option<IpAddr>,
    /// Addresses of services
    #[arg(long, default_value = "10.96.0.0/12")]
    service_cidr: IpNet,
    /// Addresses of pods
    #[arg(long, default_value = "10.244.0.0/16")]
    cluster_cidr: IpNet,
    /// Ports of node port services
    #[arg(long, default_value = "30000-32767")]
    service_node_port_range: String,
    /// Further names or addresses in the apiserver's certificate
    #[arg(long, value_delimiter = ',')]
    apiserver_cert_extra_sans: Vec<String>,
    /// How long certificates are good for; those that the cluster runs with are renewed in the last third of it
    #[arg(long, default_value = "8760h", value_parser = keelson_daemon::duration::parse)]
    certificate_validity: std::time::Duration,
    /// kube-apiserver's port
    #[arg(long, default_value_t = 6443)]
    secure_port: u16,
    /// kube-store's port for clients
    #[arg(long, default_value_t = 2379)]
    store_client_port: u16,
    /// kube-store's port for other members
    #[arg(long, default_value_t = 2380)]
    store_peer_port: u16,
    /// kube-store's port for health and metrics
    #[arg(long, default_value_t = 2381)]
    store_metrics_port: u16,
    /// kubelet's port
    #[arg(long, default_value_t = 10250)]
    kubelet_port: u16,
    /// kubelet's port for health
    #[arg(long, default_value_t = 10248)]
    kubelet_health_port: u16,
    /// kube-controller-manager's port
    #[arg(long, default_value_t = 10257)]
    controller_manager_port: u16,
    /// kube-scheduler's port
    #[arg(long, default_value_t = 10259)]
    scheduler_port: u16,
    /// kube-proxy's port for health
    #[arg(long, default_value_t = 10256)]
    proxy_health_port: u16,
    /// kube-proxy's port for metrics
    #[arg(long, default_value_t = 10249)]
    proxy_metrics_port: u16,
    /// A flag of one daemon, as in kubelet.eviction-hard=nodefs.available<5%; can be given several times
    #[arg(long = "extra-flag", value_name = "DAEMON.FLAG=VALUE")]
    extra_flags: Vec<crate::cluster::ExtraFlag>,
    /// Log level of the daemons
    #[arg(long, default_value = "info")]
    log_level: String,
    /// Seconds to wait for the cluster to be ready
    #[arg(long, default_value_t = 120)]
    timeout: u64,
    /// When a step fails, leave what was started running, for a look at it
    #[arg(long)]
    keep_on_failure: bool,
}

/// Flags of `down`.
#[derive(Debug, Args)]
pub struct DownArgs {
    #[command(flatten)]
    place: WhereArgs,
    /// Stop everything, but leave the cluster's files (objects, certificates, images) for the next `up`
    #[arg(long)]
    keep_data: bool,
}

/// Which daemons.
#[derive(Debug, Args)]
pub struct DaemonArgs {
    #[command(flatten)]
    place: WhereArgs,
    /// Names as shown by `status`
    #[arg(required = true)]
    daemons: Vec<String>,
}

#[derive(Debug, Args)]
struct ImagesArgs {
    #[command(subcommand)]
    command: ImagesCommand,
}

#[derive(Debug, Subcommand)]
enum ImagesCommand {
    /// Write Keelson's own images as OCI archives
    Build {
        /// The folder for the archives
        #[arg(long)]
        output: PathBuf,
        /// Where the static programs are [default: ../image beside keeladm, else beside it]
        #[arg(long)]
        image_bin_dir: Option<PathBuf>,
    },
    /// Import an image archive into the cluster's runtime
    Import {
        #[command(flatten)]
        place: WhereArgs,
        /// Further names for the image
        #[arg(long)]
        tag: Vec<String>,
        /// An OCI or Docker archive, or the name of one of Keelson's own images (pause, echo, toolbox)
        archive: PathBuf,
    },
}

impl WhereArgs {
    /// The cluster's files, whether it exists or not.
    fn paths(&self) -> crate::cluster::Paths {
        let known = |base: &str| {
            let name = if self.name == "keelson" {
                "keelson".to_owned()
            } else {
                format!("keelson-{}", self.name)
            };
            PathBuf::from(base).join(name)
        };
        let run_dir = match (&self.run_dir, &self.dir) {
            (Some(run_dir), _) => run_dir.clone(),
            (None, Some(dir)) => dir.join("run"),
            (None, None) => known("/run"),
        };
        crate::cluster::Paths {
            dir: self.dir.clone().unwrap_or_else(|| known("/var/lib")),
            run_dir,
        }
        .absolute()
    }
}

impl UpArgs {
    fn cluster(self) -> anyhow::Result<Cluster> {
        let node_name = match self.node_name {
            Some(name) => name,
            None => crate::system::host_name()?,
        };
        let node_ip = match self.node_ip {
            Some(address) => address,
            None => crate::system::default_address()?,
        };
        let bin_dir = match self.bin_dir {
            Some(dir) => std::path::absolute(dir)?,
            None => crate::system::own_dir()?,
        };
        let image_bin_dir = crate::system::image_bin_dir(self.image_bin_dir.as_deref(), &bin_dir)?;
        Ok(Cluster {
            paths: self.place.paths(),
            parameters: Parameters {
                name: self.place.name,
                node_name,
                node_ip,
                bin_dir,
                image_bin_dir,
                service_cidr: self.service_cidr,
                cluster_cidr: self.cluster_cidr,
                service_node_port_range: self.service_node_port_range,
                extra_sans: self.apiserver_cert_extra_sans,
                certificate_validity: self.certificate_validity,
                extra_flags: self.extra_flags,
                log_level: self.log_level,
                ports: Ports {
                    secure: self.secure_port,
                    store_client: self.store_client_port,
                    store_peer: self.store_peer_port,
                    store_metrics: self.store_metrics_port,
                    kubelet: self.kubelet_port,
                    kubelet_health: self.kubelet_health_port,
                    controller_manager: self.controller_manager_port,
                    scheduler: self.scheduler_port,
                    proxy_health: self.proxy_health_port,
                    proxy_metrics: self.proxy_metrics_port,
                },
            },
        })
    }
}

impl Cli {
    /// Carries out the command.
    ///
    /// # Errors
    /// What went wrong, and on what, for the user to read.
    pub async fn run(self) -> anyhow::Result<ExitCode> {
        match self.command {
            Command::Up(args) => {
                let (timeout, keep) = (std::time::Duration::from_secs(args.timeout), args.keep_on_failure);
                let on_failure = if keep {
                    commands::up::OnFailure::Keep
                } else {
                    commands::up::OnFailure::Stop
                };
                let images = args.images.clone();
                commands::up::run(args.cluster()?, images.as_deref(), timeout, on_failure).await
            }
            Command::Down(args) => {
                let files = if args.keep_data {
                    commands::down::Files::Keep
                } else {
                    commands::down::Files::Remove
                };
                commands::down::run(args.place.paths(), files).await
            }
            Command::Status(place) => commands::status::run(&place.paths()).await,
            Command::Stop(args) => {
                commands::status::control(&args.place.paths(), supervisor::Verb::Stop, args.daemons).await
            }
            Command::Start(args) => {
                commands::status::control(&args.place.paths(), supervisor::Verb::Start, args.daemons).await
            }
            Command::Restart(args) => {
                commands::status::control(&args.place.paths(), supervisor::Verb::Restart, args.daemons).await
            }
            Command::Images(ImagesArgs {
                command:
                    ImagesCommand::Build {
                        output,
                        image_bin_dir,
                    },
            }) => commands::images::build(&output, image_bin_dir.as_deref()),
            Command::Images(ImagesArgs {
                command: ImagesCommand::Import { place, tag, archive },
            }) => commands::images::import(&place.paths(), &archive, &tag).await,
            Command::Supervise(place) => {
                supervisor::run(place.paths()).await?;
                Ok(ExitCode::SUCCESS)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }

    #[test]
    fn a_named_cluster_has_folders_of_its_own() {
        let place = WhereArgs {
            name: "two".into(),
            dir: None,
            run_dir: None,
        };
        assert_eq!(place.paths().dir, PathBuf::from("/var/lib/keelson-two"));
        let place = WhereArgs {
            name: "keelson".into(),
            dir: Some("/tmp/x".into()),
            run_dir: None,
        };
        assert_eq!(place.paths().run_dir, PathBuf::from("/tmp/x/run"));
    }
}
