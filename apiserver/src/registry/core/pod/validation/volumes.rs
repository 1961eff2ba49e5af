//! Volumes and their sources.

use k8s_openapi::api::core::v1::{
    DownwardAPIVolumeFile, HostPathVolumeSource, KeyToPath, NFSVolumeSource, ProjectedVolumeSource, Volume,
    VolumeProjection,
};
use keelson_api::field::Errors;

use super::environment::{self, Container, FILE_FIELDS};
use super::inner_name;
use crate::registry::common::loc::Loc;
use crate::registry::common::rules;
use crate::registry::core::pod::defaults::volume_sources;

const MODE_MAX: i32 = 0o777;
const MODE: &str = "must be a number between 0 and 0777 (octal), both inclusive";
const TOKEN_SECONDS_MIN: i64 = 10 * 60;
const TOKEN_SECONDS_MAX: i64 = 1 << 32;
const HOST_PATH_TYPES: &[&str] = &[
    "",
    "BlockDevice",
    "CharDevice",
    "Directory",
    "DirectoryOrCreate",
    "File",
    "FileOrCreate",
    "Socket",
];

/// The volumes of a pod.
pub fn volumes(errors: &mut Errors, at: &Loc<'_>, volumes: &[Volume]) {
    for (i, volume) in volumes.iter().enumerate() {
        let at = at.index(i);
        source(errors, &at, volume);
        if volume.name.is_empty() {
            errors.push(at.child("name").required(""));
            continue;
        }
        inner_name(errors, &at.child("name"), &volume.name);
        if volumes[..i].iter().any(|v| v.name == volume.name) {
            errors.push(at.child("name").duplicate(volume.name.as_str()));
        }
    }
}

fn source(errors: &mut Errors, at: &Loc<'_>, volume: &Volume) {
    let mut sources = volume_sources(volume);
    if sources.next().is_none() {
        errors.push(at.required("must specify a volume type"));
        return;
    }
    for further in sources {
        errors.push(
            at.child(further)
                .forbidden("may not specify more than 1 volume type"),
        );
    }
    if let Some(empty_dir) = &volume.empty_dir
        && let Some(limit) = &empty_dir.size_limit
    {
        rules::quantity(errors, &at.child("emptyDir.sizeLimit"), limit);
    }
    if let Some(host_path) = &volume.host_path {
        self::host_path(errors, &at.child("hostPath"), host_path);
    }
    if let Some(git) = &volume.git_repo {
        rules::not_empty(errors, &at.child("gitRepo.repository"), Some(&git.repository));
    }
    if let Some(secret) = &volume.secret {
        let at = at.child("secret");
        rules::not_empty(errors, &at.child("secretName"), secret.secret_name.as_deref());
        mode(errors, &at.child("defaultMode"), secret.default_mode);
        items(errors, &at.child("items"), secret.items.as_deref().unwrap_or(&[]));
    }
    if let Some(config_map) = &volume.config_map {
        let at = at.child("configMap");
        rules::not_empty(errors, &at.child("name"), Some(&config_map.name));
        mode(errors, &at.child("defaultMode"), config_map.default_mode);
        items(
            errors,
            &at.child("items"),
            config_map.items.as_deref().unwrap_or(&[]),
        );
    }
    if let Some(nfs) = &volume.nfs {
        self::nfs(errors, &at.child("nfs"), nfs);
    }
    if let Some(iscsi) = &volume.iscsi {
        let at = at.child("iscsi");
        rules::not_empty(errors, &at.child("targetPortal"), Some(&iscsi.target_portal));
        rules::not_empty(errors, &at.child("iqn"), Some(&iscsi.iqn));
        rules::between(errors, &at.child("lun"), iscsi.lun.into(), 0, 255);
    }
    if let Some(claim) = &volume.persistent_volume_claim {
        rules::not_empty(
            errors,
            &at.child("persistentVolumeClaim.claimName"),
            Some(&claim.claim_name),
        );
    }
    if let Some(downward) = &volume.downward_api {
        let at = at.child("downwardAPI");
        mode(errors, &at.child("defaultMode"), downward.default_mode);
        for file in downward.items.iter().flatten() {
            downward_file(errors, &at, file);
        }
    }
    if let Some(projected) = &volume.projected {
        self::projected(errors, &at.child("projected"), projected);
    }
    if let Some(csi) = &volume.csi {
        let at = at.child("csi");
        driver_name(errors, &at.child("driver"), &csi.driver);
        if let Some(secret) = &csi.node_publish_secret_ref {
            rules::not_empty(errors, &at.child("nodePublishSecretRef.name"), Some(&secret.name));
        }
    }
    if let Some(ephemeral) = &volume.ephemeral {
        let at = at.child("ephemeral.volumeClaimTemplate");
        match &ephemeral.volume_claim_template {
            None => errors.push(at.required("")),
            Some(template) => {
                crate::registry::core::persistent_volume_claim::validate_spec(
                    errors,
                    &at.child("spec"),
                    &template.spec,
                );
            }
        }
    }
    if let Some(fc) = &volume.fc {
        let at = at.child("fc");
        let wwns = fc.target_wwns.as_ref().is_some_and(|w| !w.is_empty());
        let wwids = fc.wwids.as_ref().is_some_and(|w| !w.is_empty());
        match (wwns, wwids) {
            (false, false) => errors.push(
                at.child("targetWWNs")
                    .required("must specify either targetWWNs or wwids"),
            ),
            (true, true) => {
                let detail = "targetWWNs and wwids can not be specified simultaneously";
                errors.push(
                    at.child("targetWWNs")
                        .invalid(rules::shown(&fc.target_wwns), detail),
                );
            }
            (true, false) if fc.lun.is_none() => {
                errors.push(
                    at.child("lun")
                        .required("lun is required if targetWWNs is specified"),
                );
            }
            _ => {}
        }
    }
    if let Some(image) = &volume.image {
        let at = at.child("image");
        rules::not_empty(errors, &at.child("reference"), image.reference.as_deref());
        rules::one_of(
            errors,
            &at.child("pullPolicy"),
            image.pull_policy.as_deref(),
            &["Always", "IfNotPresent", "Never"],
        );
    }
}

