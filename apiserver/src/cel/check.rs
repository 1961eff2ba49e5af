//! Finds the types of expressions, what is wrong with them, and what computing them may cost at most.

use std::sync::Arc;

use super::ast::{Access, Expr, Kind, Literal, LoopKind, Unwrap};
use super::library;
use super::parse::Problem;
use super::types::{Decl, Fields, REQUEST, Type};

/// The type of a change in JSON patch's terms.
const JSON_PATCH: &str = "JSONPatch";
/// The type of an object to apply; its parts are `Object.spec` and so on.
const OBJECT: &str = "Object";

/// What is known of an expression before it is computed.
#[derive(Debug, Clone)]
pub struct Checked {
    /// Its type and size.
    pub decl: Arc<Decl>,
    /// Its cost at most.
    pub cost: u64,
}

impl Checked {
    fn new(decl: Decl, cost: u64) -> Self {
        Self {
            decl: Arc::new(decl),
            cost,
        }
    }

    fn ty(&self) -> &Type {
        &self.decl.ty
    }
}

/// Names and their types, the innermost last.
pub struct Names<'n> {
    names: Vec<(&'n str, Arc<Decl>)>,
    patches: bool,
}

type Result<T> = std::result::Result<T, Problem>;

impl<'n> Names<'n> {
    /// These names.
    pub fn new(names: Vec<(&'n str, Arc<Decl>)>) -> Self {
        Self {
            names,
            patches: false,
        }
    }

    /// The same names, and the types changes are written with: `Object{...}`, `JSONPatch{...}`.
    pub fn with_patches(self) -> Self {
        Self {
            patches: true,
            ..self
        }
    }

    fn get(&self, name: &str) -> Option<&Arc<Decl>> {
        self.names
            .iter()
            .rev()
            .find(|(known, _)| *known == name)
            .map(|(_, decl)| decl)
    }

    /// Checks an expression.
    pub fn check(&mut self, expr: &'n Expr) -> Result<Checked> {
        let small = |ty, cost| Ok(Checked::new(Decl::small(ty), cost));
        match &expr.kind {
            Kind::Literal(literal) => Ok(Checked::new(literal_decl(literal), 0)),
            Kind::Ident(name) => match self.get(name) {
                Some(decl) => Ok(Checked {
                    decl: decl.clone(),
                    cost: 1,
                }),
                None if library::constant(name).is_some() => small(Type::Type, 1),
                None => Err(problem(
                    expr,
                    format!("undeclared reference to '{name}' (in container '')"),
                )),
            },
            Kind::Select(of, name, access) => {
                let of = self.check(of)?;
                let field = field(of.ty(), name).ok_or_else(|| undefined(expr, of.ty(), name))?;
                let cost = of.cost.saturating_add(1);
                let wrap = *access == Access::Optional || matches!(of.ty(), Type::Optional(_));
                Ok(Checked {
                    decl: if wrap { optional(field) } else { field },
                    cost,
                })
            }
            Kind::Has(of, name) => {
                let of = self.check(of)?;
                field(of.ty(), name).ok_or_else(|| undefined(expr, of.ty(), name))?;
                small(Type::Bool, of.cost.saturating_add(1))
            }
            Kind::Index(of, index, access) => {
                let (of, index) = (self.check(of)?, self.check(index)?);
                let (inner, lifted) = match of.ty() {
                    Type::Optional(inner) => (inner.ty.clone(), true),
                    other => (other.clone(), false),
                };
                let found = match (&inner, index.ty()) {
                    (Type::Dyn, _) => Arc::new(any()),
                    (Type::List(item), ty) if ty.is_number() => item.clone(),
                    (Type::Map(key, value), ty) if key.ty.fits(ty) => value.clone(),
                    _ => return Err(no_overload(expr, "_[_]", &[of.ty(), index.ty()])),
                };
                let wrap = lifted || *access == Access::Optional;
                Ok(Checked {
                    decl: if wrap { optional(found) } else { found },
                    cost: of.cost.saturating_add(index.cost).saturating_add(1),
                })
            }
            Kind::And(parts) | Kind::Or(parts) => {
                let mut cost = 0_u64;
                for part in parts {
                    let checked = self.check(part)?;
                    if !checked.ty().fits(&Type::Bool) {
                        let name = if matches!(expr.kind, Kind::And(_)) {
                            "_&&_"
                        } else {
                            "_||_"
                        };
                        return Err(no_overload(part, name, &[checked.ty()]));
                    }
                    cost = cost.saturating_add(checked.cost);
                }
                small(Type::Bool, cost)
            }
            Kind::Choice(choice) => {
                let [condition, yes, no] = choice.as_ref();
                let (condition, yes, no) = (self.check(condition)?, self.check(yes)?, self.check(no)?);
                if !condition.ty().fits(&Type::Bool) || !yes.ty().fits(no.ty()) {
                    return Err(no_overload(expr, "_?_:_", &[condition.ty(), yes.ty(), no.ty()]));
                }
                let larger = if yes.decl.max >= no.decl.max { &yes } else { &no };
                Ok(Checked {
                    decl: larger.decl.clone(),
                    cost: condition.cost.saturating_add(yes.cost.max(no.cost)),
                })
            }
            Kind::List(items) => {
                let (mut cost, mut of) = (10_u64, None::<Arc<Decl>>);
                for (item, access) in items {
                    let item = self.check(item)?;
                    cost = cost.saturating_add(item.cost);
                    let decl = match (access, item.ty()) {
                        (Access::Optional, Type::Optional(inner)) => inner.clone(),
                        _ => item.decl.clone(),
                    };
                    of = Some(match of {
                        None => decl,
                        Some(seen) if seen.ty.fits(&decl.ty) => larger(seen, decl),
                        Some(_) => Arc::new(any()),
                    });
                }
                let of = of.unwrap_or_else(|| Arc::new(any()));
                let max = u64::try_from(items.len()).unwrap_or(REQUEST);
                Ok(Checked::new(Decl::sized(Type::List(of), max), cost))
            }
            Kind::Map(entries) => {
                let (mut cost, mut kind) = (30_u64, None::<(Arc<Decl>, Arc<Decl>)>);
                for (key, value, access) in entries {
                    let (key, value) = (self.check(key)?, self.check(value)?);
                    cost = cost.saturating_add(key.cost).saturating_add(value.cost);
                    let decl = match (access, value.ty()) {
                        (Access::Optional, Type::Optional(inner)) => inner.clone(),
                        _ => value.decl.clone(),
                    };
                    kind = Some(match kind {
                        None => (key.decl, decl),
                        Some((keys, values)) if values.ty.fits(&decl.ty) => (keys, larger(values, decl)),
                        Some((keys, _)) => (keys, Arc::new(any())),
                    });
                }
                let (keys, values) = kind.unwrap_or_else(|| (Arc::new(any()), Arc::new(any())));
                let max = u64::try_from(entries.len()).unwrap_or(REQUEST);
                Ok(Checked::new(Decl::sized(Type::Map(keys, values), max), cost))
            }
            Kind::Loop(one) => {
                let range = self.check(&one.range)?;
                let (first, second) = match range.ty() {
                    Type::List(item) if one.second.is_some() => {
                        (Arc::new(Decl::small(Type::Int)), item.clone())
                    }
                    Type::List(item) => (item.clone(), item.clone()),
                    Type::Map(key, value) => (key.clone(), value.clone()),
                    Type::Object(_) | Type::Dyn => (Arc::new(any()), Arc::new(any())),
                    other => {
                        return Err(problem(
                            &one.range,
                            format!(
                                "expression of type '{other}' cannot be range of a comprehension (must be list, map, or \
                                 dynamic)"
                            ),
                        ));
                    }
                };
                let base = self.names.len();
                self.names.push((&one.var, first.clone()));
                if let Some(name) = &one.second {
                    self.names.push((name, second));
                }
                let checked: Result<(Option<Checked>, Checked)> = (|| {
                    let filter = one.filter.as_ref().map(|filter| self.check(filter)).transpose()?;
                    Ok((filter, self.check(&one.body)?))
                })();
                self.names.truncate(base);
                let (filter, body) = checked?;
                if one.kind != LoopKind::Map && !body.ty().fits(&Type::Bool) {
                    return Err(problem(
                        &one.body,
                        format!(
                            "found no matching overload for '_?_:_' applied to '({})'",
                            body.ty()
                        ),
                    ));
                }
                let each = body
                    .cost
                    .saturating_add(filter.map_or(0, |filter| filter.cost))
                    .saturating_add(3);
                let cost = range
                    .cost
                    .saturating_add(range.decl.max.saturating_mul(each))
                    .saturating_add(1);
                let list = |of: Arc<Decl>| Checked::new(Decl::sized(Type::List(of), range.decl.max), cost);
                Ok(match one.kind {
                    LoopKind::Map => list(body.decl),
                    LoopKind::Filter => list(first),
                    _ => Checked::new(Decl::small(Type::Bool), cost),
                })
            }
            Kind::Bind(bind) => {
                let value = self.check(&bind.value)?;
                let inner = match (bind.unwrap, value.ty()) {
                    (Unwrap::No, _) => value.decl.clone(),
                    (_, Type::Optional(inner)) => inner.clone(),
                    (_, Type::Dyn) => Arc::new(any()),
                    (_, other) => return Err(no_overload(expr, "optMap", &[other])),
                };
                self.names.push((&bind.var, inner));
                let body = self.check(&bind.body);
                self.names.pop();
                let body = body?;
                Ok(Checked {
                    decl: match bind.unwrap {
                        Unwrap::Map => optional(body.decl.clone()),
                        _ => body.decl.clone(),
                    },
                    cost: value.cost.saturating_add(body.cost).saturating_add(1),
                })
            }
            Kind::Call(target, name, args) => self.call(expr, target.as_deref(), name, args),
            Kind::Object(name, fields) => self.object(expr, name, fields),
        }
    }

    fn object(
        &mut self,
        expr: &'n Expr,
        name: &str,
        fields: &'n [(Box<str>, Expr, Access)],
    ) -> Result<Checked> {
        let patch = name == JSON_PATCH;
        if !self.patches || !(patch || name == OBJECT || name.starts_with("Object.")) {
            return Err(problem(
                expr,
                format!("undeclared reference to '{name}' (in container '')"),
            ));
        }
        let mut cost = 40_u64;
        for (field, value, access) in fields {
            let given = self.check(value)?;
            cost = cost.saturating_add(given.cost);
            let given = match (access, given.ty()) {
                (Access::Optional, Type::Optional(inner)) => inner.ty.clone(),
                (_, other) => other.clone(),
            };
            let wanted = match &**field {
                _ if !patch => continue,
                "op" | "path" | "from" => Type::String,
                "value" => continue,
                _ => return Err(problem(value, format!("undefined field '{field}'"))),
            };
            if !wanted.fits(&given) {
                return Err(problem(
                    value,
                    format!("expected type of field '{field}' is '{wanted}' but provided type is '{given}'"),
                ));
            }
        }
        let fields = Fields {
            name: name.to_owned(),
            fields: Default::default(),
        };
        Ok(Checked::new(Decl::small(Type::Object(Arc::new(fields))), cost))
    }

    fn call(
        &mut self,
        expr: &'n Expr,
        target: Option<&'n Expr>,
        name: &str,
        args: &'n [Expr],
    ) -> Result<Checked> {
        let mut full = name.to_owned();
        let mut known = Vec::with_capacity(args.len() + 1);
        let mut member = false;
        match target {
            Some(Expr {
                kind: Kind::Ident(root),
                ..
            }) if library::is_namespace(root) && self.get(root).is_none() => full = format!("{root}.{name}"),
            Some(target) => {
                member = true;
                known.push(self.check(target)?);
            }
            None => {}
        }
        for arg in args {
            known.push(self.check(arg)?);
        }
        let types: Vec<&Type> = known.iter().map(Checked::ty).collect();
        let args_cost = known.iter().fold(0_u64, |sum, one| sum.saturating_add(one.cost));
        match super::signatures::result(&full, member, &known) {
            Some((decl, cost)) => Ok(Checked::new(decl, args_cost.saturating_add(cost))),
            None if !super::signatures::exists(&full) => Err(problem(
                expr,
                format!("undeclared reference to '{full}' (in container '')"),
            )),
            None if member => {
                let rest: Vec<String> = types[1..].iter().map(ToString::to_string).collect();
                Err(problem(
                    expr,
                    format!(
                        "found no matching overload for '{full}' applied to '{}.({})'",
                        types[0],
                        rest.join(", ")
                    ),
                ))
            }
            None => Err(no_overload(expr, &full, &types)),
        }
    }
}

fn problem(expr: &Expr, text: String) -> Problem {
    Problem { at: expr.at, text }
}

fn no_overload(expr: &Expr, name: &str, types: &[&Type]) -> Problem {
    let types: Vec<String> = types.iter().map(ToString::to_string).collect();
    problem(
        expr,
        format!(
            "found no matching overload for '{name}' applied to '({})'",
            types.join(", ")
        ),
    )
}

fn undefined(expr: &Expr, of: &Type, name: &str) -> Problem {
    match of {
        Type::Object(_) => problem(expr, format!("undefined field '{name}'")),
        other => problem(expr, format!("type '{other}' does not support field selection")),
    }
}

/// Anything, as large as it may be.
fn any() -> Decl {
    Decl::sized(Type::Dyn, REQUEST - 2)
}

fn optional(of: Arc<Decl>) -> Arc<Decl> {
    if matches!(of.ty, Type::Optional(_)) {
        return of;
    }
    let max = of.max;
    Arc::new(Decl::sized(Type::Optional(of), max))
}

fn larger(a: Arc<Decl>, b: Arc<Decl>) -> Arc<Decl> {
    if a.max >= b.max { a } else { b }
}

fn field(of: &Type, name: &str) -> Option<Arc<Decl>> {
    match of {
        Type::Object(fields) => fields.fields.get(name).cloned(),
        Type::Map(_, value) => Some(value.clone()),
        Type::Optional(inner) => field(&inner.ty, name),
        Type::Dyn => Some(Arc::new(any())),
        Type::Opaque(library::authz::AUTHORIZER) if name == "requestResource" => Some(Arc::new(Decl::small(
            Type::Opaque(library::authz::RESOURCE_CHECK),
        ))),
        _ => None,
    }
}

fn literal_decl(literal: &Literal) -> Decl {
    let length = |length: usize| u64::try_from(length).unwrap_or(REQUEST);
    match literal {
        Literal::Null => Decl::small(Type::Null),
        Literal::Bool(_) => Decl::small(Type::Bool),
        Literal::Int(_) => Decl::small(Type::Int),
        Literal::Uint(_) => Decl::small(Type::Uint),
        Literal::Double(_) => Decl::small(Type::Double),
        Literal::String(text) => Decl::sized(Type::String, length(text.len())),
        Literal::Bytes(bytes) => Decl::sized(Type::Bytes, length(bytes.len())),
    }
}
