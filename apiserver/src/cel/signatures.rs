//! What functions take, what they make of it, and what that costs at most.

use std::sync::Arc;

use super::check::Checked;
use super::library::authz;
use super::types::{Decl, REQUEST, Type};

/// A type in a signature.
#[derive(Clone, Copy)]
enum T {
    Any,
    Bool,
    Int,
    Double,
    String,
    Bytes,
    Time,
    Span,
    List,
    Texts,
    Map,
    Type,
    Opt,
    Own(&'static str),
    /// Whatever the elements of the receiver are.
    Item,
}

const QUANTITY: T = T::Own("kubernetes.Quantity");
const URL: T = T::Own("kubernetes.URL");
const IP: T = T::Own("net.IP");
const CIDR: T = T::Own("net.CIDR");
const SEMVER: T = T::Own("kubernetes.Semver");
const FORMAT: T = T::Own("kubernetes.NamedFormat");
const AUTHORIZER: T = T::Own(authz::AUTHORIZER);
const PATH_CHECK: T = T::Own(authz::PATH_CHECK);
const GROUP_CHECK: T = T::Own(authz::GROUP_CHECK);
const RESOURCE_CHECK: T = T::Own(authz::RESOURCE_CHECK);
const DECISION: T = T::Own(authz::DECISION);

/// Name, whether it is a method, what it takes (the receiver first), what it makes.
type Signature = (&'static str, bool, &'static [T], T);

const SIGNATURES: &[Signature] = &[
    ("dyn", false, &[T::Any], T::Any),
    ("type", false, &[T::Any], T::Type),
    ("bool", false, &[T::Bool], T::Bool),
    ("bool", false, &[T::String], T::Bool),
    ("bytes", false, &[T::String], T::Bytes),
    ("bytes", false, &[T::Bytes], T::Bytes),
    ("timestamp", false, &[T::String], T::Time),
    ("timestamp", false, &[T::Time], T::Time),
    ("timestamp", false, &[T::Int], T::Time),
    ("duration", false, &[T::String], T::Span),
    ("duration", false, &[T::Span], T::Span),
    ("contains", true, &[T::String, T::String], T::Bool),
    ("startsWith", true, &[T::String, T::String], T::Bool),
    ("endsWith", true, &[T::String, T::String], T::Bool),
    ("matches", true, &[T::String, T::String], T::Bool),
    ("charAt", true, &[T::String, T::Int], T::String),
    ("indexOf", true, &[T::String, T::String], T::Int),
    ("indexOf", true, &[T::String, T::String, T::Int], T::Int),
    ("lastIndexOf", true, &[T::String, T::String], T::Int),
    ("lastIndexOf", true, &[T::String, T::String, T::Int], T::Int),
    ("indexOf", true, &[T::List, T::Any], T::Int),
    ("lastIndexOf", true, &[T::List, T::Any], T::Int),
    ("lowerAscii", true, &[T::String], T::String),
    ("upperAscii", true, &[T::String], T::String),
    ("trim", true, &[T::String], T::String),
    ("reverse", true, &[T::String], T::String),
    ("reverse", true, &[T::List], T::Item),
    ("replace", true, &[T::String, T::String, T::String], T::String),
    (
        "replace",
        true,
        &[T::String, T::String, T::String, T::Int],
        T::String,
    ),
    ("split", true, &[T::String, T::String], T::Texts),
    ("split", true, &[T::String, T::String, T::Int], T::Texts),
    ("substring", true, &[T::String, T::Int], T::String),
    ("substring", true, &[T::String, T::Int, T::Int], T::String),
    ("join", true, &[T::List], T::String),
    ("join", true, &[T::List, T::String], T::String),
    ("format", true, &[T::String, T::List], T::String),
    ("find", true, &[T::String, T::String], T::String),
    ("findAll", true, &[T::String, T::String], T::Texts),
    ("findAll", true, &[T::String, T::String, T::Int], T::Texts),
    ("strings.quote", false, &[T::String], T::String),
    ("isSorted", true, &[T::List], T::Bool),
    ("sum", true, &[T::List], T::Item),
    ("min", true, &[T::List], T::Item),
    ("max", true, &[T::List], T::Item),
    ("sets.contains", false, &[T::List, T::List], T::Bool),
    ("sets.intersects", false, &[T::List, T::List], T::Bool),
    ("sets.equivalent", false, &[T::List, T::List], T::Bool),
    ("quantity", false, &[T::String], QUANTITY),
    ("isQuantity", false, &[T::String], T::Bool),
    ("sign", true, &[QUANTITY], T::Int),
    ("isInteger", true, &[QUANTITY], T::Bool),
    ("asInteger", true, &[QUANTITY], T::Int),
    ("asApproximateFloat", true, &[QUANTITY], T::Double),
    ("add", true, &[QUANTITY, QUANTITY], QUANTITY),
    ("add", true, &[QUANTITY, T::Int], QUANTITY),
    ("sub", true, &[QUANTITY, QUANTITY], QUANTITY),
    ("sub", true, &[QUANTITY, T::Int], QUANTITY),
    ("isGreaterThan", true, &[QUANTITY, QUANTITY], T::Bool),
    ("isLessThan", true, &[QUANTITY, QUANTITY], T::Bool),
    ("compareTo", true, &[QUANTITY, QUANTITY], T::Int),
    ("url", false, &[T::String], URL),
    ("isURL", false, &[T::String], T::Bool),
    ("getScheme", true, &[URL], T::String),
    ("getHost", true, &[URL], T::String),
    ("getHostname", true, &[URL], T::String),
    ("getPort", true, &[URL], T::String),
    ("getEscapedPath", true, &[URL], T::String),
    ("getQuery", true, &[URL], T::Map),
    ("ip", false, &[T::String], IP),
    ("isIP", false, &[T::String], T::Bool),
    ("ip.isCanonical", false, &[T::String], T::Bool),
    ("string", false, &[IP], T::String),
    ("string", false, &[CIDR], T::String),
    ("family", true, &[IP], T::Int),
    ("isUnspecified", true, &[IP], T::Bool),
    ("isLoopback", true, &[IP], T::Bool),
    ("isLinkLocalMulticast", true, &[IP], T::Bool),
    ("isLinkLocalUnicast", true, &[IP], T::Bool),
    ("isGlobalUnicast", true, &[IP], T::Bool),
    ("cidr", false, &[T::String], CIDR),
    ("isCIDR", false, &[T::String], T::Bool),
    ("containsIP", true, &[CIDR, IP], T::Bool),
    ("containsIP", true, &[CIDR, T::String], T::Bool),
    ("containsCIDR", true, &[CIDR, CIDR], T::Bool),
    ("containsCIDR", true, &[CIDR, T::String], T::Bool),
    ("ip", true, &[CIDR], IP),
    ("masked", true, &[CIDR], CIDR),
    ("prefixLength", true, &[CIDR], T::Int),
    ("semver", false, &[T::String], SEMVER),
    ("semver", false, &[T::String, T::Bool], SEMVER),
    ("isSemver", false, &[T::String], T::Bool),
    ("isSemver", false, &[T::String, T::Bool], T::Bool),
    ("major", true, &[SEMVER], T::Int),
    ("minor", true, &[SEMVER], T::Int),
    ("patch", true, &[SEMVER], T::Int),
    ("isGreaterThan", true, &[SEMVER, SEMVER], T::Bool),
    ("isLessThan", true, &[SEMVER, SEMVER], T::Bool),
    ("compareTo", true, &[SEMVER, SEMVER], T::Int),
    ("format.named", false, &[T::String], T::Opt),
    ("format.dns1123Label", false, &[], FORMAT),
    ("format.dns1123Subdomain", false, &[], FORMAT),
    ("format.dns1035Label", false, &[], FORMAT),
    ("format.qualifiedName", false, &[], FORMAT),
    ("format.dns1123LabelPrefix", false, &[], FORMAT),
    ("format.dns1123SubdomainPrefix", false, &[], FORMAT),
    ("format.dns1035LabelPrefix", false, &[], FORMAT),
    ("format.labelValue", false, &[], FORMAT),
    ("format.uri", false, &[], FORMAT),
    ("format.uuid", false, &[], FORMAT),
    ("format.byte", false, &[], FORMAT),
    ("format.date", false, &[], FORMAT),
    ("format.datetime", false, &[], FORMAT),
    ("validate", true, &[FORMAT, T::String], T::Opt),
    ("hasValue", true, &[T::Opt], T::Bool),
    ("path", true, &[AUTHORIZER, T::String], PATH_CHECK),
    ("group", true, &[AUTHORIZER, T::String], GROUP_CHECK),
    (
        "serviceAccount",
        true,
        &[AUTHORIZER, T::String, T::String],
        AUTHORIZER,
    ),
    ("resource", true, &[GROUP_CHECK, T::String], RESOURCE_CHECK),
    ("subresource", true, &[RESOURCE_CHECK, T::String], RESOURCE_CHECK),
    ("namespace", true, &[RESOURCE_CHECK, T::String], RESOURCE_CHECK),
    ("name", true, &[RESOURCE_CHECK, T::String], RESOURCE_CHECK),
    (
        "labelSelector",
        true,
        &[RESOURCE_CHECK, T::String],
        RESOURCE_CHECK,
    ),
    (
        "fieldSelector",
        true,
        &[RESOURCE_CHECK, T::String],
        RESOURCE_CHECK,
    ),
    ("check", true, &[PATH_CHECK, T::String], DECISION),
    ("check", true, &[RESOURCE_CHECK, T::String], DECISION),
    ("allowed", true, &[DECISION], T::Bool),
    ("reason", true, &[DECISION], T::String),
    ("errored", true, &[DECISION], T::Bool),
    ("error", true, &[DECISION], T::String),
    ("jsonpatch.escapeKey", false, &[T::String], T::String),
];

/// Functions whose result follows from what they take in other ways.
const OTHERS: &[&str] = &[
    "_==_",
    "_!=_",
    "_<_",
    "_<=_",
    "_>_",
    "_>=_",
    "_in_",
    "_+_",
    "_-_",
    "_*_",
    "_/_",
    "_%_",
    "!_",
    "-_",
    "size",
    "int",
    "uint",
    "double",
    "string",
    "optional.of",
    "optional.none",
    "optional.ofNonZeroValue",
    "value",
    "or",
    "orValue",
    "getFullYear",
    "getMonth",
    "getDate",
    "getDayOfMonth",
    "getDayOfWeek",
    "getDayOfYear",
    "getHours",
    "getMinutes",
    "getSeconds",
    "getMilliseconds",
];

/// Whether there is a function of that name at all.
pub fn exists(name: &str) -> bool {
    OTHERS.contains(&name) || SIGNATURES.iter().any(|(known, ..)| *known == name)
}

fn takes(wanted: T, given: &Type) -> bool {
    match (wanted, given) {
        (_, Type::Dyn) | (T::Any | T::Item, _) => true,
        (T::Bool, Type::Bool)
        | (T::Int, Type::Int)
        | (T::Double, Type::Double)
        | (T::String, Type::String)
        | (T::Bytes, Type::Bytes)
        | (T::Time, Type::Timestamp)
        | (T::Span, Type::Duration)
        | (T::List | T::Texts, Type::List(_))
        | (T::Map, Type::Map(..))
        | (T::Type, Type::Type)
        | (T::Opt, Type::Optional(_)) => true,
        (T::Own(wanted), Type::Opaque(given)) => wanted == *given,
        _ => false,
    }
}

fn tenth(size: u64) -> u64 {
    size.div_ceil(10)
}

/// What a call makes and costs; `None` when nothing of that name takes such values.
pub(super) fn result(name: &str, member: bool, args: &[Checked]) -> Option<(Decl, u64)> {
    if let Some(found) = operator(name, args).or_else(|| special(name, member, args)) {
        return Some(found);
    }
    let (.., made) = SIGNATURES.iter().find(|(known, is_member, wanted, _)| {
        *known == name
            && *is_member == member
            && wanted.len() == args.len()
            && wanted
                .iter()
                .zip(args)
                .all(|(wanted, given)| takes(*wanted, &given.decl.ty))
    })?;
    let size = |index: usize| args.get(index).map_or(0, |arg| arg.decl.max);
    let whole = args
        .iter()
        .fold(0_u64, |sum, arg| sum.saturating_add(arg.decl.max));
    let texts = || Type::List(Arc::new(Decl::sized(Type::String, size(0))));
    let item = || match &args.first().map(|arg| &arg.decl.ty) {
        Some(Type::List(item)) => item.as_ref().clone(),
        _ => Decl::sized(Type::Dyn, REQUEST - 2),
    };
    let decl = match made {
        T::Any => args.first()?.decl.as_ref().clone(),
        T::Bool => Decl::small(Type::Bool),
        T::Int => Decl::small(Type::Int),
        T::Double => Decl::small(Type::Double),
        T::String => Decl::sized(
            Type::String,
            if name == "replace" {
                whole.saturating_mul(2)
            } else {
                whole
            },
        ),
        T::Bytes => Decl::sized(Type::Bytes, size(0)),
        T::Time => Decl::small(Type::Timestamp),
        T::Span => Decl::small(Type::Duration),
        T::Texts => Decl::sized(texts(), size(0)),
        T::Map => Decl::sized(
            Type::Map(
                Arc::new(Decl::sized(Type::String, size(0))),
                Arc::new(Decl::sized(texts(), size(0))),
            ),
            size(0),
        ),
        T::List => Decl::sized(Type::List(Arc::new(item())), size(0)),
        T::Type => Decl::small(Type::Type),
        T::Opt if name == "validate" => Decl::sized(
            Type::Optional(Arc::new(Decl::sized(
                Type::List(Arc::new(Decl::sized(Type::String, 1000))),
                10,
            ))),
            10,
        ),
        T::Opt => Decl::small(Type::Optional(Arc::new(Decl::small(Type::Opaque(
            "kubernetes.NamedFormat",
        ))))),
        T::Own(own) => Decl::small(Type::Opaque(own)),
        T::Item if name == "reverse" => args.first()?.decl.as_ref().clone(),
        T::Item => item(),
    };
    let cost = match name {
        "check" => authz::CHECK_COST,
        "contains" => tenth(size(0)).saturating_mul(tenth(size(1))),
        "matches" | "find" | "findAll" => {
            tenth(size(0).saturating_add(1)).saturating_mul(size(1).div_ceil(4))
        }
        "startsWith" | "endsWith" => tenth(size(1)),
        "sets.contains" | "sets.intersects" => size(0).saturating_mul(size(1)),
        "sets.equivalent" => size(0).saturating_mul(size(1)).saturating_mul(2),
        "isSorted" | "sum" | "min" | "max" | "reverse" | "join" => size(0),
        "indexOf" | "lastIndexOf" if matches!(args.first()?.decl.ty, Type::List(_)) => size(0),
        _ if args
            .iter()
            .any(|arg| matches!(arg.decl.ty, Type::String | Type::Bytes)) =>
        {
            tenth(whole)
        }
        _ => 0,
    };
    Some((decl, cost.saturating_add(1)))
}

fn operator(name: &str, args: &[Checked]) -> Option<(Decl, u64)> {
    let ty = |index: usize| args.get(index).map(|arg| &arg.decl.ty);
    let size = |index: usize| args.get(index).map_or(0, |arg| arg.decl.max);
    let compared = || tenth(size(0).min(size(1))).saturating_add(1);
    let small = |ty| Some((Decl::small(ty), 1));
    match (name, ty(0), ty(1)) {
        ("_==_" | "_!=_", Some(a), Some(b)) if a.fits(b) => Some((Decl::small(Type::Bool), compared())),
        ("_<_" | "_<=_" | "_>_" | "_>=_", Some(a), Some(b)) => {
            let ordered = |ty: &Type| {
                matches!(
                    ty,
                    Type::Bool | Type::String | Type::Bytes | Type::Timestamp | Type::Duration | Type::Dyn
                )
            };
            ((a.is_number() && b.is_number()) || (ordered(a) && a.fits(b)))
                .then(|| (Decl::small(Type::Bool), compared()))
        }
        ("_in_", Some(a), Some(Type::List(item))) if item.ty.fits(a) => {
            Some((Decl::small(Type::Bool), size(1).saturating_add(1)))
        }
        ("_in_", Some(a), Some(Type::Map(key, _))) if key.ty.fits(a) => small(Type::Bool),
        ("_in_", Some(_), Some(Type::Dyn)) => Some((Decl::small(Type::Bool), size(1).saturating_add(1))),
        ("!_", Some(Type::Bool | Type::Dyn), None) => small(Type::Bool),
        ("-_", Some(of @ (Type::Int | Type::Double | Type::Duration | Type::Dyn)), None) => small(of.clone()),
        ("_+_", Some(a), Some(b)) => match (a, b) {
            (Type::Timestamp, Type::Duration) | (Type::Duration, Type::Timestamp) => small(Type::Timestamp),
            (Type::Int | Type::Uint | Type::Double | Type::Duration | Type::Dyn, _) if a.fits(b) => {
                small(if matches!(a, Type::Dyn) {
                    b.clone()
                } else {
                    a.clone()
                })
            }
            (Type::String | Type::Bytes | Type::List(_), _) if a.fits(b) => {
                let whole = size(0).saturating_add(size(1));
                Some((Decl::sized(a.clone(), whole), tenth(whole).saturating_add(1)))
            }
            _ => None,
        },
        ("_-_", Some(Type::Timestamp), Some(Type::Timestamp)) => small(Type::Duration),
        ("_-_", Some(Type::Timestamp), Some(Type::Duration)) => small(Type::Timestamp),
        ("_-_", Some(a @ (Type::Int | Type::Uint | Type::Double | Type::Duration | Type::Dyn)), Some(b))
        | ("_*_" | "_/_", Some(a @ (Type::Int | Type::Uint | Type::Double | Type::Dyn)), Some(b))
        | ("_%_", Some(a @ (Type::Int | Type::Uint | Type::Dyn)), Some(b))
            if a.fits(b) =>
        {
            small(if matches!(a, Type::Dyn) {
                b.clone()
            } else {
                a.clone()
            })
        }
        _ => None,
    }
}

fn special(name: &str, member: bool, args: &[Checked]) -> Option<(Decl, u64)> {
    let first = args.first().map(|arg| &arg.decl.ty);
    let size = args.first().map_or(0, |arg| arg.decl.max);
    let small = |ty| Some((Decl::small(ty), 1));
    match (name, member, args.len()) {
        ("size", _, 1) => match first? {
            Type::String | Type::Bytes | Type::List(_) | Type::Map(..) | Type::Dyn => small(Type::Int),
            _ => None,
        },
        ("int", false, 1) => match first? {
            Type::Int | Type::Uint | Type::Double | Type::Timestamp | Type::String | Type::Dyn => {
                small(Type::Int)
            }
            _ => None,
        },
        ("uint", false, 1) => match first? {
            Type::Int | Type::Uint | Type::Double | Type::String | Type::Dyn => small(Type::Uint),
            _ => None,
        },
        ("double", false, 1) => match first? {
            Type::Int | Type::Uint | Type::Double | Type::String | Type::Dyn => small(Type::Double),
            _ => None,
        },
        ("string", false, 1) => match first? {
            Type::String | Type::Bytes | Type::Dyn => {
                Some((Decl::sized(Type::String, size), tenth(size) + 1))
            }
            Type::Int | Type::Uint | Type::Double | Type::Bool | Type::Timestamp | Type::Duration => {
                Some((Decl::sized(Type::String, 40), 1))
            }
            _ => None,
        },
        ("optional.of" | "optional.ofNonZeroValue", false, 1) => {
            let of = args.first()?.decl.clone();
            Some((Decl::sized(Type::Optional(of), size), 1))
        }
        ("optional.none", false, 0) => {
            let of = Arc::new(Decl::small(Type::Dyn));
            Some((Decl::small(Type::Optional(of)), 1))
        }
        ("value", true, 1) => match first? {
            Type::Optional(of) => Some((of.as_ref().clone(), 1)),
            Type::Dyn => Some((Decl::sized(Type::Dyn, size), 1)),
            _ => None,
        },
        ("or" | "orValue", true, 2) => {
            let other = &args.get(1)?.decl;
            let decl = match (first?, name) {
                (Type::Optional(of), "orValue") if of.ty.fits(&other.ty) => {
                    if of.max >= other.max {
                        of.as_ref().clone()
                    } else {
                        other.as_ref().clone()
                    }
                }
                (own @ Type::Optional(_), "or") if own.fits(&other.ty) => {
                    Decl::sized(own.clone(), size.max(other.max))
                }
                (Type::Dyn, _) => Decl::sized(Type::Dyn, REQUEST - 2),
                _ => return None,
            };
            Some((decl, 1))
        }
        (name, true, 1 | 2) if name.starts_with("get") && OTHERS.contains(&name) => match first? {
            Type::Timestamp | Type::Dyn => small(Type::Int),
            Type::Duration
                if matches!(name, "getHours" | "getMinutes" | "getSeconds" | "getMilliseconds") =>
            {
                small(Type::Int)
            }
            _ => None,
        },
        _ => None,
    }
}
