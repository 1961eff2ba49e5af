//! Names of images: `[REGISTRY/]PATH[:TAG][@DIGEST]`.

use std::sync::LazyLock;

use regex::Regex;

static PATH: LazyLock<Option<Regex>> = LazyLock::new(|| {
    let part = "[a-z0-9]+(?:(?:\\.|_|__|-+)[a-z0-9]+)*";
    let host = "(?:[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?(?:\\.[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?)*|\\[[a-fA-F0-9:]+\\])(?::[0-9]+)?";
    Regex::new(&format!("^(?:{host}/)?{part}(?:/{part})*(?::[\\w][\\w.-]{{0,127}})?(?:@[A-Za-z][A-Za-z0-9]*(?:[-_+.][A-Za-z][A-Za-z0-9]*)*:[0-9a-fA-F]{{32,}})?$")).ok()
});

/// The name with `:latest` where it has neither tag nor digest.
///
/// # Errors
/// For what is no name. The text is that of the reference implementation.
pub fn with_default_tag(name: &str) -> Result<String, &'static str> {
    let is_name = PATH.as_ref().is_some_and(|path| path.is_match(name));
    if !is_name {
        let lowercase = name.to_lowercase();
        let only_case = PATH.as_ref().is_some_and(|path| path.is_match(&lowercase));
        return Err(if only_case {
            "repository name must be lowercase"
        } else {
            "invalid reference format"
        });
    }
    let last = name.rsplit('/').next().unwrap_or(name);
    if last.contains(':') || name.contains('@') {
        return Ok(name.to_owned());
    }
    Ok(format!("{name}:latest"))
}

/// The registry and path that credentials are looked up by, without tag and digest: `docker.io/library/x`.
pub fn repository(name: &str) -> String {
    let name = name.split('@').next().unwrap_or(name);
    let (path, last) = name.rsplit_once('/').unwrap_or(("", name));
    let last = last.split(':').next().unwrap_or(last);
    let full = if path.is_empty() {
        last.to_owned()
    } else {
        format!("{path}/{last}")
    };
    let first = full.split('/').next().unwrap_or_default();
    let has_registry =
        full.contains('/') && (first.contains('.') || first.contains(':') || first == "localhost");
    match (has_registry, full.contains('/')) {
        (true, _) => full,
        (false, true) => format!("docker.io/{full}"),
        (false, false) => format!("docker.io/library/{full}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        assert_eq!(with_default_tag("nginx").as_deref(), Ok("nginx:latest"));
        assert_eq!(
            with_default_tag("host:5000/a/b").as_deref(),
            Ok("host:5000/a/b:latest")
        );
        assert_eq!(with_default_tag("a:1").as_deref(), Ok("a:1"));
        assert_eq!(
            with_default_tag("keelson.local/box:dev").as_deref(),
            Ok("keelson.local/box:dev")
        );
        assert_eq!(
            with_default_tag("Nginx"),
            Err("repository name must be lowercase")
        );
        assert_eq!(with_default_tag("a b"), Err("invalid reference format"));
        assert_eq!(with_default_tag(""), Err("invalid reference format"));
        assert_eq!(repository("nginx:1"), "docker.io/library/nginx");
        assert_eq!(repository("host:5000/a/b:2@sha256:00"), "host:5000/a/b");
    }
}
