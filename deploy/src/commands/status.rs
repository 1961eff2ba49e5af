//! `keeladm status`, and `stop`, `start`, `restart` of single daemons.

use std::process::ExitCode;
use std::time::Duration;

use crate::cluster::Paths;
use crate::progress::human;
use crate::supervisor::{self, Process, State, Verb};
use crate::teardown::processes;

/// Exit code 0 when everything is ready, 1 when something is not, 3 when nothing runs (as of service scripts).
pub(crate) async fn run(paths: &Paths) -> anyhow::Result<ExitCode> {
    if !supervisor::running(paths).await {
        match processes::leftovers(paths).len() {
            0 => println!("no cluster runs from {}", paths.dir.display()),
            count => println!(
                "{count} processes run from {}, but nothing supervises them: `keeladm up` takes them over",
                paths.dir.display()
            ),
        }
        return Ok(ExitCode::from(3));
    }
    let processes = supervisor::ask(paths, Verb::Status, &[]).await?;
    show(&processes);
    let all_ready = processes.iter().all(|process| process.state == State::Ready);
    Ok(if all_ready {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Does something to some daemons and shows what came of it.
pub(crate) async fn control(paths: &Paths, verb: Verb, daemons: Vec<String>) -> anyhow::Result<ExitCode> {
    let processes = supervisor::ask(paths, verb, &daemons).await?;
    let named: Vec<Process> = processes
        .into_iter()
        .filter(|process| daemons.contains(&process.name))
        .collect();
    show(&named);
    Ok(ExitCode::SUCCESS)
}

fn show(processes: &[Process]) {
    println!(
        "{:<25} {:<9} {:>8} {:>9} {:>10}  LAST EXIT",
        "NAME", "STATE", "PID", "RESTARTS", "FOR"
    );
    for process in processes {
        let state = match process.state {
            State::Starting => "starting",
            State::Ready => "ready",
            State::Waiting => "waiting",
            State::Stopped => "stopped",
        };
        println!(
            "{:<25} {state:<9} {:>8} {:>9} {:>10}  {}",
            process.name,
            process.pid.map(|pid| pid.to_string()).unwrap_or_default(),
            process.restarts,
            human(Duration::from_secs(process.seconds)),
            process.last_exit.as_deref().unwrap_or_default(),
        );
    }
}
