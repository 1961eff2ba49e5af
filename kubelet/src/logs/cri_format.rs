//! The lines of a log: `TIME STREAM TAG TEXT`, where the tag `P` says that the line goes on in the next record.

use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

use jiff::Timestamp;

/// Where a line was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// One record of a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record<'a> {
    /// When it was written, as it stands in the file.
    pub time: &'a str,
    /// Where.
    pub stream: Stream,
    /// Is the line complete?
    pub complete: bool,
    /// The text, without the line's end.
    pub text: &'a [u8],
}

impl Record<'_> {
    /// When it was written.
    pub fn timestamp(&self) -> Option<Timestamp> {
        self.time.parse().ok()
    }
}

/// Reads one record; `None` if the line is none. A newline at its end is ignored.
pub fn parse(line: &[u8]) -> Option<Record<'_>> {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    let mut parts = line.splitn(4, |byte| *byte == b' ');
    let time = std::str::from_utf8(parts.next()?).ok()?;
    let stream = match parts.next()? {
        b"stdout" => Stream::Stdout,
        b"stderr" => Stream::Stderr,
        _ => return None,
    };
    // Tags may be several, separated by colons; the first says whether the line is complete.
    let complete = !parts.next()?.starts_with(b"P");
    Some(Record {
        time,
        stream,
        complete,
        text: parts.next().unwrap_or_default(),
    })
}

/// Reads a line of a program that writes its log itself: text all of it, with the time in front if it says one.
pub fn parse_plain(line: &[u8]) -> Record<'_> {
    let text = line.strip_suffix(b"\n").unwrap_or(line);
    let first = text.split(|byte| *byte == b' ').next().unwrap_or_default();
    let time = std::str::from_utf8(first)
        .ok()
        .filter(|word| word.parse::<Timestamp>().is_ok());
    Record {
        time: time.unwrap_or_default(),
        stream: Stream::Stdout,
        complete: true,
        text,
    }
}

/// The last lines of a log as text, at most `limit` bytes. Empty if there is no log.
pub async fn last_lines(path: &Path, lines: usize, limit: usize) -> String {
    let path = path.to_owned();
    tokio::task::spawn_blocking(move || tail(&path, lines, limit).unwrap_or_default())
        .await
        .unwrap_or_default()
}

fn tail(path: &Path, lines: usize, limit: usize) -> std::io::Result<String> {
    let mut file = std::fs::File::open(path)?;
    let size = file.metadata()?.len();
    // Records are longer than their text; four times the limit holds enough of them.
    let from = size.saturating_sub(limit as u64 * 4);
    file.seek(SeekFrom::Start(from))?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    let mut records: Vec<&[u8]> = bytes.split_inclusive(|byte| *byte == b'\n').collect();
    if from > 0 && !records.is_empty() {
        records.remove(0);
    }
    let mut text = Vec::new();
    let skip = records.len().saturating_sub(lines);
    for record in records.into_iter().skip(skip).filter_map(parse) {
        text.extend_from_slice(record.text);
        if record.complete {
            text.push(b'\n');
        }
    }
    let cut = text.len().saturating_sub(limit);
    Ok(String::from_utf8_lossy(&text[cut..]).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records() {
        let record = parse(b"2026-01-02T03:04:05.6Z stderr P half a line\n").expect("a record");
        assert_eq!(
            (record.stream, record.complete, record.text),
            (Stream::Stderr, false, b"half a line".as_slice())
        );
        let empty = parse(b"2026-01-02T03:04:05.6Z stdout F \n").expect("a record");
        assert_eq!((empty.complete, empty.text), (true, b"".as_slice()));
        assert_eq!(parse(b"nonsense\n"), None);
    }
}
