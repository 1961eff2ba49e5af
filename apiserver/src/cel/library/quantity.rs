//! `quantity('1.5Gi')`: amounts as Kubernetes writes them.

use std::cmp::Ordering;

use keelson_api::quantity::Amount;

use super::super::eval::{Budget, Failure};
use super::super::value::Value;
use super::{Outcome, walk_cost};

/// An amount.
#[derive(Debug, Clone)]
pub struct Quantity(Amount);

impl Quantity {
    /// Which is more.
    pub fn compare(&self, other: &Self) -> Ordering {
        self.0.cmp(&other.0)
    }
}

/// Functions without a receiver.
pub fn function<'v>(name: &str, args: &[Value<'v>], budget: &mut Budget) -> Option<Outcome<'v>> {
    let [value] = args else { return None };
    if !matches!(name, "quantity" | "isQuantity") {
        return None;
    }
    let text = value.as_str()?;
    if let Err(failure) = budget.spend(walk_cost(text.len())) {
        return Some(Err(failure));
    }
    let parsed = text.parse::<Amount>();
    Some(match name {
        "isQuantity" => Ok(Value::Bool(parsed.is_ok())),
        _ => parsed
            .map(|amount| Value::Quantity(Quantity(amount)))
            .map_err(|error| Failure::error(error.to_string())),
    })
}

/// Methods of amounts.
pub fn method<'v>(name: &str, own: &Quantity, args: &[Value<'v>]) -> Option<Outcome<'v>> {
    let exact = (own.0.is_whole()).then(|| own.0.value());
    Some(Ok(match (name, args) {
        ("sign", []) => Value::Int(match own.0.cmp(&Amount::ZERO) {
            Ordering::Less => -1,
            Ordering::Equal => 0,
            Ordering::Greater => 1,
        }),
        ("isInteger", []) => Value::Bool(exact.is_some()),
        ("asInteger", []) => match exact {
            Some(n) => Value::Int(n),
            None => return Some(Err(Failure::error("cannot convert value to integer"))),
        },
        ("asApproximateFloat", []) => Value::Double(own.0.as_f64()),
        ("compareTo", [Value::Quantity(other)]) => Value::Int(match own.compare(other) {
            Ordering::Less => -1,
            Ordering::Equal => 0,
            Ordering::Greater => 1,
        }),
        ("isGreaterThan", [Value::Quantity(other)]) => Value::Bool(own.compare(other).is_gt()),
        ("isLessThan", [Value::Quantity(other)]) => Value::Bool(own.compare(other).is_lt()),
        ("add", [Value::Quantity(other)]) => Value::Quantity(Quantity(own.0 + other.0)),
        ("sub", [Value::Quantity(other)]) => Value::Quantity(Quantity(own.0 - other.0)),
        ("add", [Value::Int(n)]) => Value::Quantity(Quantity(own.0 + Amount::from_units(*n))),
        ("sub", [Value::Int(n)]) => Value::Quantity(Quantity(own.0 - Amount::from_units(*n))),
        _ => return None,
    }))
}
