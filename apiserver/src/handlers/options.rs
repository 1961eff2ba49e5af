//! Parameters of requests, and what is wrong with them.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::DeleteOptions;
use keelson_api::field::{self, Errors, Path};
use keelson_api::names::GroupKind;
use keelson_api::status::{ApiError, ApiResult};
use keelson_api::strict::FieldValidation;
use keelson_api::validation;

use super::managers::{Tracking, from_user_agent};
use super::patch::PatchType;

/// Options of create, update and patch.
#[derive(Debug, Clone, Default)]
pub struct WriteOptions {
    /// Everything happens but the write.
    pub dry_run: bool,
    /// Who manages the fields written.
    pub field_manager: String,
    /// Unknown and duplicate fields.
    pub field_validation: FieldValidation,
    /// Apply patches: take fields over from others.
    pub force: bool,
    /// Whose the write is.
    pub tracking: Tracking,
}

/// Query parameters, looked up by name.
#[derive(Debug, Clone, Copy)]
pub struct Query<'a>(pub &'a [(String, String)]);

impl<'a> Query<'a> {
    /// The first value of a parameter, empty when there is none.
    pub fn text(&self, name: &str) -> &'a str {
        self.find(name).unwrap_or_default()
    }

    /// The first value of a parameter.
    pub fn find(&self, name: &str) -> Option<&'a str> {
        self.0.iter().find(|(k, _)| k == name).map(|(_, v)| v.as_str())
    }

    /// Every value of a parameter.
    pub fn all(&self, name: &str) -> Vec<String> {
        self.0
            .iter()
            .filter(|(k, _)| k == name)
            .map(|(_, v)| v.clone())
            .collect()
    }

    /// `true` for `true`, `1` and a parameter without a value.
    pub fn flag(&self, name: &str) -> bool {
        self.find(name)
            .is_some_and(|v| !matches!(v, "false" | "0" | "False" | "FALSE" | "f" | "F"))
    }

    /// A number. What is not one answers 400.
    pub fn number(&self, name: &str) -> ApiResult<Option<i64>> {
        match self.find(name) {
            None | Some("") => Ok(None),
            Some(text) => text.parse().map(Some).map_err(|_| {
                ApiError::bad_request(format!("strconv.ParseInt: parsing {text:?}: invalid syntax"))
            }),
        }
    }

    /// Options of a patch. `agent` is the program that makes the request.
    pub fn patch_options(&self, patch: PatchType, agent: &str) -> ApiResult<WriteOptions> {
        let mut errors = Errors::new();
        let applied = patch == PatchType::Apply;
        if applied && self.text("fieldManager").is_empty() {
            let at = Path::new("fieldManager");
            errors.push(field::Error::required(&at, "is required for apply patch"));
        }
        if !applied && self.find("force").is_some() {
            let at = Path::new("force");
            errors.push(field::Error::forbidden(
                &at,
                "may not be specified for non-apply patch",
            ));
        }
        let options = self.checked("PatchOptions", agent, errors)?;
        Ok(WriteOptions {
            tracking: patch.tracking(),
            ..options
        })
    }

    /// Options of a write of that kind (`CreateOptions`, `UpdateOptions`). `agent` is the program that makes the request.
    pub fn write_options(&self, kind: &'static str, agent: &str) -> ApiResult<WriteOptions> {
        self.checked(kind, agent, Errors::new())
    }

    fn checked(&self, kind: &'static str, agent: &str, mut errors: Errors) -> ApiResult<WriteOptions> {
        let dry_run = self.all("dryRun");
        let field_manager = self.text("fieldManager");
        let field_validation = self.text("fieldValidation");
        if !field_manager.is_empty() {
            errors.extend(validation::field_manager(
                &Path::new("fieldManager"),
                field_manager,
            ));
        }
        errors.extend(validation::dry_run(&Path::new("dryRun"), &dry_run));
        errors.extend(validation::field_validation(
            &Path::new("fieldValidation"),
            field_validation,
        ));
        if !errors.is_empty() {
            return Err(ApiError::invalid(
                &GroupKind::new("meta.k8s.io", kind),
                "",
                &errors,
            ));
        }
        Ok(WriteOptions {
            dry_run: !dry_run.is_empty(),
            field_manager: match field_manager {
                "" => from_user_agent(agent),
                given => given.to_owned(),
            },
            field_validation: FieldValidation::parse(field_validation).unwrap_or_default(),
            force: self.flag("force"),
            tracking: Tracking::Manager,
        })
    }

    /// Options of a deletion: from the body when there is one, else from the query.
    pub fn delete_options(&self, body: &[u8]) -> ApiResult<DeleteOptions> {
        let options = if body.is_empty() {
            let mut options = DeleteOptions {
                grace_period_seconds: self.number("gracePeriodSeconds")?,
                propagation_policy: self.find("propagationPolicy").map(str::to_owned),
                ..DeleteOptions::default()
            };
            options.orphan_dependents = self
                .find("orphanDependents")
                .map(|_| self.flag("orphanDependents"));
            let dry_run = self.all("dryRun");
            options.dry_run = (!dry_run.is_empty()).then_some(dry_run);
            options
        } else {
            parse_delete_options(body)?
        };
        validate_delete_options(&options)?;
        Ok(options)
    }
}

