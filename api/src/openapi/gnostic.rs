//! The OpenAPI v2 document as protobuf: `openapi.v2.Document`, in the fields that our documents use.

use serde_json::{Map, Value};

use crate::protobuf::wire::Writer;

/// Writes one message from the members of a JSON object.
#[derive(Default)]
struct Message(Writer);

impl Message {
    fn string(&mut self, field: u32, text: &str) {
        if !text.is_empty() {
            self.0.string(field, text);
        }
    }

    fn message(&mut self, field: u32, message: Message) {
        self.0.message(field, &message.0);
    }

    /// A text of the object.
    fn text_of(&mut self, field: u32, object: &Map<String, Value>, key: &str) {
        if let Some(Value::String(text)) = object.get(key) {
            self.string(field, text);
        }
    }

    /// A list of texts of the object.
    fn texts_of(&mut self, field: u32, object: &Map<String, Value>, key: &str) {
        for text in array(object, key).iter().filter_map(Value::as_str) {
            self.0.string(field, text);
        }
    }

    /// A truth of the object.
    fn bool_of(&mut self, field: u32, object: &Map<String, Value>, key: &str) {
        if object.get(key).and_then(Value::as_bool).unwrap_or(false) {
            self.0.bool(field, true);
        }
    }

    /// The extensions of the object: names that begin with `x-`, values as YAML, of which JSON is a part.
    fn extensions_of(&mut self, field: u32, object: &Map<String, Value>) {
        for (name, value) in object.iter().filter(|(name, _)| name.starts_with("x-")) {
            let mut any = Message::default();
            any.string(2, &value.to_string());
            self.message(field, named(name, any));
        }
    }
}

fn named(name: &str, value: Message) -> Message {
    let mut pair = Message::default();
    pair.string(1, name);
    pair.message(2, value);
    pair
}

fn array<'a>(object: &'a Map<String, Value>, key: &str) -> &'a [Value] {
    object
        .get(key)
        .and_then(Value::as_array)
        .map(Vec::as_slice)
        .unwrap_or_default()
}

fn entries<'a>(
    object: &'a Map<String, Value>,
    key: &str,
) -> impl Iterator<Item = (&'a String, &'a Map<String, Value>)> {
    let map = object.get(key).and_then(Value::as_object);
    map.into_iter()
        .flatten()
        .filter_map(|(name, value)| Some((name, value.as_object()?)))
}

pub(super) fn encode(document: &Value) -> Vec<u8> {
    let Some(document) = document.as_object() else {
        return Vec::new();
    };
    let mut out = Message::default();
    out.text_of(1, document, "swagger");
    if let Some(Value::Object(info)) = document.get("info") {
        let mut message = Message::default();
        message.text_of(1, info, "title");
        message.text_of(2, info, "version");
        out.message(2, message);
    }
    let mut paths = Message::default();
    for (path, item) in entries(document, "paths") {
        paths.message(2, named(path, path_item(item)));
    }
    out.message(8, paths);
    let mut definitions = Message::default();
    for (name, definition) in entries(document, "definitions") {
        definitions.message(1, named(name, schema(definition)));
    }
    out.message(9, definitions);
    let mut parameters = Message::default();
    for (name, one) in entries(document, "parameters") {
        parameters.message(1, named(name, parameter(one)));
    }
    out.message(10, parameters);
    for requirement in array(document, "security").iter().filter_map(Value::as_object) {
        let mut message = Message::default();
        for (name, _) in requirement {
            message.message(1, named(name, Message::default()));
        }
        out.message(12, message);
    }
    let mut security = Message::default();
    for (name, one) in entries(document, "securityDefinitions") {
        let mut key = Message::default();
        key.text_of(1, one, "type");
        key.text_of(2, one, "name");
        key.text_of(3, one, "in");
        key.text_of(4, one, "description");
        let mut item = Message::default();
        item.message(2, key);
        security.message(1, named(name, item));
    }
    out.message(13, security);
    out.0.into_bytes()
}

fn path_item(item: &Map<String, Value>) -> Message {
    let mut out = Message::default();
    let methods = [
        ("get", 2),
        ("put", 3),
        ("post", 4),
        ("delete", 5),
        ("options", 6),
        ("head", 7),
        ("patch", 8),
    ];
    for (method, field) in methods {
        if let Some(Value::Object(one)) = item.get(method) {
            out.message(field, operation(one));
        }
    }
    for one in array(item, "parameters").iter().filter_map(Value::as_object) {
        out.message(9, parameters_item(one));
    }
    out
}

