//! What is served: the documents of `/api` and `/apis`, plain and aggregated. They are made when somebody asks and
//! something has changed since: a thousand definitions that come one after the other are not a thousand documents.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;

use arc_swap::ArcSwapOption;
use bytes::Bytes;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::aggregator::{Aggregator, Remotes, published};
use crate::registry::catalog::{Catalog, Served};
use crate::registry::info::{Verb, group_version};
use keelson_api::names::compare_versions;

/// Groups in the order upstream lists them: it decides which group a bare resource name means.
const GROUP_ORDER: &[&str] = &[
    "",
    "apiregistration.k8s.io",
    "apps",
    "events.k8s.io",
    "authentication.k8s.io",
    "authorization.k8s.io",
    "autoscaling",
    "batch",
    "certificates.k8s.io",
    "networking.k8s.io",
    "policy",
    "rbac.authorization.k8s.io",
    "storage.k8s.io",
    "admissionregistration.k8s.io",
    "apiextensions.k8s.io",
    "scheduling.k8s.io",
    "coordination.k8s.io",
    "node.k8s.io",
    "discovery.k8s.io",
    "resource.k8s.io",
    "flowcontrol.apiserver.k8s.io",
    "extensions",
];

/// Version of the aggregated form.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AggregatedVersion {
    /// Since 1.30.
    V2,
    /// From 1.26 to 1.29.
    V2Beta1,
}

impl AggregatedVersion {
    fn as_str(self) -> &'static str {
        match self {
            Self::V2 => "v2",
            Self::V2Beta1 => "v2beta1",
        }
    }

    /// The content type of answers.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::V2 => "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList",
            Self::V2Beta1 => "application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList",
        }
    }
}

/// A document and the tag it is known by.
#[derive(Debug, Clone)]
pub struct Document {
    /// Its bytes.
    pub json: Bytes,
    /// Changes when they do.
    pub etag: String,
}

impl Document {
    /// A document of these bytes.
    pub fn new(json: impl Into<Bytes>) -> Self {
        let json = json.into();
        let etag = Sha256::digest(&json).iter().map(|b| format!("{b:02X}")).collect();
        Self { json, etag }
    }
}

/// The documents as they were last asked for.
pub struct Published {
    /// Where clients reach this server, from wherever they are.
    address: SocketAddr,
    current: ArcSwapOption<((u64, u64), Arc<Documents>)>,
}

impl Published {
    /// Nothing was asked for yet of the server with this address.
    pub fn new(address: SocketAddr) -> Self {
        Self {
            address,
            current: ArcSwapOption::empty(),
        }
    }

    /// The documents of what the catalog and other servers have now.
    pub fn of(&self, catalog: &Catalog, aggregator: &Aggregator) -> Arc<Documents> {
        let others = aggregator.table();
        let generation = (catalog.custom().generation(), others.generation);
        if let Some(current) = &*self.current.load()
            && current.0 == generation
        {
            return current.1.clone();
        }
        let documents = Arc::new(Documents::new(catalog, &others.remotes, self.address));
        self.current
            .store(Some(Arc::new((generation, documents.clone()))));
        documents
    }
}

/// Every discovery document.
pub struct Documents {
    plain: HashMap<String, Document>,
    aggregated: HashMap<(bool, AggregatedVersion), Document>,
    groups: Vec<(String, Vec<String>)>,
}

/// The resources of each version of each group, groups in upstream's order.
type Tree<'a> = Vec<(&'a str, Vec<(&'a str, Vec<&'a Served>)>)>;