/// Reads DeleteOptions, of whatever group version they say they are.
pub fn parse_delete_options(body: &[u8]) -> ApiResult<DeleteOptions> {
    let bad = |e: &dyn std::fmt::Display| {
        ApiError::bad_request(format!(
            "DeleteOptions in version \"v1\" cannot be handled as a DeleteOptions: {e}"
        ))
    };
    let mut value: serde_json::Value = serde_json::from_slice(body).map_err(|e| bad(&e))?;
    if let Some(map) = value.as_object_mut() {
        if let Some(kind) = map.remove("kind").as_ref().and_then(|k| k.as_str())
            && !kind.is_empty()
            && kind != "DeleteOptions"
        {
            return Err(ApiError::bad_request(format!(
                "decoded object cannot be converted to DeleteOptions: {kind}"
            )));
        }
        map.remove("apiVersion");
    }
    serde_json::from_value(value).map_err(|e| bad(&e))
}

/// Whether the options of a deletion fit together.
///
/// # Errors
/// 422 with what does not.
pub fn validate_delete_options(options: &DeleteOptions) -> ApiResult<()> {
    use keelson_api::field::Error;
    let mut errors = Errors::new();
    let policy = options.propagation_policy.as_deref();
    if policy.is_some() && options.orphan_dependents.is_some() {
        errors.push(Error::invalid(
            &Path::new("propagationPolicy"),
            policy.unwrap_or_default(),
            "orphanDependents and deletionPropagation cannot be both set",
        ));
    }
    if let Some(policy) = policy
        && !matches!(policy, "Foreground" | "Background" | "Orphan")
    {
        let supported = ["Foreground", "Background", "Orphan", "nil"];
        errors.push(Error::not_supported(
            &Path::new("propagationPolicy"),
            policy,
            &supported,
        ));
    }
    errors.extend(validation::dry_run(
        &Path::new("dryRun"),
        options.dry_run.as_deref().unwrap_or_default(),
    ));
    if errors.is_empty() {
        Ok(())
    } else {
        Err(ApiError::invalid(
            &GroupKind::new("meta.k8s.io", "DeleteOptions"),
            "",
            &errors,
        ))
    }
}

/// Which moment a read shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    /// Everything written before the request.
    Latest,
    /// Whatever is at hand.
    Any,
    /// At least this revision.
    NotOlderThan(i64),
    /// Exactly this revision.
    Exact(i64),
}

/// Reads a resourceVersion: empty, `0` or a number.
pub fn resource_version(text: &str) -> ApiResult<Option<i64>> {
    if text.is_empty() {
        return Ok(None);
    }
    text.parse::<i64>()
        .ok()
        .filter(|n| *n >= 0)
        .map(Some)
        .ok_or_else(|| {
            ApiError::bad_request(format!(
                "invalid resource version {text:?}: strconv.ParseUint: parsing {text:?}: invalid syntax"
            ))
        })
}

/// Parameters of list, watch and deletecollection.
#[derive(Debug, Clone, Default)]
pub struct ListOptions {
    /// Label selector.
    pub label_selector: String,
    /// Field selector.
    pub field_selector: String,
    /// Which version.
    pub resource_version: String,
    /// How that version is meant.
    pub resource_version_match: String,
    /// Items in a page, 0 for all.
    pub limit: i64,
    /// Where a list goes on.
    pub continue_token: String,
    /// Seconds a watch lasts.
    pub timeout_seconds: Option<i64>,
    /// Whether bookmarks are wanted.
    pub allow_bookmarks: bool,
    /// Whether a watch begins with a list.
    pub send_initial_events: Option<bool>,
}

impl ListOptions {
    /// From the query.
    pub fn parse(query: Query<'_>) -> ApiResult<Self> {
        Ok(Self {
            label_selector: query.text("labelSelector").to_owned(),
            field_selector: query.text("fieldSelector").to_owned(),
            resource_version: query.text("resourceVersion").to_owned(),
            resource_version_match: query.text("resourceVersionMatch").to_owned(),
            limit: query.number("limit")?.unwrap_or_default().max(0),
            continue_token: query.text("continue").to_owned(),
            timeout_seconds: query.number("timeoutSeconds")?,
            allow_bookmarks: query.flag("allowWatchBookmarks"),
            send_initial_events: query
                .find("sendInitialEvents")
                .map(|_| query.flag("sendInitialEvents")),
        })
    }

