//! kill -9.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use keelson_tests::cluster::ECHO;
use keelson_tests::process::{eventually, run};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::Stage;
use crate::load::{Load, admin, all_present};

const DAEMONS: [&str; 6] = [
    "kube-store",
    "kube-apiserver",
    "kube-scheduler",
    "kube-controller-manager",
    "kubelet",
    "kube-proxy",
];

/// The process that runs a program, in this process namespace.
fn process_of(program: &str) -> Result<Pid> {
    for entry in std::fs::read_dir("/proc")? {
        let entry = entry?;
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        let executable = std::fs::read_link(entry.path().join("exe"));
        if executable.is_ok_and(|path| path.file_name().is_some_and(|name| name == program)) {
            return Ok(Pid::from_raw(pid));
        }
    }
    anyhow::bail!("no process runs {program}")
}

fn kill_and_wait_for_another(program: &str) -> Result<()> {
    let before = process_of(program)?;
    kill(before, Signal::SIGKILL).with_context(|| format!("killing {program}"))?;
    eventually(&format!("another {program}"), Duration::from_secs(20), || {
        let now = process_of(program)?;
        ensure!(now != before, "{program} is still the one that was killed");
        Ok(())
    })
}

/// A deployment with a service, and what its containers are.
pub struct Application<'a> {
    stage: &'a Stage,
    url: String,
    containers: String,
}

const CONTAINERS: &str = "{range.items[*]}{.metadata.name}={.status.containerStatuses[0].containerID}/{.status.containerStatuses[0].restartCount}{\"\\n\"}{end}";

impl<'a> Application<'a> {
    /// Starts it and waits for its answer.
    pub fn start(stage: &'a Stage, name: &str) -> Result<Self> {
        let kubectl = &stage.kubectl;
        kubectl.run(&format!("create deployment {name} --image={ECHO} --replicas=2"))?;
        kubectl.run(&format!("rollout status deployment/{name} --timeout=120s"))?;
        kubectl.run(&format!("expose deployment {name} --port=80 --target-port=8080"))?;
        let url = format!(
            "http://{}/",
            kubectl.path(&format!("get svc {name}"), "{.spec.clusterIP}")?
        );
        let application = Self {
            stage,
            url,
            containers: Self::containers(stage, name)?,
        };
        application.answers()?;
        Ok(application)
    }

    fn containers(stage: &Stage, name: &str) -> Result<String> {
        stage.kubectl.path(&format!("get pods -l app={name}"), CONTAINERS)
    }

    fn answers(&self) -> Result<()> {
        eventually("the service's answer", Duration::from_secs(20), || {
            run("curl", &["-sS", "--max-time", "2", &self.url])
        })?;
        Ok(())
    }

    /// Nothing became of it.
    pub fn still_the_same(&self, name: &str) -> Result<()> {
        self.answers()?;
        let now = Self::containers(self.stage, name)?;
        ensure!(
            now == self.containers,
            "containers were replaced: {} is now {now}",
            self.containers
        );
        Ok(())
    }

    /// As before, though the deployment may have grown since.
    pub fn still_the_same_among(&self, name: &str) -> Result<()> {
        self.answers()?;
        let now = Self::containers(self.stage, name)?;
        for container in self.containers.lines() {
            ensure!(
                now.lines().any(|line| line == container),
                "{container} is not among {now}"
            );
        }
        Ok(())
    }
}

pub fn every_daemon_is_killed_under_load(stage: &Stage) -> Result<()> {
    let kubectl = &stage.kubectl;
    let application = Application::start(stage, "survivor")?;
    kubectl.run("create namespace load")?;
    let runtime = tokio::runtime::Runtime::new()?;
    let client = runtime.block_on(async { admin(&stage.cluster.kubeconfig()) })?;
    let load = runtime.block_on(async { Load::start(&client, "load", 4) });
    for daemon in DAEMONS {
        std::thread::sleep(Duration::from_secs(1));
        kill_and_wait_for_another(daemon)?;
        eventually("the API", Duration::from_secs(30), || {
            kubectl.run("get --raw /readyz")
        })?;
        application
            .answers()
            .with_context(|| format!("after {daemon} was killed"))?;
    }
    std::thread::sleep(Duration::from_secs(2));
    let acknowledged = runtime.block_on(load.stop())?;
    ensure!(
        acknowledged.len() > 100,
        "only {} writes were acknowledged",
        acknowledged.len()
    );
    runtime.block_on(all_present(&client, "load", &acknowledged))?;
    application.still_the_same("survivor")?;
    // Each is shown as a pod of its own, but for the kubelet, which shows them.
    for daemon in DAEMONS.iter().filter(|daemon| **daemon != "kubelet") {
        let restarts = format!(
            "get pods -n kube-system -l component={daemon} -o jsonpath={{.items[0].status.containerStatuses[0].restartCount}}"
        );
        kubectl.until(&restarts, |count| {
            count.parse::<u32>().is_ok_and(|count| count >= 1)
        })?;
    }
    // Every control loop works again: a change goes all the way to new containers and back.
    kubectl.run("scale deployment survivor --replicas=3")?;
    kubectl.run("rollout status deployment/survivor --timeout=120s")?;
    kubectl.run("wait --for=condition=Ready nodes --all --timeout=120s")?;
    kubectl.run("delete deployment,service survivor")?;
    kubectl.run("delete namespace load --timeout=120s")?;
    Ok(())
}

pub fn pods_outlive_the_container_runtime(stage: &Stage) -> Result<()> {
    let application = Application::start(stage, "steady")?;
    kill_and_wait_for_another("containerd")?;
    std::thread::sleep(Duration::from_secs(5));
    application.still_the_same("steady")?;
    stage.kubectl.run("scale deployment steady --replicas=3")?;
    stage
        .kubectl
        .run("rollout status deployment/steady --timeout=120s")?;
    stage.kubectl.run("delete deployment,service steady")?;
    Ok(())
}