impl Documents {
    /// The documents of a catalog and of what other servers serve, by the server with this address.
    pub fn new(catalog: &Catalog, others: &Remotes, address: SocketAddr) -> Self {
        let everything = catalog.everything();
        let tree = tree(&everything);
        let mut plain = HashMap::new();
        let add = |plain: &mut HashMap<String, Document>, path: String, value: Value| {
            plain.insert(path, Document::new(value.to_string()));
        };
        let core: Vec<&str> = tree
            .iter()
            .filter(|(g, _)| g.is_empty())
            .flat_map(|(_, v)| v.iter().map(|(v, _)| *v))
            .collect();
        add(
            &mut plain,
            "/api".into(),
            json!({
                "kind": "APIVersions",
                "versions": core,
                "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": address.to_string()}],
            }),
        );
        let mut groups = Vec::new();
        for (group, versions) in &tree {
            for (version, resources) in versions {
                let root = if group.is_empty() {
                    "/api".to_owned()
                } else {
                    format!("/apis/{group}")
                };
                add(
                    &mut plain,
                    format!("{root}/{version}"),
                    resource_list(group, version, resources),
                );
            }
            if !group.is_empty() {
                groups.push(api_group(group, versions));
            }
        }
        published::add_groups(&mut groups, others);
        for group in &groups {
            let mut typed = group.clone();
            typed["kind"] = "APIGroup".into();
            typed["apiVersion"] = "v1".into();
            let path = format!("/apis/{}", group["name"].as_str().unwrap_or_default());
            add(&mut plain, path, typed);
        }
        add(
            &mut plain,
            "/apis".into(),
            json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups}),
        );
        let mut aggregated = HashMap::new();
        for version in [AggregatedVersion::V2, AggregatedVersion::V2Beta1] {
            for core in [true, false] {
                aggregated.insert(
                    (core, version),
                    Document::new(aggregated_list(&tree, core, version, others).to_string()),
                );
            }
        }
        let groups = tree
            .iter()
            .filter(|(g, _)| !g.is_empty())
            .map(|(g, versions)| {
                (
                    (*g).to_owned(),
                    versions.iter().map(|(v, _)| (*v).to_owned()).collect(),
                )
            })
            .collect();
        Self {
            plain,
            aggregated,
            groups,
        }
    }

    /// The document at a path.
    pub fn plain(&self, path: &str) -> Option<&Document> {
        self.plain.get(path)
    }

    /// The aggregated document of `/api` or `/apis`.
    pub fn aggregated(&self, core: bool, version: AggregatedVersion) -> &Document {
        &self.aggregated[&(core, version)]
    }

    /// Named groups and their versions.
    pub fn groups(&self) -> &[(String, Vec<String>)] {
        &self.groups
    }
}

/// Resources by version.
type Versions<'a> = BTreeMap<&'a str, Vec<&'a Served>>;

fn tree(everything: &[Served]) -> Tree<'_> {
    let mut groups: BTreeMap<(usize, &str), Versions<'_>> = BTreeMap::new();
    for served in everything {
        if served.alias.is_some_and(|alias| !alias.discoverable) {
            continue;
        }
        let group = served.group();
        let rank = GROUP_ORDER
            .iter()
            .position(|g| *g == group)
            .unwrap_or(GROUP_ORDER.len());
        groups
            .entry((rank, group))
            .or_default()
            .entry(served.version())
            .or_default()
            .push(served);
    }
    groups
        .into_iter()
        .map(|((_, group), versions)| {
            let mut versions: Vec<_> = versions
                .into_iter()
                .map(|(version, mut resources)| {
                    resources.sort_by_key(|s| s.info().plural);
                    (version, resources)
                })
                .collect();
            versions.sort_by(|(a, _), (b, _)| compare_versions(b, a));
            (group, versions)
        })
        .collect()
}

fn words(verbs: &[Verb]) -> Vec<&'static str> {
    let mut verbs: Vec<_> = verbs.iter().map(|v| v.as_str()).collect();
    verbs.sort_unstable();
    verbs
}

