//! From resources to the operations on their paths, in neither version's notation yet.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::parameters::{self as p, Parameter};
use super::{Resource, Subresource};
use crate::names::Gvk;
use crate::schema;

/// What answers come in.
const PRODUCES: &[&str] = &[
    "application/json",
    "application/yaml",
    "application/vnd.kubernetes.protobuf",
];
/// What answers of lists come in, when they may be watches.
const PRODUCES_STREAM: &[&str] = &[
    "application/json",
    "application/yaml",
    "application/vnd.kubernetes.protobuf",
    "application/json;stream=watch",
    "application/vnd.kubernetes.protobuf;stream=watch",
];
const PRODUCES_LOG: &[&str] = &[
    "text/plain",
    "application/json",
    "application/yaml",
    "application/vnd.kubernetes.protobuf",
];
const ANYTHING: &[&str] = &["*/*"];
const PATCHES: &[&str] = &[
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
    "application/apply-patch+yaml",
];
/// Patches of custom resources, which have no merge rules of their own.
const PATCHES_CUSTOM: &[&str] = &[
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/apply-patch+yaml",
];
/// What answers about custom resources come in.
const PRODUCES_CUSTOM: &[&str] = &["application/json", "application/yaml"];
const JSON: &[&str] = &["application/json"];

/// Kinds whose deletion answers with the object instead of a Status, by plural and group.
const DELETE_RETURNS_OBJECT: &[(&str, &str)] = &[
    ("persistentvolumeclaims", ""),
    ("pods", ""),
    ("podtemplates", ""),
    ("resourcequotas", ""),
    ("serviceaccounts", ""),
    ("services", ""),
    ("persistentvolumes", ""),
    ("deviceclasses", "resource.k8s.io"),
    ("resourceclaims", "resource.k8s.io"),
    ("resourceclaimtemplates", "resource.k8s.io"),
    ("resourceslices", "resource.k8s.io"),
    ("csidrivers", "storage.k8s.io"),
    ("csinodes", "storage.k8s.io"),
    ("storageclasses", "storage.k8s.io"),
    ("volumeattachments", "storage.k8s.io"),
    ("volumeattributesclasses", "storage.k8s.io"),
];

pub(super) const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.";
pub(super) const VERSION_INFO: &str = "io.k8s.apimachinery.pkg.version.Info";

/// What a request carries or an answer brings.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Content {
    /// An object of a type.
    Type(String),
    /// Text.
    Text,
}

/// The body of a request.
#[derive(Clone, Debug)]
pub(super) enum Body {
    /// An object.
    Object(String),
    /// Delete options, which may be left out.
    Options,
    /// A patch.
    Patch,
}

/// One method on one path.
#[derive(Debug)]
pub(super) struct Operation<'a> {
    pub(super) method: &'static str,
    pub(super) id: String,
    pub(super) description: String,
    pub(super) action: Option<&'static str>,
    pub(super) kind: Option<Gvk>,
    pub(super) parameters: Vec<Parameter<'a>>,
    pub(super) body: Option<Body>,
    pub(super) codes: &'static [u16],
    pub(super) answer: Content,
    pub(super) produces: &'static [&'static str],
    pub(super) consumes: &'static [&'static str],
    pub(super) tag: String,
}

/// Operations by path.
pub(super) type Paths<'a> = BTreeMap<String, Vec<Operation<'a>>>;

/// The path items of a document: each operation as `operation` writes it with the parameters of its own, and parameters
/// common to all operations of a path as `parameter` does.
pub(super) fn path_items<'a>(
    paths: &Paths<'a>,
    operation: impl Fn(&Operation<'a>, &[Parameter<'a>]) -> Value,
    parameter: impl Fn(&Parameter<'a>) -> Value,
) -> Map<String, Value> {
    let items = paths.iter().map(|(path, operations)| {
        let (common, own) = hoist(operations);
        let mut item = Map::new();
        for (one, own) in operations.iter().zip(own) {
            item.insert(one.method.to_owned(), operation(one, &own));
        }
        if !common.is_empty() {
            item.insert("parameters".into(), common.iter().map(&parameter).collect());
        }
        (path.clone(), item.into())
    });
    items.collect()
}

