//! What the server says it is.

use serde_json::{Value, json};

/// Major version of the API served.
pub const MAJOR: &str = "1";
/// Minor version of the API served.
pub const MINOR: &str = "36";

/// The version as clients compare it, with our own as build metadata.
pub fn git_version() -> String {
    format!("v{MAJOR}.{MINOR}.0+keelson.{}", env!("CARGO_PKG_VERSION"))
}

/// The document of `/version`.
pub fn document() -> Value {
    let arch = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    json!({
        "major": MAJOR,
        "minor": MINOR,
        "emulationMajor": MAJOR,
        "emulationMinor": MINOR,
        "minCompatibilityMajor": MAJOR,
        "minCompatibilityMinor": "35",
        "gitVersion": git_version(),
        "gitCommit": option_env!("KEELSON_COMMIT").unwrap_or("unknown"),
        "gitTreeState": "clean",
        "buildDate": option_env!("KEELSON_BUILD_DATE").unwrap_or("1970-01-01T00:00:00Z"),
        "goVersion": "none",
        "compiler": "rustc",
        "platform": format!("{}/{arch}", std::env::consts::OS),
    })
}
