//! The API's OpenAPI documents, built when somebody asks for one.
//!
//! What a document says follows from the resources served, so its tag is known without building it. Built documents are
//! large: they are kept for a few minutes, because clients come in crowds, and then dropped.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use bytes::Bytes;
use keelson_api::names::Gvk;
use keelson_api::openapi::{self, Resource, Subresource};
use keelson_api::schema;
use parking_lot::Mutex;
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};

use crate::aggregator::{Table, published};
use crate::discovery::Document;
use crate::registry::catalog::{Catalog, Served};
use crate::registry::info::Verb;
use crate::version::git_version;

/// How long a built document is kept after it was last asked for.
const KEEP: Duration = Duration::from_secs(300);

/// Paths of documents that are not about a group version.
const LISTS: &[&str] = &["api", "apis", "version"];

/// Built documents by path, each with its tag and when it was last asked for.
#[derive(Default)]
pub struct Documents {
    built: Mutex<HashMap<String, (String, Bytes, Instant)>>,
}

impl Documents {
    /// `/openapi/v2`, as JSON or in protobuf, with what other servers serve.
    pub fn v2(&self, catalog: &Catalog, others: &Table, protobuf: bool) -> Tagged<'_> {
        let resources = resources(catalog);
        let path = if protobuf { "v2.pb" } else { "v2" };
        let etag = tag(path, &(&resources, others.generation));
        let parts: Vec<_> = others
            .remotes
            .values()
            .filter_map(|r| r.openapi_v2.clone())
            .collect();
        let build = move || match protobuf {
            true if parts.is_empty() => openapi::v2_protobuf(&resources),
            false if parts.is_empty() => openapi::v2_document(&resources),
            _ => {
                let whole = published::with_parts(&openapi::v2_document(&resources), &parts);
                match protobuf {
                    true => openapi::v2_as_protobuf(&whole),
                    false => whole.to_string().into_bytes(),
                }
            }
        };
        Tagged {
            documents: self,
            path: path.to_owned(),
            etag,
            build: Box::new(build),
        }
    }

    /// `/openapi/v3`: which documents there are, each with its tag in the URL. Those of other servers are theirs.
    pub fn v3_index(&self, catalog: &Catalog, others: &Table) -> Document {
        let resources = resources(catalog);
        let mut paths: BTreeMap<String, Vec<&Resource>> = BTreeMap::new();
        for resource in &resources {
            paths.entry(root_of(resource)).or_default().push(resource);
            if !resource.group.is_empty() {
                paths.entry(format!("apis/{}", resource.group)).or_default();
            }
        }
        paths.extend(LISTS.iter().map(|path| ((*path).to_owned(), Vec::new())));
        let mut entries: Map<String, Value> = paths
            .into_iter()
            .map(|(path, own)| {
                let tag = tag(&path, &own);
                let url = json!({"serverRelativeURL": format!("/openapi/v3/{path}?hash={tag}")});
                (path, url)
            })
            .collect();
        for ((group, version), remote) in &others.remotes {
            if let Some(url) = &remote.openapi_v3 {
                entries.insert(
                    format!("apis/{group}/{version}"),
                    json!({"serverRelativeURL": url}),
                );
            }
        }
        Document::new(json!({"paths": entries}).to_string())
    }

    /// `/openapi/v3/apis/apps/v1`.
    pub fn v3(&self, catalog: &Catalog, path: &str) -> Option<Tagged<'_>> {
        let mut resources = resources(catalog);
        let etag = v3_tag(path, &resources);
        resources.retain(|r| root_of(r) == path);
        let borrowed = borrowed(catalog, path);
        let build: Box<dyn FnOnce() -> Vec<u8> + Send> = match resources.first() {
            Some(_) if !borrowed.is_empty() => {
                let root = path.to_owned();
                Box::new(move || borrowed_document(&root, &borrowed))
            }
            Some(first) => {
                let (group, version) = (first.group.clone(), first.version.clone());
                Box::new(move || openapi::v3_document(&group, &version, &resources))
            }
            None => {
                let known_group = path
                    .strip_prefix("apis/")
                    .is_some_and(|group| catalog.everything().iter().any(|served| served.group() == group));
                if !LISTS.contains(&path) && !known_group {
                    return None;
                }
                let path = path.to_owned();
                Box::new(move || openapi::v3_index_document(&path))
            }
        };
        Some(Tagged {
            documents: self,
            path: format!("v3/{path}"),
            etag,
            build,
        })
    }
}

/// A document whose tag is known and whose bytes can be had.
pub struct Tagged<'a> {
    documents: &'a Documents,
    path: String,
    /// Changes when the document does.
    pub etag: String,
    build: Box<dyn FnOnce() -> Vec<u8> + Send>,
}

