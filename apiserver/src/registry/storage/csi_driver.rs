//! CSIDrivers: what a storage driver can do and wants from Kubernetes.

use jiff::Timestamp;
use k8s_openapi::api::storage::v1::{CSIDriver, CSIDriverSpec};
use keelson_api::field::Errors;
use keelson_api::object::Object;
use serde_json::Value;

use super::driver_name;
use crate::registry::common::loc::Loc;
use crate::registry::common::meta::{self, Spec};
use crate::registry::common::{cells, rules};
use crate::registry::strategy::{Column, RequestContext, ResourceInfo, Scope, Strategy};

const LIFECYCLE_MODES: &[&str] = &["Ephemeral", "Persistent"];
const GROUP_POLICIES: &[&str] = &["ReadWriteOnceWithFSType", "File", "None"];
/// Tokens live at least ten minutes.
const TOKEN_SECONDS_MIN: i64 = 10 * 60;
const TOKEN_SECONDS_MAX: i64 = 1 << 32;
/// How often at most a node may be told of changed limits.
const UPDATE_PERIOD_MIN: i64 = 10;

/// The kind's strategy.
pub struct CsiDriverKind;

static INFO: ResourceInfo = ResourceInfo {
    group: "storage.k8s.io",
    kind: "CSIDriver",
    plural: "csidrivers",
    singular: "csidriver",
    scope: Scope::Cluster,
    storage_prefix: "csidrivers",
    ..ResourceInfo::base()
};

impl Strategy for CsiDriverKind {
    type Object = CSIDriver;

    fn info(&self) -> &'static ResourceInfo {
        &INFO
    }

    fn default(&self, driver: &mut CSIDriver) {
        let spec = &mut driver.spec;
        spec.attach_required.get_or_insert(true);
        spec.pod_info_on_mount.get_or_insert(false);
        spec.storage_capacity.get_or_insert(false);
        spec.fs_group_policy
            .get_or_insert_with(|| "ReadWriteOnceWithFSType".to_owned());
        if spec.volume_lifecycle_modes.as_ref().is_none_or(Vec::is_empty) {
            spec.volume_lifecycle_modes = Some(vec!["Persistent".to_owned()]);
        }
        spec.requires_republish.get_or_insert(false);
        spec.se_linux_mount.get_or_insert(false);
    }

    fn prepare_update(&self, _ctx: &RequestContext<'_>, new: &mut CSIDriver, old: &CSIDriver) {
        meta::next_generation(
            &mut new.metadata,
            &old.metadata,
            Spec::compare(&new.spec, &old.spec),
        );
    }

    fn validate_create(&self, _ctx: &RequestContext<'_>, driver: &CSIDriver) -> Errors {
        let mut errors = Errors::new();
        driver_name(&mut errors, &Loc::new("metadata.name"), driver.name());
        errors.extend(validate(&driver.spec));
        errors
    }

    fn validate_update(&self, _ctx: &RequestContext<'_>, new: &CSIDriver, old: &CSIDriver) -> Errors {
        let mut errors = validate(&new.spec);
        let at = Loc::new("spec");
        let (new, old) = (&new.spec, &old.spec);
        // Upstream's path really ends in `attachedRequired`.
        let at_attach = at.child("attachedRequired");
        rules::immutable(
            &mut errors,
            &at_attach,
            &new.attach_required,
            &old.attach_required,
        );
        rules::immutable(
            &mut errors,
            &at.child("volumeLifecycleModes"),
            &new.volume_lifecycle_modes,
            &old.volume_lifecycle_modes,
        );
        errors
    }

    fn allow_unconditional_update(&self) -> bool {
        false
    }

    fn columns(&self) -> &'static [Column] {
        const COLUMNS: &[Column] = &[
            Column::name(),
            Column::new(
                "AttachRequired",
                "Whether volumes have to be attached to a node first.",
            )
            .of("boolean"),
            Column::new("PodInfoOnMount", "Whether mounting needs to know of the pod.").of("boolean"),
            Column::new(
                "StorageCapacity",
                "Whether the scheduler looks at published capacity.",
            )
            .of("boolean"),
            Column::new("TokenRequests", "Audiences of the tokens the driver is given."),
            Column::new(
                "RequiresRepublish",
                "Whether mounted volumes are published again and again.",
            )
            .of("boolean"),
            Column::new("Modes", "Lifecycles of volumes the driver knows."),
            Column::new("Age", "Time since the object was created."),
        ];
        COLUMNS
    }

    fn cells(&self, driver: &CSIDriver, now: Timestamp) -> Vec<Value> {
        let spec = &driver.spec;
        let audiences: Vec<&str> = spec
            .token_requests
            .iter()
            .flatten()
            .map(|request| request.audience.as_str())
            .collect();
        let modes = spec.volume_lifecycle_modes.as_deref().unwrap_or(&[]).join(",");
        vec![
            cells::name(&driver.metadata),
            spec.attach_required.unwrap_or(true).into(),
            spec.pod_info_on_mount.unwrap_or(false).into(),
            spec.storage_capacity.unwrap_or(false).into(),
            if audiences.is_empty() {
                "<unset>".into()
            } else {
                audiences.join(",").into()
            },
            spec.requires_republish.unwrap_or(false).into(),
            cells::or_none(Some(&modes)),
            cells::age(&driver.metadata, now),
        ]
    }
}

fn validate(spec: &CSIDriverSpec) -> Errors {
    let mut errors = Errors::new();
    let at = Loc::new("spec");
    let policy = spec.fs_group_policy.as_deref();
    rules::optional_one_of(&mut errors, &at.child("fsGroupPolicy"), policy, GROUP_POLICIES);
    let at_tokens = at.child("tokenRequests");
    let tokens = spec.token_requests.as_deref().unwrap_or(&[]);
    for (i, token) in tokens.iter().enumerate() {
        let at = at_tokens.index(i);
        if tokens[..i].iter().any(|other| other.audience == token.audience) {
            errors.push(at.child("audience").duplicate(token.audience.as_str()));
        }
        let Some(seconds) = token.expiration_seconds else {
            continue;
        };
        let at = at.child("expirationSeconds");
        if seconds < TOKEN_SECONDS_MIN {
            errors.push(at.invalid(seconds, "may not specify a duration less than 10 minutes"));
        }
        if seconds > TOKEN_SECONDS_MAX {
            errors.push(at.invalid(seconds, "may not specify a duration larger than 2^32 seconds"));
        }
    }
    let at_modes = at.child("volumeLifecycleModes");
    for mode in spec.volume_lifecycle_modes.iter().flatten() {
        if !LIFECYCLE_MODES.contains(&mode.as_str()) {
            errors.push(at_modes.not_supported(mode.as_str(), LIFECYCLE_MODES));
        }
    }
    if let Some(period) = spec.node_allocatable_update_period_seconds
        && period < UPDATE_PERIOD_MIN
    {
        let detail = format!("must be greater than or equal to {UPDATE_PERIOD_MIN} seconds");
        errors.push(
            at.child("nodeAllocatableUpdatePeriodSeconds")
                .invalid(period, detail),
        );
    }
    errors
}