fn resource_list(group: &str, version: &str, resources: &[&Served]) -> Value {
    let mut list = Vec::new();
    for served in resources {
        let info = served.info();
        let mut entry = json!({
            "name": info.plural,
            "singularName": info.singular,
            "namespaced": info.namespaced(),
            "kind": info.kind,
            "verbs": words(info.verbs),
        });
        let own = !deprecated(served);
        if !info.short_names.is_empty() && own {
            entry["shortNames"] = json!(info.short_names);
        }
        if !info.categories.is_empty() && own {
            entry["categories"] = json!(info.categories);
        }
        if info.allows(Verb::List) {
            // Of the form objects are stored in, so that clients see when it changes.
            let hash = Sha256::digest(format!("{}/{}/{}", info.group, info.version, info.kind));
            entry["storageVersionHash"] = {
                use base64::Engine as _;
                base64::engine::general_purpose::STANDARD
                    .encode(&hash[..8])
                    .into()
            };
        }
        list.push(entry);
        for subresource in info.subresources {
            let mut entry = json!({
                "name": format!("{}/{}", info.plural, subresource.name),
                "singularName": "",
                "namespaced": info.namespaced(),
                "kind": subresource.kind,
                "verbs": words(subresource.verbs),
            });
            let its = (subresource.group, subresource.version);
            if its != (info.group, info.version) && !subresource.version.is_empty() {
                if !subresource.group.is_empty() {
                    entry["group"] = subresource.group.into();
                }
                entry["version"] = subresource.version.into();
            }
            list.push(entry);
        }
    }
    json!({
        "kind": "APIResourceList",
        "apiVersion": "v1",
        "groupVersion": group_version(group, version),
        "resources": list,
    })
}

fn api_group(group: &str, versions: &[(&str, Vec<&Served>)]) -> Value {
    let entry = |version: &str| json!({"groupVersion": group_version(group, version), "version": version});
    json!({
        "name": group,
        "versions": versions.iter().map(|(v, _)| entry(v)).collect::<Vec<_>>(),
        "preferredVersion": versions.first().map(|(v, _)| entry(v)),
    })
}

fn aggregated_list(tree: &Tree<'_>, core: bool, form: AggregatedVersion, others: &Remotes) -> Value {
    let mut items = Vec::new();
    for (group, versions) in tree.iter().filter(|(g, _)| g.is_empty() == core) {
        let versions: Vec<Value> = versions
            .iter()
            .map(|(version, resources)| {
                let resources: Vec<Value> = resources.iter().map(|s| aggregated_resource(s)).collect();
                json!({"version": version, "freshness": "Current", "resources": resources})
            })
            .collect();
        let mut metadata = json!({});
        if !group.is_empty() {
            metadata["name"] = (*group).into();
        }
        items.push(json!({"metadata": metadata, "versions": versions}));
    }
    if !core {
        published::add_aggregated(&mut items, others);
    }
    json!({
        "kind": "APIGroupDiscoveryList",
        "apiVersion": format!("apidiscovery.k8s.io/{}", form.as_str()),
        "metadata": {},
        "items": items,
    })
}

fn aggregated_resource(served: &Served) -> Value {
    let info = served.info();
    // Of built-in kinds upstream says where they come from only if that is elsewhere.
    let from = match served.custom_version() {
        Some(_) => (served.group(), served.version()),
        None => ("", ""),
    };
    let subresources: Vec<Value> = info
        .subresources
        .iter()
        .map(|s| {
            // What is the object itself is served in the version of the object.
            let own = s.version.is_empty() || (s.group, s.version) == (info.group, info.version);
            let (group, version) = if own { from } else { (s.group, s.version) };
            json!({
                "subresource": s.name,
                "responseKind": {"group": group, "version": version, "kind": s.kind},
                "verbs": words(s.verbs),
            })
        })
        .collect();
    let mut value = json!({
        "resource": info.plural,
        "responseKind": {"group": from.0, "version": from.1, "kind": info.kind},
        "scope": if info.namespaced() { "Namespaced" } else { "Cluster" },
        "singularResource": info.singular,
        "verbs": words(info.verbs),
    });
    if !info.short_names.is_empty() && !deprecated(served) {
        value["shortNames"] = json!(info.short_names);
    }
    if !info.categories.is_empty() && !deprecated(served) {
        value["categories"] = json!(info.categories);
    }
    if !subresources.is_empty() {
        value["subresources"] = json!(subresources);
    }
    value
}

/// Short names and categories mean the form that is here to stay.
fn deprecated(served: &Served) -> bool {
    served.alias.is_some_and(|alias| alias.deprecation.is_some())
}

#[cfg(test)]
mod tests;
