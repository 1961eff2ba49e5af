//! What the store holds, which may have been damaged or written by somebody else.

use keelson_apiserver::storage::encryption::ciphers::Cipher;
use keelson_apiserver::storage::entry::with_version;
use keelson_fuzz::bounded;
use serde_json::Value;

use super::fuzz;

#[test]
fn objects() {
    let read = |input: &[u8]| {
        let shown = with_version(input, 7);
        assert!(shown.len() <= input.len() + 48);
        // What was an object is one still, unless it says where it begins in a way this server does not write.
        if let Ok(before) = serde_json::from_slice::<Value>(input)
            && before.to_string().as_bytes() == input
        {
            serde_json::from_slice::<Value>(&shown).expect("JSON still");
        }
    };
    let words = [
        "\"metadata\":{",
        "\"metadata\":{}",
        "\"metadata\":null",
        "{\"spec\":{\"metadata\":{",
        "\\\"",
        "\\",
        "\"",
        "[{",
        "}]",
        "{}",
    ];
    fuzz("stored").words(&words).run(bounded(read));
}

#[test]
fn encrypted_values() {
    let ciphers = || {
        [
            Cipher::cbc(&[1; 32]),
            Cipher::gcm(&[2; 16]),
            Cipher::secretbox(&[3; 32]),
        ]
    };
    let sealed = ciphers().into_iter().flatten().map(|cipher| {
        cipher
            .seal(b"{\"metadata\":{}}", b"/registry/secrets/a")
            .expect("sealed")
    });
    let examples: Vec<Vec<u8>> = sealed.collect();
    let open = |input: &[u8]| {
        for (number, cipher) in ciphers().into_iter().flatten().enumerate() {
            let opened = cipher.open(input, b"/registry/secrets/a");
            // The first cannot tell; the others open nothing they did not seal.
            assert!(number == 0 || opened.is_err() || examples.iter().any(|example| example == input));
        }
    };
    fuzz("encrypted")
        .examples(examples.clone())
        .rounds(2_000)
        .run(bounded(open));
}
