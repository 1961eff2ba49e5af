//! Lists and sets.

use std::cmp::Ordering;
use std::sync::Arc;

use super::super::eval::{Budget, Failure};
use super::super::value::Value;
use super::operators;
use super::{Outcome, count};

/// Functions without a receiver.
pub fn function<'v>(name: &str, args: &[Value<'v>], budget: &mut Budget) -> Option<Outcome<'v>> {
    let [a, b] = args else { return None };
    let holds = match name {
        "sets.contains" => |a: &[Value<'_>], b: &[Value<'_>]| b.iter().all(|one| has(a, one)),
        "sets.intersects" => |a: &[Value<'_>], b: &[Value<'_>]| b.iter().any(|one| has(a, one)),
        "sets.equivalent" => |a: &[Value<'_>], b: &[Value<'_>]| {
            a.iter().all(|one| has(b, one)) && b.iter().all(|one| has(a, one))
        },
        _ => return None,
    };
    let (a, b) = (a.elements()?, b.elements()?);
    let cost = u64::try_from(a.len().saturating_mul(b.len())).unwrap_or(u64::MAX);
    Some(budget.spend(cost).map(|()| Value::Bool(holds(&a, &b))))
}

fn has(list: &[Value<'_>], wanted: &Value<'_>) -> bool {
    list.iter().any(|one| one.equals(wanted))
}

/// Methods of lists.
pub fn method<'v>(
    name: &str,
    target: &Value<'v>,
    args: &[Value<'v>],
    budget: &mut Budget,
) -> Option<Outcome<'v>> {
    if (name, args.len()) == ("size", 0) {
        return target.size().map(|size| Ok(count(size)));
    }
    const KNOWN: &[&str] = &[
        "isSorted",
        "sum",
        "min",
        "max",
        "indexOf",
        "lastIndexOf",
        "join",
        "reverse",
        "slice",
        "distinct",
        "flatten",
        "first",
        "last",
    ];
    if !KNOWN.contains(&name) {
        return None;
    }
    let own = target.elements()?;
    if let Err(failure) = budget.spend(u64::try_from(own.len()).unwrap_or(u64::MAX)) {
        return Some(Err(failure));
    }
    Some(match (name, args) {
        ("isSorted", []) => sorted(&own),
        ("sum", []) => {
            let zero = match own.first() {
                Some(Value::Uint(_)) => Value::Uint(0),
                Some(Value::Double(_)) => Value::Double(0.0),
                Some(Value::Duration(_)) => Value::Duration(0),
                _ => Value::Int(0),
            };
            own.iter().try_fold(zero, |sum, one| {
                operators::call("_+_", &[sum, one.clone()], budget)
                    .unwrap_or_else(|| Err(Failure::no_overload()))
            })
        }
        ("min", []) => extreme(&own, Ordering::Less, name),
        ("max", []) => extreme(&own, Ordering::Greater, name),
        ("indexOf", [wanted]) => Ok(own
            .iter()
            .position(|one| one.equals(wanted))
            .map_or(Value::Int(-1), count)),
        ("lastIndexOf", [wanted]) => Ok(own
            .iter()
            .rposition(|one| one.equals(wanted))
            .map_or(Value::Int(-1), count)),
        ("join", rest) => {
            let separator = match rest {
                [] => "",
                [one] => one.as_str()?,
                _ => return None,
            };
            let parts: Option<Vec<&str>> = own.iter().map(Value::as_str).collect();
            Ok(Value::text(parts?.join(separator)))
        }
        ("reverse", []) => Ok(Value::List(Arc::new(own.into_iter().rev().collect()))),
        ("slice", [Value::Int(from), Value::Int(to)]) => {
            let range = usize::try_from(*from).ok().zip(usize::try_from(*to).ok());
            match range.filter(|(from, to)| from <= to && *to <= own.len()) {
                Some((from, to)) => Ok(Value::List(Arc::new(own[from..to].to_vec()))),
                None => Err(Failure::error(format!(
                    "cannot slice({from}, {to}), list is length {}",
                    own.len()
                ))),
            }
        }
        ("distinct", []) => {
            let squared = u64::try_from(own.len().saturating_mul(own.len())).unwrap_or(u64::MAX);
            if let Err(failure) = budget.spend(squared) {
                return Some(Err(failure));
            }
            let mut seen: Vec<Value<'v>> = Vec::new();
            for one in own {
                if !has(&seen, &one) {
                    seen.push(one);
                }
            }
            Ok(Value::List(Arc::new(seen)))
        }
        ("flatten", []) => {
            let mut flat = Vec::new();
            for one in own {
                match one.elements() {
                    Some(inner) => flat.extend(inner),
                    None => flat.push(one),
                }
            }
            Ok(Value::List(Arc::new(flat)))
        }
        ("first", []) => Ok(Value::Optional(own.first().cloned().map(Box::new))),
        ("last", []) => Ok(Value::Optional(own.last().cloned().map(Box::new))),
        _ => return None,
    })
}

fn sorted<'v>(list: &[Value<'v>]) -> Outcome<'v> {
    for pair in list.windows(2) {
        match pair[0].compare(&pair[1]) {
            Some(Ordering::Greater) => return Ok(Value::Bool(false)),
            Some(_) => {}
            None => return Err(Failure::no_overload()),
        }
    }
    Ok(Value::Bool(true))
}

fn extreme<'v>(list: &[Value<'v>], wanted: Ordering, name: &str) -> Outcome<'v> {
    let mut best = list
        .first()
        .ok_or_else(|| Failure::error(format!("{name} called on empty list")))?;
    for one in list {
        match one.compare(best) {
            Some(order) if order == wanted => best = one,
            Some(_) => {}
            None => return Err(Failure::no_overload()),
        }
    }
    Ok(best.clone())
}
