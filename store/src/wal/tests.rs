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

type Outcome = Result<(), Box<dyn std::error::Error>>;

#[test]
fn what_was_synced_is_replayed() -> Outcome {
    let folder = tempfile::tempdir()?;
    {
        let (mut wal, replay) = Wal::open(folder.path())?;
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
    let (_, replay) = Wal::open(folder.path())?;
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
        let (mut wal, _) = Wal::open(folder.path())?;
        wal.append(&entry(1, 1, "first"))?;
        wal.append(&entry(2, 1, "second"))?;
        wal.sync()?;
        wal.current.bytes as usize
    };
    let path = segment::list(folder.path())?[0].1.clone();
    let content = std::fs::read(&path)?;
    let second = record::entry_bytes(&entry(2, 1, "second"));
    for torn in 1..second {
        let mut damaged = content.clone();
        // The last `torn` bytes of the last record never reached the disk, and behind it stands old rubbish.
        damaged[whole - torn..whole].fill(0xa5);
        damaged[whole + 100..whole + 200].fill(0x11);
        std::fs::write(&path, &damaged)?;
        let (mut wal, replay) = Wal::open(folder.path())?;
        assert_eq!(indexes(&replay), [1], "torn by {torn} bytes");
        // What is written over the cut must be readable, and be the end again.
        wal.append(&entry(2, 2, "s"))?;
        wal.sync()?;
        drop(wal);
        let (_, replay) = Wal::open(folder.path())?;
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
        let (mut wal, _) = Wal::open(folder.path())?;
        for index in 1..=40 {
            wal.append(&entry(index, 3, &data))?;
            wal.sync()?;
        }
        assert!(segment::list(folder.path())?.len() >= 5);
        wal.release(Mark { index: 30, term: 3 })?;
        assert!(segment::list(folder.path())?.len() <= 3);
    }
    let (_, replay) = Wal::open(folder.path())?;
    assert_eq!(replay.mark, Mark { index: 30, term: 3 });
    assert_eq!(indexes(&replay), (31..=40).collect::<Vec<_>>());
    Ok(())
}

#[test]
fn damage_before_the_last_segment_is_an_error() -> Outcome {
    let folder = tempfile::tempdir()?;
    let data = "d".repeat(1 << 20);
    {
        let (mut wal, _) = Wal::open(folder.path())?;
        for index in 1..=12 {
            wal.append(&entry(index, 1, &data))?;
        }
        wal.sync()?;
    }
    let path = segment::list(folder.path())?[0].1.clone();
    let mut content = std::fs::read(&path)?;
    content[2 << 20] ^= 1;
    std::fs::write(&path, content)?;
    assert!(matches!(Wal::open(folder.path()), Err(WalError::Damaged { .. })));
    Ok(())
}

#[test]
fn a_reset_forgets_everything_before_it() -> Outcome {
    let folder = tempfile::tempdir()?;
    {
        let (mut wal, _) = Wal::open(folder.path())?;
        wal.append(&entry(1, 1, "a"))?;
        wal.reset(Mark { index: 100, term: 5 })?;
        wal.append(&entry(101, 5, "b"))?;
        wal.sync()?;
    }
    let (_, replay) = Wal::open(folder.path())?;
    assert_eq!(replay.mark, Mark { index: 100, term: 5 });
    assert_eq!(indexes(&replay), [101]);
    Ok(())
}
