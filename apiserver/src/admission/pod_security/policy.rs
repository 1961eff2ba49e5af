//! Levels, versions, and the labels of namespaces that name them.

use std::collections::BTreeMap;
use std::fmt;

use keelson_api::field::{Error, Errors, Path};

/// How much is allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Everything.
    Privileged,
    /// No known ways to more privileges.
    Baseline,
    /// What hardened pods need.
    Restricted,
}

impl Level {
    pub(super) fn parse(text: &str) -> Option<Self> {
        match text {
            "privileged" => Some(Self::Privileged),
            "baseline" => Some(Self::Baseline),
            "restricted" => Some(Self::Restricted),
            _ => None,
        }
    }

    fn as_str(self) -> &'static str {
        match self {
            Self::Privileged => "privileged",
            Self::Baseline => "baseline",
            Self::Restricted => "restricted",
        }
    }
}

/// Which release's idea of a level.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    /// `v1.N`.
    Minor(u32),
    /// The newest.
    Latest,
}

impl Version {
    pub(super) fn parse(text: &str) -> Option<Self> {
        if text == "latest" {
            return Some(Self::Latest);
        }
        let minor = text.strip_prefix("v1.")?;
        let plain = minor.bytes().all(|b| b.is_ascii_digit()) && (minor == "0" || !minor.starts_with('0'));
        minor.parse().ok().filter(|_| plain).map(Self::Minor)
    }

    /// Whether what came with `v1.minor` is part of it.
    pub fn since(self, minor: u32) -> bool {
        self >= Self::Minor(minor)
    }
}

/// A level as of a version: `restricted:v1.30`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bar {
    /// How much is allowed.
    pub level: Level,
    /// In which release.
    pub version: Version,
}

impl Bar {
    /// Asks nothing.
    pub const LOWEST: Self = Self {
        level: Level::Privileged,
        version: Version::Latest,
    };
}

impl fmt::Display for Bar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.version {
            Version::Latest => write!(f, "{}:latest", self.level.as_str()),
            Version::Minor(minor) => write!(f, "{}:v1.{minor}", self.level.as_str()),
        }
    }
}

/// What a namespace asks of its pods.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// Pods below are refused.
    pub enforce: Bar,
    /// Pods below are noted in the audit log.
    pub audit: Bar,
    /// Whoever makes pods below is warned.
    pub warn: Bar,
}

impl Default for Policy {
    fn default() -> Self {
        Policy {
            enforce: Bar::LOWEST,
            audit: Bar::LOWEST,
            warn: Bar::LOWEST,
        }
    }
}

impl Policy {
    /// Whether no pod can violate it.
    pub fn asks_nothing(&self) -> bool {
        [self.enforce, self.audit, self.warn]
            .iter()
            .all(|bar| bar.level == Level::Privileged)
    }

    /// The policy that labels name; where they say nothing, the defaults hold. When they make no sense, the policy that is followed all the same, and why: what is
    /// enforced is then as strict as can be, so that a slip of the pen opens nothing.
    pub fn of(
        labels: Option<&BTreeMap<String, String>>,
        defaults: Policy,
    ) -> Result<Policy, (Policy, Errors)> {
        let mut errors = Errors::new();
        let mut policy = defaults;
        let enforced = level(
            &mut errors,
            labels,
            "enforce",
            &mut policy.enforce,
            Level::Restricted,
        );
        version(&mut errors, labels, "enforce", &mut policy.enforce);
        level(&mut errors, labels, "audit", &mut policy.audit, Level::Privileged);
        version(&mut errors, labels, "audit", &mut policy.audit);
        let warned = level(&mut errors, labels, "warn", &mut policy.warn, Level::Privileged);
        version(&mut errors, labels, "warn", &mut policy.warn);
        if warned == Given::Nothing && enforced == Given::Level && policy.enforce.level > policy.warn.level {
            policy.warn = policy.enforce;
        }
        if errors.is_empty() {
            Ok(policy)
        } else {
            Err((policy, errors))
        }
    }
}

#[derive(PartialEq, Eq)]
enum Given {
    Nothing,
    Nonsense,
    Level,
}

fn label<'a>(labels: Option<&'a BTreeMap<String, String>>, name: &str) -> Option<(Path, &'a str)> {
    let key = format!("pod-security.kubernetes.io/{name}");
    let value = labels?.get(&key)?;
    Some((Path::new("metadata").child("labels").key(key), value))
}

fn level(
    errors: &mut Errors,
    labels: Option<&BTreeMap<String, String>>,
    mode: &str,
    bar: &mut Bar,
    otherwise: Level,
) -> Given {
    let Some((at, text)) = label(labels, mode) else {
        return Given::Nothing;
    };
    match Level::parse(text) {
        Some(level) => {
            bar.level = level;
            Given::Level
        }
        None => {
            bar.level = otherwise;
            errors.push(Error::invalid(
                &at,
                text,
                "must be one of privileged, baseline, restricted",
            ));
            Given::Nonsense
        }
    }
}

fn version(errors: &mut Errors, labels: Option<&BTreeMap<String, String>>, mode: &str, bar: &mut Bar) {
    let Some((at, text)) = label(labels, &format!("{mode}-version")) else {
        return;
    };
    match Version::parse(text) {
        Some(version) => bar.version = version,
        None => errors.push(Error::invalid(&at, text, "must be \"latest\" or \"v1.x\"")),
    }
}
