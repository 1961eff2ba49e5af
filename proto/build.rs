//! Compiles every contract in this folder, without protoc.

use std::path::{Path, PathBuf};

/// Contracts that have a short name in the crate, if their file is there.
const NAMED: &[(&str, &str)] = &[("resources.proto", "has_resources"), ("cri.proto", "has_cri")];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let root = PathBuf::from(std::env::var("CARGO_MANIFEST_DIR")?);
    println!("cargo::rerun-if-changed=build.rs");
    // The folder itself is watched for files that come and go.
    println!("cargo::rerun-if-changed={}", root.display());

    let mut contracts = contracts(&root)?;
    contracts.sort();
    for contract in &contracts {
        println!("cargo::rerun-if-changed={}", contract.display());
    }
    for (file, cfg) in NAMED {
        println!("cargo::rustc-check-cfg=cfg({cfg})");
        if contracts.iter().any(|path| path.ends_with(file)) {
            println!("cargo::rustc-cfg={cfg}");
        }
    }

    let descriptors = protox::compile(&contracts, [&root])?;
    // Every `bytes` field is a `bytes::Bytes`: values go from socket to store and back without a copy.
    tonic_prost_build::configure()
        .bytes(".")
        .include_file("contracts.rs")
        .compile_fds(descriptors)?;
    Ok(())
}

fn contracts(root: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(root)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "proto") {
            found.push(path);
        }
    }
    Ok(found)
}
