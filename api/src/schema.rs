//! One schema source for everything: OpenAPI, strict decoding, merging, protobuf.
//!
//! The facts are a text table in the program (`schema/types.tsv`). It is read once, on first use, into about
//! 400 KiB that point back into the text; what is asked rarely (defaults, patch rules, protobuf tags) stays text.
//!
//! ```
//! let pod = keelson_api::schema::by_kind("", "v1", "Pod").expect("a pod");
//! assert_eq!(pod.full_name(), "io.k8s.api.core.v1.Pod");
//! let spec = pod.field("spec").and_then(|field| field.ty().named()).expect("a pod's spec");
//! let containers = spec.field("containers").expect("its containers");
//! assert!(containers.required() && containers.patch().is_some_and(|patch| patch.key == "name"));
//! ```

use std::sync::LazyLock;

mod table;

use crate::names::Gvk;
use table::Table;

static TABLE: LazyLock<Table> = LazyLock::new(|| Table::read(include_str!("schema/types.tsv")));

/// What a named type looks like in JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// An object with the fields of the table.
    Fields,
    /// Any JSON: raw extensions, JSON schemas' embedded values.
    Any,
    /// A quantity: a string, or a number when it is read.
    Quantity,
    /// A timestamp.
    Time,
    /// A number or a string.
    IntOrString,
}

/// A named type of the API.
#[derive(Debug)]
pub struct Definition {
    pub(crate) name: &'static str,
    pub(crate) shape: Shape,
    pub(crate) attributes: &'static str,
    pub(crate) fields: Box<[Field]>,
    /// The place of a field that is a moment typed objects always have, and that need not be on the wire.
    pub(crate) moment: Option<usize>,
}

/// A field of a type.
#[derive(Debug)]
pub struct Field {
    pub(crate) name: &'static str,
    /// How the name begins, for finding it.
    beginning: u64,
    pub(crate) ty: Type,
    pub(crate) attributes: &'static str,
    /// What every write asks of every field is read from the attributes once.
    required: bool,
    always_there: bool,
    map_kind: Option<MapKind>,
    list_kind: Option<ListKind>,
}

/// The type of a field or of an element.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Type {
    /// A string.
    String,
    /// A 32-bit integer.
    Int32,
    /// A 64-bit integer.
    Int64,
    /// A boolean.
    Bool,
    /// A floating-point number.
    Double,
    /// Bytes, as a base64 string.
    Bytes,
    /// Any JSON object.
    Object,
    /// A list.
    List(Box<Type>),
    /// A map from strings.
    Map(Box<Type>),
    /// A named type, by its place in the table.
    Named(TypeId),
}

/// A type's place in the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TypeId(pub(crate) u16);

/// How lists are merged by apply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListKind {
    /// As a whole.
    Atomic,
    /// Element by element: each value once.
    Set,
    /// Element by element, told apart by these fields.
    Map(Box<[&'static str]>),
}

/// How maps are merged by apply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MapKind {
    /// As a whole.
    Atomic,
    /// Entry by entry.
    Granular,
}

impl MapKind {
    /// The word that schemas have for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Atomic => "atomic",
            Self::Granular => "granular",
        }
    }
}

/// How strategic merge patch treats a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PatchRule {
    /// Merge lists instead of replacing them.
    pub merge: bool,
    /// Replace objects instead of merging them.
    pub replace: bool,
    /// Drop fields that the patch does not list.
    pub retain_keys: bool,
    /// The field that tells a list's elements apart; empty for lists of plain values.
    pub key: &'static str,
}

/// The type of a full name, such as `io.k8s.api.core.v1.Pod`.
pub fn by_name(name: &str) -> Option<&'static Definition> {
    TABLE.by_name(name)
}

/// The type of a kind.
pub fn by_gvk(gvk: &Gvk) -> Option<&'static Definition> {
    by_kind(&gvk.group, &gvk.version, &gvk.kind)
}

/// The type of a kind.
pub fn by_kind(group: &str, version: &str, kind: &str) -> Option<&'static Definition> {
    TABLE.by_kind(group, version, kind)
}

/// All types, by name.
pub fn all() -> &'static [Definition] {
    &TABLE.definitions
}

/// Whether there is a list, of any type, whose elements are told apart by a field of this name.
pub fn is_list_key(name: &str) -> bool {
    // Asked of every field in every list of a new object, so it is no search in the table.
    matches!(
        name,
        "apiServerID"
            | "containerPort"
            | "device"
            | "devicePath"
            | "driver"
            | "ip"
            | "mountPath"
            | "name"
            | "pool"
            | "port"
            | "protocol"
            | "resourceID"
            | "rule"
            | "shareID"
            | "topologyKey"
            | "type"
            | "uid"
            | "whenUnsatisfiable"
    )
}

