//! Which events are accepted: what recorders of old send to core/v1, what has a time of its own, and what comes through
//! events.k8s.io/v1, of which only the series may change afterwards.

use k8s_openapi::api::core::v1::Event;
use keelson_api::field::Errors;

use crate::registry::common::loc::Loc;
use crate::registry::common::rules::{immutable, qualified_name};

/// Bytes of the words: who did what why.
const WORD: usize = 128;
/// Bytes of the message.
const MESSAGE: usize = 1024;

fn text(field: &Option<String>) -> &str {
    field.as_deref().unwrap_or_default()
}

/// The rules of both groups; the new one has another name for the component.
pub fn event(event: &Event, new_group: bool) -> Errors {
    let mut errors = Errors::new();
    let own = text(&event.metadata.namespace);
    let about = text(&event.involved_object.namespace);
    // What lives in no namespace has its events in the default one, or, if they are of the new kind, in the system's.
    let fits = match (event.event_time.is_some(), about) {
        (false, "") => matches!(own, "" | "default"),
        (true, "") => matches!(own, "default" | "kube-system"),
        (false, about) => own == about,
        (true, _) => true,
    };
    if !fits {
        let at = Loc::new("involvedObject.namespace");
        errors.push(at.invalid(about, "does not match event.namespace"));
    }
    if event.event_time.is_some() {
        of_the_new_kind(&mut errors, event, new_group);
    }
    errors
}

fn of_the_new_kind(errors: &mut Errors, event: &Event, new_group: bool) {
    let at = Loc::new(if new_group {
        "reportingController"
    } else {
        "reportingComponent"
    });
    let reporter = text(&event.reporting_component);
    if reporter.is_empty() {
        errors.push(at.required(""));
    }
    qualified_name(errors, &at, reporter);
    let words = [
        ("reportingInstance", text(&event.reporting_instance)),
        ("action", text(&event.action)),
        ("reason", text(&event.reason)),
    ];
    for (name, word) in words {
        if word.is_empty() {
            errors.push(Loc::new(name).required(""));
        }
        at_most(errors, name, word, WORD);
    }
    at_most(errors, "message", text(&event.message), MESSAGE);
}

fn at_most(errors: &mut Errors, name: &str, value: &str, limit: usize) {
    if value.len() > limit {
        errors.push(Loc::new(name).invalid("", format!("can have at most {limit} characters")));
    }
}

/// What the new group asks of new events besides.
pub fn strictly_new(errors: &mut Errors, event: &Event) {
    series(errors, event);
    if event.event_time.is_none() {
        errors.push(Loc::new("eventTime").required(""));
    }
    let kind = text(&event.type_);
    if !matches!(kind, "Normal" | "Warning") {
        errors.push(Loc::new("type").invalid("", format!("has invalid value: {kind}")));
    }
    let source = event
        .source
        .as_ref()
        .is_some_and(|source| !text(&source.component).is_empty() || !text(&source.host).is_empty());
    let deprecated = [
        ("firstTimestamp", event.first_timestamp.is_some()),
        ("lastTimestamp", event.last_timestamp.is_some()),
        ("count", event.count.is_some_and(|count| count != 0)),
        ("source", source),
    ];
    for (name, _) in deprecated.into_iter().filter(|(_, set)| *set) {
        errors.push(Loc::new(name).invalid("", "needs to be unset"));
    }
}

/// What the new group allows to change: the series, and metadata.
pub fn strictly_changed(errors: &mut Errors, new: &Event, old: &Event) {
    if new.series != old.series {
        series(errors, new);
    }
    macro_rules! unchanged {
        ($($name:literal $field:ident;)*) => {
            $(immutable(errors, &Loc::new($name), &new.$field, &old.$field);)*
        };
    }
    unchanged! {
        "involvedObject" involved_object;
        "reason" reason;
        "message" message;
        "source" source;
        "firstTimestamp" first_timestamp;
        "lastTimestamp" last_timestamp;
        "count" count;
        "type" type_;
        "eventTime" event_time;
        "action" action;
        "related" related;
        "reportingController" reporting_component;
        "reportingInstance" reporting_instance;
    }
}

fn series(errors: &mut Errors, event: &Event) {
    let Some(series) = &event.series else { return };
    if series.count.unwrap_or_default() < 2 {
        errors.push(Loc::new("series.count").invalid("", "should be at least 2"));
    }
    if series.last_observed_time.is_none() {
        errors.push(Loc::new("series.lastObservedTime").required(""));
    }
}
