//! What the kubelet reads of users, of the runtime's files and of the node's, fed with what nobody should send.

use std::collections::BTreeMap;
use std::path::PathBuf;

use jiff::Timestamp;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{Pod, Secret};
use keelson_fuzz::{Counted, Fuzz, bounded, text};
use keelson_kubelet::images::{auth, reference};
use keelson_kubelet::logs::cri_format;
use keelson_kubelet::logs::reader::{self, Options};
use keelson_kubelet::pods::{host_processes, static_pods};
use keelson_kubelet::server::logs::asked;

#[global_allocator]
static ALLOCATOR: Counted = Counted;

fn fuzz(name: &str) -> Fuzz {
    Fuzz::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/corpus"), name)
}

fn scratch(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("fuzz-{name}-{}", std::process::id()))
}

/// Everything `kubectl logs` gets with these options.
fn read(runtime: &tokio::runtime::Runtime, path: &std::path::Path, options: &Options) -> Vec<u8> {
    runtime.block_on(async {
        let (sender, mut receiver) = tokio::sync::mpsc::channel(16);
        let reads = reader::read(path, options, || false, sender);
        let takes = async {
            let mut all = Vec::new();
            while let Some(piece) = receiver.recv().await {
                all.extend_from_slice(&piece);
            }
            all
        };
        let (read, all) = tokio::join!(reads, takes);
        read.expect("the file is read");
        all
    })
}

#[test]
fn logs() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .expect("a runtime");
    let path = scratch("log");
    let decode = |input: &[u8]| {
        for line in input.split_inclusive(|byte| *byte == b'\n') {
            if let Some(record) = cri_format::parse(line) {
                let _ = record.timestamp();
                assert!(record.text.len() < line.len());
            }
            let _ = cri_format::parse_plain(line).timestamp();
        }
        std::fs::write(&path, input).expect("the log");
        let whole = read(&runtime, &path, &Options::default());
        let timed = Options {
            timestamps: true,
            ..Options::default()
        };
        assert!(read(&runtime, &path, &timed).len() >= whole.len());
        let all = Options {
            tail: Some(u64::MAX),
            ..Options::default()
        };
        assert_eq!(read(&runtime, &path, &all), whole);
        let last = Options {
            tail: Some(2),
            limit_bytes: Some(9),
            since: Some(Timestamp::UNIX_EPOCH),
            ..Options::default()
        };
        assert!(read(&runtime, &path, &last).len() <= 9);
        let plain = Options {
            plain: true,
            ..Options::default()
        };
        let _ = read(&runtime, &path, &plain);
    };
    let words = [
        "2026-01-02T03:04:05.678901234Z ",
        "2026-01-02T03:04:05+25:00 ",
        "-009999-01-01T00:00:00Z ",
        "stdout ",
        "stderr ",
        "F ",
        "P ",
        "P:X ",
        "\n",
        "\r\n",
        " ",
    ];
    fuzz("log").words(&words).rounds(500).run(bounded(decode));
    let _ = std::fs::remove_file(&path);
}

#[test]
fn parameters_of_logs() {
    let words = [
        "sinceSeconds=",
        "sinceTime=",
        "tailLines=",
        "limitBytes=",
        "follow=true",
        "previous=1",
        "timestamps=t",
        "stream=Stdout",
        "2026-01-02T03:04:05Z",
        "9223372036854775807",
        "-1",
        "&",
        "=",
        "%",
        "%2B",
        "%+f",
        "+",
    ];
    fuzz("log-parameters")
        .words(&words)
        .run(bounded(|input: &[u8]| drop(asked(&text(input)))));
}

#[test]
fn manifests() {
    let decode = |input: &[u8]| {
        if let Ok(pod) = static_pods::read(&text(input), "web.yaml", "n1") {
            let sent = serde_json::to_vec(&pod).expect("a pod");
            assert_eq!(serde_json::from_slice::<Pod>(&sent).expect("a pod"), pod);
            assert!(static_pods::is_static(&pod));
        }
    };
    let words = [
        "apiVersion: v1\n",
        "kind: Pod\n",
        "metadata: {name: a}\n",
        "spec:\n",
        "containers:\n",
        "- {name: c, image: i}\n",
        "resources: {limits: {cpu: 100m}}\n",
        "volumes:\n",
        "hostPath: {path: /}\n",
        "annotations: {kubernetes.io/config.mirror: x}\n",
        "&a ",
        "*a",
        "<<: *a",
        "[*a, *a]",
        "!!binary ",
        "---\n",
        "\n  ",
        "~",
        "1e999",
        "0o17",
        "[",
        "{",
        "- ",
    ];
    fuzz("manifest").words(&words).rounds(300).run(bounded(decode));
}

#[test]
fn credentials_for_registries() {
    let decode = |input: &[u8]| {
        for (kind, key) in [
            ("kubernetes.io/dockerconfigjson", ".dockerconfigjson"),
            ("kubernetes.io/dockercfg", ".dockercfg"),
        ] {
            let secret = Secret {
                type_: Some(kind.to_owned()),
                data: Some(BTreeMap::from([(key.to_owned(), ByteString(input.to_vec()))])),
                ..Secret::default()
            };
            let _ = auth::matching("registry.example.com/team/app:1", &[secret]);
        }
    };
    let words = [
        "\"auths\":{",
        "\"registry.example.com\":{",
        "\"*.example.com/team\":{",
        "\"https://index.docker.io/v1/\":{",
        "\"auth\":\"dTpw\"",
        "\"username\":",
        "\"identitytoken\":",
        "{}",
        "null",
        "*",
    ];
    fuzz("registry-credentials").words(&words).run(bounded(decode));
}

#[test]
fn names_of_images() {
    let decode = |input: &[u8]| {
        let name = text(input);
        let _ = reference::repository(&name);
        if let Ok(whole) = reference::with_default_tag(&name) {
            assert_eq!(reference::with_default_tag(&whole).as_ref(), Ok(&whole));
        }
    };
    let words = [
        "docker.io/",
        "localhost:5000/",
        "[::1]:5000/",
        "library/",
        ":latest",
        "@sha256:",
        "0123456789abcdef0123456789abcdef",
        "a",
        "A",
        "__",
        "--",
        ".",
        "/",
        ":",
        "@",
    ];
    fuzz("image").words(&words).run(bounded(decode));
}

#[test]
fn what_runs_on_the_host() {
    let path = scratch("host-processes");
    let decode = |input: &[u8]| {
        std::fs::write(&path, input).expect("the file");
        for (name, process) in host_processes::read(&path) {
            let pod = host_processes::pod(&name, &process, "n1");
            let _ = host_processes::status(&name, &process, &pod, &[], Timestamp::UNIX_EPOCH);
        }
    };
    let words = [
        "\"ready\":true",
        "\"stopped\":true",
        "\"restarts\":",
        "\"lastExit\":",
        "\"tier\":\"control-plane\"",
        "\"command\":[\"a\"]",
        "\"log\":\"/a\"",
        "\"pid\":",
        "null",
        "-1",
    ];
    fuzz("host-processes")
        .words(&words)
        .rounds(2_000)
        .run(bounded(decode));
    let _ = std::fs::remove_file(&path);
}
