//! Cutting the managed fields out of an object's JSON.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ManagedFieldsEntry;

use super::fields;
use crate::scan::Scan;

/// JSON without `metadata.managedFields`, and the value that was there. `None` when there is none, or when the text is
/// not plainly an object with one of them: then it is read as a whole, and what is wrong with it is found there.
pub(super) fn managed_fields(json: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    let mut scan = Scan::new(json);
    scan.find("metadata")?;
    let before = scan.find("managedFields")?;
    let start = scan.at();
    scan.value()?;
    let end = scan.at();
    let mut after = scan;
    // A second one, and fields that are not what they should be: somebody else's to judge.
    if scan.rest_of_object_has("managedFields")? {
        return None;
    }
    let mut rest = Vec::with_capacity(json.len() - (end - before));
    rest.extend_from_slice(&json[..before]);
    after.blank();
    let mut tail = after.at();
    // One of the commas around it goes, too.
    if json.get(tail) == Some(&b',') {
        tail += 1;
    } else if let Some(comma) = rest.iter().rposition(|b| !b.is_ascii_whitespace())
        && rest[comma] == b','
    {
        rest.truncate(comma);
    }
    rest.extend_from_slice(&json[tail..]);
    Some((rest, &json[start..end]))
}

/// The entries of managed fields that are known to be JSON. `None` when they are not plainly entries.
pub(super) fn entries(managed: &[u8]) -> Option<Vec<ManagedFieldsEntry>> {
    // `null` is somebody else's to read.
    managed.starts_with(b"[").then_some(())?;
    let mut entries = Vec::new();
    Scan::new(managed).elements(|element| {
        entries.push(entry(element)?);
        Some(())
    })?;
    Some(entries)
}

fn entry(scan: &mut Scan<'_>) -> Option<ManagedFieldsEntry> {
    let mut entry = ManagedFieldsEntry::default();
    scan.members(|name, value| {
        let value = value.text()?;
        let text = || serde_json::from_slice(value).ok();
        match name {
            b"apiVersion" => entry.api_version = text()?,
            b"fieldsType" => entry.fields_type = text()?,
            b"fieldsV1" if value == b"null" => {}
            b"fieldsV1" => entry.fields_v1 = Some(fields(std::str::from_utf8(value).ok()?.to_owned())),
            b"manager" => entry.manager = text()?,
            b"operation" => entry.operation = text()?,
            b"subresource" => entry.subresource = text()?,
            b"time" => entry.time = serde_json::from_slice(value).ok()?,
            _ => {}
        }
        Some(())
    })?;
    Some(entry)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(json: &str) -> Option<(String, String)> {
        let (rest, managed) = managed_fields(json.as_bytes())?;
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("text");
        Some((text(&rest), text(managed)))
    }

    #[test]
    fn cuts_out_what_is_there_wherever_it_is() {
        for (json, rest) in [
            (
                r#"{"metadata":{"managedFields":[{"a":"]}"}],"name":"x"},"s":1}"#,
                r#"{"metadata":{"name":"x"},"s":1}"#,
            ),
            (
                r#"{"a":{"metadata":1},"metadata":{"name":"x","managedFields":[{"a":"]}"}]}}"#,
                r#"{"a":{"metadata":1},"metadata":{"name":"x"}}"#,
            ),
            (
                r#"{"metadata":{"managedFields":[{"a":"]}"}]}}"#,
                r#"{"metadata":{}}"#,
            ),
            (
                r#"{"n":-1.5,"metadata":{"a":"\"\\","managedFields":[{"a":"]}"}],"z":true}}"#,
                r#"{"n":-1.5,"metadata":{"a":"\"\\","z":true}}"#,
            ),
        ] {
            assert_eq!(
                cut(json),
                Some((rest.to_owned(), r#"[{"a":"]}"}]"#.to_owned())),
                "{json}"
            );
        }
        let (rest, managed) =
            cut("{ \"metadata\" : { \"name\" : 1 ,\n \"managedFields\" : [ ] } }").expect("cut");
        assert_eq!(
            (rest.as_str(), managed.as_str()),
            ("{ \"metadata\" : { \"name\" : 1 } }", "[ ]")
        );
    }

    #[test]
    fn leaves_alone_what_is_not_plain() {
        for json in [
            "",
            "[]",
            "{",
            r#"{"metadata":{"name":"x"}}"#,
            r#"{"metadata":[1],"x":2}"#,
            r#"{"spec":{"managedFields":[]}}"#,
            r#"{"metadata":{"managedFields":[],"managedFields":[]}}"#,
            r#"{"metadata":{"managedFields":["#,
            r#"{"metadata":{"managedFields":[]"#,
            r#"{"metadata":{"managedFields":"a\"#,
        ] {
            assert_eq!(cut(json), None, "{json}");
        }
    }
}
