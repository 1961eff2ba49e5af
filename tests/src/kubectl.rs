//! Stock kubectl, in the versions there are.

use std::hash::{Hash as _, Hasher as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::process::{eventually, output, run, succeed, text};

/// Minor versions wanted where several are installed side by side: the oldest and the newest among them.
const WANTED: [&str; 3] = ["1.27", "1.30", "1.33"];

/// Names further binaries, separated by colons, such as Debian's own, which is of 1.20.
const MORE: &str = "KEELSON_TEST_KUBECTL";

/// One kubectl binary.
#[derive(Debug, Clone)]
pub struct Version {
    /// As in `1.30`.
    pub minor: String,
    /// The binary.
    pub path: PathBuf,
}

/// The kubectl versions to test with, oldest first: several side by side where they are installed, else whatever
/// there is, and those that the environment names.
///
/// # Errors
/// When there is no kubectl at all, or one does not say its version.
pub fn versions() -> Result<Vec<Version>> {
    let more = std::env::var_os(MORE).unwrap_or_default();
    let mut found = std::env::split_paths(&more)
        .filter(|path| !path.as_os_str().is_empty())
        .map(version_of)
        .collect::<Result<Vec<_>>>()?;
    found.extend(installed()?);
    found.sort_by_key(Version::number);
    Ok(found)
}

fn installed() -> Result<Vec<Version>> {
    let found =
        run("sh", &["-c", "command -v kubectl"]).context("kubectl (Debian package kubernetes-client)")?;
    let path = std::fs::canonicalize(found.trim()).context("resolving kubectl")?;
    let beside: Vec<Version> = WANTED
        .iter()
        .map(|minor| Version {
            minor: (*minor).to_owned(),
            path: path.with_file_name(format!("kubectl.{minor}")),
        })
        .filter(|version| version.path.exists())
        .collect();
    if beside.is_empty() {
        return Ok(vec![version_of(path)?]);
    }
    Ok(beside)
}

/// Asks a binary for its version.
fn version_of(path: PathBuf) -> Result<Version> {
    let reported: Value = serde_json::from_str(&run(
        &path.display().to_string(),
        &["version", "--client", "-o", "json"],
    )?)?;
    let part = |name: &str| {
        reported["clientVersion"][name]
            .as_str()
            .unwrap_or("?")
            .trim_end_matches('+')
            .to_owned()
    };
    Ok(Version {
        minor: format!("{}.{}", part("major"), part("minor")),
        path,
    })
}

impl Version {
    /// The minor number, 27 for 1.27.
    #[must_use]
    pub fn number(&self) -> u32 {
        self.minor
            .split('.')
            .nth(1)
            .and_then(|minor| minor.parse().ok())
            .unwrap_or_default()
    }
}

/// kubectl for one cluster, user and namespace.
#[derive(Debug, Clone)]
pub struct Kubectl {
    version: Version,
    kubeconfig: PathBuf,
    namespace: Option<String>,
}

impl Kubectl {
    /// kubectl of a version, as the user of a kubeconfig.
    #[must_use]
    pub fn new(version: Version, kubeconfig: &Path) -> Self {
        Self {
            version,
            kubeconfig: kubeconfig.into(),
            namespace: None,
        }
    }

    /// The same in another namespace.
    #[must_use]
    pub fn in_namespace(&self, namespace: &str) -> Self {
        Self {
            namespace: Some(namespace.to_owned()),
            ..self.clone()
        }
    }

    /// The same cluster and namespace for somebody who has nothing but a token.
    ///
    /// # Errors
    /// As for [`Kubectl::as_user`].
    pub fn with_token(&self, token: &str) -> Result<Self> {
        self.as_user(&serde_json::json!({"token": token}))
    }

    /// The same cluster and namespace for somebody with other credentials, as kubeconfigs have them. The kubeconfig made
    /// for that lies beside the first one.
    ///
    /// # Errors
    /// When the first kubeconfig cannot be read, or the new one cannot be written.
    pub fn as_user(&self, credentials: &Value) -> Result<Self> {
        let mut config: Value = serde_json::from_str(&self.run("config view --raw --minify -o json")?)
            .context("the kubeconfig")?;
        config["users"][0]["user"] = credentials.clone();
        let text = config.to_string();
        let mut hasher = std::hash::DefaultHasher::new();
        text.hash(&mut hasher);
        let kubeconfig = self
            .kubeconfig
            .with_file_name(format!("user-{:016x}.kubeconfig", hasher.finish()));
        std::fs::write(&kubeconfig, text)?;
        Ok(Self {
            kubeconfig,
            ..self.clone()
        })
    }

    /// The version's minor number, 27 for 1.27.
    #[must_use]
    pub fn minor(&self) -> u32 {
        self.version.number()
    }

    /// The words a shell needs in front of kubectl's own arguments.
    #[must_use]
    pub fn program(&self) -> String {
        let namespace = self.namespace.as_deref().unwrap_or("default");
        format!(
            "{} --kubeconfig {} -n {namespace}",
            self.version.path.display(),
            self.kubeconfig.display()
        )
    }

    /// A command, not yet started.
    #[must_use]
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.version.path);
        command
            .env("KUBECONFIG", &self.kubeconfig)
            .env("HOME", self.kubeconfig.parent().unwrap_or(Path::new("/")));
        if let Some(namespace) = &self.namespace {
            command.args(["-n", namespace]);
        }
        command.args(args);
        command
    }

    /// Runs words separated by spaces and returns standard output.
    ///
    /// # Errors
    /// With standard error, when kubectl fails.
    pub fn run(&self, words: &str) -> Result<String> {
        self.args(&words.split_whitespace().collect::<Vec<_>>())
    }

    /// Runs the arguments given and returns standard output.
    ///
    /// # Errors
    /// With standard error, when kubectl fails.
    pub fn args(&self, args: &[&str]) -> Result<String> {
        succeed(self.command(args), None)
    }

    /// As [`Kubectl::run`], with standard input.
    ///
    /// # Errors
    /// With standard error, when kubectl fails.
    pub fn feed(&self, words: &str, input: &str) -> Result<String> {
        succeed(
            self.command(&words.split_whitespace().collect::<Vec<_>>()),
            Some(input),
        )
    }

    /// Runs what has to fail and returns its standard error.
    ///
    /// # Errors
    /// When it succeeds.
    pub fn refused(&self, words: &str, input: Option<&str>) -> Result<String> {
        let output = output(self.command(&words.split_whitespace().collect::<Vec<_>>()), input)?;
        if output.status.success() {
            bail!(
                "kubectl {words} should have failed, but printed: {}",
                text(&output.stdout)
            );
        }
        Ok(text(&output.stderr))
    }

    /// Starts something that goes on, with its output piped.
    ///
    /// # Errors
    /// When kubectl cannot be started.
    pub fn start(&self, words: &str) -> Result<Child> {
        let mut command = self.command(&words.split_whitespace().collect::<Vec<_>>());
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command.spawn().with_context(|| format!("kubectl {words}"))
    }

    /// An object or a list as JSON.
    ///
    /// # Errors
    /// When kubectl fails.
    pub fn json(&self, words: &str) -> Result<Value> {
        Ok(serde_json::from_str(&self.run(&format!("{words} -o json"))?)?)
    }

    /// The value of a JSONPath.
    ///
    /// # Errors
    /// When kubectl fails.
    pub fn path(&self, words: &str, path: &str) -> Result<String> {
        self.run(&format!("{words} -o jsonpath={path}"))
    }

    /// Waits until a command's output satisfies `wanted`.
    ///
    /// # Errors
    /// With the last output, when it does not within two minutes.
    pub fn until(&self, words: &str, wanted: impl Fn(&str) -> bool) -> Result<String> {
        eventually(&format!("kubectl {words}"), Duration::from_secs(120), || {
            let output = self.run(words)?;
            if wanted(&output) {
                Ok(output)
            } else {
                bail!("the output is still: {output}")
            }
        })
    }
}
