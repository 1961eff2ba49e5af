//! What people read: YAML, and JSON with a line for each value. Objects are written at once, lists item by item.

use keelson_api::status::{ApiError, ApiResult};
use keelson_api::text::string_end;
use keelson_daemon::yaml;
use serde_json::{Map, Value};

/// What a level of JSON is set in.
const LEVEL: &[u8] = b"  ";
/// How deep the items of a list are.
const ITEM_LEVELS: usize = 2;

/// What is around the items of a list.
#[derive(Debug, PartialEq, Eq)]
pub struct Frame {
    /// Before the first.
    pub head: Vec<u8>,
    /// Behind the last.
    pub tail: Vec<u8>,
}

/// JSON with a line for each value, as upstream writes it for `pretty`: without one at the end.
pub fn indented(json: &[u8]) -> Vec<u8> {
    indented_at(json, 0)
}

/// The same of what is so many levels deep.
fn indented_at(json: &[u8], mut level: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(json.len() + json.len() / 2);
    let line = |out: &mut Vec<u8>, level: usize| {
        out.push(b'\n');
        (0..level).for_each(|_| out.extend_from_slice(LEVEL));
    };
    let mut at = 0;
    while let Some(&byte) = json.get(at) {
        at += 1;
        match byte {
            b'"' => {
                let end = string_end(json, at).map_or(json.len(), |end| end + 1);
                out.extend_from_slice(&json[at - 1..end]);
                at = end;
            }
            b'{' | b'[' => {
                out.push(byte);
                at += json[at..].iter().take_while(|b| b.is_ascii_whitespace()).count();
                if let Some(&close @ (b'}' | b']')) = json.get(at) {
                    out.push(close);
                    at += 1;
                } else {
                    level += 1;
                    line(&mut out, level);
                }
            }
            b'}' | b']' => {
                level = level.saturating_sub(1);
                line(&mut out, level);
                out.push(byte);
            }
            b',' => {
                out.push(byte);
                line(&mut out, level);
            }
            b':' => out.extend_from_slice(b": "),
            byte if byte.is_ascii_whitespace() => {}
            byte => out.push(byte),
        }
    }
    out
}

/// What is around the items of a list of indented JSON; `empty` is the list without items, which are its last field.
pub fn indented_frame(empty: &[u8], any: bool) -> Frame {
    const END: &[u8] = b"]\n}";
    let mut head = indented(empty);
    head.truncate(head.len().saturating_sub(END.len()));
    let mut tail = Vec::new();
    if any {
        tail.push(b'\n');
        tail.extend_from_slice(LEVEL);
    }
    tail.extend_from_slice(END);
    Frame { head, tail }
}

/// An item of such a list.
pub fn indented_item(json: &[u8]) -> Vec<u8> {
    let mut line = vec![b'\n'];
    line.extend_from_slice(&LEVEL.repeat(ITEM_LEVELS));
    line.extend(indented_at(json, ITEM_LEVELS));
    line
}

/// JSON as YAML.
pub fn yaml(json: &[u8]) -> ApiResult<String> {
    let value: Value = serde_json::from_slice(json).map_err(ApiError::internal)?;
    yaml::to_string(&value).map_err(ApiError::internal)
}

/// What is around the items of a list of YAML, whose fields are sorted; `empty` is the list without items, `field` the
/// name it has for them.
pub fn yaml_frame(empty: &[u8], field: &str, any: bool) -> ApiResult<Frame> {
    let fields: Map<String, Value> = serde_json::from_slice(empty).map_err(ApiError::internal)?;
    let (before, behind): (Map<_, _>, Map<_, _>) = fields
        .into_iter()
        .filter(|(name, _)| name != field)
        .partition(|(name, _)| name.as_str() < field);
    let text = |fields: Map<String, Value>| match fields.is_empty() {
        true => Ok(String::new()),
        false => yaml::to_string(&fields).map_err(ApiError::internal),
    };
    let items = if any { "" } else { " []" };
    Ok(Frame {
        head: format!("{}{field}:{items}\n", text(before)?).into(),
        tail: text(behind)?.into(),
    })
}

/// An item of such a list.
pub fn yaml_item(json: &[u8]) -> ApiResult<Vec<u8>> {
    let text = yaml(json)?;
    let mut item = Vec::with_capacity(text.len() + text.len() / 8);
    for (number, line) in text.split_inclusive('\n').enumerate() {
        item.extend_from_slice(match number {
            0 => b"- ",
            // Of a text of several lines: an empty one stays empty.
            _ if line == "\n" => b"",
            _ => b"  ",
        });
        item.extend_from_slice(line.as_bytes());
    }
    Ok(item)
}

#[cfg(test)]
mod tests {
    use super::*;

    const EMPTY: &str = r#"{"kind":"List","apiVersion":"v1","metadata":{"resourceVersion":"7"},"items":[]}"#;
    const ITEMS: [&str; 3] = [
        r#"{"metadata":{"name":"a"},"data":{"x":"1\n\n  2\n","y":"\"{[,:]}\\","z":"true","w":" blank\n"},"l":[1,[2],{}]}"#,
        r#"{ "metadata" : { } , "f": [ ],"long":"LONG","null":null,"many":"a\n  b\n\n\nc"}"#,
        "{}",
    ];

    fn items() -> Vec<String> {
        ITEMS
            .iter()
            .map(|item| item.replace("LONG", &"word ".repeat(60)))
            .collect()
    }

    fn list(items: &[String]) -> String {
        EMPTY.replace("[]", &format!("[{}]", items.join(",")))
    }

    fn framed(frame: Frame, items: Vec<Vec<u8>>, separator: &[u8]) -> String {
        let text = [frame.head, items.join(separator), frame.tail].concat();
        String::from_utf8(text).expect("text")
    }

    #[test]
    fn json_has_a_line_for_each_value() {
        let json = r#"{"b":[1,{"c":"a,b: {}"}],"a":{},"e":[ ]}"#;
        let wanted = "{\n  \"b\": [\n    1,\n    {\n      \"c\": \"a,b: {}\"\n    }\n  ],\n  \"a\": {},\n  \"e\": []\n}";
        assert_eq!(String::from_utf8_lossy(&indented(json.as_bytes())), wanted);
    }

    #[test]
    fn a_list_in_pieces_is_the_list() {
        for items in [items(), Vec::new()] {
            let (whole, any) = (list(&items), !items.is_empty());
            let pieces = items.iter().map(|item| indented_item(item.as_bytes()));
            let text = framed(indented_frame(EMPTY.as_bytes(), any), pieces.collect(), b",");
            assert_eq!(text.as_bytes(), indented(whole.as_bytes()));

            let pieces = items.iter().map(|item| yaml_item(item.as_bytes()).expect("YAML"));
            let frame = yaml_frame(EMPTY.as_bytes(), "items", any).expect("YAML");
            assert_eq!(
                framed(frame, pieces.collect(), b""),
                yaml(whole.as_bytes()).expect("YAML")
            );
        }
    }
}