/// Splits the parameters of a path into those of every method and those of single ones.
fn hoist<'a>(operations: &[Operation<'a>]) -> (Vec<Parameter<'a>>, Vec<Vec<Parameter<'a>>>) {
    let everywhere =
        |one: &Parameter<'_>| {
            operations.iter().all(|op| {
                op.parameters.iter().any(|other| other.order() == one.order()
            && matches!((one, other), (Parameter::Shared(a), Parameter::Shared(b)) if a.id == b.id)
            || other.order() == one.order() && !matches!(other, Parameter::Shared(_)))
            })
        };
    let mut common: Vec<Parameter<'a>> = operations
        .first()
        .map(|op| {
            op.parameters
                .iter()
                .filter(|one| everywhere(one))
                .copied()
                .collect()
        })
        .unwrap_or_default();
    common.sort_by_key(Parameter::order);
    let own = operations
        .iter()
        .map(|op| {
            let mut own: Vec<Parameter<'a>> = op
                .parameters
                .iter()
                .filter(|one| !everywhere(one))
                .copied()
                .collect();
            own.sort_by_key(Parameter::order);
            own
        })
        .collect();
    (common, own)
}

/// The full name of the type of a kind.
pub(super) fn type_name(kind: &Gvk) -> Option<String> {
    schema::by_gvk(kind).map(schema::Definition::full_name)
}

/// `storage.k8s.io` as a word in identifiers: `Storage`; the core group is `Core`.
fn group_words(group: &str) -> Vec<&str> {
    match group {
        "" => vec!["core"],
        group => group
            .strip_suffix(".k8s.io")
            .unwrap_or(group)
            .split('.')
            .collect(),
    }
}

fn title(word: &str) -> String {
    let mut chars = word.chars();
    chars
        .next()
        .map(|first| first.to_uppercase().chain(chars).collect())
        .unwrap_or_default()
}

fn camel(group: &str) -> String {
    group_words(group).into_iter().map(title).collect()
}

/// The tag of a group: lower camel case.
pub(super) fn group_tag(group: &str) -> String {
    let words = group_words(group);
    let mut tag = words.first().copied().unwrap_or_default().to_owned();
    tag.extend(words.iter().skip(1).map(|word| title(word)));
    tag
}

fn api_root(group: &str, version: &str) -> String {
    if group.is_empty() {
        format!("/api/{version}")
    } else {
        format!("/apis/{group}/{version}")
    }
}

fn article(kind: &str) -> &'static str {
    if kind.starts_with(['A', 'E', 'I', 'O', 'U']) {
        "an"
    } else {
        "a"
    }
}

/// Builds the operations of one resource.
struct Builder<'a> {
    resource: &'a Resource,
    /// `CoreV1`
    prefix: String,
    /// `Namespaced` or nothing.
    scope: &'static str,
    tag: String,
    paths: Paths<'a>,
}

impl<'a> Builder<'a> {
    fn operation(&self, method: &'static str, id: String, description: String) -> Operation<'a> {
        Operation {
            method,
            id,
            description,
            action: None,
            kind: Some(self.resource.gvk()),
            parameters: Vec::new(),
            body: None,
            codes: &[200, 401],
            answer: Content::Text,
            produces: self.of_custom(PRODUCES_CUSTOM, PRODUCES),
            consumes: ANYTHING,
            tag: self.tag.clone(),
        }
    }

    /// One thing for custom resources, another for built-in ones.
    fn of_custom<T>(&self, custom: T, built_in: T) -> T {
        match self.resource.custom {
            Some(_) => custom,
            None => built_in,
        }
    }

    fn put_in(&mut self, path: &str, operation: Operation<'a>) {
        self.paths.entry(path.to_owned()).or_default().push(operation);
    }

    fn scope_parameters(&self, namespaced: bool) -> Vec<Parameter<'a>> {
        let mut parameters = vec![Parameter::Shared(&p::PRETTY)];
        if namespaced {
            parameters.push(Parameter::Shared(&p::NAMESPACE));
        }
        parameters
    }

