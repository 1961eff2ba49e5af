//! The names expressions know, and their types.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

use crate::cel::Program;
use crate::cel::check::Names;
use crate::cel::library::authz;
use crate::cel::types::{Decl, Fields, REQUEST, Type};

/// What an expression has to come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// Whether something holds.
    Bool,
    /// A message.
    Text,
    /// An annotation, or none.
    TextOrNull,
    /// Anything.
    Any,
    /// An object to apply.
    Object,
    /// Changes as JSON patch has them.
    Patches,
}

impl Wanted {
    /// As upstream's messages put it.
    fn shown(self) -> &'static str {
        match self {
            Wanted::Bool => "must evaluate to bool",
            Wanted::Text => "must evaluate to string",
            Wanted::TextOrNull => "must evaluate to one of [string null_type]",
            Wanted::Any => "must evaluate to any",
            Wanted::Object => "must evaluate to Object",
            Wanted::Patches => "must evaluate to list(JSONPatch)",
        }
    }

    fn is(self, ty: &Type) -> bool {
        let named = |ty: &Type, name: &str| matches!(ty, Type::Object(fields) if fields.name == name);
        match self {
            Wanted::Bool => matches!(ty, Type::Bool),
            Wanted::Text => matches!(ty, Type::String),
            Wanted::TextOrNull => matches!(ty, Type::String | Type::Null),
            Wanted::Any => true,
            Wanted::Object => named(ty, "Object"),
            Wanted::Patches => matches!(ty, Type::List(of) if named(&of.ty, "JSONPatch")),
        }
    }
}

/// What surrounds an expression.
#[derive(Clone)]
pub struct Surroundings {
    object: Arc<Decl>,
    params: Option<Arc<Decl>>,
    authorizer: bool,
    /// `None` where there are no variables at all.
    variables: Option<BTreeMap<String, Arc<Decl>>>,
    patches: bool,
}

impl Surroundings {
    /// The names every expression about a request knows.
    pub fn new() -> Self {
        Self {
            object: anything(),
            params: None,
            authorizer: false,
            variables: None,
            patches: false,
        }
    }

    /// With `object` and `oldObject` of this type.
    pub fn about(self, object: Arc<Decl>) -> Self {
        Self { object, ..self }
    }

    /// With `params`, if there are any, of this type or of any.
    pub fn with_params(self, params: Option<Option<Arc<Decl>>>) -> Self {
        Self {
            params: params.map(|decl| decl.unwrap_or_else(anything)),
            ..self
        }
    }

    /// With `authorizer`.
    pub fn with_authorizer(self) -> Self {
        Self {
            authorizer: true,
            ..self
        }
    }

    /// Without `authorizer`.
    pub fn without_authorizer(self) -> Self {
        Self {
            authorizer: false,
            ..self
        }
    }

    /// With `variables`, of which there are none yet.
    pub fn with_variables(self) -> Self {
        Self {
            variables: Some(BTreeMap::new()),
            ..self
        }
    }

    /// With the types changes are written with.
    pub fn with_patches(self) -> Self {
        Self {
            patches: true,
            ..self
        }
    }

    /// Reads a variable, which the expressions after it know; they do even if it makes no sense.
    pub fn add_variable(&mut self, name: &str, source: &str) -> Result<Program, String> {
        let compiled = self.check(source, Wanted::Any);
        let (program, decl) = match compiled {
            Ok((program, decl)) => (Ok(program), decl),
            Err(why) => (Err(why), anything()),
        };
        self.variables
            .get_or_insert_default()
            .insert(name.to_owned(), decl);
        program
    }

    /// Reads an expression. The error is in upstream's words.
    pub fn compile(&self, source: &str, wanted: Wanted) -> Result<Program, String> {
        self.check(source, wanted).map(|(program, _)| program)
    }

    fn check(&self, source: &str, wanted: Wanted) -> Result<(Program, Arc<Decl>), String> {
        let program = Program::parse(source)?;
        let names = Names::new(self.names());
        let names = if self.patches { names.with_patches() } else { names };
        let decl = program.check(names)?.decl;
        if !wanted.is(&decl.ty) {
            return Err(format!("{} but got {}", wanted.shown(), decl.ty));
        }
        Ok((program, decl))
    }

