//! keeladm on machines that are not ready for a cluster, on one that has a cluster already, and over a longer time:
//! what it says, and that it leaves nothing half-started.
//!
//! The stories run one after the other in the same namespaces.

mod certificates;
mod obstacles;

use std::process::{Command, ExitCode};

use anyhow::{Result, ensure};
use keelson_tests::cluster::{UP, binaries};
use keelson_tests::isolation::isolate;
use keelson_tests::process::{output, run, text};
use libtest_mimic::{Arguments, Failed, Trial};

type Story = fn() -> Result<()>;

const STORIES: &[(&str, Story)] = &[
    (
        "a_missing_program_is_named",
        obstacles::a_missing_program_is_named,
    ),
    (
        "missing_network_plugins_are_named",
        obstacles::missing_network_plugins_are_named,
    ),
    ("missing_daemons_are_named", obstacles::missing_daemons_are_named),
    ("a_busy_port_is_named", obstacles::a_busy_port_is_named),
    (
        "an_address_of_another_machine_is_named",
        obstacles::an_address_of_another_machine_is_named,
    ),
    ("root_is_asked_for", obstacles::root_is_asked_for),
    (
        "a_failure_half_way_stops_everything",
        obstacles::a_failure_half_way_stops_everything,
    ),
    ("up_and_down_twice", obstacles::up_and_down_twice),
    (
        "certificates_are_renewed_before_they_expire",
        certificates::certificates_are_renewed_before_they_expire,
    ),
];

fn main() -> Result<ExitCode> {
    let mut arguments = Arguments::from_args();
    if !arguments.list {
        isolate()?;
    }
    arguments.test_threads = Some(1);
    let trials = STORIES
        .iter()
        .map(|(name, story)| {
            Trial::test(*name, move || {
                story().map_err(|error| Failed::from(format!("{error:#}")))
            })
        })
        .collect();
    Ok(libtest_mimic::run(&arguments, trials).exit_code())
}

/// What a command of keeladm printed, and how it ended.
struct Said {
    code: Option<i32>,
    output: String,
    errors: String,
}

/// `keeladm VERB --dir DIR MORE`, with what `up` needs here.
fn keeladm(verb: &str, dir: &std::path::Path, more: &[&str]) -> Result<Said> {
    let programs = binaries()?;
    let mut command = Command::new(programs.join("keeladm"));
    command.arg(verb).arg("--dir").arg(dir);
    if verb == "up" {
        command.args(UP);
        if !more.contains(&"--images") {
            command
                .arg("--images")
                .arg(programs.parent().unwrap_or(&programs).join("images"));
        }
    }
    command.args(more);
    said(command)
}

fn said(command: Command) -> Result<Said> {
    let output = output(command, None)?;
    Ok(Said {
        code: output.status.code(),
        output: text(&output.stdout),
        errors: text(&output.stderr),
    })
}

/// Nothing of a cluster runs here and no rule of it is in the kernel.
fn nothing_runs() -> Result<()> {
    let programs = binaries()?;
    for entry in std::fs::read_dir("/proc")? {
        let entry = entry?;
        let Ok(program) = std::fs::read_link(entry.path().join("exe")) else {
            continue;
        };
        let name = program
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        let ours = program.parent() == Some(programs.as_path());
        ensure!(
            !ours && !name.starts_with("containerd"),
            "{} still runs",
            program.display()
        );
    }
    let tables = run("nft", &["list", "tables"])?;
    ensure!(tables.trim().is_empty(), "tables are left: {tables}");
    Ok(())
}
