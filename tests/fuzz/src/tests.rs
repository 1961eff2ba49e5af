use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use super::Fuzz;

fn folder(name: &str) -> std::path::PathBuf {
    let folder = std::env::temp_dir().join(format!("fuzz-test-{name}-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&folder);
    folder
}

/// Fails on three letters in a row.
fn feed(input: &[u8]) {
    assert!(!input.windows(3).any(|three| three == b"abc"), "found");
}

#[test]
fn an_input_that_fails_is_found_shortened_and_kept() {
    let corpus = folder("found");
    let run = || {
        let fuzz = Fuzz::new(&corpus, "letters").words(&["a", "b", "c"]);
        catch_unwind(AssertUnwindSafe(|| fuzz.examples([b"xaybzc".to_vec()]).run(feed)))
    };
    assert!(run().is_err());
    let kept = super::corpus::read(&corpus.join("letters"));
    assert_eq!(kept, [b"abc".to_vec()]);
    // It is tried before anything else the next time, and is the same.
    assert!(run().is_err());
    assert_eq!(super::corpus::read(&corpus.join("letters")), kept);
    let _ = std::fs::remove_dir_all(&corpus);
}

#[test]
fn a_decoder_without_faults_passes_and_leaves_nothing() {
    let corpus = folder("fine");
    Fuzz::new(&corpus, "fine").run(|input| {
        assert!(input.len() <= super::LONGEST);
    });
    assert!(!Path::new(&corpus).exists());
}
