//! What was committed is there, whatever happens meanwhile; damage is noticed.

use std::ops::ControlFlow;

use super::*;

fn batch(range: std::ops::Range<u32>, size: usize) -> Batch {
    let mut batch = Batch::default();
    for number in range {
        batch.put(
            number.to_be_bytes().to_vec(),
            Bytes::from(vec![number as u8; size]),
        );
    }
    batch
}

/// Damage anywhere is noticed, or does not matter; it never makes other records of what was committed.
#[test]
fn damage_is_noticed_or_does_no_harm() -> Result<(), Box<dyn std::error::Error>> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("state");
    {
        let engine = SledEngine::open(&path)?;
        engine.commit(batch(0..100, 300))?;
        engine.commit(batch(50..200, 100))?;
    }
    type Records = Vec<(Vec<u8>, Vec<u8>)>;
    let all = |path: &Path| -> Result<Records, EngineError> {
        let mut all = Records::new();
        SledEngine::open(path)?.scan(&[0], &[0xff; 5], &mut |key, value| {
            all.push((key.to_vec(), value.to_vec()));
            ControlFlow::Continue(())
        })?;
        Ok(all)
    };
    let whole = all(&path)?;
    let mut files = Vec::new();
    let mut folders = vec![path.clone()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder)? {
            let entry = entry?;
            match entry.file_type()?.is_dir() {
                true => folders.push(entry.path()),
                false => files.push(entry.path()),
            }
        }
    }
    let (mut noticed, mut lost) = (0, 0);
    for file in files {
        let content = std::fs::read(&file)?;
        let places = content.iter().enumerate().filter(|(_, byte)| **byte != 0);
        let places: Vec<usize> = places.map(|(place, _)| place).collect();
        for place in places.iter().step_by(places.len().div_ceil(12).max(1)) {
            let copy = folder.path().join("copy");
            let status = std::process::Command::new("cp")
                .arg("-r")
                .arg(&path)
                .arg(&copy)
                .status()?;
            assert!(status.success());
            let mut damaged = content.clone();
            damaged[*place] ^= 0x40;
            std::fs::write(copy.join(file.strip_prefix(&path)?), damaged)?;
            match all(&copy) {
                Err(_) => noticed += 1,
                Ok(found) if found == whole => {}
                // An older state, or none: the log, which goes on later, shows that.
                Ok(found) => {
                    lost += 1;
                    assert!(
                        found.is_empty() || found.len() == 100,
                        "damage of {file:?} at {place}"
                    );
                }
            }
            std::fs::remove_dir_all(copy)?;
        }
    }
    println!("{noticed} noticed, {lost} fell back");
    assert!(noticed > 0);
    Ok(())
}

#[test]
fn what_was_committed_is_there_after_opening_again() -> Result<(), Box<dyn std::error::Error>> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("state");
    {
        let engine = SledEngine::open(&path)?;
        engine.commit(batch(0..1000, 2000))?;
        let mut more = batch(1000..1001, 5);
        more.remove(7_u32.to_be_bytes().to_vec());
        engine.commit(more)?;
        engine.trim(Pressure::Idle)?;
        assert_eq!(engine.get(&1000_u32.to_be_bytes())?.map(|v| v.len()), Some(5));
    }
    let engine = SledEngine::open(&path)?;
    assert_eq!(engine.get(&7_u32.to_be_bytes())?, None);
    let mut seen = 0;
    engine.scan(&[0], &[0xff; 5], &mut |_, _| {
        seen += 1;
        ControlFlow::Continue(())
    })?;
    assert_eq!(seen, 1000);
    Ok(())
}

#[test]
fn a_state_with_leaves_of_an_earlier_size_is_read() -> Result<(), Box<dyn std::error::Error>> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("state");
    {
        let former = config(&path.join("index")).open::<FORMER_LEAF_FANOUT>()?;
        for number in 0..1000_u32 {
            former.insert(number.to_be_bytes(), record::inline(&number.to_be_bytes()))?;
        }
        former.flush()?;
    }
    for _ in 0..2 {
        let engine = SledEngine::open(&path)?;
        for number in 0..1000_u32 {
            let found = engine.get(&number.to_be_bytes())?;
            assert_eq!(found.as_deref(), Some(&number.to_be_bytes()[..]));
        }
    }
    assert!(!path.join("index").exists(), "the former one is still there");
    Ok(())
}

fn value(number: u32, round: u32) -> Bytes {
    Bytes::from(format!("{round}.{number} ").repeat(1000))
}

