//! `extensions/v1beta1`: the group that old manifests name. Its objects are those of today's groups.
//!
//! A form is converted as it comes in, with the defaults the old group had; it is stored, and checked, as what it is now.

use keelson_api::status::{ApiError, ApiResult};
use serde_json::{Map, Value, json};

use super::info::Alias;

/// Kinds whose old form has a shape of its own; all others look as they do today.
pub const OTHER_SHAPES: &[&str] = &["Ingress"];

/// "No limit", as the old group wrote it.
const UNLIMITED: i32 = i32::MAX;

macro_rules! deprecated {
    ($kind:literal, $deprecated:literal, $removed:literal, $group:literal) => {
        concat!(
            "extensions/v1beta1 ",
            $kind,
            " is deprecated in ",
            $deprecated,
            "+, unavailable in ",
            $removed,
            "+; use ",
            $group,
            " ",
            $kind
        )
    };
}

const fn alias(
    to_storage: fn(&mut Value) -> ApiResult<()>,
    from_storage: fn(&mut Value),
    deprecation: &'static str,
) -> Alias {
    Alias {
        group: "extensions",
        version: "v1beta1",
        to_storage,
        from_storage,
        field_names: &[],
        deprecation: Some(deprecation),
        discoverable: true,
    }
}

/// Old Deployments.
pub const DEPLOYMENT: Alias = alias(
    deployment,
    unchanged,
    deprecated!("Deployment", "v1.8", "v1.16", "apps/v1"),
);
/// Old ReplicaSets.
pub const REPLICA_SET: Alias = alias(
    replica_set,
    unchanged,
    deprecated!("ReplicaSet", "v1.8", "v1.16", "apps/v1"),
);
/// Old DaemonSets.
pub const DAEMON_SET: Alias = alias(
    daemon_set,
    unchanged,
    deprecated!("DaemonSet", "v1.8", "v1.16", "apps/v1"),
);
/// Old Ingresses.
pub const INGRESS: Alias = alias(
    ingress,
    ingress_back,
    deprecated!("Ingress", "v1.14", "v1.22", "networking.k8s.io/v1"),
);

fn unchanged(_object: &mut Value) {}

fn map<'a>(value: &'a mut Value, what: &str) -> ApiResult<&'a mut Map<String, Value>> {
    value
        .as_object_mut()
        .ok_or_else(|| ApiError::bad_request(format!("{what} must be a JSON object")))
}

/// The spec, if there is one to complete.
fn spec<'a>(object: &'a mut Value, kind: &str) -> ApiResult<Option<&'a mut Map<String, Value>>> {
    match map(object, kind)?.get_mut("spec") {
        None | Some(Value::Null) => Ok(None),
        Some(spec) => map(spec, "spec").map(Some),
    }
}

fn fill(spec: &mut Map<String, Value>, field: &str, default: Value) {
    let unset = spec.get(field).is_none_or(Value::is_null);
    if unset {
        spec.insert(field.to_owned(), default);
    }
}

/// Without a selector, an object selected the pods it made.
fn selector_from_template(object: &mut Value) -> ApiResult<()> {
    let labels = object
        .pointer("/spec/template/metadata/labels")
        .filter(|l| l.is_object())
        .cloned();
    let Some(labels) = labels else { return Ok(()) };
    let empty = |value: Option<&Value>| value.and_then(Value::as_object).is_none_or(Map::is_empty);
    let spec = map(&mut object["spec"], "spec")?;
    if empty(spec.get("selector")) {
        spec.insert("selector".to_owned(), json!({"matchLabels": labels}));
    }
    let metadata = map(object, "object")?
        .entry("metadata")
        .or_insert_with(|| json!({}));
    let metadata = map(metadata, "metadata")?;
    if empty(metadata.get("labels")) {
        metadata.insert("labels".to_owned(), labels);
    }
    Ok(())
}

fn deployment(object: &mut Value) -> ApiResult<()> {
    selector_from_template(object)?;
    let Some(spec) = spec(object, "Deployment")? else {
        return Ok(());
    };
    spec.remove("rollbackTo");
    fill(spec, "revisionHistoryLimit", UNLIMITED.into());
    fill(spec, "progressDeadlineSeconds", UNLIMITED.into());
    fill(spec, "strategy", json!({}));
    let strategy = map(&mut spec["strategy"], "strategy")?;
    fill(strategy, "type", "RollingUpdate".into());
    if strategy["type"] == "RollingUpdate" {
        fill(strategy, "rollingUpdate", json!({}));
        let rolling = map(&mut strategy["rollingUpdate"], "rollingUpdate")?;
        fill(rolling, "maxUnavailable", 1.into());
        fill(rolling, "maxSurge", 1.into());
    }
    Ok(())
}

