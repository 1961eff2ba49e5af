//! Events: stored as core/v1, also served as events.k8s.io/v1, which asks for more.

mod validation;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Event, ObjectReference};
use keelson_api::field::Errors;
use keelson_api::status::ApiError;
use serde_json::{Map, Value};

use crate::registry::common::cells;
use crate::registry::strategy::{
    Alias, Column, Fields, Lifetime, OtherFields, RequestContext, ResourceInfo, Strategy,
};

/// The kind's strategy.
pub struct EventStrategy;

static INFO: ResourceInfo = ResourceInfo {
    kind: "Event",
    plural: "events",
    singular: "event",
    short_names: &["ev"],
    storage_prefix: "events",
    lifetime: Lifetime::Events,
    selectable_fields: &[
        "involvedObject.kind",
        "involvedObject.namespace",
        "involvedObject.name",
        "involvedObject.uid",
        "involvedObject.apiVersion",
        "involvedObject.resourceVersion",
        "involvedObject.fieldPath",
        "reason",
        "reportingComponent",
        "source",
        "type",
    ],
    other_fields: OtherFields::NotSupported,
    aliases: &[Alias {
        group: "events.k8s.io",
        version: "v1",
        to_storage: to_core,
        from_storage: from_core,
        field_names: FIELD_NAMES,
        deprecation: None,
        discoverable: true,
    }],
    ..ResourceInfo::base()
};

/// Fields that have another name in events.k8s.io: there, and here.
const RENAMED: &[(&str, &str)] = &[
    ("note", "message"),
    ("regarding", "involvedObject"),
    ("reportingController", "reportingComponent"),
    ("deprecatedSource", "source"),
    ("deprecatedFirstTimestamp", "firstTimestamp"),
    ("deprecatedLastTimestamp", "lastTimestamp"),
    ("deprecatedCount", "count"),
];

/// Fields of selectors in events.k8s.io: there, and here.
const FIELD_NAMES: &[(&str, &str)] = &[
    ("regarding.kind", "involvedObject.kind"),
    ("regarding.namespace", "involvedObject.namespace"),
    ("regarding.name", "involvedObject.name"),
    ("regarding.uid", "involvedObject.uid"),
    ("regarding.apiVersion", "involvedObject.apiVersion"),
    ("regarding.resourceVersion", "involvedObject.resourceVersion"),
    ("regarding.fieldPath", "involvedObject.fieldPath"),
    ("reason", "reason"),
    ("reportingController", "reportingComponent"),
    ("type", "type"),
];

fn rename(object: &mut Map<String, Value>, from: &str, to: &str) {
    if let Some(value) = object.remove(from) {
        object.insert(to.to_owned(), value);
    }
}

fn to_core(event: &mut Value) -> Result<(), ApiError> {
    let Value::Object(event) = event else {
        return Err(ApiError::bad_request("an event must be a JSON object"));
    };
    for (new, old) in RENAMED {
        rename(event, new, old);
    }
    Ok(())
}

fn from_core(event: &mut Value) {
    if let Value::Object(event) = event {
        for (new, old) in RENAMED {
            rename(event, old, new);
        }
    }
}

impl Strategy for EventStrategy {
    type Object = Event;

