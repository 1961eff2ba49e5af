//! Reading a log as `kubectl logs` wants it: from the tail or from a time, with or without times, following.

use std::io::SeekFrom;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use tokio::fs::File;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncSeekExt, BufReader};
use tokio::sync::mpsc;

use super::cri_format::{self, Stream};

/// How often a followed log is looked at.
const FOLLOW_PERIOD: Duration = Duration::from_millis(200);
/// How much is read at once when looking for the tail.
const BLOCK: u64 = 64 << 10;

/// What to read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Options {
    /// Go on until the container ends.
    pub follow: bool,
    /// Of a container's former life.
    pub previous: bool,
    /// Put the time before each line.
    pub timestamps: bool,
    /// Only from here on.
    pub since: Option<Timestamp>,
    /// Only the last lines.
    pub tail: Option<u64>,
    /// Only so many bytes.
    pub limit_bytes: Option<u64>,
    /// Only this stream.
    pub stream: Option<Stream>,
    /// The lines are a program's own, not a runtime's records.
    pub plain: bool,
}

/// Sends a log's lines into `out`. Following ends when `running` says so and everything has been read, or when
/// nobody listens any more.
///
/// # Errors
/// Those of the file system.
pub async fn read(
    path: &Path,
    options: &Options,
    running: impl Fn() -> bool + Send,
    out: mpsc::Sender<Bytes>,
) -> std::io::Result<()> {
    let mut file = open(path, options.follow).await?;
    let mut identity = inode(&file).await?;
    let size = file.metadata().await?.len();
    let from = match options.tail {
        Some(0) => size,
        Some(lines) => tail_start(&mut file, size, lines).await?,
        None => 0,
    };
    // The container goes on writing while it is read: what is not followed ends where it ended when it was asked for.
    let mut left = if options.follow { u64::MAX } else { size - from };
    file.seek(SeekFrom::Start(from)).await?;
    let mut reader = BufReader::new(file);
    let mut writer = Writer {
        options,
        out,
        left: options.limit_bytes,
        at_line_start: true,
    };
    let mut line = Vec::new();
    loop {
        let ended = options.follow && !running();
        while left > 0 && reader.read_until(b'\n', &mut line).await? > 0 {
            if !line.ends_with(b"\n") {
                // Half a record: the rest is still to be written.
                break;
            }
            left = left.saturating_sub(line.len() as u64);
            if !writer.write(&line).await {
                return Ok(());
            }
            line.clear();
        }
        if !options.follow || ended {
            return Ok(());
        }
        if writer.out.is_closed() {
            return Ok(());
        }
        tokio::time::sleep(FOLLOW_PERIOD).await;
        // A rotated log goes on in a new file, once the old one is read to its end.
        if let Ok(newer) = File::open(path).await
            && let Ok(number) = inode(&newer).await
            && number != identity
            && reader.fill_buf().await?.is_empty()
        {
            identity = number;
            reader = BufReader::new(newer);
            line.clear();
        }
    }
}

async fn open(path: &Path, follow: bool) -> std::io::Result<File> {
    // The runtime makes the file a moment after the container.
    for _ in 0..if follow { 50 } else { 0 } {
        match File::open(path).await {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                tokio::time::sleep(FOLLOW_PERIOD / 2).await
            }
            other => return other,
        }
    }
    File::open(path).await
}

async fn inode(file: &File) -> std::io::Result<u64> {
    use std::os::unix::fs::MetadataExt;
    Ok(file.metadata().await?.ino())
}

/// Where the last `lines` records of the first `size` bytes begin.
async fn tail_start(file: &mut File, size: u64, lines: u64) -> std::io::Result<u64> {
    let mut position = size;
    let mut found = 0;
    let mut block = Vec::new();
    while position > 0 {
        let start = position.saturating_sub(BLOCK);
        block.resize(usize::try_from(position - start).unwrap_or(0), 0);
        file.seek(SeekFrom::Start(start)).await?;
        file.read_exact(&mut block).await?;
        for (offset, byte) in block.iter().enumerate().rev() {
            let at = start + offset as u64;
            // The newline at the very end ends the last line; it does not begin another.
            if *byte == b'\n' && at + 1 < size {
                found += 1;
                if found == lines {
                    return Ok(at + 1);
                }
            }
        }
        position = start;
    }
    Ok(0)
}

