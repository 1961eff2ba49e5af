//! What was written reads back.

use std::convert::Infallible;
use std::io::Write as _;
use std::ops::ControlFlow;

use super::read::{ReadError, Reader};
use super::write::Writer;

type Records = Vec<(Vec<u8>, Vec<u8>)>;

fn file_of(buckets: &[(&str, Records)]) -> anyhow::Result<Vec<u8>> {
    let fill = |writer: &mut Writer<'_>| {
        for (name, records) in buckets {
            for (key, value) in records {
                writer.record(key, value);
            }
            writer.end_bucket(name);
        }
        Ok::<(), Infallible>(())
    };
    let pages = Writer::count(fill)?;
    let mut content = Vec::new();
    let mut sink = |bytes: &[u8]| {
        content.extend_from_slice(bytes);
        ControlFlow::Continue(())
    };
    assert!(Writer::write(pages, &mut sink, fill)?);
    assert_eq!(content.len() as u64, pages * 4096);
    Ok(content)
}

fn read(content: &[u8], bucket: &str) -> Result<Option<Records>, ReadError> {
    let mut file = tempfile::tempfile()?;
    file.write_all(content)?;
    let mut records = Records::new();
    let found = Reader::open(&file, content.len() as u64)?.bucket(bucket, &mut |key, value| {
        records.push((key.to_vec(), value.to_vec()));
        Ok(())
    })?;
    Ok(found.then_some(records))
}

fn records(count: u32, bytes: usize) -> Records {
    (0..count)
        .map(|number| (number.to_be_bytes().to_vec(), vec![number as u8; bytes]))
        .collect()
}

#[test]
fn what_was_written_reads_back() -> anyhow::Result<()> {
    // None, one, many (two levels of branches), and values over many pages.
    let buckets = [
        ("empty", records(0, 0)),
        ("large", records(5, 100_000)),
        ("many", records(60_000, 40)),
        ("one", records(1, 10)),
    ];
    let content = file_of(&buckets)?;
    for (name, records) in &buckets {
        assert!(read(&content, name)?.as_ref() == Some(records), "{name}");
    }
    assert!(read(&content, "other")?.is_none());
    Ok(())
}

#[test]
fn damage_is_an_error_or_does_no_harm() -> anyhow::Result<()> {
    let content = file_of(&[("b", records(300, 100))])?;
    for place in (0..content.len()).step_by(7) {
        for bit in [1, 0x80] {
            let mut damaged = content.clone();
            damaged[place] ^= bit;
            // Values are guarded by the backup's own checksum; here nothing may fail but with an error.
            let _ = read(&damaged, "b");
        }
    }
    assert!(matches!(read(&[], "b"), Err(ReadError::Foreign)));
    assert!(matches!(read(&[0; 10_000], "b"), Err(ReadError::Foreign)));
    assert!(read(&content[..content.len() / 2], "b").is_err());
    Ok(())
}
