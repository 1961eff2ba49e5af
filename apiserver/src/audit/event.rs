//! One event, and its JSON.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use bytes::Bytes;
use http::HeaderMap;
use jiff::Timestamp;
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::policy::{Found, Level};
use crate::authentication::User;
use crate::authorization::{Attributes, Target};

/// When in a request's life an event is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum Stage {
    /// It is there.
    RequestReceived,
    /// The head of the answer has been sent, of one that takes long.
    ResponseStarted,
    /// The answer has been sent.
    ResponseComplete,
    /// The server failed.
    Panic,
}

impl Stage {
    /// The stage of that name.
    pub fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "RequestReceived" => Stage::RequestReceived,
            "ResponseStarted" => Stage::ResponseStarted,
            "ResponseComplete" => Stage::ResponseComplete,
            "Panic" => Stage::Panic,
            _ => return None,
        })
    }

    /// A bit of its own.
    pub fn bit(self) -> u8 {
        1 << self as u8
    }
}

/// Where a request came from.
#[derive(Debug)]
pub struct Origin {
    /// Names the request.
    pub id: String,
    /// Path and query.
    pub uri: String,
    /// Addresses on the way here, the farthest first.
    pub addresses: Vec<String>,
    /// With which program.
    pub agent: String,
    /// When it came.
    pub received: Timestamp,
}

impl Origin {
    /// Of a request with these headers.
    pub fn new(id: String, uri: &http::Uri, headers: &HeaderMap, peer: SocketAddr) -> Self {
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        let mut addresses: Vec<String> = Vec::new();
        let mut add = |address: &str| {
            if let Ok(address) = address.trim().parse::<IpAddr>() {
                let address = address.to_string();
                if addresses.last() != Some(&address) {
                    addresses.push(address);
                }
            }
        };
        text("x-forwarded-for")
            .unwrap_or_default()
            .split(',')
            .for_each(&mut add);
        add(text("x-real-ip").unwrap_or_default());
        add(&peer.ip().to_canonical().to_string());
        Self {
            id,
            uri: uri.to_string(),
            addresses,
            agent: text("user-agent").unwrap_or_default().to_owned(),
            received: Timestamp::now(),
        }
    }
}

/// What a request is about.
#[derive(Debug, Clone, Default)]
pub struct ObjectRef {
    group: String,
    version: String,
    resource: String,
    subresource: String,
    namespace: String,
    name: String,
}

/// What a request came to.
#[derive(Debug, Clone, Default)]
pub struct Outcome {
    /// HTTP status.
    pub code: u16,
    /// The JSON of a Status, when that is the answer.
    pub status: Bytes,
    /// What an answer without a Status says.
    pub message: String,
}

/// One event. Cheap to clone: it is made again for each stage.
#[derive(Debug, Clone)]
pub struct Event {
    origin: Arc<Origin>,
    /// What the policy says.
    pub found: Found,
    /// Of which stage.
    pub stage: Stage,
    at: Timestamp,
    verb: String,
    user: Arc<User>,
    /// Whom the caller acts as.
    pub impersonated: Option<Arc<User>>,
    object: Option<ObjectRef>,
    /// What the request brought.
    pub request: Bytes,
    /// What it was answered with.
    pub response: Bytes,
    /// What it came to.
    pub outcome: Option<Outcome>,
    /// What others have to say.
    pub annotations: BTreeMap<String, String>,
}

impl Event {
    /// The first event of a request.
    pub fn new(origin: Arc<Origin>, found: Found, user: &User, attributes: &Attributes<'_>) -> Self {
        let object = match attributes.target {
            Target::Path(_) => None,
            Target::Resource {
                group,
                version,
                resource,
                subresource,
                namespace,
                name,
            } => Some(ObjectRef {
                group: group.to_owned(),
                version: version.to_owned(),
                resource: resource.to_owned(),
                subresource: subresource.to_owned(),
                namespace: namespace.to_owned(),
                name: name.to_owned(),
            }),
        };
        Self {
            at: origin.received,
            origin,
            found,
            stage: Stage::RequestReceived,
            verb: attributes.verb.to_owned(),
            user: Arc::new(user.clone()),
            impersonated: None,
            object,
            request: Bytes::new(),
            response: Bytes::new(),
            outcome: None,
            annotations: BTreeMap::new(),
        }
    }

    /// The same request at a later stage.
    pub fn at(&self, stage: Stage) -> Self {
        let at = match stage {
            Stage::RequestReceived => self.origin.received,
            _ => Timestamp::now(),
        };
        Self {
            stage,
            at,
            ..self.clone()
        }
    }

