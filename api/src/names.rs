//! The names of kinds and resources: group, version, kind, resource.

use std::borrow::Cow;
use std::fmt;

/// A name that is usually known at compile time.
pub type Name = Cow<'static, str>;

/// A resource without its version: `pods`, `deployments.apps`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GroupResource {
    /// The API group; empty for the core group.
    pub group: Name,
    /// The plural, lower-case resource name.
    pub resource: Name,
}

impl GroupResource {
    /// Names a resource of a group.
    pub fn new(group: impl Into<Name>, resource: impl Into<Name>) -> Self {
        Self {
            group: group.into(),
            resource: resource.into(),
        }
    }

    /// Names a resource of the core group.
    pub fn core(resource: impl Into<Name>) -> Self {
        Self::new("", resource)
    }
}

impl fmt::Display for GroupResource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        dotted(f, &self.resource, &self.group)
    }
}

/// A kind without its version: `Pod`, `Deployment.apps`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GroupKind {
    /// The API group; empty for the core group.
    pub group: Name,
    /// The kind, in CamelCase.
    pub kind: Name,
}

impl GroupKind {
    /// Names a kind of a group.
    pub fn new(group: impl Into<Name>, kind: impl Into<Name>) -> Self {
        Self {
            group: group.into(),
            kind: kind.into(),
        }
    }
}

impl fmt::Display for GroupKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        dotted(f, &self.kind, &self.group)
    }
}

fn dotted(f: &mut fmt::Formatter<'_>, first: &str, group: &str) -> fmt::Result {
    f.write_str(first)?;
    if !group.is_empty() {
        f.write_str(".")?;
        f.write_str(group)?;
    }
    Ok(())
}

/// Group, version and kind.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Gvk {
    /// The API group; empty for the core group.
    pub group: Name,
    /// The version, such as `v1` or `v1beta1`.
    pub version: Name,
    /// The kind, in CamelCase.
    pub kind: Name,
}

impl Gvk {
    /// Puts the three parts together.
    pub fn new(group: impl Into<Name>, version: impl Into<Name>, kind: impl Into<Name>) -> Self {
        Self {
            group: group.into(),
            version: version.into(),
            kind: kind.into(),
        }
    }

    /// From an object's `apiVersion` and `kind`.
    pub fn from_api_version(api_version: &str, kind: &str) -> Self {
        let (group, version) = split_api_version(api_version);
        Self::new(group.to_owned(), version.to_owned(), kind.to_owned())
    }

    /// `v1` or `apps/v1`, as in an object's `apiVersion`.
    pub fn api_version(&self) -> Name {
        join_api_version(&self.group, &self.version)
    }

    /// Drops the version.
    pub fn group_kind(&self) -> GroupKind {
        GroupKind {
            group: self.group.clone(),
            kind: self.kind.clone(),
        }
    }
}

impl fmt::Display for Gvk {
    /// `apps/v1, Kind=Deployment`, as in upstream's messages.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}, Kind={}", self.group, self.version, self.kind)
    }
}

/// Group, version and resource.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Gvr {
    /// The API group; empty for the core group.
    pub group: Name,
    /// The version, such as `v1` or `v1beta1`.
    pub version: Name,
    /// The plural, lower-case resource name.
    pub resource: Name,
}

impl Gvr {
    /// Puts the three parts together.
    pub fn new(group: impl Into<Name>, version: impl Into<Name>, resource: impl Into<Name>) -> Self {
        Self {
            group: group.into(),
            version: version.into(),
            resource: resource.into(),
        }
    }

    /// `v1` or `apps/v1`, as in an object's `apiVersion`.
    pub fn api_version(&self) -> Name {
        join_api_version(&self.group, &self.version)
    }

    /// Drops the version.
    pub fn group_resource(&self) -> GroupResource {
        GroupResource {
            group: self.group.clone(),
            resource: self.resource.clone(),
        }
    }
}

impl fmt::Display for Gvr {
    /// `apps/v1, Resource=deployments`, as in upstream's messages.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}, Resource={}", self.group, self.version, self.resource)
    }
}

/// Splits an `apiVersion` into group and version; the core group is the empty string.
pub fn split_api_version(api_version: &str) -> (&str, &str) {
    api_version.split_once('/').unwrap_or(("", api_version))
}

/// Joins group and version into an `apiVersion`.
pub fn join_api_version(group: &Name, version: &Name) -> Name {
    if group.is_empty() {
        version.clone()
    } else {
        format!("{group}/{version}").into()
    }
}

/// Orders versions as discovery prefers them: `v10`, `v2`, `v1`, `v11beta2`, `v3beta1`, `v12alpha1`, `foo10`, `foo1`
/// from the greatest to the least.
pub fn compare_versions(a: &str, b: &str) -> std::cmp::Ordering {
    match (kubernetes_version(a), kubernetes_version(b)) {
        (Some(a), Some(b)) => a.cmp(&b),
        (Some(_), None) => std::cmp::Ordering::Greater,
        (None, Some(_)) => std::cmp::Ordering::Less,
        // Other words are preferred in the order of the alphabet.
        (None, None) => b.cmp(a),
    }
}

/// Stability, major and minor number of a version like `v1beta2`.
fn kubernetes_version(text: &str) -> Option<(u8, u64, u64)> {
    let rest = text.strip_prefix('v')?;
    let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    let (major, rest) = rest.split_at(digits);
    let major = major.parse().ok().filter(|_| !major.starts_with('0'))?;
    let (stability, minor) = if let Some(minor) = rest.strip_prefix("beta") {
        (1, minor)
    } else if let Some(minor) = rest.strip_prefix("alpha") {
        (0, minor)
    } else if rest.is_empty() {
        return Some((2, major, 0));
    } else {
        return None;
    };
    let minor = match minor {
        "" => 0,
        minor => minor.parse().ok().filter(|_| !minor.starts_with('0'))?,
    };
    Some((stability, major, minor))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_in_the_order_of_the_reference() {
        let wanted = [
            "v10",
            "v2",
            "v1",
            "v11beta2",
            "v10beta3",
            "v3beta1",
            "v12alpha1",
            "v11alpha2",
            "foo1",
            "foo10",
        ];
        let mut sorted = wanted;
        sorted.reverse();
        sorted.sort_by(|a, b| compare_versions(b, a));
        assert_eq!(sorted, wanted);
    }

    #[test]
    fn spells_names_as_messages_do() {
        assert_eq!(GroupResource::core("pods").to_string(), "pods");
        assert_eq!(
            GroupResource::new("apps", "deployments").to_string(),
            "deployments.apps"
        );
        let gvk = Gvk::from_api_version("apps/v1", "Deployment");
        assert_eq!(gvk.to_string(), "apps/v1, Kind=Deployment");
        assert_eq!(gvk.api_version(), "apps/v1");
        assert_eq!(Gvk::from_api_version("v1", "Pod").to_string(), "/v1, Kind=Pod");
    }
}
