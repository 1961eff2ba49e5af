//! Running commands and waiting for what they bring about.

use std::ffi::OsStr;
use std::io::Write;
use std::process::{Command, Output, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// Runs a program to its end and returns what it printed on standard output; fails with what it printed on
/// standard error.
///
/// # Errors
/// When it cannot be started or does not exit with 0.
pub fn run<S: AsRef<OsStr>>(program: &str, args: &[S]) -> Result<String> {
    let mut command = Command::new(program);
    command.args(args);
    succeed(command, None)
}

/// Runs a prepared command to its end, feeding it `input`, and returns its standard output.
///
/// # Errors
/// When it cannot be started or does not exit with 0.
pub fn succeed(command: Command, input: Option<&str>) -> Result<String> {
    let shown = format!("{command:?}");
    let output = output(command, input)?;
    if !output.status.success() {
        bail!(
            "{shown}: {}\n{}{}",
            output.status,
            text(&output.stdout),
            text(&output.stderr)
        );
    }
    Ok(text(&output.stdout))
}

/// Runs a prepared command to its end, whatever that is.
///
/// # Errors
/// When it cannot be started.
pub fn output(mut command: Command, input: Option<&str>) -> Result<Output> {
    let shown = format!("{command:?}");
    command.stdin(if input.is_some() {
        Stdio::piped()
    } else {
        Stdio::null()
    });
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| shown.clone())?;
    if let (Some(input), Some(mut stdin)) = (input, child.stdin.take()) {
        // A command may well end without having read all of its input.
        let _unread = stdin.write_all(input.as_bytes());
    }
    child.wait_with_output().context(shown)
}

/// Bytes as text.
#[must_use]
pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Tries again, a few times a second, until `attempt` succeeds; fails with its last error after `limit`.
///
/// # Errors
/// The last error of `attempt`.
pub fn eventually<T>(what: &str, limit: Duration, mut attempt: impl FnMut() -> Result<T>) -> Result<T> {
    let deadline = Instant::now() + limit;
    loop {
        match attempt() {
            Ok(value) => return Ok(value),
            Err(error) if Instant::now() > deadline => {
                return Err(error.context(format!("waited {limit:?} for: {what}")));
            }
            Err(_) => sleep(Duration::from_millis(200)),
        }
    }
}