    fn names(&self) -> Vec<(&'static str, Arc<Decl>)> {
        let mut names = vec![
            ("object", self.object.clone()),
            ("oldObject", self.object.clone()),
            ("request", REQUEST_TYPE.clone()),
            ("namespaceObject", NAMESPACE_TYPE.clone()),
        ];
        if let Some(params) = &self.params {
            names.push(("params", params.clone()));
        }
        if self.authorizer {
            let authorizer = Decl::small(Type::Opaque(authz::AUTHORIZER));
            names.push(("authorizer", Arc::new(authorizer)));
        }
        if let Some(variables) = &self.variables {
            let fields = Fields {
                name: "kubernetes.variables".to_owned(),
                fields: variables.clone(),
            };
            names.push(("variables", Arc::new(Decl::small(Type::Object(Arc::new(fields))))));
        }
        names
    }
}

impl Default for Surroundings {
    fn default() -> Self {
        Self::new()
    }
}

fn large(ty: Type) -> Arc<Decl> {
    Arc::new(Decl::sized(ty, REQUEST - 2))
}

fn anything() -> Arc<Decl> {
    large(Type::Dyn)
}

fn text() -> Arc<Decl> {
    large(Type::String)
}

fn object(name: &str, fields: &[(&str, Arc<Decl>)]) -> Arc<Decl> {
    let fields = Fields {
        name: name.to_owned(),
        fields: fields
            .iter()
            .map(|(name, decl)| ((*name).to_owned(), decl.clone()))
            .collect(),
    };
    Arc::new(Decl::small(Type::Object(Arc::new(fields))))
}

/// The part of an `AdmissionReview`'s request that `request` shows.
static REQUEST_TYPE: LazyLock<Arc<Decl>> = LazyLock::new(|| {
    let kind = object(
        "kubernetes.GroupVersionKind",
        &[("group", text()), ("version", text()), ("kind", text())],
    );
    let resource = object(
        "kubernetes.GroupVersionResource",
        &[("group", text()), ("version", text()), ("resource", text())],
    );
    let texts = || large(Type::List(text()));
    let user = object(
        "kubernetes.UserInfo",
        &[
            ("username", text()),
            ("uid", text()),
            ("groups", texts()),
            ("extra", large(Type::Map(text(), texts()))),
        ],
    );
    object(
        "kubernetes.AdmissionRequest",
        &[
            ("kind", kind.clone()),
            ("resource", resource.clone()),
            ("subResource", text()),
            ("requestKind", kind),
            ("requestResource", resource),
            ("requestSubResource", text()),
            ("name", text()),
            ("namespace", text()),
            ("operation", text()),
            ("userInfo", user),
            ("dryRun", Arc::new(Decl::small(Type::Bool))),
            ("options", anything()),
        ],
    )
});

/// The part of a namespace that `namespaceObject` shows.
static NAMESPACE_TYPE: LazyLock<Arc<Decl>> = LazyLock::new(|| {
    let moment = || Arc::new(Decl::small(Type::Timestamp));
    let number = || Arc::new(Decl::small(Type::Int));
    let texts = || large(Type::List(text()));
    let map = || large(Type::Map(text(), text()));
    let metadata = object(
        "kubernetes.NamespaceMetadata",
        &[
            ("name", text()),
            ("generateName", text()),
            ("namespace", text()),
            ("labels", map()),
            ("annotations", map()),
            ("UID", text()),
            ("creationTimestamp", moment()),
            ("deletionGracePeriodSeconds", number()),
            ("deletionTimestamp", moment()),
            ("generation", number()),
            ("resourceVersion", text()),
            ("finalizers", texts()),
        ],
    );
    let condition = object(
        "kubernetes.NamespaceCondition",
        &[
            ("status", text()),
            ("type", text()),
            ("lastTransitionTime", moment()),
            ("message", text()),
            ("reason", text()),
        ],
    );
    object(
        "kubernetes.Namespace",
        &[
            ("metadata", metadata),
            (
                "spec",
                object("kubernetes.NamespaceSpec", &[("finalizers", texts())]),
            ),
            (
                "status",
                object(
                    "kubernetes.NamespaceStatus",
                    &[("conditions", large(Type::List(condition))), ("phase", text())],
                ),
            ),
        ],
    )
});