fn replica_set(object: &mut Value) -> ApiResult<()> {
    selector_from_template(object)
}

fn daemon_set(object: &mut Value) -> ApiResult<()> {
    selector_from_template(object)?;
    let Some(spec) = spec(object, "DaemonSet")? else {
        return Ok(());
    };
    spec.remove("templateGeneration");
    fill(spec, "updateStrategy", json!({"type": "OnDelete"}));
    Ok(())
}

fn ingress(object: &mut Value) -> ApiResult<()> {
    let Some(spec) = spec(object, "Ingress")? else {
        return Ok(());
    };
    if let Some(mut backend) = spec.remove("backend") {
        self::backend(&mut backend);
        spec.insert("defaultBackend".to_owned(), backend);
    }
    each_path(spec, |path| {
        fill(path, "pathType", "ImplementationSpecific".into());
        if let Some(backend) = path.get_mut("backend") {
            self::backend(backend);
        }
    });
    Ok(())
}

fn ingress_back(object: &mut Value) {
    let Some(spec) = object.get_mut("spec").and_then(Value::as_object_mut) else {
        return;
    };
    if let Some(mut backend) = spec.remove("defaultBackend") {
        backend_back(&mut backend);
        spec.insert("backend".to_owned(), backend);
    }
    each_path(spec, |path| {
        if let Some(backend) = path.get_mut("backend") {
            backend_back(backend);
        }
    });
}

fn each_path(spec: &mut Map<String, Value>, mut visit: impl FnMut(&mut Map<String, Value>)) {
    let rules = spec
        .get_mut("rules")
        .and_then(Value::as_array_mut)
        .into_iter()
        .flatten();
    for rule in rules {
        let paths = rule
            .pointer_mut("/http/paths")
            .and_then(Value::as_array_mut)
            .into_iter()
            .flatten();
        paths.filter_map(Value::as_object_mut).for_each(&mut visit);
    }
}

/// `serviceName` and `servicePort` become `service`.
fn backend(backend: &mut Value) {
    let Some(fields) = backend.as_object_mut() else {
        return;
    };
    let (name, port) = (fields.remove("serviceName"), fields.remove("servicePort"));
    if name.is_none() && port.is_none() {
        return;
    }
    let port = match port {
        Some(Value::Number(number)) => json!({"number": number}),
        Some(Value::String(name)) => json!({"name": name}),
        _ => json!({}),
    };
    fields.insert(
        "service".to_owned(),
        json!({"name": name.unwrap_or_else(|| "".into()), "port": port}),
    );
}

fn backend_back(backend: &mut Value) {
    let Some(fields) = backend.as_object_mut() else {
        return;
    };
    let Some(service) = fields.remove("service") else {
        return;
    };
    if let Some(name) = service.get("name") {
        fields.insert("serviceName".to_owned(), name.clone());
    }
    let port = service
        .pointer("/port/number")
        .or_else(|| service.pointer("/port/name"));
    if let Some(port) = port {
        fields.insert("servicePort".to_owned(), port.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_deployments_select_their_own_pods() {
        let mut object = json!({
            "metadata": {"name": "ngx"},
            "spec": {"rollbackTo": {"revision": 1}, "template": {"metadata": {"labels": {"run": "ngx"}}}}
        });
        deployment(&mut object).expect("a deployment");
        assert_eq!(object["metadata"]["labels"], json!({"run": "ngx"}));
        assert_eq!(object["spec"]["selector"], json!({"matchLabels": {"run": "ngx"}}));
        assert_eq!(
            object["spec"]["strategy"]["rollingUpdate"],
            json!({"maxUnavailable": 1, "maxSurge": 1})
        );
        assert_eq!(object["spec"]["progressDeadlineSeconds"], UNLIMITED);
        assert!(object["spec"].get("rollbackTo").is_none());
        assert!(deployment(&mut json!(1)).is_err());
    }

    #[test]
    fn old_ingresses_come_back_as_they_went() {
        let old = json!({"metadata": {"name": "i"}, "spec": {
            "backend": {"serviceName": "a", "servicePort": 80},
            "rules": [{"http": {"paths": [
                {"path": "/", "pathType": "Prefix", "backend": {"serviceName": "b", "servicePort": "web"}}]}}]}});
        let mut object = old.clone();
        ingress(&mut object).expect("an ingress");
        assert_eq!(
            object["spec"]["defaultBackend"],
            json!({"service": {"name": "a", "port": {"number": 80}}})
        );
        ingress_back(&mut object);
        assert_eq!(object, old);
    }

    #[test]
    fn the_warning_names_the_way_out() {
        assert_eq!(
            DEPLOYMENT.deprecation,
            Some(
                "extensions/v1beta1 Deployment is deprecated in v1.8+, unavailable in v1.16+; use apps/v1 Deployment"
            )
        );
    }
}
