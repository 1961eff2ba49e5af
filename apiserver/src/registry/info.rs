//! What a resource is called, how it is reached and what may be done with it.

use keelson_api::names::{GroupKind, GroupResource};
use keelson_api::status::ApiError;
use serde_json::Value;

/// One served resource: its names, scope, verbs, place in the store and subresources.
#[derive(Debug)]
pub struct ResourceInfo {
    /// API group, empty for the core group.
    pub group: &'static str,
    /// The version objects are stored in; [`Alias`]es serve others.
    pub version: &'static str,
    /// `Pod`.
    pub kind: &'static str,
    /// `pods`: the name in paths.
    pub plural: &'static str,
    /// `pod`.
    pub singular: &'static str,
    /// `po`.
    pub short_names: &'static [&'static str],
    /// `all`, `api-extensions`.
    pub categories: &'static [&'static str],
    /// Whether objects live in namespaces.
    pub scope: Scope,
    /// What may be done with the collection and its objects.
    pub verbs: &'static [Verb],
    /// Where objects lie below the store's prefix: `pods`, `services/specs`, `minions`.
    pub storage_prefix: &'static str,
    /// What a name has to look like.
    pub name_rule: NameRule,
    /// Names a field selector may use, besides `metadata.name` and `metadata.namespace`.
    pub selectable_fields: &'static [&'static str],
    /// What a field selector is told that uses another name.
    pub other_fields: OtherFields,
    /// `status`, `scale`, `binding`, ...
    pub subresources: &'static [SubresourceInfo],
    /// Other group versions the same objects are served as.
    pub aliases: &'static [Alias],
    /// How long an object lives in the store: events expire.
    pub lifetime: Lifetime,
}

impl ResourceInfo {
    /// `v1`, `apps/v1`.
    pub fn api_version(&self) -> String {
        group_version(self.group, self.version)
    }

    /// `pods`, `deployments.apps`: how messages name the resource.
    pub fn group_resource(&self) -> GroupResource {
        GroupResource::new(self.group, self.plural)
    }

    /// `Pod`, `Deployment.apps`.
    pub fn group_kind(&self) -> GroupKind {
        GroupKind::new(self.group, self.kind)
    }

    /// A starting point for `..` in a kind's own table: namespaced, every verb, a subdomain for a name.
    pub const fn base() -> Self {
        Self {
            group: "",
            version: "v1",
            kind: "",
            plural: "",
            singular: "",
            short_names: &[],
            categories: &[],
            scope: Scope::Namespaced,
            verbs: Verb::ALL,
            storage_prefix: "",
            name_rule: NameRule::Subdomain,
            selectable_fields: &[],
            other_fields: OtherFields::NotKnown,
            subresources: &[],
            aliases: &[],
            lifetime: Lifetime::Forever,
        }
    }

    /// Whether objects live in namespaces.
    pub fn namespaced(&self) -> bool {
        self.scope == Scope::Namespaced
    }

    /// Whether the resource knows `verb`.
    pub fn allows(&self, verb: Verb) -> bool {
        self.verbs.contains(&verb)
    }

    /// Why a selector by `field` is refused, for the kind as it is served under `group` and `version`.
    pub fn refusal_of_field(&self, (group, version): (&str, &str), field: &str) -> String {
        match self.other_fields {
            OtherFields::NotKnown => format!(
                "\"{field}\" is not a known field selector: only \"metadata.name\", \"metadata.namespace\""
            ),
            OtherFields::NotSupported => format!("field label not supported: {field}"),
            OtherFields::NotSupportedForKind => {
                format!("field label \"{field}\" not supported for \"{}\"", self.kind)
            }
            OtherFields::NotSupportedForVersion => format!(
                "field label not supported for {group}/{version}, Kind={}: {field}",
                self.kind
            ),
        }
    }

    /// The subresource of that name.
    pub fn subresource(&self, name: &str) -> Option<&'static SubresourceInfo> {
        self.subresources.iter().find(|s| s.name == name)
    }
}

/// Joins a group and a version as `apiVersion` does.
pub fn group_version(group: &str, version: &str) -> String {
    if group.is_empty() {
        version.to_owned()
    } else {
        format!("{group}/{version}")
    }
}

/// How a selector is refused that uses a field the kind does not offer: upstream's kinds that offer fields of their own each
/// have a way of saying so, and only those without any offer `metadata.namespace` outside of namespaces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OtherFields {
    /// Names what every kind offers.
    NotKnown,
    /// Names the field.
    NotSupported,
    /// Names the field and the kind.
    NotSupportedForKind,
    /// Names the field, the kind and its version.
    NotSupportedForVersion,
}

