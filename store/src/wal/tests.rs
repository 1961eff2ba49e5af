use super::*;

fn entry(index: u64, term: u64, data: &str) -> Entry {
    Entry {
        index,
        term,
        data: data.as_bytes().to_vec().into(),
        ..Entry::default()
    }
}

fn indexes(replay: &Replay) -> Vec<u64> {
    replay.entries.iter().map(|entry| entry.index).collect()
}

fn open(folder: &std::path::Path) -> Result<(Wal, Replay), WalError> {
    let disk = disk::FolderDisk::new(folder).map_err(|source| WalError::Io {
        attempt: "making",
        path: folder.to_owned(),
        source,
    })?;
    Wal::open(Box::new(disk))
}

fn segments(folder: &std::path::Path) -> std::io::Result<usize> {
    Ok(disk::FolderDisk::new(folder)?.segments()?.len())
}

fn first_segment(folder: &std::path::Path) -> std::io::Result<PathBuf> {
    let disk = disk::FolderDisk::new(folder)?;
    Ok(disk.path(disk.segments()?[0]))
}

type Outcome = Result<(), Box<dyn std::error::Error>>;

#[test]
fn what_was_synced_is_replayed() -> Outcome {
    let folder = tempfile::tempdir()?;
    {
        let (mut wal, replay) = open(folder.path())?;
        assert!(replay.entries.is_empty());
        for index in 1..=5 {
            wal.append(&entry(index, 1, "x"))?;
        }
        // A new leader's entries replace the old ones from 4 on.
        wal.append(&entry(4, 2, "y"))?;
        wal.set_hard_state(&HardState {
            term: 2,
            vote: 7,
            commit: 3,
            ..HardState::default()
        })?;
        wal.sync()?;
    }
    let (_, replay) = open(folder.path())?;
    assert_eq!(indexes(&replay), [1, 2, 3, 4]);
    assert_eq!(replay.entries[3], entry(4, 2, "y"));
    assert_eq!(
        (
            replay.hard_state.term,
            replay.hard_state.vote,
            replay.hard_state.commit
        ),
        (2, 7, 3)
    );
    Ok(())
}

#[test]
fn a_torn_end_is_cut_off_wherever_it_was_torn() -> Outcome {
    let folder = tempfile::tempdir()?;
    let whole = {
        let (mut wal, _) = open(folder.path())?;
        wal.append(&entry(1, 1, "first"))?;
        wal.append(&entry(2, 1, "second"))?;
        wal.sync()?;
        wal.current.bytes as usize
    };
    let path = first_segment(folder.path())?;
    let content = std::fs::read(&path)?;
    let second = record::entry_bytes(&entry(2, 1, "second"));
    for torn in 1..second {
        let mut damaged = content.clone();
        // The last `torn` bytes of the last record never reached the disk, and behind it stands old rubbish.
        damaged[whole - torn..whole].fill(0xa5);
        damaged[whole + 100..whole + 200].fill(0x11);
        std::fs::write(&path, &damaged)?;
        let (mut wal, replay) = open(folder.path())?;
        assert_eq!(indexes(&replay), [1], "torn by {torn} bytes");
        // What is written over the cut must be readable, and be the end again.
        wal.append(&entry(2, 2, "s"))?;
        wal.sync()?;
        drop(wal);
        let (_, replay) = open(folder.path())?;
        assert_eq!(indexes(&replay), [1, 2], "torn by {torn} bytes");
        assert_eq!(replay.entries[1].term, 2);
    }
    Ok(())
}

#[test]
fn segments_before_the_mark_are_deleted_and_the_rest_is_whole() -> Outcome {
    let folder = tempfile::tempdir()?;
    let data = "d".repeat(1 << 20);
    {
        let (mut wal, _) = open(folder.path())?;
        for index in 1..=40 {
            wal.append(&entry(index, 3, &data))?;
            wal.sync()?;
        }
        assert!(segments(folder.path())? >= 5);
        wal.release(Mark { index: 30, term: 3 })?;
        assert!(segments(folder.path())? <= 3);
    }
    let (_, replay) = open(folder.path())?;
    assert_eq!(replay.mark, Mark { index: 30, term: 3 });
    assert_eq!(indexes(&replay), (31..=40).collect::<Vec<_>>());
    Ok(())
}

#[test]
fn damage_before_the_last_segment_is_an_error() -> Outcome {
    let folder = tempfile::tempdir()?;
    let data = "d".repeat(1 << 20);
    {
        let (mut wal, _) = open(folder.path())?;
        for index in 1..=12 {
            wal.append(&entry(index, 1, &data))?;
        }
        wal.sync()?;
    }
    let path = first_segment(folder.path())?;
    let mut content = std::fs::read(&path)?;
    content[2 << 20] ^= 1;
    std::fs::write(&path, content)?;
    assert!(matches!(open(folder.path()), Err(WalError::Damaged { .. })));
    Ok(())
}

#[test]
fn a_reset_forgets_everything_before_it() -> Outcome {
    let folder = tempfile::tempdir()?;
    {
        let (mut wal, _) = open(folder.path())?;
        wal.append(&entry(1, 1, "a"))?;
        wal.reset(Mark { index: 100, term: 5 })?;
        wal.append(&entry(101, 5, "b"))?;
        wal.sync()?;
    }
    let (_, replay) = open(folder.path())?;
    assert_eq!(replay.mark, Mark { index: 100, term: 5 });
    assert_eq!(indexes(&replay), [101]);
    Ok(())
}

#[test]
fn a_reset_makes_entries_behind_its_mark_void_too() -> Outcome {
    let folder = tempfile::tempdir()?;
    {
        let (mut wal, _) = open(folder.path())?;
        for index in 1..=9 {
            wal.append(&entry(index, 1, "of a leader that was deposed"))?;
        }
        wal.sync()?;
        wal.reset(Mark { index: 5, term: 3 })?;
    }
    let (_, replay) = open(folder.path())?;
    assert_eq!(replay.mark, Mark { index: 5, term: 3 });
    assert_eq!(indexes(&replay), [0_u64; 0]);
    Ok(())
}

#[test]
fn damage_of_what_was_synced_is_no_torn_end() -> Outcome {
    let folder = tempfile::tempdir()?;
    let mut ends = Vec::new();
    {
        let (mut wal, _) = open(folder.path())?;
        for index in 1..=5 {
            wal.append(&entry(index, 1, "an entry"))?;
            wal.sync()?;
            ends.push(wal.current.bytes as usize);
        }
    }
    let path = first_segment(folder.path())?;
    let content = std::fs::read(&path)?;
    let last_write = ends[3];
    for place in (0..ends[4]).step_by(7) {
        let mut damaged = content.clone();
        damaged[place] ^= 0x10;
        std::fs::write(&path, &damaged)?;
        match open(folder.path()) {
            Err(WalError::Damaged { .. }) => assert!(place < last_write + record::SYNCED_BYTES, "{place}"),
            Err(error) => return Err(error.into()),
            // Of the last write nobody can say whether it was ever acknowledged.
            Ok((_, replay)) => {
                assert!(place >= last_write, "damage at {place} went unnoticed");
                assert!(replay.entries.len() >= 4);
            }
        }
    }
    Ok(())
}
