//! How the server shows extension servers who it is, and for whom it asks: upstream's flags.

use std::path::PathBuf;

use clap::Args;
use serde_json::{Value, json};

/// `--proxy-client-*` and `--requestheader-*`.
#[derive(Debug, Clone, Default, Args)]
pub struct AggregatorArgs {
    /// Certificate shown to extension API servers, PEM.
    #[arg(long)]
    pub proxy_client_cert_file: Option<PathBuf>,
    /// Key of the certificate shown to extension API servers, PEM.
    #[arg(long)]
    pub proxy_client_key_file: Option<PathBuf>,
    /// Authorities whose client certificates extension API servers are to believe, PEM.
    #[arg(long)]
    pub requestheader_client_ca_file: Option<PathBuf>,
    /// Common names such certificates may have; none is any.
    #[arg(long, value_delimiter = ',')]
    pub requestheader_allowed_names: Vec<String>,
    /// Headers that carry the caller's name.
    #[arg(long, value_delimiter = ',', default_value = "X-Remote-User")]
    pub requestheader_username_headers: Vec<String>,
    /// Headers that carry the caller's groups.
    #[arg(long, value_delimiter = ',', default_value = "X-Remote-Group")]
    pub requestheader_group_headers: Vec<String>,
    /// What headers that carry anything else about the caller begin with.
    #[arg(long, value_delimiter = ',', default_value = "X-Remote-Extra-")]
    pub requestheader_extra_headers_prefix: Vec<String>,
    /// Headers that carry the caller's uid.
    #[arg(long, value_delimiter = ',')]
    pub requestheader_uid_headers: Vec<String>,
}

impl AggregatorArgs {
    /// What extension servers read to believe this one: `kube-system/extension-apiserver-authentication`.
    ///
    /// # Errors
    /// When an authority cannot be read.
    pub fn published(
        &self,
        client_ca_file: Option<&PathBuf>,
    ) -> std::io::Result<Vec<(&'static str, String)>> {
        let mut data = Vec::new();
        if let Some(path) = client_ca_file {
            data.push(("client-ca-file", std::fs::read_to_string(path)?));
        }
        if let Some(path) = &self.requestheader_client_ca_file {
            let list = |names: &[String]| -> String {
                let names: Value = json!(names);
                names.to_string()
            };
            data.push(("requestheader-client-ca-file", std::fs::read_to_string(path)?));
            for (key, names) in [
                ("requestheader-allowed-names", &self.requestheader_allowed_names),
                (
                    "requestheader-username-headers",
                    &self.requestheader_username_headers,
                ),
                ("requestheader-uid-headers", &self.requestheader_uid_headers),
                ("requestheader-group-headers", &self.requestheader_group_headers),
                (
                    "requestheader-extra-headers-prefix",
                    &self.requestheader_extra_headers_prefix,
                ),
            ] {
                data.push((key, list(names)));
            }
        }
        Ok(data)
    }
}