/// Where objects of a resource live.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// In the cluster as a whole.
    Cluster,
    /// In a namespace.
    Namespaced,
}

/// How long an object stays without being deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lifetime {
    /// Until deleted.
    Forever,
    /// For `--event-ttl`.
    Events,
    /// Not at all: it is a question, and what is created is the answer.
    Answered,
    /// Not at all: it is an order, and that it was carried out is the answer.
    CarriedOut,
    /// Not at all: what there is is found out when somebody asks.
    Observed,
}

/// What a caller wants to do, in the words authorization and discovery use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Verb {
    /// POST to a collection.
    Create,
    /// DELETE of one object.
    Delete,
    /// DELETE of a collection.
    DeleteCollection,
    /// GET of one object.
    Get,
    /// GET of a collection.
    List,
    /// PATCH.
    Patch,
    /// PUT.
    Update,
    /// GET of a collection or object with `watch=true`.
    Watch,
}

impl Verb {
    /// Every verb, in the order discovery lists them.
    pub const ALL: &'static [Verb] = &[
        Verb::Create,
        Verb::Delete,
        Verb::DeleteCollection,
        Verb::Get,
        Verb::List,
        Verb::Patch,
        Verb::Update,
        Verb::Watch,
    ];

    /// The word.
    pub fn as_str(self) -> &'static str {
        match self {
            Verb::Create => "create",
            Verb::Delete => "delete",
            Verb::DeleteCollection => "deletecollection",
            Verb::Get => "get",
            Verb::List => "list",
            Verb::Patch => "patch",
            Verb::Update => "update",
            Verb::Watch => "watch",
        }
    }

    /// Whether the verb can change what is stored.
    pub fn mutates(self) -> bool {
        !matches!(self, Verb::Get | Verb::List | Verb::Watch)
    }
}

/// The form a name has to have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NameRule {
    /// RFC 1123 subdomain: most kinds.
    Subdomain,
    /// RFC 1123 label: namespaces.
    Label,
    /// RFC 1035 label: services.
    ServiceLabel,
    /// Anything that fits into a path: RBAC kinds.
    PathSegment,
}

/// One subresource.
#[derive(Debug)]
pub struct SubresourceInfo {
    /// `status`.
    pub name: &'static str,
    /// The kind it takes and answers.
    pub kind: &'static str,
    /// Group of that kind when it is not the resource's own (`autoscaling` for `scale`).
    pub group: &'static str,
    /// Version of that kind.
    pub version: &'static str,
    /// Verbs it knows; [`Verb::Create`] is POST.
    pub verbs: &'static [Verb],
    /// Who carries it out.
    pub form: SubresourceForm,
}

impl SubresourceInfo {
    /// The `status` of a kind: the object itself, changed in nothing but its status.
    pub const fn status(group: &'static str, version: &'static str, kind: &'static str) -> Self {
        Self {
            name: "status",
            kind,
            group,
            version,
            verbs: GET_PATCH_UPDATE,
            form: SubresourceForm::Object,
        }
    }
}

/// How a subresource is carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SubresourceForm {
    /// Reads and writes the object itself under another update rule
    /// ([`Strategy::prepare_subresource_update`](super::strategy::Strategy::prepare_subresource_update)): `status`, `finalize`, `resize`.
    Object,
    /// Takes and answers a kind of its own through [`Subresource`](super::strategy::Subresource): `scale`, `binding`, `eviction`, `token`.
    Handler,
    /// A connection to somewhere else: `log`, `exec`, `proxy`.
    Connect,
}

/// Get, patch and update: the verbs of `status` and its like.
pub const GET_PATCH_UPDATE: &[Verb] = &[Verb::Get, Verb::Patch, Verb::Update];

/// The same objects under another group, version or kind.
#[derive(Debug)]
pub struct Alias {
    /// Group served.
    pub group: &'static str,
    /// Version served.
    pub version: &'static str,
    /// From the served form to the stored one: shape only, `apiVersion` and `kind` are set by the caller.
    pub to_storage: fn(&mut Value) -> Result<(), ApiError>,
    /// From the stored form to the served one.
    pub from_storage: fn(&mut Value),
    /// Fields of selectors that have another name here: here, and in the stored form.
    pub field_names: &'static [(&'static str, &'static str)],
    /// Sent as a `Warning` header with every answer.
    pub deprecation: Option<&'static str>,
    /// Whether discovery mentions it.
    pub discoverable: bool,
}
