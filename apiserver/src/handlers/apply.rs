//! PATCH with `application/apply-patch+yaml`: a manager says which fields it wants, and how.

use keelson_api::apply::{Application, Failure, Managed, Operation, conflict, last_applied};
use keelson_api::names::Gvk;
use keelson_api::object::Object;
use keelson_api::status::{ApiError, ApiResult, MODIFIED};
use keelson_api::strict::{self, FieldValidation};
use keelson_daemon::yaml::{self, Twice, Unread};
use serde_json::{Value, json};

use super::managers::{self, Forms};
use super::update::{Base, Extent, update_with};
use super::{Call, Outcome, body, create};
use crate::authorization::attributes::{Attributes, Resource};

/// How often an object that comes and goes is tried to be created or changed.
const ATTEMPTS: usize = 4;

/// Applies what the body says; creates the object if there is none.
pub async fn apply(call: &Call<'_>, body: &[u8]) -> ApiResult<Outcome> {
    let config = read(call, body)?;
    check(call.served.api_version(), call.info().kind, &config)?;
    for _ in 0..ATTEMPTS {
        let changed = update_with(call, Base::Present, Extent::Whole, |old| {
            applied(call, Some(old), &config)
        })
        .await;
        return match changed {
            Err(error) if error.is_not_found() && call.subresource.is_empty() => {
                match create(call, &config).await {
                    // Somebody else created it in between.
                    Err(error) if error.is_already_exists() => continue,
                    outcome => outcome,
                }
            }
            outcome => outcome,
        };
    }
    Err(ApiError::conflict(&call.group_resource(), call.name, MODIFIED))
}

async fn create(call: &Call<'_>, config: &Value) -> ApiResult<Outcome> {
    let given = |field: &str| {
        config
            .pointer(field)
            .and_then(Value::as_str)
            .filter(|text| !text.is_empty())
    };
    if let Some(uid) = given("/metadata/uid") {
        let why = format!(
            "uid mismatch: the provided object specified uid {uid}, and no existing object was found"
        );
        return Err(ApiError::conflict(&call.group_resource(), call.name, why));
    }
    if given("/metadata/resourceVersion").is_some() {
        return Err(ApiError::conflict(&call.group_resource(), call.name, MODIFIED));
    }
    let attributes = Attributes::resource(
        "create",
        Resource {
            group: call.served.group(),
            version: call.served.version(),
            resource: call.info().plural,
            subresource: call.subresource,
            namespace: call.namespace,
            name: call.name,
        },
    );
    call.server.authorizer.check(call.user, &attributes).await?;
    create::create_object(call, applied(call, None, config)?).await
}

/// The body as a value. Keys that are there twice are mentioned or refused, as the caller wishes.
pub fn read(call: &Call<'_>, body: &[u8]) -> ApiResult<Value> {
    let unreadable =
        |why: &dyn std::fmt::Display| ApiError::bad_request(format!("error decoding YAML: {why}"));
    let (value, duplicate) = lenient(body).map_err(|why| unreadable(&why))?;
    if !value.is_object() {
        return Err(unreadable(
            &"json: cannot unmarshal the body into Go value of type map[string]interface {}",
        ));
    }
    if let Some(why) = duplicate {
        match call.options.field_validation {
            FieldValidation::Ignore => {}
            FieldValidation::Warn => call.warn(why),
            FieldValidation::Strict => {
                return Err(ApiError::bad_request(format!(
                    "error strict decoding YAML: {why}"
                )));
            }
        }
    }
    Ok(value)
}

/// YAML, or JSON, as a value in which the last of several keys counts; and what is wrong with that, in words.
fn lenient(body: &[u8]) -> Result<(Value, Option<String>), String> {
    // What most clients send. YAML reads it, too, but for characters that JSON writes in two halves.
    if let Ok(value) = serde_json::from_slice(body)
        && strict::duplicates(body).is_ok_and(|twice| twice.is_empty())
    {
        return Ok((value, None));
    }
    let text = std::str::from_utf8(body).map_err(|e| e.to_string())?;
    match yaml::read(text, Twice::Refused) {
        Ok(value) => Ok((value, None)),
        Err(why @ Unread::Duplicate { .. }) => {
            let value = yaml::read(text, Twice::Last).map_err(|e| e.to_string())?;
            Ok((value, Some(format!("error converting YAML to JSON: {why}"))))
        }
        Err(why) => Err(format!("error converting YAML to JSON: {why}")),
    }
}