/// A folder or file of the node.
pub fn host_path(errors: &mut Errors, at: &Loc<'_>, source: &HostPathVolumeSource) {
    if source.path.is_empty() {
        errors.push(at.child("path").required(""));
        return;
    }
    rules::no_backsteps(errors, &at.child("path"), &source.path);
    rules::optional_one_of(
        errors,
        &at.child("type"),
        source.type_.as_deref(),
        HOST_PATH_TYPES,
    );
}

/// A folder of a file server.
pub fn nfs(errors: &mut Errors, at: &Loc<'_>, source: &NFSVolumeSource) {
    rules::not_empty(errors, &at.child("server"), Some(&source.server));
    rules::not_empty(errors, &at.child("path"), Some(&source.path));
    if !source.path.starts_with('/') {
        errors.push(
            at.child("path")
                .invalid(source.path.as_str(), "must be an absolute path"),
        );
    }
}

/// The name of a CSI driver.
pub fn driver_name(errors: &mut Errors, at: &Loc<'_>, name: &str) {
    if name.is_empty() {
        errors.push(at.required(""));
        return;
    }
    if name.len() > 63 {
        errors.push(at.too_long(63));
    }
    rules::subdomain(errors, at, &name.to_lowercase());
}

fn mode(errors: &mut Errors, at: &Loc<'_>, mode: Option<i32>) {
    if let Some(mode) = mode
        && !(0..=MODE_MAX).contains(&mode)
    {
        errors.push(at.invalid(mode, MODE));
    }
}

fn items(errors: &mut Errors, at: &Loc<'_>, items: &[KeyToPath]) {
    for (i, item) in items.iter().enumerate() {
        let at = at.index(i);
        rules::not_empty(errors, &at.child("key"), Some(&item.key));
        file_path(errors, &at.child("path"), &item.path);
        mode(errors, &at.child("mode"), item.mode);
    }
}

fn file_path(errors: &mut Errors, at: &Loc<'_>, path: &str) {
    if path.is_empty() {
        errors.push(at.required(""));
    } else {
        rules::file_path(errors, at, path);
    }
}

