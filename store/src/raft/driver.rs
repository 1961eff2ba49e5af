//! The thread around the core, with its clock.

use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use super::core::{Core, CoreError};
use super::handle::Command;

/// Commands taken in before the log is synced for all of them.
const MAX_BATCH: usize = 1024;

/// Runs a member until it is told to stop.
///
/// While a sync is on its way commands pile up; the next sync is for all of them.
///
/// # Errors
/// When this member cannot go on.
pub fn run(mut core: Core, commands: &Receiver<Command>, tick: Duration) -> Result<(), CoreError> {
    core.start()?;
    let mut next_tick = Instant::now() + tick;
    loop {
        let wait = next_tick.saturating_duration_since(Instant::now());
        match commands.recv_timeout(wait) {
            Ok(Command::Stop) | Err(RecvTimeoutError::Disconnected) => return Ok(()),
            Ok(command) => core.take(command),
            Err(RecvTimeoutError::Timeout) => {}
        }
        for command in commands.try_iter().take(MAX_BATCH) {
            if matches!(command, Command::Stop) {
                return Ok(());
            }
            core.take(command);
            if core.is_loaded() {
                break;
            }
        }
        let now = Instant::now();
        if now >= next_tick {
            core.tick();
            // After a stall, time goes on from here: missed ticks are not made up for in a burst, which
            // would look like a silent leader.
            next_tick = now + tick;
        }
        core.process()?;
    }
}
