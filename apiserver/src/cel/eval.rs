//! Computes expressions, within a budget.

use std::sync::Arc;

use super::ast::{Access, Bind, Expr, Kind, Literal, Loop, LoopKind, Unwrap};
use super::value::{Key, Object, Value};
use super::{Program, library};

/// What writing out an object costs.
const OBJECT_COST: u64 = 40;

/// Why an expression came to nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failure {
    /// The budget is used up.
    Cost,
    /// What was asked for cannot be had; in upstream's words.
    Error(String),
    /// Somebody has to be asked first: see [`library::authz`].
    Open,
}

impl Failure {
    /// An error in words.
    pub fn error(text: impl Into<String>) -> Self {
        Failure::Error(text.into())
    }

    /// No function of that name takes such values.
    pub fn no_overload() -> Self {
        Failure::error("no such overload")
    }

    /// Whether nothing else that is computed can make up for it.
    fn ends_everything(&self) -> bool {
        matches!(self, Failure::Cost | Failure::Open)
    }
}

/// What may still be spent.
#[derive(Debug)]
pub struct Budget {
    left: u64,
}

impl Budget {
    /// So many units.
    pub fn new(units: u64) -> Self {
        Self { left: units }
    }

    /// Units left.
    pub fn left(&self) -> u64 {
        self.left
    }

    /// Spends some.
    pub fn spend(&mut self, units: u64) -> Result<(), Failure> {
        match self.left.checked_sub(units) {
            Some(left) => {
                self.left = left;
                Ok(())
            }
            None => {
                self.left = 0;
                Err(Failure::Cost)
            }
        }
    }
}

/// A named expression that is computed when somebody first asks for it, as `variables.NAME`.
#[derive(Debug, Clone)]
pub struct Variable {
    /// The name.
    pub name: Box<str>,
    /// The expression.
    pub program: Program,
}

/// Where variables are found.
const VARIABLES: &str = "variables";

/// Names and what they stand for, the innermost last.
pub struct Scope<'s, 'v> {
    names: Vec<(&'s str, Value<'v>)>,
    /// How many of the names are there for every expression.
    roots: usize,
    variables: &'s [Variable],
    /// What variables have come to so far.
    known: Vec<Option<Result<Value<'v>, Failure>>>,
}

impl<'s, 'v> Scope<'s, 'v> {
    /// These names.
    pub fn new(names: Vec<(&'s str, Value<'v>)>) -> Self {
        Self::with_variables(names, &[])
    }

    /// These names and variables.
    pub fn with_variables(names: Vec<(&'s str, Value<'v>)>, variables: &'s [Variable]) -> Self {
        Self {
            roots: names.len(),
            names,
            variables,
            known: vec![None; variables.len()],
        }
    }

    /// The place of the variable that a selection from `of` means.
    fn variable(&self, of: &Expr, name: &str) -> Option<usize> {
        match &of.kind {
            Kind::Ident(root) if **root == *VARIABLES && self.get(VARIABLES).is_none() => {
                self.variables.iter().position(|one| *one.name == *name)
            }
            _ => None,
        }
    }

    /// The value of a variable.
    fn compute(&mut self, place: usize, budget: &mut Budget) -> Result<Value<'v>, Failure> {
        if let Some(known) = &self.known[place] {
            return known.clone();
        }
        let variable = &self.variables[place];
        // Variables see only those before them, so that this one is not asked for again.
        self.known[place] = Some(Err(Failure::error(format!(
            "variable {:?} uses itself",
            variable.name
        ))));
        // What loops around the mention have named is not known to the variable.
        let inner = self.names.split_off(self.roots);
        let value = eval(&variable.program.expr, self, budget);
        self.names.truncate(self.roots);
        self.names.extend(inner);
        let value = value.map_err(|failure| match failure {
            Failure::Error(why) => Failure::Error(format!(
                "composited variable {:?} fails to evaluate: {why}",
                variable.name
            )),
            other => other,
        });
        self.known[place] = Some(value.clone());
        value
    }

    fn get(&self, name: &str) -> Option<&Value<'v>> {
        self.names
            .iter()
            .rev()
            .find(|(known, _)| *known == name)
            .map(|(_, value)| value)
    }
}

