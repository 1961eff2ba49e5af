//! What is in each of our own images.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::layer::Layer;
use super::oci::Image;
use super::{REGISTRY, is_static_elf};

/// Why an image cannot be built.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// A program is not there: build it.
    #[error("reading {path}: {source}; build the programs for images with deploy/build")]
    Program {
        /// The program.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A program needs shared libraries, which the image does not have.
    #[error("{0} is not statically linked; build the programs for images with deploy/build")]
    Dynamic(PathBuf),
    /// There is no static busybox for the toolbox.
    #[error("no statically linked busybox found; install Debian's busybox-static")]
    Busybox,
    /// busybox does not list its applets.
    #[error("asking {path} for its applets: {source}")]
    Applets {
        /// busybox.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The image's file system cannot be put together.
    #[error("packing an image's file system: {0}")]
    Layer(#[from] std::io::Error),
    /// The archive cannot be put together or written.
    #[error("writing the image archive {path}: {source}")]
    Write {
        /// The archive.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
}

/// The images, by short name.
#[must_use]
pub fn names() -> [&'static str; 3] {
    ["pause", "echo", "toolbox"]
}

/// Builds all images from the static programs in `programs` and writes `NAME.tar` each into `output`.
/// A file that holds the same image already is left alone.
///
/// # Errors
/// See [`BuildError`].
pub fn build_all(programs: &Path, output: &Path) -> Result<Vec<PathBuf>, BuildError> {
    names()
        .into_iter()
        .map(|name| {
            let path = output.join(format!("{name}.tar"));
            let writing = |source| BuildError::Write {
                path: path.clone(),
                source,
            };
            let image = match name {
                "pause" => pause(programs)?,
                "echo" => echo(programs)?,
                _ => toolbox(programs)?,
            };
            let archive = image.archive().map_err(writing)?;
            if !std::fs::read(&path).is_ok_and(|existing| existing == archive) {
                std::fs::create_dir_all(output).map_err(writing)?;
                let temporary = path.with_extension("tmp");
                std::fs::write(&temporary, archive).map_err(writing)?;
                std::fs::rename(&temporary, &path).map_err(writing)?;
            }
            Ok(path)
        })
        .collect()
}

fn program(folder: &Path, name: &str) -> Result<Vec<u8>, BuildError> {
    let path = folder.join(name);
    let bytes = std::fs::read(&path).map_err(|source| BuildError::Program {
        path: path.clone(),
        source,
    })?;
    if is_static_elf(&bytes) {
        Ok(bytes)
    } else {
        Err(BuildError::Dynamic(path))
    }
}

fn pause(programs: &Path) -> Result<Image, BuildError> {
    let mut layer = Layer::new();
    layer.file("pause", 0o755, &program(programs, "keelson-pause")?)?;
    Ok(Image {
        names: tags("pause"),
        layer: layer.finish()?,
        entrypoint: vec!["/pause".into()],
        command: Vec::new(),
        environment: Vec::new(),
        // A sandbox needs no rights: the highest id, as upstream's pause image has it.
        user: "65535:65535".into(),
        ports: Vec::new(),
    })
}

fn echo(programs: &Path) -> Result<Image, BuildError> {
    let mut layer = Layer::new();
    layer.file("echo", 0o755, &program(programs, "keelson-echo")?)?;
    // Some things are mounted or written here by any pod.
    layer.folder("tmp", 0o1777)?;
    layer.folder("etc", 0o755)?;
    Ok(Image {
        names: tags("echo"),
        layer: layer.finish()?,
        entrypoint: vec!["/echo".into()],
        command: Vec::new(),
        environment: Vec::new(),
        user: String::new(),
        ports: vec!["8080/tcp".into()],
    })
}

/// A shell and everything busybox has, for a look around inside a cluster.
fn toolbox(programs: &Path) -> Result<Image, BuildError> {
    let busybox = crate::system::busybox().ok_or(BuildError::Busybox)?;
    let contents = std::fs::read(&busybox).map_err(|source| BuildError::Program {
        path: busybox.clone(),
        source,
    })?;
    let mut layer = Layer::new();
    layer.file("bin/busybox", 0o755, &contents)?;
    for applet in applets(&busybox)? {
        // Ours speaks TLS with strict servers; busybox's does not.
        let target = if applet.ends_with("/wget") {
            "/bin/keelson-http"
        } else {
            "/bin/busybox"
        };
        layer.link(&applet, target)?;
    }
    layer.file("bin/keelson-http", 0o755, &program(programs, "keelson-http")?)?;
    layer.link("usr/bin/curl", "/bin/keelson-http")?;
    layer.file("bin/keelson-echo", 0o755, &program(programs, "keelson-echo")?)?;
    layer.file(
        "etc/passwd",
        0o644,
        b"root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n",
    )?;
    layer.file("etc/group", 0o644, b"root:x:0:\nnogroup:x:65534:\n")?;
    layer.folder("root", 0o700)?;
    layer.folder("tmp", 0o1777)?;
    layer.folder("var/run", 0o755)?;
    Ok(Image {
        names: tags("toolbox"),
        layer: layer.finish()?,
        entrypoint: Vec::new(),
        command: vec!["/bin/sh".into()],
        environment: vec!["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".into()],
        user: String::new(),
        ports: Vec::new(),
    })
}

/// Paths of the applets, relative to the root.
fn applets(busybox: &Path) -> Result<Vec<String>, BuildError> {
    let output = Command::new(busybox)
        .arg("--list-full")
        .output()
        .map_err(|source| BuildError::Applets {
            path: busybox.into(),
            source,
        })?;
    let listed = String::from_utf8_lossy(&output.stdout);
    let mut applets: Vec<String> = listed
        .lines()
        .filter(|path| !path.is_empty() && *path != "bin/busybox")
        .map(str::to_owned)
        .collect();
    // Debian's build leaves /bin to the real programs; a shell script asks for this one.
    for expected in ["bin/sh"] {
        if !applets.iter().any(|path| path == expected) {
            applets.push(expected.into());
        }
    }
    Ok(applets)
}

fn tags(name: &str) -> Vec<String> {
    vec![
        format!("{REGISTRY}/{name}:1"),
        format!("{REGISTRY}/{name}:latest"),
    ]
}