    fn collection(&mut self) {
        let resource = self.resource;
        let Some(object) = resource.type_name() else {
            return;
        };
        let kind = &*resource.kind;
        let root = api_root(&resource.group, &resource.version);
        let inside = if resource.namespaced {
            "/namespaces/{namespace}"
        } else {
            ""
        };
        let path = format!("{root}{inside}/{}", resource.plural);
        let all = format!("{root}/{}", resource.plural);
        let list_type = Content::Type(resource.list_type_name(&object));
        let (prefix, scope) = (self.prefix.clone(), self.scope);
        if resource.can("list") {
            self.list(
                &path,
                format!("list{prefix}{scope}{kind}"),
                list_type.clone(),
                resource.namespaced,
            );
            if resource.namespaced {
                self.list(
                    &all,
                    format!("list{prefix}{kind}ForAllNamespaces"),
                    list_type,
                    false,
                );
            }
        }
        if resource.can("watch") {
            let watch = format!("{root}/watch{inside}/{}", resource.plural);
            self.watch(
                &watch,
                format!("watch{prefix}{scope}{kind}List"),
                resource.namespaced,
                false,
            );
            self.watch(
                &format!("{watch}/{{name}}"),
                format!("watch{prefix}{scope}{kind}"),
                resource.namespaced,
                true,
            );
            if resource.namespaced {
                let watch = format!("{root}/watch/{}", resource.plural);
                self.watch(
                    &watch,
                    format!("watch{prefix}{kind}ListForAllNamespaces"),
                    false,
                    false,
                );
            }
        }
        if resource.can("create") {
            let mut create = self.operation(
                "post",
                format!("create{prefix}{scope}{kind}"),
                format!("create {} {kind}", article(kind)),
            );
            create.action = Some("post");
            create.parameters = self.scope_parameters(resource.namespaced);
            create.parameters.extend(writing());
            create.body = Some(Body::Object(object.clone()));
            create.codes = &[200, 201, 202, 401];
            create.answer = Content::Type(object);
            self.put_in(&path, create);
        }
        if resource.can("deletecollection") {
            let mut delete = self.operation(
                "delete",
                format!("delete{prefix}Collection{scope}{kind}"),
                format!("delete collection of {kind}"),
            );
            delete.action = Some("deletecollection");
            delete.parameters = self.scope_parameters(resource.namespaced);
            delete.parameters.extend(deleting());
            delete.parameters.extend(
                [
                    &p::CONTINUE,
                    &p::FIELD_SELECTOR,
                    &p::LABEL_SELECTOR,
                    &p::LIMIT,
                    &p::RESOURCE_VERSION,
                    &p::RESOURCE_VERSION_MATCH,
                    &p::SEND_INITIAL,
                    &p::TIMEOUT,
                ]
                .map(Parameter::Shared),
            );
            delete.body = Some(Body::Options);
            delete.answer = Content::Type(format!("{META}Status"));
            self.put_in(&path, delete);
        }
    }

    fn list(&mut self, path: &str, id: String, answer: Content, namespaced: bool) {
        let (resource, kind) = (self.resource, &self.resource.kind);
        let verb = if resource.can("watch") {
            "list or watch"
        } else {
            "list"
        };
        let mut list = self.operation("get", id, format!("{verb} objects of kind {kind}"));
        list.action = Some("list");
        list.parameters = self.scope_parameters(namespaced);
        list.parameters.extend(listing());
        list.answer = answer;
        list.produces = self.of_custom(PRODUCES_CUSTOM, PRODUCES_STREAM);
        self.put_in(path, list);
    }

    fn watch(&mut self, path: &str, id: String, namespaced: bool, single: bool) {
        let kind = &*self.resource.kind;
        let description = if single {
            format!(
                "watch changes to an object of kind {kind}. deprecated: use the 'watch' parameter with a list \
                 operation instead, filtered to a single item with the 'fieldSelector' parameter."
            )
        } else {
            format!(
                "watch individual changes to a list of {kind}. deprecated: use the 'watch' parameter with a list \
                 operation instead."
            )
        };
        let mut watch = self.operation("get", id, description);
        watch.action = Some(if single { "watch" } else { "watchlist" });
        watch.parameters = self.scope_parameters(namespaced);
        watch.parameters.extend(listing());
        if single {
            watch.parameters.push(Parameter::Name(kind));
        }
        watch.answer = Content::Type(format!("{META}WatchEvent"));
        watch.produces = self.of_custom(PRODUCES_CUSTOM, PRODUCES_STREAM);
        self.put_in(path, watch);
    }

