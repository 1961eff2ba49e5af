//! The log file: one event a line, rotated by size.
//!
//! A rotated file is called after the moment it was closed: `audit-2026-01-31T12-00-00.000.log` beside `audit.log`.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use flate2::Compression;
use flate2::write::GzEncoder;

use super::AuditArgs;
use super::event::Event;
use super::queue::{Counts, Queue};

/// What the log is called where losses are counted.
const PLUGIN: &str = "log";
/// Size of a file when nothing is said about it, in megabytes.
const SIZE: u64 = 100;
const MEGABYTE: u64 = 1 << 20;
const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// When a file was closed, as its name says it. Sorts as time does.
const MOMENT: &str = "%Y-%m-%dT%H-%M-%S";

/// The thread that writes the log.
pub struct LogSink(Queue);

impl LogSink {
    /// Opens the log, if there is to be one.
    pub fn open(args: &AuditArgs, counts: &Counts) -> anyhow::Result<Option<Self>> {
        let Some(path) = args.audit_log_path.as_deref() else {
            return Ok(None);
        };
        let mut out = if path == Path::new("-") {
            Out::Standard(io::stdout())
        } else {
            let rotation = Rotation {
                path: path.to_path_buf(),
                size: MEGABYTE
                    * if args.audit_log_maxsize == 0 {
                        SIZE
                    } else {
                        args.audit_log_maxsize
                    },
                age: args.audit_log_maxage,
                backups: args.audit_log_maxbackup,
                compress: args.audit_log_compress,
            };
            Out::File(
                Rotating::open(rotation)
                    .with_context(|| format!("--audit-log-path: cannot open {}", path.display()))?,
            )
        };
        let room = args.audit_log_batch_buffer_size;
        let (queue, inbox) = Queue::new(PLUGIN, room, args.audit_log_mode, counts.clone());
        let counts = counts.clone();
        std::thread::Builder::new()
            .name("audit-log".into())
            .spawn(move || {
                for waiting in inbox {
                    let line = format!("{}\n", waiting.event.json());
                    let written = out.write(line.as_bytes());
                    if let Err(error) = &written {
                        tracing::error!(%error, "cannot write the audit log");
                        counts.lost(PLUGIN, 1);
                    }
                    waiting.kept(written.is_ok());
                }
            })
            .context("cannot start the audit thread")?;
        Ok(Some(Self(queue)))
    }

    /// Writes an event, soon.
    pub fn send(&self, event: Arc<Event>) {
        self.0.send(event);
    }

    /// Writes that a request came; whether it may be served.
    pub fn admit(&self, event: Arc<Event>) -> bool {
        self.0.admit(event)
    }
}

enum Out {
    Standard(io::Stdout),
    File(Rotating),
}

impl Out {
    fn write(&mut self, line: &[u8]) -> io::Result<()> {
        match self {
            Out::Standard(out) => out.write_all(line).and_then(|()| out.flush()),
            Out::File(file) => file.write(line),
        }
    }
}

/// How a log is rotated.
pub(super) struct Rotation {
    pub(super) path: PathBuf,
    /// Bytes.
    pub(super) size: u64,
    /// Days; 0 is for ever.
    pub(super) age: u64,
    /// 0 is any number.
    pub(super) backups: usize,
    pub(super) compress: bool,
}

/// A file that is put aside when it is full.
pub(super) struct Rotating {
    rotation: Rotation,
    file: File,
    written: u64,
    /// Milliseconds since 1970 in the name of the file that was put aside last.
    last: i64,
}

impl Rotating {
    pub(super) fn open(rotation: Rotation) -> io::Result<Self> {
        if let Some(parent) = rotation.path.parent() {
            std::fs::create_dir_all(parent)?;
        }
        let file = append(&rotation.path)?;
        let written = file.metadata()?.len();
        Ok(Self {
            rotation,
            file,
            written,
            last: 0,
        })
    }

    pub(super) fn write(&mut self, line: &[u8]) -> io::Result<()> {
        let length = line.len() as u64;
        if self.written > 0 && self.written + length > self.rotation.size {
            self.rotate()?;
        }
        self.file.write_all(line)?;
        self.written += length;
        Ok(())
    }

    fn rotate(&mut self) -> io::Result<()> {
        let (stem, end) = self.rotation.name();
        // Of two files of one millisecond the second is said to be of the next: names sort by age.
        let mut moment = jiff::Timestamp::now().as_millisecond().max(self.last + 1);
        let aside = loop {
            let time = jiff::Timestamp::from_millisecond(moment).map_err(io::Error::other)?;
            let name = format!(
                "{stem}-{}.{:03}{end}",
                time.strftime(MOMENT),
                time.subsec_millisecond()
            );
            let aside = self.rotation.path.with_file_name(name);
            if !aside.exists() && !packed(&aside).exists() {
                break aside;
            }
            moment += 1;
        };
        self.last = moment;
        std::fs::rename(&self.rotation.path, &aside)?;
        self.file = append(&self.rotation.path)?;
        self.written = 0;
        if self.rotation.compress {
            compress(&aside)?;
        }
        self.rotation.clean()
    }
}

impl Rotation {
    /// `audit` and `.log`.
    fn name(&self) -> (String, String) {
        let part = |part: Option<&std::ffi::OsStr>| part.unwrap_or_default().to_string_lossy().into_owned();
        let end = match part(self.path.extension()) {
            end if end.is_empty() => end,
            end => format!(".{end}"),
        };
        (part(self.path.file_stem()), end)
    }

    /// Removes what is too old or too much.
    fn clean(&self) -> io::Result<()> {
        let (stem, end) = self.name();
        let folder = match self.path.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder,
            _ => Path::new("."),
        };
        let mut aside = Vec::new();
        for entry in std::fs::read_dir(folder)? {
            let path = entry?.path();
            let name = path
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned();
            let plain = name.strip_suffix(".gz").unwrap_or(&name);
            let moment = plain
                .strip_suffix(&end)
                .and_then(|p| p.strip_prefix(&format!("{stem}-")));
            if moment.is_some_and(|moment| moment.starts_with(|c: char| c.is_ascii_digit())) {
                aside.push(path);
            }
        }
        // The newest first.
        aside.sort_by(|a, b| b.cmp(a));
        let oldest =
            SystemTime::now().checked_sub(DAY.saturating_mul(u32::try_from(self.age).unwrap_or(u32::MAX)));
        for (place, path) in aside.iter().enumerate() {
            let too_many = self.backups > 0 && place >= self.backups;
            let too_old = self.age > 0
                && oldest.is_some_and(|oldest| {
                    std::fs::metadata(path)
                        .and_then(|m| m.modified())
                        .is_ok_and(|then| then < oldest)
                });
            if too_many || too_old {
                std::fs::remove_file(path)?;
            }
        }
        Ok(())
    }
}

fn append(path: &Path) -> io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt as _;
    // Who may read the log may read what requests said.
    std::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o600)
        .open(path)
}

/// The name of a compressed file.
fn packed(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".gz");
    name.into()
}

fn compress(path: &Path) -> io::Result<()> {
    let mut out = GzEncoder::new(append(&packed(path))?, Compression::default());
    io::copy(&mut File::open(path)?, &mut out)?;
    out.finish()?;
    std::fs::remove_file(path)
}