fn operation(operation: &Map<String, Value>) -> Message {
    let mut out = Message::default();
    out.texts_of(1, operation, "tags");
    out.text_of(3, operation, "description");
    out.text_of(5, operation, "operationId");
    out.texts_of(6, operation, "produces");
    out.texts_of(7, operation, "consumes");
    for one in array(operation, "parameters").iter().filter_map(Value::as_object) {
        out.message(8, parameters_item(one));
    }
    let mut responses = Message::default();
    for (code, one) in entries(operation, "responses") {
        let mut response = Message::default();
        response.text_of(1, one, "description");
        if let Some(Value::Object(body)) = one.get("schema") {
            let mut item = Message::default();
            item.message(1, schema(body));
            response.message(2, item);
        }
        let mut value = Message::default();
        value.message(1, response);
        responses.message(1, named(code, value));
    }
    out.message(9, responses);
    out.texts_of(10, operation, "schemes");
    out.extensions_of(13, operation);
    out
}

fn parameters_item(one: &Map<String, Value>) -> Message {
    let mut out = Message::default();
    if one.contains_key("$ref") {
        let mut reference = Message::default();
        reference.text_of(1, one, "$ref");
        out.message(2, reference);
    } else {
        out.message(1, parameter(one));
    }
    out
}

fn parameter(one: &Map<String, Value>) -> Message {
    let mut out = Message::default();
    let place = one.get("in").and_then(Value::as_str).unwrap_or_default();
    let mut inner = Message::default();
    if place == "body" {
        inner.text_of(1, one, "description");
        inner.text_of(2, one, "name");
        inner.text_of(3, one, "in");
        inner.bool_of(4, one, "required");
        if let Some(Value::Object(body)) = one.get("schema") {
            inner.message(5, schema(body));
        }
        out.message(1, inner);
        return out;
    }
    inner.bool_of(1, one, "required");
    inner.text_of(2, one, "in");
    inner.text_of(3, one, "description");
    inner.text_of(4, one, "name");
    // The two messages differ in one field before these.
    let query = place == "query";
    inner.text_of(if query { 6 } else { 5 }, one, "type");
    inner.bool_of(if query { 20 } else { 19 }, one, "uniqueItems");
    let mut non_body = Message::default();
    non_body.message(if query { 3 } else { 4 }, inner);
    out.message(2, non_body);
    out
}

fn schema(one: &Map<String, Value>) -> Message {
    let mut out = Message::default();
    out.text_of(1, one, "$ref");
    out.text_of(2, one, "format");
    out.text_of(4, one, "description");
    out.texts_of(19, one, "required");
    if let Some(Value::Object(element)) = one.get("additionalProperties") {
        let mut item = Message::default();
        item.message(1, schema(element));
        out.message(21, item);
    }
    if let Some(Value::String(ty)) = one.get("type") {
        let mut item = Message::default();
        item.string(1, ty);
        out.message(22, item);
    }
    if let Some(Value::Object(element)) = one.get("items") {
        let mut item = Message::default();
        item.message(1, schema(element));
        out.message(23, item);
    }
    if one.contains_key("properties") {
        let mut properties = Message::default();
        for (name, property) in entries(one, "properties") {
            properties.message(1, named(name, schema(property)));
        }
        out.message(25, properties);
    }
    out.extensions_of(31, one);
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn writes_the_wire_format() {
        let bytes = encode(&json!({"swagger": "2.0", "definitions": {"a": {"type": "object", "x-y": "z"}}}));
        // swagger; empty paths; definitions { a: { type: [object], x-y: "\"z\"" } }; empty parameters and security.
        let schema = b"\xb2\x01\x08\x0a\x06object\xfa\x01\x0c\x0a\x03x-y\x12\x05\x12\x03\"z\"";
        let mut pair = b"\x0a\x01a\x12".to_vec();
        pair.push(schema.len() as u8);
        pair.extend_from_slice(schema);
        let mut wanted = b"\x0a\x032.0\x42\x00\x4a".to_vec();
        wanted.extend_from_slice(&[pair.len() as u8 + 2, 0x0a, pair.len() as u8]);
        wanted.extend_from_slice(&pair);
        wanted.extend_from_slice(b"\x52\x00\x6a\x00");
        assert_eq!(bytes, wanted);
    }
}
