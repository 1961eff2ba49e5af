//! `ip('::1')` and `cidr('10.0.0.0/8')`.

use std::net::IpAddr;

use ipnet::IpNet;
use keelson_api::validation::{is_global_unicast, is_link_local, is_link_local_multicast};

use super::super::eval::Failure;
use super::super::value::Value;
use super::Outcome;

fn parse_ip(text: &str) -> Result<IpAddr, Failure> {
    let bad = || {
        Failure::error(format!(
            "IP Address {text:?} parse error during conversion from string"
        ))
    };
    let ip: IpAddr = text.parse().map_err(|_| bad())?;
    match ip {
        IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some() => Err(Failure::error(format!(
            "IPv4-mapped IPv6 address {text:?} is not allowed"
        ))),
        ip => Ok(ip),
    }
}

fn parse_cidr(text: &str) -> Result<IpNet, Failure> {
    text.parse().map_err(|_| {
        Failure::error(format!(
            "network address parse error during conversion from string: {text:?}"
        ))
    })
}

/// Functions without a receiver.
pub fn function<'v>(name: &str, args: &[Value<'v>]) -> Option<Outcome<'v>> {
    let [value] = args else { return None };
    let text = value.as_str()?;
    Some(match name {
        "ip" => parse_ip(text).map(Value::Ip),
        "isIP" => Ok(Value::Bool(parse_ip(text).is_ok())),
        "ip.isCanonical" => parse_ip(text).map(|ip| Value::Bool(ip.to_string() == text)),
        "cidr" => parse_cidr(text).map(Value::Cidr),
        "isCIDR" => Ok(Value::Bool(parse_cidr(text).is_ok())),
        _ => return None,
    })
}

/// Methods of addresses and networks.
pub fn method<'v>(name: &str, target: &Value<'v>, args: &[Value<'v>]) -> Option<Outcome<'v>> {
    match target {
        Value::Ip(own) => {
            if !args.is_empty() {
                return None;
            }
            Some(Ok(match name {
                "family" => Value::Int(if own.is_ipv4() { 4 } else { 6 }),
                "isLoopback" => Value::Bool(own.is_loopback()),
                "isUnspecified" => Value::Bool(own.is_unspecified()),
                "isLinkLocalMulticast" => Value::Bool(is_link_local_multicast(*own)),
                "isLinkLocalUnicast" => Value::Bool(is_link_local(*own)),
                "isGlobalUnicast" => Value::Bool(is_global_unicast(*own)),
                _ => return None,
            }))
        }
        Value::Cidr(own) => Some(Ok(match (name, args) {
            ("containsIP", [Value::Ip(ip)]) => Value::Bool(own.contains(ip)),
            ("containsIP", [text]) => match parse_ip(text.as_str()?) {
                Ok(ip) => Value::Bool(own.contains(&ip)),
                Err(failure) => return Some(Err(failure)),
            },
            ("containsCIDR", [Value::Cidr(net)]) => Value::Bool(own.contains(net)),
            ("containsCIDR", [text]) => match parse_cidr(text.as_str()?) {
                Ok(net) => Value::Bool(own.contains(&net)),
                Err(failure) => return Some(Err(failure)),
            },
            ("ip", []) => Value::Ip(own.addr()),
            ("masked", []) => Value::Cidr(own.trunc()),
            ("prefixLength", []) => Value::Int(i64::from(own.prefix_len())),
            _ => return None,
        })),
        _ => None,
    }
}