/// The value of an expression.
pub fn eval<'e, 'v>(
    expr: &'e Expr,
    scope: &mut Scope<'e, 'v>,
    budget: &mut Budget,
) -> Result<Value<'v>, Failure> {
    match &expr.kind {
        Kind::Literal(literal) => Ok(literal_of(literal)),
        Kind::Ident(name) => {
            budget.spend(1)?;
            match scope.get(name) {
                Some(value) => Ok(value.clone()),
                None => library::constant(name)
                    .ok_or_else(|| Failure::error(format!("no such attribute: {name}"))),
            }
        }
        Kind::Select(of, name, access) => {
            if let Some(place) = scope.variable(of, name) {
                budget.spend(1)?;
                let value = scope.compute(place, budget)?;
                return Ok(match access {
                    Access::Required => value,
                    Access::Optional => Value::Optional(Some(Box::new(value))),
                });
            }
            let value = eval(of, scope, budget)?;
            budget.spend(1)?;
            select(value, name, *access)
        }
        Kind::Has(of, name) => {
            if scope.variable(of, name).is_some() {
                return Ok(Value::Bool(true));
            }
            let value = eval(of, scope, budget)?;
            budget.spend(1)?;
            Ok(Value::Bool(match value {
                Value::Optional(None) => false,
                Value::Optional(Some(inner)) => inner.field(name).is_some(),
                value => value.field(name).is_some(),
            }))
        }
        Kind::Index(of, index, access) => {
            let value = eval(of, scope, budget)?;
            let index = eval(index, scope, budget)?;
            budget.spend(1)?;
            at(value, &index, *access)
        }
        Kind::Call(target, name, args) => {
            if let Some(namespaced) = namespaced(target.as_deref(), name, scope) {
                let args = all(args, scope, budget)?;
                return library::call(&namespaced, None, args, budget);
            }
            let target = match target {
                Some(target) => Some(eval(target, scope, budget)?),
                None => None,
            };
            // The other side is looked at only when it is wanted.
            if let (Some(Value::Optional(value)), "or" | "orValue", [other]) =
                (&target, &**name, args.as_slice())
            {
                budget.spend(1)?;
                return match (value, &**name) {
                    (Some(_), "or") => Ok(Value::Optional(value.clone())),
                    (Some(value), _) => Ok(value.as_ref().clone()),
                    (None, _) => eval(other, scope, budget),
                };
            }
            let args = all(args, scope, budget)?;
            library::call(name, target, args, budget)
        }
        Kind::List(items) => {
            budget.spend(10)?;
            let mut list = Vec::with_capacity(items.len());
            for (item, access) in items {
                match (eval(item, scope, budget)?, access) {
                    (Value::Optional(inner), Access::Optional) => list.extend(inner.map(|inner| *inner)),
                    (value, _) => list.push(value),
                }
            }
            Ok(Value::List(Arc::new(list)))
        }
        Kind::Map(entries) => {
            budget.spend(30)?;
            let mut map = std::collections::BTreeMap::new();
            for (key, value, access) in entries {
                let key = eval(key, scope, budget)?;
                let key = Key::of(&key).ok_or_else(|| Failure::error("unsupported key type"))?;
                match (eval(value, scope, budget)?, access) {
                    (Value::Optional(None), Access::Optional) => {}
                    (Value::Optional(Some(inner)), Access::Optional) => drop(map.insert(key, *inner)),
                    (value, _) => drop(map.insert(key, value)),
                }
            }
            Ok(Value::Map(Arc::new(map)))
        }
        Kind::And(parts) => logic(parts, false, scope, budget),
        Kind::Or(parts) => logic(parts, true, scope, budget),
        Kind::Choice(choice) => {
            let [condition, yes, no] = choice.as_ref();
            match eval(condition, scope, budget)? {
                Value::Bool(true) => eval(yes, scope, budget),
                Value::Bool(false) => eval(no, scope, budget),
                _ => Err(Failure::no_overload()),
            }
        }
        Kind::Loop(one) => run(one, scope, budget),
        Kind::Bind(bind) => bound(bind, scope, budget),
        Kind::Object(name, fields) => {
            budget.spend(OBJECT_COST)?;
            let mut object = Object {
                name: name.clone(),
                fields: Default::default(),
            };
            for (field, value, access) in fields {
                let value = match (eval(value, scope, budget)?, access) {
                    (Value::Optional(None), Access::Optional) => continue,
                    (Value::Optional(Some(inner)), Access::Optional) => *inner,
                    (value, _) => value,
                };
                object.fields.insert(field.clone(), value);
            }
            Ok(Value::Object(Arc::new(object)))
        }
    }
}