struct Writer<'a> {
    options: &'a Options,
    out: mpsc::Sender<Bytes>,
    left: Option<u64>,
    at_line_start: bool,
}

impl Writer<'_> {
    /// Sends one record; false when no more is wanted.
    async fn write(&mut self, line: &[u8]) -> bool {
        let record = if self.options.plain {
            cri_format::parse_plain(line)
        } else {
            match cri_format::parse(line) {
                Some(record) => record,
                None => return true,
            }
        };
        if self.options.stream.is_some_and(|wanted| wanted != record.stream) {
            return true;
        }
        if let Some(since) = self.options.since
            && record.timestamp().is_some_and(|at| at < since)
        {
            return true;
        }
        let mut text = Vec::with_capacity(line.len());
        if self.options.timestamps && self.at_line_start {
            text.extend_from_slice(record.time.as_bytes());
            text.push(b' ');
        }
        text.extend_from_slice(record.text);
        if record.complete {
            text.push(b'\n');
        }
        self.at_line_start = record.complete;
        if let Some(left) = &mut self.left {
            text.truncate(usize::try_from(*left).unwrap_or(usize::MAX));
            *left -= text.len() as u64;
        }
        if !text.is_empty() && self.out.send(text.into()).await.is_err() {
            return false;
        }
        self.left != Some(0)
    }
}

/// The log of a container's life before the present one.
pub fn previous_path(folder: &Path, container: &str, attempt: u32) -> Option<PathBuf> {
    let attempt = attempt.checked_sub(1)?;
    let path = folder.join(crate::paths::container_log(container, attempt));
    path.exists().then_some(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn text(options: Options) -> String {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("0.log");
        let log = "2026-01-01T00:00:01Z stdout F one\n2026-01-01T00:00:02Z stdout P tw\n2026-01-01T00:00:02Z stdout F o\n2026-01-01T00:00:03Z stderr F three\n";
        std::fs::write(&path, log).expect("written");
        let (sender, mut receiver) = mpsc::channel(16);
        read(&path, &options, || false, sender).await.expect("read");
        let mut all = Vec::new();
        while let Some(bytes) = receiver.recv().await {
            all.extend_from_slice(&bytes);
        }
        String::from_utf8(all).expect("text")
    }

    #[tokio::test]
    async fn options_choose() {
        assert_eq!(text(Options::default()).await, "one\ntwo\nthree\n");
        assert_eq!(
            text(Options {
                tail: Some(1),
                ..Default::default()
            })
            .await,
            "three\n"
        );
        assert_eq!(
            text(Options {
                tail: Some(0),
                ..Default::default()
            })
            .await,
            ""
        );
        assert_eq!(
            text(Options {
                limit_bytes: Some(5),
                ..Default::default()
            })
            .await,
            "one\nt"
        );
        let since = Some("2026-01-01T00:00:03Z".parse().expect("a time"));
        assert_eq!(
            text(Options {
                since,
                timestamps: true,
                ..Default::default()
            })
            .await,
            "2026-01-01T00:00:03Z three\n"
        );
        assert_eq!(
            text(Options {
                follow: true,
                ..Default::default()
            })
            .await,
            "one\ntwo\nthree\n"
        );
    }

    #[tokio::test]
    async fn a_tail_stays_as_long_as_it_was_while_the_container_writes() {
        use std::io::Write;
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("0.log");
        let record = format!("2026-01-01T00:00:01Z stdout F {}\n", "x".repeat(100));
        std::fs::write(&path, record.repeat(1000)).expect("written");
        let (sender, mut receiver) = mpsc::channel(1);
        let log = path.clone();
        let reading = tokio::spawn(async move {
            let options = Options {
                tail: Some(500),
                ..Default::default()
            };
            read(&log, &options, || true, sender).await
        });
        let mut lines = usize::from(receiver.recv().await.is_some());
        let mut file = std::fs::OpenOptions::new()
            .append(true)
            .open(&path)
            .expect("opened");
        file.write_all(record.repeat(3).as_bytes()).expect("written");
        while receiver.recv().await.is_some() {
            lines += 1;
        }
        reading.await.expect("ended").expect("read");
        assert_eq!(lines, 500);
    }
}
