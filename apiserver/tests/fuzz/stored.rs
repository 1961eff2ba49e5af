//! What the store holds, which may have been damaged or written by somebody else.

use keelson_apiserver::storage::encryption::ciphers::Cipher;
use keelson_apiserver::storage::encryption::kms::{Source, frame_of, key_in_use, taken_apart};
use keelson_apiserver::storage::entry::with_version;
use keelson_fuzz::bounded;
use keelson_proto::kms::{EncryptResponse, EncryptedDekSourceType, StatusResponse};
use prost::Message as _;
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

/// Values under seeds that a key management service has wrapped, and what such a service answers.
#[test]
fn values_of_a_key_management_service() {
    const PLAIN: &[u8] = b"{\"metadata\":{}}";
    const KEY: &[u8] = b"/registry/secrets/a";
    let seed = [7; 32];
    let wrapped = EncryptResponse {
        ciphertext: b"wrapped".as_slice().into(),
        key_id: "1".into(),
        annotations: [("version.example.com".to_owned(), b"1".as_slice().into())].into(),
    };
    let kind = EncryptedDekSourceType::HkdfSha256XnonceAesGcmSeed;
    let frame = frame_of(wrapped.clone()).expect("a frame");
    let source = Source::of(kind, &seed).expect("a seed");
    let sealed = source.seal(frame.clone(), PLAIN, KEY).expect("sealed");
    let (again, data) = taken_apart(&sealed).expect("taken apart");
    assert_eq!(again, frame);
    assert_eq!(source.open(&data, KEY).as_deref(), Ok(PLAIN));
    let status = StatusResponse {
        version: "v2".into(),
        healthz: "ok".into(),
        key_id: "1".into(),
    };
    let read = |input: &[u8]| {
        if let Ok((frame, data)) = taken_apart(input) {
            assert!(!data.is_empty() && !frame.key_id.is_empty());
            for unwrapped in [seed.as_slice(), input] {
                // Nothing opens but what was sealed; what stands around it is not part of that.
                if let Ok(source) = Source::of(frame.encrypted_dek_source_type(), unwrapped)
                    && let Ok(opened) = source.open(&data, KEY)
                {
                    assert_eq!(opened, PLAIN);
                }
            }
        }
        if let Ok(answer) = EncryptResponse::decode(input)
            && let Ok(frame) = frame_of(answer)
        {
            let sealed = source.seal(frame.clone(), PLAIN, KEY).expect("sealed");
            assert_eq!(taken_apart(&sealed).map(|(frame, _)| frame), Ok(frame));
        }
        let _ = StatusResponse::decode(input).map(key_in_use);
    };
    fuzz("kms")
        .examples([sealed.clone(), wrapped.encode_to_vec(), status.encode_to_vec()])
        .words(&[
            "v2", "v2beta1", "ok", "\x0a", "\x12", "\x1a", "\x22", "\x2a", "\x08",
        ])
        .rounds(2_000)
        .run(bounded(read));
}
