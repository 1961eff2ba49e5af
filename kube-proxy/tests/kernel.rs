//! The rules in a real kernel: a node, two pods and a client outside, each a network namespace of its own.
//! Needs root, ip and nft; without root it says so and passes, for it could prove nothing.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{Error, ErrorKind, Read, Result, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use keelson_kube_proxy::rules::services::{Policy, Protocol};
use keelson_kube_proxy::rules::{Endpoint, Family, Options, ServicePort, Table, build, difference, whole};
use nix::sched::{CloneFlags, setns};

const POD_A: Ipv4Addr = Ipv4Addr::new(10, 244, 0, 2);
const POD_B: Ipv4Addr = Ipv4Addr::new(10, 244, 0, 3);
const NODE: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
const CLUSTER_IP: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 7);
const NODE_PORT: u16 = 30080;

/// Namespaces that go away with this value.
struct Lab(String);

impl Lab {
    fn new() -> Result<Self> {
        let lab = Self(format!("kp{}", std::process::id()));
        for name in ["node", "a", "b", "out"] {
            run("ip", &["netns", "add", &lab.name(name)])?;
            lab.ip(name, "link set lo up")?;
        }
        for (name, address) in [("a", POD_A), ("b", POD_B)] {
            lab.wire("node", name)?;
            lab.ip("node", &format!("addr add 10.244.0.1/32 dev {name}"))?;
            lab.ip("node", &format!("route add {address}/32 dev {name}"))?;
            lab.ip(name, &format!("addr add {address}/32 dev up"))?;
            lab.ip(name, "route add 10.244.0.1/32 dev up")?;
            lab.ip(name, "route add default via 10.244.0.1")?;
        }
        lab.wire("node", "out")?;
        lab.ip("node", &format!("addr add {NODE}/24 dev out"))?;
        lab.ip("out", "addr add 198.51.100.2/24 dev up")?;
        lab.ip("node", "route add default via 198.51.100.2")?;
        lab.inside("node", || {
            // The kernel resolves these for the thread that opens them.
            std::fs::write("/proc/sys/net/ipv4/ip_forward", "1")?;
            std::fs::write("/proc/sys/net/ipv4/conf/all/route_localnet", "1")
        })?;
        Ok(lab)
    }

    fn name(&self, short: &str) -> String {
        format!("{}-{short}", self.0)
    }

    fn ip(&self, namespace: &str, arguments: &str) -> Result<()> {
        let name = self.name(namespace);
        let arguments: Vec<&str> = ["-n", &name].into_iter().chain(arguments.split(' ')).collect();
        run("ip", &arguments)
    }

    /// A wire from `from`, called there by the other's name, to `to`, called `up` there.
    fn wire(&self, from: &str, to: &str) -> Result<()> {
        self.ip(
            from,
            &format!(
                "link add name {to} type veth peer name up netns {}",
                self.name(to)
            ),
        )?;
        self.ip(from, &format!("link set dev {to} up"))?;
        self.ip(to, "link set dev up up")
    }

    /// Runs `work` in a thread inside a namespace.
    fn inside<T: Send>(&self, namespace: &str, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        let path = format!("/run/netns/{}", self.name(namespace));
        thread::scope(|scope| {
            let worker = scope.spawn(move || {
                setns(File::open(path)?, CloneFlags::CLONE_NEWNET)?;
                work()
            });
            worker
                .join()
                .unwrap_or_else(|_| Err(Error::other("the thread panicked")))
        })
    }

    /// Answers every connection at `port` with the namespace's name and the client's address, for ever.
    fn serve(&self, namespace: &'static str, port: u16) -> Result<()> {
        let (listener, datagrams) = self.inside(namespace, || {
            Ok((
                TcpListener::bind(("0.0.0.0", port))?,
                UdpSocket::bind(("0.0.0.0", port))?,
            ))
        })?;
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let peer = stream
                    .peer_addr()
                    .map(|peer| peer.ip().to_string())
                    .unwrap_or_default();
                let _ = (&stream).write_all(format!("{namespace} {peer}").as_bytes());
            }
        });
        thread::spawn(move || {
            let mut buffer = [0; 16];
            while let Ok((_, peer)) = datagrams.recv_from(&mut buffer) {
                let _ = datagrams.send_to(format!("{namespace} {}", peer.ip()).as_bytes(), peer);
            }
        });
        Ok(())
    }

    fn nft(&self, text: &str) -> Result<()> {
        self.inside("node", || {
            let mut child = Command::new("nft")
                .args(["-f", "-"])
                .stdin(Stdio::piped())
                .spawn()?;
            if let Some(mut stdin) = child.stdin.take() {
                stdin.write_all(text.as_bytes())?;
            }
            if child.wait()?.success() {
                Ok(())
            } else {
                Err(Error::other(format!("nft refused:\n{text}")))
            }
        })
    }

    /// Who answers, and which address it sees.
    fn ask(&self, from: &str, to: impl Into<IpAddr>, port: u16) -> Result<(String, String)> {
        let to = SocketAddr::new(to.into(), port);
        let answer = self.inside(from, move || {
            let mut stream = TcpStream::connect_timeout(&to, Duration::from_secs(2))?;
            stream.set_read_timeout(Some(Duration::from_secs(2)))?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer)?;
            Ok(answer)
        })?;
        answer
            .split_once(' ')
            .map(|(who, seen)| (who.to_owned(), seen.to_owned()))
            .ok_or_else(|| Error::new(ErrorKind::InvalidData, answer.clone()))
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        for name in ["node", "a", "b", "out"] {
            let _ = run("ip", &["netns", "delete", &self.name(name)]);
        }
    }
}

