//! Arithmetic, comparison and conversion.

use std::cmp::Ordering;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};

use super::super::eval::{Budget, Failure};
use super::super::value::Value;
use super::{Outcome, count, show, walk_cost};
use crate::custom::schema::formats;

/// Operators and functions without a receiver.
pub fn call<'v>(name: &str, args: &[Value<'v>], budget: &mut Budget) -> Option<Outcome<'v>> {
    Some(match (name, args) {
        ("_==_", [a, b]) => compare_cost(a, b, budget).map(|()| Value::Bool(a.equals(b))),
        ("_!=_", [a, b]) => compare_cost(a, b, budget).map(|()| Value::Bool(!a.equals(b))),
        ("_<_", [a, b]) => order(a, b, budget, Ordering::is_lt),
        ("_<=_", [a, b]) => order(a, b, budget, Ordering::is_le),
        ("_>_", [a, b]) => order(a, b, budget, Ordering::is_gt),
        ("_>=_", [a, b]) => order(a, b, budget, Ordering::is_ge),
        ("_in_", [a, b]) => within(a, b, budget),
        ("!_", [Value::Bool(b)]) => Ok(Value::Bool(!b)),
        ("-_", [value]) => negate(value),
        ("_+_", [a, b]) => add(a, b, budget),
        ("_-_", [a, b]) => subtract(a, b),
        ("_*_", [a, b]) => arithmetic(a, b, i64::checked_mul, u64::checked_mul, |a, b| a * b),
        ("_/_", [a, b]) => match b {
            Value::Int(0) | Value::Uint(0) => Err(Failure::error("division by zero")),
            _ => arithmetic(a, b, i64::checked_div, u64::checked_div, |a, b| a / b),
        },
        ("_%_", [a, b]) => match (a, b) {
            (_, Value::Int(0) | Value::Uint(0)) => Err(Failure::error("modulus by zero")),
            (Value::Int(a), Value::Int(b)) => a.checked_rem(*b).map(Value::Int).ok_or_else(overflow),
            (Value::Uint(a), Value::Uint(b)) => Ok(Value::Uint(a % b)),
            _ => Err(Failure::no_overload()),
        },
        ("size", [value]) => value.size().map(count).ok_or_else(Failure::no_overload),
        ("dyn", [value]) => Ok(value.clone()),
        ("type", [value]) => Ok(Value::Type(value.type_name().into())),
        ("int", [value]) => to_int(value),
        ("uint", [value]) => to_uint(value),
        ("double", [value]) => to_double(value),
        ("bool", [value]) => match value {
            Value::Bool(_) => Ok(value.clone()),
            value => match value.as_str() {
                Some("true" | "True" | "TRUE" | "t" | "1") => Ok(Value::Bool(true)),
                Some("false" | "False" | "FALSE" | "f" | "0") => Ok(Value::Bool(false)),
                _ => Err(Failure::error("Type conversion error")),
            },
        },
        ("string", [value]) => to_string(value, budget),
        ("bytes", [value]) => match (value, value.as_str()) {
            (Value::Bytes(_), _) => Ok(value.clone()),
            (_, Some(text)) => budget
                .spend(walk_cost(text.len()))
                .map(|()| Value::Bytes(text.as_bytes().into())),
            _ => Err(Failure::no_overload()),
        },
        ("timestamp", [value]) => match (value, value.as_str()) {
            (Value::Timestamp(_), _) => Ok(value.clone()),
            (Value::Int(seconds), _) => Timestamp::from_second(*seconds)
                .map(Value::Timestamp)
                .map_err(|_| Failure::error("timestamp out of range")),
            (_, Some(text)) => text
                .parse()
                .map(Value::Timestamp)
                .map_err(|_| Failure::error(format!("cannot parse {text:?} as a timestamp"))),
            _ => Err(Failure::no_overload()),
        },
        ("duration", [value]) => match (value, value.as_str()) {
            (Value::Duration(_), _) => Ok(value.clone()),
            (_, Some(text)) => formats::go_duration(text)
                .map(Value::Duration)
                .ok_or_else(|| Failure::error(format!("time: invalid duration {text:?}"))),
            _ => Err(Failure::no_overload()),
        },
        _ => return None,
    })
}

