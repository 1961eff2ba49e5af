//! An OCI image archive: the image layout specification's folder, as one tar.

use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tar::{Builder, EntryType, Header};

/// One image of one layer.
pub struct Image {
    /// Full names, with tags; all name the same image.
    pub names: Vec<String>,
    /// The root file system, a tar.
    pub layer: Vec<u8>,
    /// The program that is started.
    pub entrypoint: Vec<String>,
    /// Its arguments, unless the pod gives others.
    pub command: Vec<String>,
    /// `NAME=VALUE`.
    pub environment: Vec<String>,
    /// `UID:GID`; empty is root.
    pub user: String,
    /// `8080/tcp`.
    pub ports: Vec<String>,
}

impl Image {
    /// The archive.
    ///
    /// # Errors
    /// When a name does not fit into a tar.
    pub fn archive(&self) -> std::io::Result<Vec<u8>> {
        let layer_digest = digest(&self.layer);
        let ports: serde_json::Map<String, Value> =
            self.ports.iter().map(|port| (port.clone(), json!({}))).collect();
        let config = json!({
            "architecture": architecture(),
            "os": "linux",
            "config": {
                "User": self.user,
                "Env": self.environment,
                "Entrypoint": self.entrypoint,
                "Cmd": self.command,
                "ExposedPorts": ports,
                "WorkingDir": "/",
            },
            "rootfs": { "type": "layers", "diff_ids": [layer_digest] },
            "history": [{ "created_by": "keeladm images build" }],
        })
        .to_string()
        .into_bytes();
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": descriptor("application/vnd.oci.image.config.v1+json", &config),
            "layers": [descriptor("application/vnd.oci.image.layer.v1.tar", &self.layer)],
        })
        .to_string()
        .into_bytes();
        let manifests: Vec<Value> = self
            .names
            .iter()
            .map(|name| {
                let mut entry = descriptor("application/vnd.oci.image.manifest.v1+json", &manifest);
                entry["platform"] = json!({ "architecture": architecture(), "os": "linux" });
                entry["annotations"] = json!({
                    // What containerd's importer names the image by; the specification's own annotation is a tag only.
                    "io.containerd.image.name": name,
                    "org.opencontainers.image.ref.name": name.rsplit(':').next().unwrap_or_default(),
                });
                entry
            })
            .collect();
        let index = json!({ "schemaVersion": 2, "manifests": manifests })
            .to_string()
            .into_bytes();

        let mut tar = Builder::new(Vec::new());
        let layout = br#"{"imageLayoutVersion":"1.0.0"}"#;
        for (path, contents) in [
            ("oci-layout".to_owned(), layout.as_slice()),
            ("index.json".to_owned(), &index),
            (blob(&manifest), &manifest),
            (blob(&config), &config),
            (blob(&self.layer), &self.layer),
        ] {
            let mut header = Header::new_ustar();
            header.set_entry_type(EntryType::Regular);
            header.set_mode(0o644);
            header.set_mtime(0);
            header.set_size(contents.len() as u64);
            tar.append_data(&mut header, path, contents)?;
        }
        tar.into_inner()
    }
}

fn architecture() -> &'static str {
    // Go's names, which OCI uses.
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

fn digest(bytes: &[u8]) -> String {
    let hex: String = Sha256::digest(bytes)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    format!("sha256:{hex}")
}

fn blob(bytes: &[u8]) -> String {
    format!("blobs/{}", digest(bytes).replace(':', "/"))
}

fn descriptor(media_type: &str, bytes: &[u8]) -> Value {
    json!({ "mediaType": media_type, "digest": digest(bytes), "size": bytes.len() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    #[test]
    fn every_descriptor_points_at_a_blob_with_its_digest() -> Result<(), Box<dyn std::error::Error>> {
        let image = Image {
            names: vec!["keelson.local/x:1".into(), "keelson.local/x:latest".into()],
            layer: b"layer".to_vec(),
            entrypoint: vec!["/x".into()],
            command: vec![],
            environment: vec![],
            user: String::new(),
            ports: vec!["8080/tcp".into()],
        };
        let archive = image.archive()?;
        let mut files = std::collections::BTreeMap::new();
        for entry in tar::Archive::new(archive.as_slice()).entries()? {
            let mut entry = entry?;
            let mut contents = Vec::new();
            let path = entry.path()?.display().to_string();
            entry.read_to_end(&mut contents)?;
            files.insert(path, contents);
        }
        let index: Value = serde_json::from_slice(&files["index.json"])?;
        assert_eq!(index["manifests"].as_array().map(Vec::len), Some(2));
        let path = |descriptor: &Value| {
            format!(
                "blobs/{}",
                descriptor["digest"]
                    .as_str()
                    .unwrap_or_default()
                    .replace(':', "/")
            )
        };
        let manifest = &files[&path(&index["manifests"][0])];
        assert_eq!(path(&index["manifests"][0]), blob(manifest));
        let manifest: Value = serde_json::from_slice(manifest)?;
        for descriptor in [&manifest["config"], &manifest["layers"][0]] {
            let contents = &files[&path(descriptor)];
            assert_eq!(descriptor["size"], contents.len());
            assert_eq!(path(descriptor), blob(contents));
        }
        Ok(())
    }
}
