//! What goes wrong in a cluster's life, done to a real one: daemons killed in turn under load, the container
//! runtime killed, ten thousand pods listed while they are watched, clocks set forward and back, a disk that fills up.
//!
//! The stories of a series share one cluster and run one after the other.

mod clocks;
mod crowds;
mod disks;
mod kills;
mod load;

use std::process::ExitCode;
use std::sync::{Arc, Mutex};

use anyhow::Result;
use keelson_tests::clock::WallClock;
use keelson_tests::cluster::{Cluster, Setting};
use keelson_tests::isolation::isolate;
use keelson_tests::kubectl::{Kubectl, versions};
use libtest_mimic::{Arguments, Failed, Trial};

/// A cluster and its administrator.
pub struct Stage {
    /// The cluster.
    pub cluster: Cluster,
    /// The newest kubectl, as the administrator.
    pub kubectl: Kubectl,
    /// The daemons' wall clock, where the stories set it.
    pub clock: Option<WallClock>,
}

type Story = fn(&Stage) -> Result<()>;

/// Stories told in one cluster, one after the other.
struct Series {
    ground: Ground,
    stories: &'static [(&'static str, Story)],
}

/// What the cluster of a series stands on.
enum Ground {
    /// The machine as it is.
    Plain,
    /// A wall clock that is set by the stories.
    Clock,
    /// A small disk.
    Disk,
}

static SERIES: [Series; 3] = [
    Series {
        ground: Ground::Plain,
        stories: &[
            (
                "every_daemon_is_killed_under_load",
                kills::every_daemon_is_killed_under_load,
            ),
            (
                "pods_outlive_the_container_runtime",
                kills::pods_outlive_the_container_runtime,
            ),
            (
                "ten_thousand_pods_are_listed_while_watched",
                crowds::ten_thousand_pods_are_listed_while_watched,
            ),
            (
                "a_hundred_patches_of_one_object_all_count",
                crowds::a_hundred_patches_of_one_object_all_count,
            ),
        ],
    },
    Series {
        ground: Ground::Clock,
        stories: &[(
            "the_wall_clock_is_set_forward_and_back",
            clocks::the_wall_clock_is_set_forward_and_back,
        )],
    },
    Series {
        ground: Ground::Disk,
        stories: &[("a_full_disk_is_emptied", disks::a_full_disk_is_emptied)],
    },
];

impl Series {
    fn stage(&self) -> Result<Stage> {
        let (mut clock, mut setting) = (None, Setting::default());
        match self.ground {
            Ground::Plain => {}
            Ground::Clock => {
                let new = WallClock::new()?;
                setting.environment = new.environment();
                clock = Some(new);
            }
            Ground::Disk => setting = disks::setting(),
        }
        let cluster = Cluster::up_with(setting)?;
        let newest = versions()?.pop().ok_or_else(|| anyhow::anyhow!("no kubectl"))?;
        let kubectl = Kubectl::new(newest, &cluster.kubeconfig());
        Ok(Stage {
            cluster,
            kubectl,
            clock,
        })
    }

    /// The stories as tests; the first that is told brings the cluster up.
    fn trials(&'static self, stage: &Arc<Mutex<Option<Stage>>>) -> Vec<Trial> {
        let trial = |(name, story): &'static (&'static str, Story)| {
            let stage = stage.clone();
            Trial::test(*name, move || {
                let mut stage = stage.lock().map_err(|_| "an earlier story broke off")?;
                if stage.is_none() {
                    *stage = Some(self.stage().map_err(failed)?);
                }
                let Some(stage) = stage.as_ref() else {
                    return Ok(());
                };
                story(stage).map_err(|error| {
                    for question in ["get all -o wide", "describe pods", "get events"] {
                        let said = stage.kubectl.run(question).unwrap_or_default();
                        eprintln!("--- {name}: kubectl {question}\n{said}");
                    }
                    eprintln!("{}", stage.cluster.complaints());
                    failed(error)
                })
            })
        };
        self.stories.iter().map(trial).collect()
    }
}

fn failed(error: anyhow::Error) -> Failed {
    Failed::from(format!("{error:#}"))
}

fn main() -> Result<ExitCode> {
    let mut arguments = Arguments::from_args();
    if arguments.list {
        let all = SERIES
            .iter()
            .flat_map(|series| series.trials(&Arc::default()))
            .collect();
        return Ok(libtest_mimic::run(&arguments, all).exit_code());
    }
    isolate()?;
    arguments.test_threads = Some(1);
    let mut failures = 0;
    for series in &SERIES {
        let stage = Arc::default();
        let conclusion = libtest_mimic::run(&arguments, series.trials(&stage));
        failures += conclusion.num_failed;
        // Takes the cluster down: the next one needs its place.
        drop(Arc::into_inner(stage));
    }
    Ok(ExitCode::from(u8::from(failures > 0)))
}
