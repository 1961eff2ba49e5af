//! Applying rules: each text is one transaction, which the kernel takes whole or not at all.

use std::process::Stdio;

use tokio::io::AsyncWriteExt;
use tokio::process::Command;

/// Why rules were not applied. Nothing of the transaction is in the kernel then.
#[derive(Debug, thiserror::Error)]
pub enum NftError {
    /// nft is not installed, or may not be run.
    #[error("running nft (Debian package nftables): {0}")]
    Run(#[from] std::io::Error),
    /// nft or the kernel refused.
    #[error("nft refused the rules: {0}")]
    Refused(String),
}

/// Applies a text of nft's language.
///
/// # Errors
/// See [`NftError`].
pub async fn apply(text: &str) -> Result<(), NftError> {
    let mut child = Command::new("nft")
        .args(["-f", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        // nft reads everything before it answers; where it ends early, its own message says why.
        let _ = stdin.write_all(text.as_bytes()).await;
    }
    let output = child.wait_with_output().await?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    // The first complaint; the rest mostly follows from it, and repeats long lines.
    let first: String = said.lines().take(2).collect::<Vec<_>>().join(" ");
    Err(NftError::Refused(first.chars().take(600).collect()))
}

/// Whether a table is in the kernel.
///
/// # Errors
/// When nft cannot be run.
pub async fn exists(family: crate::rules::Family, name: &str) -> Result<bool, NftError> {
    let output = Command::new("nft")
        .args(["list", "tables", family.name()])
        .kill_on_drop(true)
        .output()
        .await?;
    let wanted = format!("table {} {name}", family.name());
    Ok(String::from_utf8_lossy(&output.stdout)
        .lines()
        .any(|line| line.trim() == wanted))
}