impl TypeId {
    /// The type.
    pub fn get(self) -> &'static Definition {
        // Ids come only from the table they point into.
        &TABLE.definitions[usize::from(self.0)]
    }
}

impl Definition {
    /// The full name, such as `io.k8s.api.core.v1.Pod`.
    pub fn full_name(&self) -> String {
        table::full_name(self.name)
    }

    /// The last part of the name, such as `Pod`.
    pub fn short_name(&self) -> &'static str {
        self.name.rsplit('.').next().unwrap_or(self.name)
    }

    /// What it looks like in JSON.
    pub fn shape(&self) -> Shape {
        self.shape
    }

    /// The fields, by name.
    pub fn fields(&self) -> &[Field] {
        &self.fields
    }

    /// A field by its JSON name.
    pub fn field(&self, name: &str) -> Option<&Field> {
        self.field_index(name).map(|index| &self.fields[index])
    }

    pub(crate) fn field_index(&self, name: &str) -> Option<usize> {
        let wanted = beginning(name);
        let order = |field: &Field| field.beginning.cmp(&wanted).then_with(|| field.name.cmp(name));
        self.fields.binary_search_by(order).ok()
    }

    /// Whether apply treats the object as a whole.
    pub fn atomic(&self) -> bool {
        attribute(self.attributes, "map=") == Some("atomic")
    }

    /// The kinds the type stands for: group, version, kind.
    pub fn kinds(&self) -> impl Iterator<Item = (&'static str, &'static str, &'static str)> + use<> {
        self.attributes
            .split(' ')
            .filter_map(|word| word.strip_prefix("gvk="))
            .filter_map(|gvk| {
                let (version, kind) = gvk.rsplit_once('/')?;
                let (group, version) = version.rsplit_once('/').unwrap_or(("", version));
                Some((group, version, kind))
            })
    }

    /// Whether the type is an option of every group and version, as delete options and watch events are.
    pub fn in_every_group(&self) -> bool {
        words(self.attributes).any(|word| word == "gvk=*")
    }

    /// The union the type is: the discriminating field (may be empty), and fields with the values they stand for.
    pub fn union(&self) -> Option<(&'static str, Vec<(&'static str, &'static str)>)> {
        let (discriminator, members) = attribute(self.attributes, "union=")?.split_once(':')?;
        Some((
            discriminator,
            members
                .split(',')
                .filter_map(|member| member.split_once(':'))
                .collect(),
        ))
    }
}

impl Field {
    pub(crate) fn new(name: &'static str, ty: Type, attributes: &'static str) -> Self {
        let is = |word| words(attributes).any(|one| one == word);
        let required = is("!");
        let filled_in = matches!(ty, Type::Named(_)) && attribute(attributes, "=") == Some("{}");
        Self {
            name,
            beginning: beginning(name),
            required,
            always_there: required || filled_in,
            map_kind: attribute(attributes, "map=").map(|kind| match kind {
                "atomic" => MapKind::Atomic,
                _ => MapKind::Granular,
            }),
            list_kind: attribute(attributes, "list=").map(list_kind),
            ty,
            attributes,
        }
    }

    /// The JSON name.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// The type.
    pub fn ty(&self) -> &Type {
        &self.ty
    }

    /// Whether the field must be there.
    pub fn required(&self) -> bool {
        self.required
    }

    /// Whether it is there even where it is not written: fields without which the type is never written, structs in
    /// structs.
    pub fn always_there(&self) -> bool {
        self.always_there
    }

    /// The default, as JSON text.
    pub fn default(&self) -> Option<&'static str> {
        attribute(self.attributes, "=")
    }

    /// How apply merges the list.
    pub fn list_kind(&self) -> Option<&ListKind> {
        self.list_kind.as_ref()
    }

    /// Whether apply treats the field's object as a whole.
    pub fn atomic_map(&self) -> bool {
        self.map_kind() == Some(MapKind::Atomic)
    }

    /// How apply merges the map, where the type says.
    pub fn map_kind(&self) -> Option<MapKind> {
        self.map_kind
    }

    /// How strategic merge patch treats the field.
    pub fn patch(&self) -> Option<PatchRule> {
        let (strategies, key) = attribute(self.attributes, "patch=")?.split_once(':')?;
        let has = |wanted: &str| strategies.split(',').any(|one| one == wanted);
        Some(PatchRule {
            merge: has("merge"),
            replace: has("replace"),
            retain_keys: has("retainKeys"),
            key,
        })
    }

    /// Whether a zero or false, which protobuf always writes, means that there is none.
    pub fn zero_means_absent(&self) -> bool {
        self.has("~")
    }

    /// Whether an empty string differs from an absent one.
    pub fn empty_means_empty(&self) -> bool {
        self.has("*")
    }

    /// Whether the list is a message of its own in protobuf.
    pub fn wrapped(&self) -> bool {
        self.has("wrap")
    }

    fn has(&self, word: &str) -> bool {
        words(self.attributes).any(|one| one == word)
    }

    /// The field's number in protobuf, after those of the messages it is embedded in.
    pub fn tags(&self) -> impl Iterator<Item = u32> + use<> {
        attribute(self.attributes, "#")
            .unwrap_or_default()
            .split('.')
            .filter_map(|tag| tag.parse().ok())
    }
}