fn literal_of<'v>(literal: &Literal) -> Value<'v> {
    match literal {
        Literal::Null => Value::Null,
        Literal::Bool(b) => Value::Bool(*b),
        Literal::Int(n) => Value::Int(*n),
        Literal::Uint(n) => Value::Uint(*n),
        Literal::Double(n) => Value::Double(*n),
        Literal::String(text) => Value::text(&**text),
        Literal::Bytes(bytes) => Value::Bytes((&**bytes).into()),
    }
}

/// `sets.contains`, `optional.of`, `ip.isCanonical`: functions whose names have a dot.
fn namespaced(target: Option<&Expr>, name: &str, scope: &Scope<'_, '_>) -> Option<String> {
    match target.map(|target| &target.kind) {
        Some(Kind::Ident(root)) if library::is_namespace(root) && scope.get(root).is_none() => {
            Some(format!("{root}.{name}"))
        }
        _ => None,
    }
}

fn all<'e, 'v>(
    args: &'e [Expr],
    scope: &mut Scope<'e, 'v>,
    budget: &mut Budget,
) -> Result<Vec<Value<'v>>, Failure> {
    args.iter().map(|arg| eval(arg, scope, budget)).collect()
}

fn select<'v>(value: Value<'v>, name: &str, access: Access) -> Result<Value<'v>, Failure> {
    match (value, access) {
        (Value::Optional(inner), _) => Ok(Value::Optional(
            inner.and_then(|inner| inner.field(name)).map(Box::new),
        )),
        (value, Access::Optional) => Ok(Value::Optional(value.field(name).map(Box::new))),
        (value, Access::Required) => value
            .field(name)
            .ok_or_else(|| Failure::error(format!("no such key: {name}"))),
    }
}

fn at<'v>(value: Value<'v>, index: &Value<'v>, access: Access) -> Result<Value<'v>, Failure> {
    if let Value::Optional(inner) = value {
        let found = inner.and_then(|inner| at(*inner, index, Access::Required).ok());
        return Ok(Value::Optional(found.map(Box::new)));
    }
    let found = match (&value, index) {
        (Value::List(_) | Value::JsonList(..), index) => {
            let place = match index {
                Value::Int(n) => usize::try_from(*n).ok(),
                Value::Uint(n) => usize::try_from(*n).ok(),
                Value::Double(n) if n.fract() == 0.0 && *n >= 0.0 => Some(*n as usize),
                _ => return Err(Failure::no_overload()),
            };
            place
                .and_then(|place| value.element(place))
                .ok_or_else(|| Failure::error(format!("index out of bounds: {}", library::show(index))))
        }
        (Value::Map(_) | Value::JsonMap(..), key) => value
            .get(key)
            .ok_or_else(|| Failure::error(format!("no such key: {}", library::show(key)))),
        _ => return Err(Failure::no_overload()),
    };
    match access {
        Access::Required => found,
        Access::Optional => Ok(Value::Optional(found.ok().map(Box::new))),
    }
}

/// `&&` and `||`: an answer that one side decides alone stands, even where another side fails.
fn logic<'e, 'v>(
    parts: &'e [Expr],
    decides: bool,
    scope: &mut Scope<'e, 'v>,
    budget: &mut Budget,
) -> Result<Value<'v>, Failure> {
    let mut failure = None;
    for part in parts {
        match eval(part, scope, budget) {
            Ok(Value::Bool(answer)) if answer == decides => return Ok(Value::Bool(decides)),
            Ok(Value::Bool(_)) => {}
            Ok(_) => failure = failure.or(Some(Failure::no_overload())),
            Err(end) if end.ends_everything() => return Err(end),
            Err(error) => failure = failure.or(Some(error)),
        }
    }
    failure.map_or(Ok(Value::Bool(!decides)), Err)
}