    /// The event as `audit.k8s.io/v1` has it.
    pub fn json(&self) -> Value {
        let wants = |level| self.found.level >= level;
        let request: Option<Value> = parsed(&self.request);
        let mut event = json!({
            "kind": "Event",
            "apiVersion": "audit.k8s.io/v1",
            "level": self.found.level,
            "auditID": self.origin.id,
            "stage": self.stage,
            "requestURI": self.origin.uri,
            "verb": self.verb,
            "user": user(&self.user),
        });
        let mut set = |key: &str, value: Value| {
            if let Some(event) = event.as_object_mut() {
                event.insert(key.to_owned(), value);
            }
        };
        if let Some(impersonated) = &self.impersonated {
            set("impersonatedUser", user(impersonated));
        }
        set("sourceIPs", json!(self.origin.addresses));
        if !self.origin.agent.is_empty() {
            set("userAgent", json!(self.origin.agent));
        }
        if let Some(object) = &self.object {
            set("objectRef", object.json(request.as_ref()));
        }
        if let Some(outcome) = &self.outcome {
            set("responseStatus", outcome.json());
        }
        if wants(Level::Request)
            && let Some(request) = request
        {
            set("requestObject", self.shown(request));
        }
        if wants(Level::RequestResponse)
            && let Some(response) = parsed(&self.response)
        {
            set("responseObject", self.shown(response));
        }
        set("requestReceivedTimestamp", json!(micro(self.origin.received)));
        set("stageTimestamp", json!(micro(self.at)));
        if !self.annotations.is_empty() {
            set("annotations", json!(self.annotations));
        }
        event
    }

    /// An object as the policy wants it shown.
    fn shown(&self, mut object: Value) -> Value {
        fn strip(object: &mut Value) {
            if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
                metadata.remove("managedFields");
            }
        }
        if self.found.omit_managed_fields {
            strip(&mut object);
            if let Some(items) = object.get_mut("items").and_then(Value::as_array_mut) {
                items.iter_mut().for_each(strip);
            }
        }
        object
    }
}

fn parsed(bytes: &Bytes) -> Option<Value> {
    serde_json::from_slice(bytes).ok()
}

/// Microseconds, always all six digits.
fn micro(at: Timestamp) -> String {
    let text = at.strftime("%Y-%m-%dT%H:%M:%S").to_string();
    format!("{text}.{:06}Z", at.subsec_nanosecond() / 1000)
}

fn user(user: &User) -> Value {
    let mut out = Map::new();
    if !user.name.is_empty() {
        out.insert("username".into(), json!(user.name));
    }
    if !user.uid.is_empty() {
        out.insert("uid".into(), json!(user.uid));
    }
    if !user.groups.is_empty() {
        out.insert("groups".into(), json!(user.groups));
    }
    if !user.extra.is_empty() {
        out.insert("extra".into(), json!(user.extra));
    }
    Value::Object(out)
}

impl ObjectRef {
    /// What the path leaves open is in the object.
    fn json(&self, object: Option<&Value>) -> Value {
        let meta = |field: &str| {
            object
                .and_then(|object| object.get("metadata")?.get(field)?.as_str())
                .unwrap_or_default()
        };
        let or_meta = |own: &str, field: &str| match own {
            "" => meta(field).to_owned(),
            own => own.to_owned(),
        };
        let mut out = Map::new();
        for (key, value) in [
            ("resource", self.resource.clone()),
            ("namespace", or_meta(&self.namespace, "namespace")),
            ("name", or_meta(&self.name, "name")),
            ("uid", meta("uid").to_owned()),
            ("apiGroup", self.group.clone()),
            ("apiVersion", self.version.clone()),
            ("resourceVersion", meta("resourceVersion").to_owned()),
            ("subresource", self.subresource.clone()),
        ] {
            if !value.is_empty() {
                out.insert(key.into(), value.into());
            }
        }
        Value::Object(out)
    }
}

impl Outcome {
    fn json(&self) -> Value {
        let mut out = json!({"metadata": {}});
        if let Some(Value::Object(status)) = parsed(&self.status) {
            for key in ["status", "message", "reason", "details"] {
                if let Some(value) = status.get(key) {
                    out[key] = value.clone();
                }
            }
        }
        if !self.message.is_empty() {
            out["message"] = json!(self.message);
        }
        out["code"] = json!(self.code);
        out
    }
}