    /// Refuses combinations that mean nothing, as upstream does.
    pub fn validate(&self, watch: bool) -> ApiResult<()> {
        use keelson_api::field::Error;
        let mut errors = Errors::new();
        let at = Path::new("resourceVersionMatch");
        let matching = self.resource_version_match.as_str();
        match (watch, self.send_initial_events) {
            (false, Some(_)) => {
                let at = Path::new("sendInitialEvents");
                errors.push(Error::forbidden(&at, "sendInitialEvents is forbidden for list"));
            }
            (true, initial) => {
                if initial.is_some() && matching != "NotOlderThan" {
                    let detail = "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan";
                    errors.push(Error::forbidden(&at, detail));
                }
                if initial.is_none() && !matching.is_empty() {
                    let detail =
                        "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided";
                    errors.push(Error::forbidden(&at, detail));
                }
                if !matches!(matching, "" | "NotOlderThan") {
                    errors.push(Error::not_supported(&at, matching, &["NotOlderThan"]));
                }
                if !matching.is_empty() && !self.continue_token.is_empty() {
                    let detail = "resourceVersionMatch is forbidden when continue is provided";
                    errors.push(Error::forbidden(&at, detail));
                }
            }
            (false, None) if !matching.is_empty() => {
                if self.resource_version.is_empty() {
                    let detail = "resourceVersionMatch is forbidden unless resourceVersion is provided";
                    errors.push(Error::forbidden(&at, detail));
                }
                if !self.continue_token.is_empty() {
                    let detail = "resourceVersionMatch is forbidden when continue is provided";
                    errors.push(Error::forbidden(&at, detail));
                }
                if !matches!(matching, "Exact" | "NotOlderThan") {
                    errors.push(Error::not_supported(
                        &at,
                        matching,
                        &["Exact", "NotOlderThan", ""],
                    ));
                }
                if matching == "Exact" && self.resource_version == "0" {
                    let detail = "resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"";
                    errors.push(Error::forbidden(&at, detail));
                }
            }
            _ => {}
        }
        if errors.is_empty() {
            Ok(())
        } else {
            Err(ApiError::invalid(
                &GroupKind::new("meta.k8s.io", "ListOptions"),
                "",
                &errors,
            ))
        }
    }

    /// Which moment a list without a continue token shows.
    pub fn moment(&self) -> ApiResult<Moment> {
        Ok(
            match (
                resource_version(&self.resource_version)?,
                self.resource_version_match.as_str(),
            ) {
                (None, _) => Moment::Latest,
                (Some(0), _) => Moment::Any,
                (Some(n), "Exact") => Moment::Exact(n),
                // What a limit meant before resourceVersionMatch existed.
                (Some(n), "") if self.limit > 0 => Moment::Exact(n),
                (Some(n), _) => Moment::NotOlderThan(n),
            },
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(version: &str, matching: &str, limit: i64) -> ListOptions {
        ListOptions {
            resource_version: version.into(),
            resource_version_match: matching.into(),
            limit,
            ..ListOptions::default()
        }
    }

    #[test]
    fn moments_follow_upstreams_table() {
        let moment = |version, matching, limit| options(version, matching, limit).moment().expect("a moment");
        assert_eq!(moment("", "", 5), Moment::Latest);
        assert_eq!(moment("0", "", 5), Moment::Any);
        assert_eq!(moment("0", "NotOlderThan", 0), Moment::Any);
        assert_eq!(moment("7", "", 0), Moment::NotOlderThan(7));
        assert_eq!(moment("7", "", 5), Moment::Exact(7));
        assert_eq!(moment("7", "Exact", 0), Moment::Exact(7));
        assert_eq!(moment("7", "NotOlderThan", 5), Moment::NotOlderThan(7));
        assert_eq!(
            options("x", "", 0).moment().expect_err("not a version").code(),
            400
        );
    }

    #[test]
    fn combinations_that_mean_nothing_are_refused() {
        assert!(options("", "Exact", 0).validate(false).is_err());
        assert!(options("0", "Exact", 0).validate(false).is_err());
        assert!(options("5", "Nonsense", 0).validate(false).is_err());
        assert!(options("5", "NotOlderThan", 0).validate(true).is_err());
        let mut streaming = options("", "NotOlderThan", 0);
        streaming.send_initial_events = Some(true);
        assert!(streaming.validate(true).is_ok() && streaming.validate(false).is_err());
    }

    #[test]
    fn delete_options_come_from_the_body_or_the_query() {
        let query = [("gracePeriodSeconds".to_owned(), "5".to_owned())];
        let options = Query(&query).delete_options(b"").expect("options");
        assert_eq!(options.grace_period_seconds, Some(5));
        let body = br#"{"kind":"DeleteOptions","apiVersion":"apps/v1","propagationPolicy":"Orphan"}"#;
        let options = Query(&query).delete_options(body).expect("options");
        assert_eq!(
            (
                options.grace_period_seconds,
                options.propagation_policy.as_deref()
            ),
            (None, Some("Orphan"))
        );
        assert!(
            Query(&[])
                .delete_options(br#"{"propagationPolicy":"Never"}"#)
                .is_err()
        );
    }
}
