//! Texts in tables.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Container;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta, Time};
use serde_json::Value;

/// What stands where there is nothing to show.
pub const NONE: &str = "<none>";
/// What stands where something should be known and is not.
pub const UNKNOWN: &str = "<unknown>";

/// The age of an object.
pub fn age(metadata: &ObjectMeta, now: Timestamp) -> Value {
    since(metadata.creation_timestamp.as_ref(), now).into()
}

/// How long ago something was; `<unknown>` without a time.
pub fn since(at: Option<&Time>, now: Timestamp) -> String {
    at.map_or_else(
        || UNKNOWN.to_owned(),
        |at| human_duration(now.as_second() - at.0.as_second()),
    )
}

/// The name of an object.
pub fn name(metadata: &ObjectMeta) -> Value {
    metadata.name.clone().unwrap_or_default().into()
}

/// A duration in at most two units, exact where it matters: `58s`, `2m3s`, `14m`, `5h12m`, `3d4h`, `2y10d`.
pub fn human_duration(seconds: i64) -> String {
    // Two seconds of clock skew are forgiven.
    if seconds < -1 {
        return "<invalid>".to_owned();
    }
    let seconds = seconds.max(0);
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86400);
    let two = |big: i64, unit: char, small: i64, small_unit: char| {
        if small == 0 {
            format!("{big}{unit}")
        } else {
            format!("{big}{unit}{small}{small_unit}")
        }
    };
    if seconds < 60 * 2 {
        format!("{seconds}s")
    } else if minutes < 10 {
        two(minutes, 'm', seconds % 60, 's')
    } else if minutes < 60 * 3 {
        format!("{minutes}m")
    } else if hours < 8 {
        two(hours, 'h', minutes % 60, 'm')
    } else if hours < 48 {
        format!("{hours}h")
    } else if hours < 24 * 8 {
        two(days, 'd', hours % 24, 'h')
    } else if hours < 24 * 365 * 2 {
        format!("{days}d")
    } else if hours < 24 * 365 * 8 {
        two(days / 365, 'y', days % 365, 'd')
    } else {
        format!("{}y", days / 365)
    }
}

/// Labels as a selector is written: `a=b,c=d`; `<none>` without any.
pub fn labels(labels: Option<&BTreeMap<String, String>>) -> String {
    let mut out = String::new();
    for (key, value) in labels.into_iter().flatten() {
        let comma = if out.is_empty() { "" } else { "," };
        let _ = write!(out, "{comma}{key}={value}");
    }
    if out.is_empty() { NONE.to_owned() } else { out }
}

/// A label selector as it is written on a command line.
pub fn selector(selector: Option<&LabelSelector>) -> String {
    let Some(selector) = selector else {
        return NONE.to_owned();
    };
    let mut parts: Vec<(&str, String)> = Vec::new();
    for (key, value) in selector.match_labels.iter().flatten() {
        parts.push((key, format!("{key}={value}")));
    }
    for requirement in selector.match_expressions.iter().flatten() {
        let key = requirement.key.as_str();
        let mut values = requirement.values.clone().unwrap_or_default();
        values.sort();
        let values = values.join(",");
        let text = match requirement.operator.as_str() {
            "In" => format!("{key} in ({values})"),
            "NotIn" => format!("{key} notin ({values})"),
            "Exists" => key.to_owned(),
            "DoesNotExist" => format!("!{key}"),
            _ => return "<error>".to_owned(),
        };
        parts.push((key, text));
    }
    parts.sort_by(|a, b| a.0.cmp(b.0));
    let texts: Vec<String> = parts.into_iter().map(|(_, text)| text).collect();
    if texts.is_empty() {
        NONE.to_owned()
    } else {
        texts.join(",")
    }
}

/// The names and the images of containers, each joined with commas.
pub fn containers(containers: &[Container]) -> [Value; 2] {
    let names: Vec<&str> = containers.iter().map(|c| c.name.as_str()).collect();
    let images: Vec<&str> = containers
        .iter()
        .map(|c| c.image.as_deref().unwrap_or(""))
        .collect();
    [names.join(",").into(), images.join(",").into()]
}

/// A text, or `<none>` when it is empty or absent.
pub fn or_none(text: Option<&str>) -> Value {
    match text {
        Some(text) if !text.is_empty() => text.into(),
        _ => NONE.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_like_kubectl() {
        const DAY: i64 = 86400;
        for (seconds, text) in [
            (-5, "<invalid>"),
            (-1, "0s"),
            (0, "0s"),
            (119, "119s"),
            (120, "2m"),
            (123, "2m3s"),
            (599, "9m59s"),
            (600, "10m"),
            (3 * 3600 - 1, "179m"),
            (3 * 3600, "3h"),
            (5 * 3600 + 12 * 60, "5h12m"),
            (8 * 3600 + 60, "8h"),
            (2 * DAY - 1, "47h"),
            (2 * DAY + 3600, "2d1h"),
            (8 * DAY + 3600, "8d"),
            (2 * 365 * DAY + 3 * DAY, "2y3d"),
            (9 * 365 * DAY, "9y"),
        ] {
            assert_eq!(human_duration(seconds), text, "{seconds}");
        }
    }

    #[test]
    fn selectors_are_spelled() -> Result<(), serde_json::Error> {
        let given: LabelSelector = serde_json::from_value(serde_json::json!({
            "matchLabels": {"run": "ngx"},
            "matchExpressions": [{"key": "a", "operator": "In", "values": ["y", "x"]}, {"key": "z", "operator": "DoesNotExist"}]
        }))?;
        assert_eq!(selector(Some(&given)), "a in (x,y),run=ngx,!z");
        assert_eq!(selector(None), "<none>");
        Ok(())
    }
}