fn all_values(engine: &SledEngine, keys: u32, round: impl Fn(u32) -> u32) -> Result<(), EngineError> {
    let names: Vec<Vec<u8>> = (0..keys).map(|number| number.to_be_bytes().to_vec()).collect();
    for (number, found) in (0..).zip(engine.get_all(&names)?) {
        assert!(found == Some(value(number, round(number))), "{number}");
    }
    Ok(())
}

#[test]
fn files_of_which_little_is_wanted_are_emptied_and_deleted() -> Result<(), Box<dyn std::error::Error>> {
    const KEYS: u32 = 3000;
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("state");
    let engine = SledEngine::open(&path)?;
    let put = |round: u32, wanted: &dyn Fn(u32) -> bool| {
        let mut batch = Batch::default();
        for number in (0..KEYS).filter(|number| wanted(*number)) {
            batch.put(number.to_be_bytes().to_vec(), value(number, round));
        }
        engine.commit(batch)
    };
    put(0, &|_| true)?;
    let once = engine.disk_bytes();
    // Every third key keeps its first value: no file is without any that is wanted.
    for round in 1..6 {
        put(round, &|number| number % 3 != 0)?;
    }
    let grown = engine.disk_bytes();
    assert!(grown > 2 * once, "{once} {grown}");
    let mut pieces = 0;
    while engine.collect()? {
        pieces += 1;
    }
    assert!(pieces > 0);
    assert!(engine.disk_bytes() < 2 * once, "{once} {}", engine.disk_bytes());
    let round = |number: u32| if number.is_multiple_of(3) { 0 } else { 5 };
    all_values(&engine, KEYS, round)?;
    drop(engine);
    let engine = SledEngine::open(&path)?;
    all_values(&engine, KEYS, round)?;
    assert!(!engine.collect()?);
    Ok(())
}

/// What a crash leaves behind the last batch, in a file of values or as a file, is not taken for anything.
#[test]
fn values_that_were_not_committed_are_cut_off() -> Result<(), Box<dyn std::error::Error>> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("state");
    {
        let engine = SledEngine::open(&path)?;
        engine.commit(batch(0..10, 1000))?;
    }
    let values = path.join(VALUES_FOLDER);
    let file = values.join("1");
    let committed = std::fs::read(&file)?;
    std::fs::write(&file, [&committed[..], b"half a record"].concat())?;
    std::fs::write(values.join("2"), b"a file that sled was never told of")?;
    {
        let engine = SledEngine::open(&path)?;
        assert_eq!(std::fs::read(&file)?, committed);
        assert!(!values.join("2").exists());
        engine.commit(batch(10..20, 1000))?;
    }
    let engine = SledEngine::open(&path)?;
    for number in 0..20_u32 {
        let found = engine.get(&number.to_be_bytes())?;
        assert_eq!(found.map(|value| value.to_vec()), Some(vec![number as u8; 1000]));
    }
    drop(engine);
    std::fs::write(&file, &committed[..100])?;
    assert!(SledEngine::open(&path).is_err(), "a file that is too short");
    std::fs::remove_file(&file)?;
    assert!(SledEngine::open(&path).is_err(), "a file that is missing");
    Ok(())
}

#[test]
fn readers_find_values_that_are_moved() -> Result<(), Box<dyn std::error::Error>> {
    const KEYS: u32 = 300;
    let folder = tempfile::tempdir()?;
    let engine = SledEngine::open(&folder.path().join("state"))?;
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| -> Result<(), EngineError> {
            while !stop.load(Ordering::Acquire) {
                engine.get_all(&[7_u32.to_be_bytes().to_vec(), 9_u32.to_be_bytes().to_vec()])?;
                engine.scan(&[0], &[0xff; 5], &mut |_, value| {
                    assert!(value.len() > 100);
                    ControlFlow::Continue(())
                })?;
            }
            Ok(())
        });
        for round in 0..40 {
            let mut batch = Batch::default();
            for number in (0..KEYS).filter(|number| round == 0 || number % 7 != 0) {
                batch.put(
                    number.to_be_bytes().to_vec(),
                    value(number, round).repeat(8).into(),
                );
            }
            engine.commit(batch)?;
            while engine.collect()? {}
            if round % 8 == 0 {
                engine.open_anew()?;
            }
        }
        stop.store(true, Ordering::Release);
        reader.join().map_err(|_| "the reader failed")??;
        Ok(())
    })
}