fn overflow() -> Failure {
    Failure::error("integer overflow")
}

fn compare_cost(a: &Value<'_>, b: &Value<'_>, budget: &mut Budget) -> Result<(), Failure> {
    match (a.size(), b.size()) {
        (Some(a), Some(b)) => budget.spend(walk_cost(a.min(b))),
        _ => Ok(()),
    }
}

fn order<'v>(a: &Value<'v>, b: &Value<'v>, budget: &mut Budget, holds: fn(Ordering) -> bool) -> Outcome<'v> {
    compare_cost(a, b, budget)?;
    match (a.compare(b), a, b) {
        (Some(order), ..) => Ok(Value::Bool(holds(order))),
        // Nothing is before or after what is not a number.
        (None, Value::Double(_), _) | (None, _, Value::Double(_)) => Ok(Value::Bool(false)),
        _ => Err(Failure::no_overload()),
    }
}

fn within<'v>(needle: &Value<'v>, hay: &Value<'v>, budget: &mut Budget) -> Outcome<'v> {
    if let Some(elements) = hay.elements() {
        budget.spend(u64::try_from(elements.len()).unwrap_or(u64::MAX))?;
        return Ok(Value::Bool(elements.iter().any(|one| one.equals(needle))));
    }
    match hay {
        Value::Map(_) | Value::JsonMap(..) => Ok(Value::Bool(hay.get(needle).is_some())),
        _ => Err(Failure::no_overload()),
    }
}

fn negate<'v>(value: &Value<'v>) -> Outcome<'v> {
    match value {
        Value::Int(n) => n.checked_neg().map(Value::Int).ok_or_else(overflow),
        Value::Double(n) => Ok(Value::Double(-n)),
        Value::Duration(n) => n.checked_neg().map(Value::Duration).ok_or_else(overflow),
        _ => Err(Failure::no_overload()),
    }
}

fn arithmetic<'v>(
    a: &Value<'v>,
    b: &Value<'v>,
    ints: fn(i64, i64) -> Option<i64>,
    uints: fn(u64, u64) -> Option<u64>,
    doubles: fn(f64, f64) -> f64,
) -> Outcome<'v> {
    match (a, b) {
        (Value::Int(a), Value::Int(b)) => ints(*a, *b).map(Value::Int).ok_or_else(overflow),
        (Value::Uint(a), Value::Uint(b)) => uints(*a, *b)
            .map(Value::Uint)
            .ok_or_else(|| Failure::error("unsigned integer overflow")),
        (Value::Double(a), Value::Double(b)) => Ok(Value::Double(doubles(*a, *b))),
        _ => Err(Failure::no_overload()),
    }
}

fn moment(at: Timestamp, nanoseconds: i64) -> Result<Timestamp, Failure> {
    at.checked_add(SignedDuration::from_nanos(nanoseconds))
        .map_err(|_| Failure::error("timestamp overflow"))
}

fn add<'v>(a: &Value<'v>, b: &Value<'v>, budget: &mut Budget) -> Outcome<'v> {
    if let (Some(left), Some(right)) = (a.as_str(), b.as_str()) {
        budget.spend(walk_cost(left.len() + right.len()))?;
        return Ok(Value::text(format!("{left}{right}")));
    }
    if let (Some(mut left), Some(right)) = (a.elements(), b.elements()) {
        budget.spend(u64::try_from(left.len() + right.len()).unwrap_or(u64::MAX) / 10)?;
        left.extend(right);
        return Ok(Value::List(Arc::new(left)));
    }
    match (a, b) {
        (Value::Bytes(left), Value::Bytes(right)) => {
            budget.spend(walk_cost(left.len() + right.len()))?;
            Ok(Value::Bytes([left.as_ref(), right.as_ref()].concat().into()))
        }
        (Value::Timestamp(at), Value::Duration(by)) | (Value::Duration(by), Value::Timestamp(at)) => {
            moment(*at, *by).map(Value::Timestamp)
        }
        (Value::Duration(a), Value::Duration(b)) => {
            a.checked_add(*b).map(Value::Duration).ok_or_else(overflow)
        }
        _ => arithmetic(a, b, i64::checked_add, u64::checked_add, |a, b| a + b),
    }
}