impl Tagged<'_> {
    /// The document's bytes. Takes a while the first time.
    pub fn bytes(self) -> Bytes {
        let now = Instant::now();
        {
            let mut built = self.documents.built.lock();
            built.retain(|_, (_, _, used)| now - *used < KEEP);
            if let Some((etag, bytes, used)) = built.get_mut(&self.path)
                && *etag == self.etag
            {
                *used = now;
                return bytes.clone();
            }
        }
        let bytes = Bytes::from(tokio::task::block_in_place(self.build));
        self.documents
            .built
            .lock()
            .insert(self.path, (self.etag, bytes.clone(), now));
        bytes
    }
}

/// A resource served in a form that today's schemas no longer know, described by the one it is stored in.
struct Borrowed {
    stored: Resource,
    group: &'static str,
    version: &'static str,
}

/// The resources at a path whose kinds have no schema of their own there.
fn borrowed(catalog: &Catalog, path: &str) -> Vec<Borrowed> {
    let unknown = |served: &&Served| {
        served.alias.is_some_and(|alias| alias.discoverable)
            && schema::by_kind(served.group(), served.version(), served.info().kind).is_none()
            && root_of(&described(served)) == path
    };
    catalog
        .served()
        .filter(unknown)
        .map(|served| {
            let stored = Served::stored(served.cache.clone());
            Borrowed {
                stored: described(&stored),
                group: served.group(),
                version: served.version(),
            }
        })
        .collect()
}

/// The documents of the stored forms, each renamed to the form served.
fn borrowed_document(root: &str, borrowed: &[Borrowed]) -> Vec<u8> {
    let mut whole = Value::Null;
    for one in borrowed {
        let Resource {
            group, version, kind, ..
        } = &one.stored;
        let document = openapi::v3_document(group, version, std::slice::from_ref(&one.stored));
        // Keys are sorted, so a kind's name is always spelled like this.
        let named = |group: &str, version: &str| {
            format!(r#""group":"{group}","kind":"{kind}","version":"{version}""#)
        };
        let renamed = String::from_utf8_lossy(&document)
            .replace(&format!("/{}/", root_of(&one.stored)), &format!("/{root}/"))
            .replace(&named(group, version), &named(one.group, one.version));
        let Ok(mut document) = serde_json::from_str::<Value>(&renamed) else {
            continue;
        };
        if whole.is_null() {
            whole = document;
            continue;
        }
        for part in ["/paths", "/components/schemas"] {
            if let (Some(Value::Object(all)), Some(Value::Object(more))) =
                (whole.pointer_mut(part), document.pointer_mut(part))
            {
                all.append(more);
            }
        }
    }
    whole.to_string().into_bytes()
}

fn root_of(resource: &Resource) -> String {
    match &*resource.group {
        "" => format!("api/{}", resource.version),
        group => format!("apis/{group}/{}", resource.version),
    }
}

fn v3_tag(path: &str, resources: &[Resource]) -> String {
    let own: Vec<&Resource> = resources.iter().filter(|r| root_of(r) == path).collect();
    tag(path, &own)
}

fn tag(path: &str, about: &impl std::fmt::Debug) -> String {
    let hash = Sha256::digest(format!("{path} {} {about:?}", git_version()));
    hash.iter().map(|b| format!("{b:02X}")).collect()
}

fn resources(catalog: &Catalog) -> Vec<Resource> {
    let mut resources: Vec<Resource> = catalog
        .everything()
        .iter()
        .filter(|served| served.alias.is_none_or(|alias| alias.discoverable))
        .map(described)
        .collect();
    resources.sort_by(|a, b| (&a.group, &a.version, &a.plural).cmp(&(&b.group, &b.version, &b.plural)));
    resources
}

fn described(served: &Served) -> Resource {
    let info = served.info();
    let words = |verbs: &[Verb]| verbs.iter().map(|v| v.as_str().into()).collect();
    let subresources = info.subresources.iter().map(|s| {
        let (group, version) = match s.version {
            "" => (served.group(), served.version()),
            version => (s.group, version),
        };
        Subresource {
            name: s.name.into(),
            kind: Gvk::new(group, version, s.kind),
            verbs: words(s.verbs),
        }
    });
    Resource {
        group: served.group().into(),
        version: served.version().into(),
        kind: info.kind.into(),
        plural: info.plural.into(),
        namespaced: info.namespaced(),
        verbs: words(info.verbs),
        subresources: subresources.collect(),
        custom: served.custom_version().map(crate::custom::openapi::described),
    }
}