impl Type {
    /// The named type, if it is one.
    pub fn named(&self) -> Option<&'static Definition> {
        match self {
            Self::Named(id) => Some(id.get()),
            _ => None,
        }
    }

    /// The type of a list's or map's elements.
    pub fn element(&self) -> Option<&Type> {
        match self {
            Self::List(element) | Self::Map(element) => Some(element),
            _ => None,
        }
    }
}

/// The first bytes of a name as a number: names are in the order of these numbers, as far as they tell.
fn beginning(name: &str) -> u64 {
    let name = name.as_bytes();
    let first = name.first_chunk().copied().unwrap_or_else(|| {
        let mut padded = [0; 8];
        padded[..name.len()].copy_from_slice(name);
        padded
    });
    u64::from_be_bytes(first)
}

fn list_kind(text: &'static str) -> ListKind {
    let (kind, keys) = text.split_once(':').unwrap_or((text, ""));
    match kind {
        "map" => ListKind::Map(keys.split(',').collect()),
        "set" => ListKind::Set,
        _ => ListKind::Atomic,
    }
}

fn attribute(attributes: &'static str, prefix: &str) -> Option<&'static str> {
    words(attributes).find_map(|word| word.strip_prefix(prefix))
}

/// The words of an attribute text. They are a few bytes long: comparing byte by byte finds their ends sooner than what
/// searches long texts.
fn words(attributes: &'static str) -> impl Iterator<Item = &'static str> {
    #[expect(
        clippy::manual_pattern_char_comparison,
        reason = "searching long texts is something else"
    )]
    attributes.split(|c| c == ' ')
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn lists_have_the_keys_of_the_table() {
        let fields = || all().iter().flat_map(Definition::fields);
        let keys: BTreeSet<&str> = fields()
            .filter_map(|field| match field.list_kind() {
                Some(ListKind::Map(keys)) => Some(keys.iter().copied()),
                _ => None,
            })
            .flatten()
            .collect();
        let said: BTreeSet<&str> = fields()
            .map(Field::name)
            .filter(|name| is_list_key(name))
            .collect();
        assert_eq!(said, keys);
    }

    #[test]
    fn knows_fields_and_how_they_merge() {
        let spec = by_name("io.k8s.api.core.v1.PodSpec").expect("pod specs");
        let containers = spec.field("containers").expect("containers");
        assert_eq!(
            containers.patch(),
            Some(PatchRule {
                merge: true,
                replace: false,
                retain_keys: false,
                key: "name"
            })
        );
        assert_eq!(containers.list_kind(), Some(&ListKind::Map(["name"].into())));
        let volumes = spec.field("volumes").and_then(Field::patch).expect("volumes");
        assert!(volumes.merge && volumes.retain_keys && volumes.key == "name");
        let port = by_name("io.k8s.api.core.v1.ContainerPort").expect("ports");
        assert_eq!(port.field("protocol").and_then(Field::default), Some("\"TCP\""));
        assert!(port.field("containerPort").is_some_and(Field::required));
        let handler = by_name("io.k8s.api.core.v1.Probe")
            .and_then(|probe| probe.field("exec"))
            .expect("exec");
        assert_eq!(handler.tags().collect::<Vec<_>>(), [1, 1]);
        assert!(by_name("io.k8s.api.core.v1.NodeSelector").is_some_and(Definition::atomic));
    }

    #[test]
    fn finds_kinds() {
        let deployment = by_kind("apps", "v1", "Deployment").expect("deployments");
        assert_eq!(deployment.full_name(), "io.k8s.api.apps.v1.Deployment");
        assert_eq!(
            deployment.kinds().collect::<Vec<_>>(),
            [("apps", "v1", "Deployment")]
        );
        assert!(by_kind("apps", "v1", "Deplyment").is_none());
        let crd = by_kind("apiextensions.k8s.io", "v1", "CustomResourceDefinition").expect("definitions");
        assert!(
            crd.full_name()
                .starts_with("io.k8s.apiextensions-apiserver.pkg.apis.")
        );
    }

    #[test]
    fn every_reference_leads_somewhere_and_lookups_work() {
        for definition in all() {
            let found = by_name(&definition.full_name()).expect("a lookup by its own name");
            assert!(std::ptr::eq(found, definition));
            for field in definition.fields() {
                assert!(definition.field(field.name()).is_some());
                let mut ty = field.ty();
                while let Some(element) = ty.element() {
                    ty = element;
                }
                assert!(ty.named().is_none_or(|named| !named.name.is_empty()));
            }
        }
    }
}