/// Opening again waits for who is reading, but nobody waits for it.
#[test]
fn readers_do_not_wait_while_sled_is_opened_again() -> Result<(), Box<dyn std::error::Error>> {
    const KEYS: u32 = 300;
    let folder = tempfile::tempdir()?;
    let engine = SledEngine::open(&folder.path().join("state"))?;
    engine.commit(batch(0..KEYS, 100))?;
    let (reading, is_reading) = std::sync::mpsc::channel();
    let (go_on, may_go_on) = std::sync::mpsc::channel();
    std::thread::scope(|scope| {
        let engine = &engine;
        let slow = scope.spawn(move || {
            let mut seen = 0;
            let scanned = engine.scan(&[0], &[0xff; 5], &mut |_, _| {
                if seen == 0 {
                    let _ = reading.send(());
                    let _ = may_go_on.recv();
                }
                seen += 1;
                ControlFlow::Continue(())
            });
            scanned.map(|()| seen)
        });
        is_reading.recv()?;
        let before = engine.handles("looking")?.generation;
        let opening = scope.spawn(|| engine.open_anew());
        // The new handles are there, the old ones are still read from, and others read meanwhile.
        while engine.handles("looking")?.generation == before {
            assert!(engine.get(&7_u32.to_be_bytes())?.is_some());
            assert!(!opening.is_finished());
        }
        assert!(engine.get(&7_u32.to_be_bytes())?.is_some());
        assert!(!opening.is_finished() && !slow.is_finished());
        go_on.send(())?;
        assert_eq!(slow.join().map_err(|_| "the reader failed")??, KEYS);
        opening.join().map_err(|_| "opening failed")??;
        engine.commit(batch(0..KEYS, 200))?;
        assert_eq!(
            engine.get(&7_u32.to_be_bytes())?.map(|value| value.len()),
            Some(200)
        );
        Ok(())
    })
}

fn copy(from: &Path, to: &Path) -> Result<(), Box<dyn std::error::Error>> {
    let status = std::process::Command::new("cp")
        .args(["-r", "--preserve=links"])
        .args([from, to])
        .status()?;
    assert!(status.success());
    Ok(())
}

/// A crash may leave a twin that is not complete, both of a pair, or a pair of which the younger has gone on.
#[test]
fn the_youngest_twin_counts_after_a_crash() -> Result<(), Box<dyn std::error::Error>> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("state");
    let engine = SledEngine::open(&path)?;
    let check = |name: &str, length: usize| -> Result<(), Box<dyn std::error::Error>> {
        let crashed = folder.path().join(name);
        copy(&path, &crashed)?;
        let engine = SledEngine::open(&crashed)?;
        for number in 0..200_u32 {
            let found = engine.get(&number.to_be_bytes())?;
            assert_eq!(found.map(|value| value.len()), Some(length), "{name} {number}");
        }
        let mut names = Vec::new();
        for entry in std::fs::read_dir(&crashed)? {
            names.push(entry?.file_name());
        }
        assert_eq!(names.len(), 2, "{name}: {names:?}");
        Ok(())
    };
    engine.commit(batch(0..200, 100))?;
    engine.commit(batch(0..200, 120))?;
    let first = engine.handles("looking")?.generation;
    std::fs::create_dir(path.join("index-unfinished"))?;
    check("unfinished", 120)?;
    let twin = generations::twin(&path, first)?.ok_or("no twin")?;
    check("both", 120)?;
    generations::take_back(&path, twin)?;
    check("taken back", 120)?;
    // The older one is there again, as if it could not be deleted before the younger one had gone on.
    copy(&first.folder(&path), &folder.path().join("older"))?;
    engine.open_anew()?;
    assert!(!first.folder(&path).exists());
    copy(&folder.path().join("older"), &first.folder(&path))?;
    engine.commit(batch(0..200, 140))?;
    engine.commit(batch(0..200, 160))?;
    check("gone on", 160)?;
    Ok(())
}

/// Every opening again leaves one folder, whatever was written in between, and nothing is lost.
#[test]
fn much_is_written_and_opened_again_many_times() -> Result<(), Box<dyn std::error::Error>> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("state");
    let engine = SledEngine::open(&path)?;
    for round in 0..30_u32 {
        // Removing empties leaves, whose places are used again.
        let mut changes = batch(round * 500..(round + 1) * 500, 40);
        for number in (round.saturating_sub(3) * 500..round * 500).filter(|number| number % 10 != 0) {
            changes.remove(number.to_be_bytes().to_vec());
        }
        engine.commit(changes)?;
        engine.open_anew()?;
        let mut found = 0;
        engine.scan(&[0], &[0xff; 5], &mut |key, value| {
            assert_eq!(value[0], key[3]);
            found += 1;
            ControlFlow::Continue(())
        })?;
        assert_eq!(found, 500 + round * 50);
    }
    drop(engine);
    assert_eq!(std::fs::read_dir(&path)?.count(), 2);
    SledEngine::open(&path)?;
    Ok(())
}