fn run(program: &str, arguments: &[&str]) -> Result<()> {
    let output = Command::new(program).args(arguments).output()?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(Error::other(format!("{program} {}: {said}", arguments.join(" "))))
}

fn service(protocol: Protocol, endpoints: &[Ipv4Addr]) -> ServicePort {
    ServicePort {
        namespace: "ns".into(),
        name: "web".into(),
        protocol,
        port: 80,
        cluster_ips: vec![CLUSTER_IP.into()],
        node_port: Some(NODE_PORT),
        external_ips: vec![],
        load_balancer_ips: vec![],
        source_ranges: vec![],
        affinity: None,
        internal: Policy::Cluster,
        external: Policy::Cluster,
        endpoints: endpoints
            .iter()
            .map(|ip| Endpoint {
                address: SocketAddr::new((*ip).into(), 8080),
                local: true,
                ready: true,
                draining: false,
            })
            .collect(),
    }
}

fn table(services: &[ServicePort]) -> Table {
    let options = Options {
        table: "keelson".into(),
        cluster_cidrs: "10.244.0.0/16".parse().into_iter().collect(),
        nodeport_addresses: vec![],
        masquerade_all: false,
        masquerade_mark: 0x4000,
    };
    build(&options, Family::V4, services)
}

#[test]
fn services_answer_from_pods_nodes_and_outside() -> Result<()> {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("skipped: network namespaces need root");
        return Ok(());
    }
    let lab = Lab::new()?;
    lab.serve("a", 8080)?;
    lab.serve("b", 8080)?;
    let answered = |from: &str, to: Ipv4Addr, port: u16| -> Result<BTreeSet<String>> {
        (0..20).map(|_| Ok(lab.ask(from, to, port)?.0)).collect()
    };
    let both: BTreeSet<String> = ["a".to_owned(), "b".to_owned()].into();

    // Everything that has two endpoints is answered by both, from everywhere.
    let two = [
        service(Protocol::Tcp, &[POD_A, POD_B]),
        service(Protocol::Udp, &[POD_A]),
    ];
    let with_two = table(&two);
    lab.nft(&whole(&with_two))?;
    assert_eq!(answered("node", CLUSTER_IP, 80)?, both, "from the node");
    assert_eq!(answered("a", CLUSTER_IP, 80)?, both, "from a pod, to itself too");
    assert_eq!(answered("out", NODE, NODE_PORT)?, both, "from outside");
    assert_eq!(
        answered("node", Ipv4Addr::LOCALHOST, NODE_PORT)?,
        both,
        "from the node, on loopback"
    );
    assert_eq!(
        answered("b", NODE, NODE_PORT)?,
        both,
        "from a pod, at the node's port"
    );

    // Between pods there is no translation; a pod that reaches itself sees its gateway instead.
    for _ in 0..20 {
        let (who, seen) = lab.ask("a", CLUSTER_IP, 80)?;
        assert_eq!(
            seen,
            if who == "b" {
                POD_A.to_string()
            } else {
                "10.244.0.1".to_owned()
            }
        );
    }
    // UDP.
    let answer = lab.inside("b", || {
        let socket = UdpSocket::bind("0.0.0.0:0")?;
        socket.set_read_timeout(Some(Duration::from_secs(2)))?;
        socket.send_to(b"?", (CLUSTER_IP, 80))?;
        let mut buffer = [0; 64];
        let length = socket.recv(&mut buffer)?;
        Ok(String::from_utf8_lossy(&buffer[..length]).into_owned())
    })?;
    assert_eq!(answer, format!("a {POD_B}"));

    // One endpoint fewer, by the difference alone.
    let with_one = table(&[service(Protocol::Tcp, &[POD_B])]);
    lab.nft(&difference(&with_two, &with_one).unwrap_or_default())?;
    assert_eq!(answered("node", CLUSTER_IP, 80)?, ["b".to_owned()].into());

    // None: refused at once, from everywhere; so is a port that the service does not have.
    let with_none = table(&[service(Protocol::Tcp, &[])]);
    lab.nft(&difference(&with_one, &with_none).unwrap_or_default())?;
    for (from, to, port) in [
        ("node", CLUSTER_IP, 80),
        ("a", CLUSTER_IP, 80),
        ("out", NODE, NODE_PORT),
        ("a", CLUSTER_IP, 81),
    ] {
        let refused = lab.ask(from, to, port).map_err(|error| error.kind());
        assert_eq!(
            refused,
            Err(ErrorKind::ConnectionRefused),
            "{from} to {to}:{port}"
        );
    }

    // The local policy keeps the client's address.
    let mut local = service(Protocol::Tcp, &[POD_A]);
    local.external = Policy::Local;
    let with_local = table(&[local]);
    lab.nft(&difference(&with_none, &with_local).unwrap_or_default())?;
    assert_eq!(
        lab.ask("out", NODE, NODE_PORT)?,
        ("a".to_owned(), "198.51.100.2".to_owned())
    );

    // Affinity: always the same.
    let mut sticky = service(Protocol::Tcp, &[POD_A, POD_B]);
    sticky.affinity = Some(Duration::from_secs(60));
    let with_sticky = table(&[sticky]);
    lab.nft(&difference(&with_local, &with_sticky).unwrap_or_default())?;
    assert_eq!(answered("a", CLUSTER_IP, 80)?.len(), 1);
    assert_eq!(answered("b", CLUSTER_IP, 80)?.len(), 1);

    // And back to nothing, leaving only the frame.
    lab.nft(&difference(&with_sticky, &table(&[])).unwrap_or_default())
}