/// Refuses configurations of another kind and those that say who manages what.
pub fn check(version: String, kind: &str, config: &Value) -> ApiResult<()> {
    let text = |field: &str| config.get(field).and_then(Value::as_str).unwrap_or_default();
    if text("apiVersion") != version || text("kind") != kind {
        let given = Gvk::from_api_version(text("apiVersion"), text("kind"));
        return Err(ApiError::bad_request(format!("invalid object type: {given}")));
    }
    let managed = config.pointer("/metadata/managedFields");
    if managed.is_some_and(|entries| !entries.is_null()) {
        return Err(ApiError::bad_request("metadata.managedFields must be nil"));
    }
    Ok(())
}

/// The object with the configuration laid over it.
fn applied(call: &Call<'_>, old: Option<&dyn Object>, config: &Value) -> ApiResult<Box<dyn Object>> {
    let live = match old {
        Some(old) => live(call, old)?,
        None => json!({}),
    };
    let managed = old.map_or_else(Managed::default, |old| {
        managers::stored(&old.meta().managed_fields)
    });
    let manager = managers::of_call(call, Operation::Apply);
    let reset = managers::reset_fields(call);
    let mut application = Application {
        config,
        live: &live,
        exists: old.is_some(),
        manager,
        force: call.options.force,
        reset: &reset,
        now: call.now,
    };
    let forms = Forms::new(call);
    let (object, managed) = run(&mut application, &managed, &forms, || about(call, config))?;
    let annotated =
        application.manager.name == last_applied::MANAGER && last_applied::annotation(&live).is_some();
    let mut new = match object {
        None if !annotated => match old {
            Some(old) => old.clone_box(),
            None => body::from_value(call, live)?,
        },
        object => {
            let mut object = object.unwrap_or(live);
            if annotated {
                last_applied::follow(&mut object, config);
            }
            body::from_value(call, object)?
        }
    };
    new.meta_mut().managed_fields = managed.into_entries();
    Ok(new)
}

/// Applies; conflicts with what client-side apply has left are none.
pub fn run(
    application: &mut Application<'_>,
    managed: &Managed,
    forms: &dyn keelson_api::apply::Converter,
    about: impl Fn() -> String,
) -> ApiResult<(Option<Value>, Managed)> {
    let refuse = |failure: Failure| match failure {
        Failure::Conflicts(conflicts) => conflict::refusal(conflicts),
        Failure::Invalid(why) => ApiError::new(500, "", why),
    };
    if let Err(Failure::Invalid(why)) = application.validate(forms) {
        let text = format!("failed to create typed patch object ({}): {why}", about());
        return Err(ApiError::new(500, "", text));
    }
    match application.apply(managed, forms) {
        Err(Failure::Conflicts(conflicts)) if application.manager.name == last_applied::MANAGER => {
            let version = application.manager.version.clone();
            let left = forms
                .schema(&version)
                .and_then(|schema| last_applied::remaining(&conflicts, application.live, &version, schema))
                .unwrap_or(conflicts);
            if !left.is_empty() {
                return Err(refuse(Failure::Conflicts(left)));
            }
            application.force = true;
            application.apply(managed, forms).map_err(refuse)
        }
        done => done.map_err(refuse),
    }
}

/// How messages name the object: `default/web; apps/v1, Kind=Deployment`.
fn about(call: &Call<'_>, config: &Value) -> String {
    let meta = |field: &str| {
        config
            .pointer(field)
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned()
    };
    let gvk = Gvk::from_api_version(&call.served.api_version(), call.info().kind);
    format!(
        "{}/{}; {gvk}",
        meta("/metadata/namespace"),
        meta("/metadata/name")
    )
}

/// The object in the version asked for, without who manages it.
fn live(call: &Call<'_>, old: &dyn Object) -> ApiResult<Value> {
    let mut live = old.to_value()?;
    call.served.from_storage(&mut live);
    if let Some(meta) = live.get_mut("metadata").and_then(Value::as_object_mut) {
        meta.remove("managedFields");
    }
    Ok(live)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_key_that_is_there_twice_the_last_counts() {
        let (value, why) = lenient(b"a: 1\nb:\n  c: 1\n  c: 2\n").expect("a value");
        assert_eq!(value, json!({"a": 1, "b": {"c": 2}}));
        assert_eq!(
            why.as_deref(),
            Some(
                "error converting YAML to JSON: yaml: unmarshal errors:\n  line 4: key \"c\" already set in map"
            )
        );
        let (value, why) = lenient(br#"{"a": {"b": [1, "\ud83d\ude00"]}}"#).expect("a value");
        assert_eq!((value, why), (json!({"a": {"b": [1, "\u{1f600}"]}}), None));
        let (value, why) = lenient(br#"{"a": 1, "a": 2}"#).expect("a value");
        assert_eq!(value, json!({"a": 2}));
        assert!(why.is_some_and(|why| why.ends_with("line 1: key \"a\" already set in map")));
        assert!(lenient(b"a: [").is_err());
    }
}