fn downward_file(errors: &mut Errors, at: &Loc<'_>, file: &DownwardAPIVolumeFile) {
    file_path(errors, &at.child("path"), &file.path);
    match (&file.field_ref, &file.resource_field_ref) {
        (Some(field), other) => {
            environment::field_selector(errors, &at.child("fieldRef"), field, FILE_FIELDS);
            if other.is_some() {
                let detail = "fieldRef and resourceFieldRef can not be specified simultaneously";
                errors.push(at.invalid("resource", detail));
            }
        }
        (None, Some(resource)) => {
            environment::resource_selector(errors, &at.child("resourceFieldRef"), resource, Container::Named);
        }
        (None, None) => errors.push(at.required("one of fieldRef and resourceFieldRef is required")),
    }
    mode(errors, &at.child("mode"), file.mode);
}

fn projected(errors: &mut Errors, at: &Loc<'_>, source: &ProjectedVolumeSource) {
    mode(errors, &at.child("defaultMode"), source.default_mode);
    let at = at.child("sources");
    let mut paths: Vec<&str> = Vec::new();
    for (i, source) in source.sources.iter().flatten().enumerate() {
        let at = at.index(i);
        projection(errors, &at, source);
        for path in projected_paths(source) {
            if !path.is_empty() && paths.contains(&path) {
                errors.push(at.invalid(path, "conflicting duplicate paths"));
            }
            paths.push(path);
        }
    }
}

/// The files one source of a projected volume makes, as far as they are known.
fn projected_paths(source: &VolumeProjection) -> impl Iterator<Item = &str> {
    let secret = source.secret.iter().flat_map(|s| s.items.iter().flatten());
    let config_map = source.config_map.iter().flat_map(|c| c.items.iter().flatten());
    let downward = source.downward_api.iter().flat_map(|d| d.items.iter().flatten());
    let token = source.service_account_token.iter().map(|t| t.path.as_str());
    secret
        .chain(config_map)
        .map(|item| item.path.as_str())
        .chain(downward.map(|file| file.path.as_str()))
        .chain(token)
}

fn projection(errors: &mut Errors, at: &Loc<'_>, source: &VolumeProjection) {
    let set = [
        ("secret", source.secret.is_some()),
        ("configMap", source.config_map.is_some()),
        ("downwardAPI", source.downward_api.is_some()),
        ("serviceAccountToken", source.service_account_token.is_some()),
        ("clusterTrustBundle", source.cluster_trust_bundle.is_some()),
        ("podCertificate", source.pod_certificate.is_some()),
    ];
    let mut sources = set.iter().filter(|(_, set)| *set);
    if sources.next().is_none() {
        errors.push(at.required("must specify a volume type"));
    }
    for (further, _) in sources {
        errors.push(
            at.child(further)
                .forbidden("may not specify more than 1 volume type"),
        );
    }
    if let Some(secret) = &source.secret {
        let at = at.child("secret");
        rules::not_empty(errors, &at.child("name"), Some(&secret.name));
        items(errors, &at.child("items"), secret.items.as_deref().unwrap_or(&[]));
    }
    if let Some(config_map) = &source.config_map {
        let at = at.child("configMap");
        rules::not_empty(errors, &at.child("name"), Some(&config_map.name));
        items(
            errors,
            &at.child("items"),
            config_map.items.as_deref().unwrap_or(&[]),
        );
    }
    if let Some(downward) = &source.downward_api {
        let at = at.child("downwardAPI");
        for file in downward.items.iter().flatten() {
            downward_file(errors, &at, file);
        }
    }
    if let Some(token) = &source.service_account_token {
        let at = at.child("serviceAccountToken");
        let seconds = token.expiration_seconds.unwrap_or(0);
        if seconds < TOKEN_SECONDS_MIN {
            let detail = "may not specify a duration less than 10 minutes";
            errors.push(at.child("expirationSeconds").invalid(seconds, detail));
        }
        if seconds > TOKEN_SECONDS_MAX {
            let detail = "may not specify a duration larger than 2^32 seconds";
            errors.push(at.child("expirationSeconds").invalid(seconds, detail));
        }
        file_path(errors, &at.child("path"), &token.path);
    }
    if let Some(bundle) = &source.cluster_trust_bundle {
        let at = at.child("clusterTrustBundle");
        match (&bundle.name, &bundle.signer_name) {
            (Some(_), Some(_)) => {
                let detail = "only one of name and signerName may be used";
                errors.push(at.invalid(rules::shown(bundle), detail));
            }
            (None, None) => errors.push(at.required("either name or signerName must be specified")),
            _ => {}
        }
        file_path(errors, &at.child("path"), &bundle.path);
    }
}
