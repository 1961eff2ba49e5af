//! `keeladm images`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail};

use crate::cluster::Paths;
use crate::{images, steps, system};

pub(crate) fn build(output: &Path, image_bin_dir: Option<&Path>) -> anyhow::Result<ExitCode> {
    let programs = system::image_bin_dir(image_bin_dir, &system::own_dir()?)?;
    for archive in images::build_all(&programs, output)? {
        println!("{}", archive.display());
    }
    Ok(ExitCode::SUCCESS)
}

pub(crate) async fn import(paths: &Paths, archive: &Path, tags: &[String]) -> anyhow::Result<ExitCode> {
    let own = images::names()
        .into_iter()
        .find(|name| archive == Path::new(name));
    let archive: PathBuf = match own {
        Some(name) if !archive.exists() => paths.image(name),
        _ => archive.to_path_buf(),
    };
    let imported = steps::images::import_one(paths, &archive).await?;
    let first = imported
        .first()
        .with_context(|| format!("{} holds no image", archive.display()))?;
    if imported.is_empty() {
        bail!("{} holds no image", archive.display());
    }
    for name in tags {
        steps::images::tag(paths, first, name).await?;
    }
    for name in imported.iter().chain(tags) {
        println!("{name}");
    }
    Ok(ExitCode::SUCCESS)
}