    fn object(&mut self) {
        let resource = self.resource;
        let Some(object) = resource.type_name() else {
            return;
        };
        let inside = if resource.namespaced {
            "/namespaces/{namespace}"
        } else {
            ""
        };
        let path = format!(
            "{}{inside}/{}/{{name}}",
            api_root(&resource.group, &resource.version),
            resource.plural
        );
        self.read_write(
            &path,
            &resource.verbs,
            "",
            &resource.gvk(),
            &object,
            &resource.kind,
            &resource.kind,
        );
        if resource.can("delete") {
            let kind = &*resource.kind;
            let mut delete = self.operation(
                "delete",
                format!("delete{}{}{kind}", self.prefix, self.scope),
                format!("delete {} {kind}", article(kind)),
            );
            delete.action = Some("delete");
            delete.parameters = self.scope_parameters(resource.namespaced);
            delete.parameters.push(Parameter::Name(kind));
            delete.parameters.extend(deleting());
            delete.body = Some(Body::Options);
            delete.codes = &[200, 202, 401];
            let returns_object = DELETE_RETURNS_OBJECT.contains(&(&*resource.plural, &*resource.group));
            delete.answer = Content::Type(if returns_object {
                object
            } else {
                format!("{META}Status")
            });
            self.put_in(&path, delete);
        }
        for subresource in &resource.subresources {
            self.subresource(&path, subresource);
        }
    }

    /// Get, put and patch of an object or of something below it.
    #[allow(clippy::too_many_arguments)]
    fn read_write(
        &mut self,
        path: &str,
        verbs: &'a [crate::names::Name],
        below: &str,
        wire: &Gvk,
        wire_type: &str,
        named: &'a str,
        kind: &str,
    ) {
        let (prefix, scope, namespaced) = (self.prefix.clone(), self.scope, self.resource.namespaced);
        let of = if below.is_empty() {
            String::new()
        } else {
            format!("{below} of ")
        };
        let suffix = title(below);
        let can = |verb: &str| verbs.iter().any(|one| one == verb);
        let mut add =
            |verb: &'static str, method, action, words: &str, body, codes, more: Vec<Parameter<'a>>| {
                let mut operation = self.operation(
                    method,
                    format!("{verb}{prefix}{scope}{kind}{suffix}"),
                    format!("{words} {of}the specified {kind}"),
                );
                operation.action = Some(action);
                operation.kind = Some(wire.clone());
                operation.parameters = self.scope_parameters(namespaced);
                operation.parameters.push(Parameter::Name(named));
                operation.parameters.extend(more);
                operation.body = body;
                operation.codes = codes;
                operation.answer = Content::Type(wire_type.to_owned());
                if method == "patch" {
                    operation.consumes = self.of_custom(PATCHES_CUSTOM, PATCHES);
                }
                self.put_in(path, operation);
            };
        if can("get") {
            add("read", "get", "get", "read", None, &[200, 401], Vec::new());
        }
        if can("update") {
            let body = Body::Object(wire_type.to_owned());
            add(
                "replace",
                "put",
                "put",
                "replace",
                Some(body),
                &[200, 201, 401],
                writing().to_vec(),
            );
        }
        if can("patch") {
            let parameters = vec![
                Parameter::Inline(&p::DRY_RUN),
                Parameter::Inline(&p::FIELD_VALIDATION),
                Parameter::Shared(&p::FIELD_MANAGER_PATCH),
                Parameter::Shared(&p::FORCE),
            ];
            add(
                "patch",
                "patch",
                "patch",
                "partially update",
                Some(Body::Patch),
                &[200, 201, 401],
                parameters,
            );
        }
    }