fn bound<'e, 'v>(
    bind: &'e Bind,
    scope: &mut Scope<'e, 'v>,
    budget: &mut Budget,
) -> Result<Value<'v>, Failure> {
    let value = eval(&bind.value, scope, budget)?;
    let value = match (bind.unwrap, value) {
        (Unwrap::No, value) => value,
        (_, Value::Optional(None)) => return Ok(Value::Optional(None)),
        (_, Value::Optional(Some(inner))) => *inner,
        _ => return Err(Failure::no_overload()),
    };
    scope.names.push((&bind.var, value));
    let result = eval(&bind.body, scope, budget);
    scope.names.pop();
    match bind.unwrap {
        Unwrap::Map => Ok(Value::Optional(Some(Box::new(result?)))),
        _ => result,
    }
}

fn run<'e, 'v>(one: &'e Loop, scope: &mut Scope<'e, 'v>, budget: &mut Budget) -> Result<Value<'v>, Failure> {
    let range = eval(&one.range, scope, budget)?;
    let steps: Vec<(Value<'v>, Value<'v>)> = match (range.elements(), range.entries()) {
        (Some(elements), _) => elements
            .into_iter()
            .enumerate()
            .map(|(index, element)| match &one.second {
                Some(_) => (Value::Int(i64::try_from(index).unwrap_or(i64::MAX)), element),
                None => (element, Value::Null),
            })
            .collect(),
        (None, Some(entries)) => entries,
        _ => return Err(Failure::no_overload()),
    };
    let base = scope.names.len();
    let (mut list, mut count, mut failure) = (Vec::new(), 0_u32, None);
    let mut decided = None;
    for (first, second) in steps {
        budget.spend(1)?;
        scope.names.push((&one.var, first.clone()));
        if let Some(name) = &one.second {
            scope.names.push((name, second));
        }
        let wanted = match &one.filter {
            Some(filter) => eval(filter, scope, budget).map(|value| matches!(value, Value::Bool(true))),
            None => Ok(true),
        };
        let result = match wanted {
            Ok(false) => {
                scope.names.truncate(base);
                continue;
            }
            Ok(true) => eval(&one.body, scope, budget),
            Err(error) => Err(error),
        };
        scope.names.truncate(base);
        match (one.kind, result) {
            (_, Err(end)) if end.ends_everything() => return Err(end),
            (LoopKind::All, Ok(Value::Bool(false))) => {
                decided = Some(false);
                break;
            }
            (LoopKind::Exists, Ok(Value::Bool(true))) => {
                decided = Some(true);
                break;
            }
            (LoopKind::All | LoopKind::Exists, Err(error)) => failure = failure.or(Some(error)),
            (LoopKind::ExistsOne, Ok(Value::Bool(holds))) => count += u32::from(holds),
            (LoopKind::Map, Ok(value)) => list.push(value),
            (LoopKind::Filter, Ok(Value::Bool(holds))) => {
                if holds {
                    list.push(first);
                }
            }
            (_, Err(error)) => return Err(error),
            (_, Ok(Value::Bool(_))) => {}
            (_, Ok(_)) => return Err(Failure::no_overload()),
        }
    }
    match (one.kind, decided, failure) {
        (_, Some(answer), _) => Ok(Value::Bool(answer)),
        (_, None, Some(failure)) => Err(failure),
        (LoopKind::All, ..) => Ok(Value::Bool(true)),
        (LoopKind::Exists, ..) => Ok(Value::Bool(false)),
        (LoopKind::ExistsOne, ..) => Ok(Value::Bool(count == 1)),
        (LoopKind::Map | LoopKind::Filter, ..) => Ok(Value::List(Arc::new(list))),
    }
}
