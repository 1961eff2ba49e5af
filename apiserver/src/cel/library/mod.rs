//! The functions of expressions: CEL's own, and those Kubernetes adds.
//!
//! | module | functions |
//! | --- | --- |
//! | [`operators`] | arithmetic, comparison, conversion |
//! | [`strings`] | text, regular expressions |
//! | [`lists`] | lists and sets |
//! | [`times`] | timestamps and durations |
//! | [`quantity`], [`net`], [`url`], [`semver`], [`format`](mod@format) | values Kubernetes knows |
//! | [`authz`] | who may do what |

pub mod authz;
pub mod format;
pub mod lists;
pub mod net;
pub mod operators;
pub mod quantity;
pub mod semver;
pub mod strings;
pub mod times;
pub mod url;

use super::eval::{Budget, Failure};
use super::value::Value;

/// What a function comes to.
pub type Outcome<'v> = Result<Value<'v>, Failure>;

/// Names that stand before the dot of a function's own name.
pub fn is_namespace(root: &str) -> bool {
    matches!(
        root,
        "sets" | "optional" | "ip" | "strings" | "format" | "cel" | "jsonpatch"
    )
}

/// Names that stand for types.
pub fn constant<'v>(name: &str) -> Option<Value<'v>> {
    const TYPES: [&str; 11] = [
        "bool",
        "int",
        "uint",
        "double",
        "string",
        "bytes",
        "list",
        "map",
        "null_type",
        "type",
        "optional_type",
    ];
    TYPES.contains(&name).then(|| Value::Type(name.into()))
}

/// Calls a function or method.
pub fn call<'v>(
    name: &str,
    target: Option<Value<'v>>,
    args: Vec<Value<'v>>,
    budget: &mut Budget,
) -> Outcome<'v> {
    budget.spend(1)?;
    let result = match &target {
        None => operators::call(name, &args, budget)
            .or_else(|| lists::function(name, &args, budget))
            .or_else(|| quantity::function(name, &args, budget))
            .or_else(|| net::function(name, &args))
            .or_else(|| url::function(name, &args))
            .or_else(|| semver::function(name, &args))
            .or_else(|| format::function(name, &args))
            .or_else(|| optional_function(name, &args))
            .or_else(|| strings::function(name, &args)),
        Some(target) => match target {
            Value::String(_) | Value::Text(_) => strings::method(name, target, &args, budget),
            Value::List(_) | Value::JsonList(..) => lists::method(name, target, &args, budget),
            Value::Timestamp(_) | Value::Duration(_) => times::method(name, target, &args),
            Value::Quantity(own) => quantity::method(name, own, &args),
            Value::Ip(_) | Value::Cidr(_) => net::method(name, target, &args),
            Value::Url(own) => url::method(name, own),
            Value::Semver(own) => semver::method(name, own, &args),
            Value::Format(own) => format::method(name, own, &args),
            Value::Optional(own) => optional_method(name, own.as_deref(), &args),
            Value::Check(own) => authz::method(name, own, &args, budget),
            Value::Decision(own) => authz::decision(name, own),
            _ => None,
        }
        .or_else(|| match (name, target.size()) {
            ("size", Some(size)) => Some(Ok(count(size))),
            _ => None,
        }),
    };
    result.unwrap_or_else(|| Err(Failure::no_overload()))
}

fn optional_function<'v>(name: &str, args: &[Value<'v>]) -> Option<Outcome<'v>> {
    Some(Ok(Value::Optional(match (name, args) {
        ("optional.of", [value]) => Some(Box::new(value.clone())),
        ("optional.none", []) => None,
        ("optional.ofNonZeroValue", [value]) => (!value.is_zero()).then(|| Box::new(value.clone())),
        _ => return None,
    })))
}

fn optional_method<'v>(name: &str, own: Option<&Value<'v>>, args: &[Value<'v>]) -> Option<Outcome<'v>> {
    Some(match (name, args) {
        ("hasValue", []) => Ok(Value::Bool(own.is_some())),
        ("value", []) => own
            .cloned()
            .ok_or_else(|| Failure::error("optional.none() dereference")),
        _ => return None,
    })
}

/// A number of things.
pub fn count<'v>(size: usize) -> Value<'v> {
    Value::Int(i64::try_from(size).unwrap_or(i64::MAX))
}

/// A value in a message.
pub fn show(value: &Value<'_>) -> String {
    match value {
        Value::Int(n) => n.to_string(),
        Value::Uint(n) => n.to_string(),
        Value::Double(n) => n.to_string(),
        Value::Bool(b) => b.to_string(),
        other => other.as_str().unwrap_or(other.type_name()).to_owned(),
    }
}

/// The cost of walking over a text: a tenth of its length.
pub fn walk_cost(length: usize) -> u64 {
    u64::try_from(length).unwrap_or(u64::MAX).div_ceil(10)
}
