//! What configuration files have in common: they say what they are.

/// Accepts a file that is of the kind, in one of the versions; `given` is what it says, version first.
///
/// # Errors
/// In upstream's words for what it cannot decode.
pub fn expect(given: (&str, &str), kind: &str, versions: &[&str]) -> Result<(), String> {
    match given {
        (version, same) if same == kind && versions.contains(&version) => Ok(()),
        (version, other) => Err(format!("no kind {other:?} is registered for version {version:?}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_another_kind_or_version_are_refused() {
        let of = |version, kind| expect((version, kind), "Policy", &["a/v1", "a/v2"]);
        assert_eq!(of("a/v2", "Policy"), Ok(()));
        assert_eq!(
            of("a/v3", "Policy"),
            Err("no kind \"Policy\" is registered for version \"a/v3\"".to_owned())
        );
        assert!(of("a/v1", "Other").is_err());
    }
}