fn subtract<'v>(a: &Value<'v>, b: &Value<'v>) -> Outcome<'v> {
    match (a, b) {
        (Value::Timestamp(at), Value::Duration(by)) => {
            let by = by.checked_neg().ok_or_else(overflow)?;
            moment(*at, by).map(Value::Timestamp)
        }
        (Value::Timestamp(a), Value::Timestamp(b)) => i64::try_from(a.as_nanosecond() - b.as_nanosecond())
            .map(Value::Duration)
            .map_err(|_| overflow()),
        (Value::Duration(a), Value::Duration(b)) => {
            a.checked_sub(*b).map(Value::Duration).ok_or_else(overflow)
        }
        _ => arithmetic(a, b, i64::checked_sub, u64::checked_sub, |a, b| a - b),
    }
}

fn out_of_range() -> Failure {
    Failure::error("range error converting a number")
}

fn to_int<'v>(value: &Value<'v>) -> Outcome<'v> {
    match (value, value.as_str()) {
        (Value::Int(_), _) => Ok(value.clone()),
        (Value::Uint(n), _) => i64::try_from(*n).map(Value::Int).map_err(|_| out_of_range()),
        (Value::Double(n), _) if n.is_finite() && n.abs() < 9.2e18 => Ok(Value::Int(*n as i64)),
        (Value::Double(_), _) => Err(out_of_range()),
        (Value::Timestamp(at), _) => Ok(Value::Int(at.as_second())),
        (Value::Duration(n), _) => Ok(Value::Int(*n)),
        (_, Some(text)) => text
            .parse()
            .map(Value::Int)
            .map_err(|_| Failure::error(format!("strconv.ParseInt: parsing {text:?}: invalid syntax"))),
        _ => Err(Failure::no_overload()),
    }
}

fn to_uint<'v>(value: &Value<'v>) -> Outcome<'v> {
    match (value, value.as_str()) {
        (Value::Uint(_), _) => Ok(value.clone()),
        (Value::Int(n), _) => u64::try_from(*n).map(Value::Uint).map_err(|_| out_of_range()),
        (Value::Double(n), _) if *n >= 0.0 && *n < 1.8e19 => Ok(Value::Uint(*n as u64)),
        (Value::Double(_), _) => Err(out_of_range()),
        (_, Some(text)) => text
            .parse()
            .map(Value::Uint)
            .map_err(|_| Failure::error(format!("strconv.ParseUint: parsing {text:?}: invalid syntax"))),
        _ => Err(Failure::no_overload()),
    }
}

fn to_double<'v>(value: &Value<'v>) -> Outcome<'v> {
    match (value, value.as_str()) {
        (Value::Double(_), _) => Ok(value.clone()),
        (Value::Int(n), _) => Ok(Value::Double(*n as f64)),
        (Value::Uint(n), _) => Ok(Value::Double(*n as f64)),
        (_, Some(text)) => text
            .parse()
            .map(Value::Double)
            .map_err(|_| Failure::error(format!("strconv.ParseFloat: parsing {text:?}: invalid syntax"))),
        _ => Err(Failure::no_overload()),
    }
}

fn to_string<'v>(value: &Value<'v>, budget: &mut Budget) -> Outcome<'v> {
    let text = match value {
        Value::String(_) | Value::Text(_) => return Ok(value.clone()),
        Value::Int(_) | Value::Uint(_) | Value::Double(_) | Value::Bool(_) => show(value),
        Value::Bytes(bytes) => {
            budget.spend(walk_cost(bytes.len()))?;
            std::str::from_utf8(bytes)
                .map_err(|_| Failure::error("invalid UTF-8 in bytes, cannot convert to string"))?
                .to_owned()
        }
        Value::Timestamp(at) => at.to_string(),
        Value::Duration(nanoseconds) => super::times::show_duration(*nanoseconds),
        Value::Ip(ip) => ip.to_string(),
        Value::Cidr(net) => net.to_string(),
        _ => return Err(Failure::no_overload()),
    };
    Ok(Value::text(text))
}