    fn subresource(&mut self, object_path: &str, subresource: &'a Subresource) {
        let resource = self.resource;
        let path = format!("{object_path}/{}", subresource.name);
        if subresource.connects() {
            self.connect(&path, subresource, "");
            if subresource.name == "proxy" {
                self.connect(&format!("{path}/{{path}}"), subresource, "WithPath");
            }
            return;
        }
        if subresource.name == "log" {
            let mut log = self.operation(
                "get",
                format!("read{}{}{}Log", self.prefix, self.scope, resource.kind),
                format!("read log of the specified {}", resource.kind),
            );
            log.action = Some("get");
            log.parameters = self.scope_parameters(resource.namespaced);
            log.parameters.push(Parameter::Name(&resource.kind));
            log.parameters.extend(
                [
                    &p::CONTAINER_LOG,
                    &p::FOLLOW,
                    &p::INSECURE_BACKEND,
                    &p::LIMIT_BYTES,
                    &p::PREVIOUS,
                    &p::SINCE_SECONDS,
                    &p::STREAM,
                    &p::TAIL_LINES,
                    &p::TIMESTAMPS,
                ]
                .map(Parameter::Shared),
            );
            log.produces = PRODUCES_LOG;
            self.put_in(&path, log);
            return;
        }
        let Some(wire_type) = resource.subresource_type_name(subresource) else {
            return;
        };
        let named = &*subresource.kind.kind;
        let below = &*subresource.name;
        self.read_write(
            &path,
            &subresource.verbs,
            below,
            &subresource.kind,
            &wire_type,
            named,
            &resource.kind,
        );
        if subresource.can("create") {
            let mut create = self.operation(
                "post",
                format!(
                    "create{}{}{}{}",
                    self.prefix,
                    self.scope,
                    resource.kind,
                    title(below)
                ),
                format!("create {below} of {} {}", article(&resource.kind), resource.kind),
            );
            create.action = Some("post");
            create.kind = Some(subresource.kind.clone());
            create.parameters = self.scope_parameters(resource.namespaced);
            create.parameters.push(Parameter::Name(named));
            create.parameters.extend(writing());
            create.body = Some(Body::Object(wire_type.clone()));
            create.codes = &[200, 201, 202, 401];
            create.answer = Content::Type(wire_type);
            self.put_in(&path, create);
        }
    }

    fn connect(&mut self, path: &str, subresource: &'a Subresource, suffix: &str) {
        let resource = self.resource;
        let proxy = subresource.name == "proxy";
        let methods: &[&'static str] = if proxy {
            &["get", "put", "post", "delete", "options", "head", "patch"]
        } else {
            &["get", "post"]
        };
        let options: &[&'static p::Shared] = match (&*subresource.name, &*resource.plural) {
            ("exec", _) => &[
                &p::COMMAND,
                &p::CONTAINER_EXEC,
                &p::STDERR_EXEC,
                &p::STDIN_EXEC,
                &p::STDOUT_EXEC,
                &p::TTY_EXEC,
            ],
            ("attach", _) => &[
                &p::CONTAINER_ATTACH,
                &p::STDERR_ATTACH,
                &p::STDIN_ATTACH,
                &p::STDOUT_ATTACH,
                &p::TTY_ATTACH,
            ],
            ("portforward", _) => &[&p::PORTS],
            (_, "nodes") => &[&p::PATH_NODE],
            (_, "services") => &[&p::PATH_SERVICE],
            _ => &[&p::PATH_POD],
        };
        for &method in methods {
            let mut operation = self.operation(
                method,
                format!(
                    "connect{}{}{}{}{}{suffix}",
                    self.prefix,
                    title(method),
                    self.scope,
                    resource.kind,
                    title(&subresource.name)
                ),
                format!(
                    "connect {} requests to {} of {}",
                    method.to_uppercase(),
                    subresource.name,
                    resource.kind
                ),
            );
            operation.action = Some("connect");
            operation.kind = Some(subresource.kind.clone());
            operation.parameters.push(Parameter::Name(&subresource.kind.kind));
            if resource.namespaced {
                operation.parameters.push(Parameter::Shared(&p::NAMESPACE));
            }
            if !suffix.is_empty() {
                operation.parameters.push(Parameter::Shared(&p::PATH_IN_PATH));
            }
            operation
                .parameters
                .extend(options.iter().copied().map(Parameter::Shared));
            operation.produces = ANYTHING;
            self.put_in(path, operation);
        }
    }
}