    fn info(&self) -> &'static ResourceInfo {
        &INFO
    }

    fn validate_create(&self, ctx: &RequestContext<'_>, event: &Event) -> Errors {
        let mut errors = validation::event(event, ctx.alias.is_some());
        if ctx.alias.is_some() {
            validation::strictly_new(&mut errors, event);
        }
        errors
    }

    fn validate_update(&self, ctx: &RequestContext<'_>, new: &Event, old: &Event) -> Errors {
        let mut errors = validation::event(new, ctx.alias.is_some());
        if ctx.alias.is_some() {
            validation::strictly_changed(&mut errors, new, old);
        }
        errors
    }

    fn allow_create_on_update(&self) -> bool {
        true
    }

    fn selectable_fields(&self, event: &Event) -> Fields {
        let object = &event.involved_object;
        let text = |field: &Option<String>| field.clone().unwrap_or_default();
        let component = event.source.as_ref().and_then(|s| s.component.clone());
        let source = component
            .filter(|c| !c.is_empty())
            .unwrap_or_else(|| text(&event.reporting_component));
        vec![
            ("involvedObject.kind", text(&object.kind)),
            ("involvedObject.namespace", text(&object.namespace)),
            ("involvedObject.name", text(&object.name)),
            ("involvedObject.uid", text(&object.uid)),
            ("involvedObject.apiVersion", text(&object.api_version)),
            ("involvedObject.resourceVersion", text(&object.resource_version)),
            ("involvedObject.fieldPath", text(&object.field_path)),
            ("reason", text(&event.reason)),
            ("reportingComponent", text(&event.reporting_component)),
            ("source", source),
            ("type", text(&event.type_)),
        ]
    }

    fn columns(&self) -> &'static [Column] {
        const COLUMNS: &[Column] = &[
            Column::new("Last Seen", "When the event was last seen."),
            Column::new("Type", "Normal or Warning."),
            Column::new("Reason", "Why the event was made, in one word."),
            Column::new("Object", "What the event is about."),
            Column::new("Subobject", "Which part of the object the event is about.").wide(),
            Column::new("Source", "Who made the event.").wide(),
            Column::new("Message", "What happened."),
            Column::new("First Seen", "When the event was first seen.").wide(),
            Column::new("Count", "How often the event was seen.").wide(),
            Column {
                priority: 1,
                ..Column::name()
            },
        ];
        COLUMNS
    }

    fn cells(&self, event: &Event, now: Timestamp) -> Vec<Value> {
        let first = match (&event.first_timestamp, &event.event_time) {
            (Some(_), _) => cells::since(event.first_timestamp.as_ref(), now),
            (None, Some(at)) => cells::human_duration(now.as_second() - at.0.as_second()),
            (None, None) => cells::UNKNOWN.to_owned(),
        };
        let last = match (&event.series, &event.last_timestamp) {
            (Some(series), _) => series.last_observed_time.as_ref().map_or_else(
                || cells::UNKNOWN.to_owned(),
                |at| cells::human_duration(now.as_second() - at.0.as_second()),
            ),
            (None, Some(_)) => cells::since(event.last_timestamp.as_ref(), now),
            (None, None) => first.clone(),
        };
        let count = match &event.series {
            Some(series) => series.count.unwrap_or(0),
            // Events of one occurrence need not count it.
            None => event.count.filter(|count| *count != 0).unwrap_or(1),
        };
        let text = |field: &Option<String>| Value::from(field.as_deref().unwrap_or(""));
        vec![
            last.into(),
            text(&event.type_),
            text(&event.reason),
            object(&event.involved_object).into(),
            text(&event.involved_object.field_path),
            source(event).into(),
            event.message.as_deref().unwrap_or("").trim().into(),
            first.into(),
            count.into(),
            cells::name(&event.metadata),
        ]
    }
}

fn object(reference: &ObjectReference) -> String {
    let kind = reference.kind.as_deref().unwrap_or("").to_lowercase();
    match reference.name.as_deref() {
        Some(name) if !name.is_empty() => format!("{kind}/{name}"),
        _ => kind,
    }
}

fn source(event: &Event) -> String {
    let source = event.source.as_ref();
    let own = source
        .and_then(|s| s.component.as_deref())
        .filter(|c| !c.is_empty());
    let component = own.or(event.reporting_component.as_deref()).unwrap_or("");
    let host = source.and_then(|s| s.host.as_deref()).filter(|h| !h.is_empty());
    let instance = event.reporting_instance.as_deref().filter(|i| !i.is_empty());
    match host.or(instance) {
        Some(host) => format!("{component}, {host}"),
        None => component.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn both_groups_show_the_same_event() {
        let new = json!({
            "metadata": {"name": "e"}, "note": "n", "regarding": {"kind": "Pod"}, "reportingController": "c",
            "deprecatedCount": 3, "action": "a", "eventTime": null
        });
        let mut event = new.clone();
        to_core(&mut event).expect("an event");
        assert_eq!(
            (
                &event["message"],
                &event["involvedObject"]["kind"],
                &event["count"]
            ),
            (&json!("n"), &json!("Pod"), &json!(3))
        );
        from_core(&mut event);
        assert_eq!(event, new);
    }
}
