//! Log files that do not grow without end.
//!
//! Daemons append to their files themselves. A file that has grown too large is copied aside and emptied in place:
//! the daemon goes on at its (new) end and need not be told.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

const LIMIT_BYTES: u64 = 32 << 20;
const KEEP: u32 = 3;

/// Looks at the files now and then.
pub(super) async fn rotate(files: Vec<PathBuf>, every: Duration, over: CancellationToken) {
    loop {
        tokio::select! {
            () = over.cancelled() => return,
            () = tokio::time::sleep(every) => {}
        }
        for file in &files {
            if std::fs::metadata(file).is_ok_and(|metadata| metadata.len() > LIMIT_BYTES)
                && let Err(error) = rotate_one(file)
            {
                tracing::warn!(%error, file = %file.display(), "rotating a log file");
            }
        }
    }
}

fn rotate_one(file: &Path) -> std::io::Result<()> {
    let numbered = |number: u32| PathBuf::from(format!("{}.{number}", file.display()));
    for number in (1..KEEP).rev() {
        if numbered(number).exists() {
            std::fs::rename(numbered(number), numbered(number + 1))?;
        }
    }
    std::fs::copy(file, numbered(1))?;
    std::fs::OpenOptions::new().write(true).open(file)?.set_len(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn a_writer_goes_on_at_the_new_end() -> std::io::Result<()> {
        let dir = tempfile::tempdir()?;
        let path = dir.path().join("x.log");
        let mut writer = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(&path)?;
        writer.write_all(b"before")?;
        rotate_one(&path)?;
        writer.write_all(b"after")?;
        assert_eq!(std::fs::read(&path)?, b"after");
        assert_eq!(std::fs::read(dir.path().join("x.log.1"))?, b"before");
        Ok(())
    }
}