fn writing() -> [Parameter<'static>; 3] {
    [
        Parameter::Inline(&p::DRY_RUN),
        Parameter::Shared(&p::FIELD_MANAGER),
        Parameter::Inline(&p::FIELD_VALIDATION),
    ]
}

fn deleting() -> [Parameter<'static>; 5] {
    [
        Parameter::Inline(&p::DRY_RUN),
        Parameter::Shared(&p::GRACE_PERIOD),
        Parameter::Shared(&p::IGNORE_READ_ERROR),
        Parameter::Shared(&p::ORPHAN),
        Parameter::Shared(&p::PROPAGATION),
    ]
}

fn listing() -> [Parameter<'static>; 10] {
    [
        &p::ALLOW_BOOKMARKS,
        &p::CONTINUE,
        &p::FIELD_SELECTOR,
        &p::LABEL_SELECTOR,
        &p::LIMIT,
        &p::RESOURCE_VERSION,
        &p::RESOURCE_VERSION_MATCH,
        &p::SEND_INITIAL,
        &p::TIMEOUT,
        &p::WATCH,
    ]
    .map(Parameter::Shared)
}

/// The operations of resources.
pub(super) fn of_resources<'a>(resources: impl Iterator<Item = &'a Resource>) -> Paths<'a> {
    let mut paths = Paths::new();
    for resource in resources {
        let mut builder = Builder {
            resource,
            prefix: format!("{}{}", camel(&resource.group), title(&resource.version)),
            scope: if resource.namespaced { "Namespaced" } else { "" },
            tag: format!("{}_{}", group_tag(&resource.group), resource.version),
            paths: Paths::new(),
        };
        builder.collection();
        builder.object();
        for (path, operations) in builder.paths {
            paths.entry(path).or_default().extend(operations);
        }
    }
    paths
}

fn discovery(id: String, description: &str, answer: &str, tag: String) -> Operation<'static> {
    Operation {
        method: "get",
        id,
        description: description.to_owned(),
        action: None,
        kind: None,
        parameters: Vec::new(),
        body: None,
        codes: &[200, 401],
        answer: Content::Type(format!("{META}{answer}")),
        produces: PRODUCES,
        consumes: PRODUCES,
        tag,
    }
}

/// The operation that lists what a group and version has.
pub(super) fn of_version(group: &str, version: &str) -> (String, Operation<'static>) {
    let id = format!("get{}{}APIResources", camel(group), title(version));
    let tag = format!("{}_{version}", group_tag(group));
    let path = format!("{}/", api_root(group, version));
    (
        path,
        discovery(id, "get available resources", "APIResourceList", tag),
    )
}

/// The operation that describes a group, or lists the versions of the core group.
pub(super) fn of_group(group: &str) -> (String, Operation<'static>) {
    if group.is_empty() {
        let operation = discovery(
            "getCoreAPIVersions".to_owned(),
            "get available API versions",
            "APIVersions",
            "core".to_owned(),
        );
        return ("/api/".to_owned(), operation);
    }
    let id = format!("get{}APIGroup", camel(group));
    let operation = discovery(id, "get information of a group", "APIGroup", group_tag(group));
    (format!("/apis/{group}/"), operation)
}

/// The operation that lists the groups.
pub(super) fn of_groups() -> (String, Operation<'static>) {
    let operation = discovery(
        "getAPIVersions".to_owned(),
        "get available API versions",
        "APIGroupList",
        "apis".to_owned(),
    );
    ("/apis/".to_owned(), operation)
}

/// The operation that tells the server's version.
pub(super) fn of_server_version() -> (String, Operation<'static>) {
    let mut operation = discovery(
        "getCodeVersion".to_owned(),
        "get the version information for this server",
        "",
        "version".to_owned(),
    );
    operation.answer = Content::Type(VERSION_INFO.to_owned());
    operation.produces = JSON;
    operation.consumes = JSON;
    ("/version/".to_owned(), operation)
}
