//! The rules for names, labels, ports and addresses, with upstream's explanations.
//!
//! Each check returns what is wrong, in words; nothing if all is well. The good case allocates nothing.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::field::{Error, Errors, Path};

mod meta;
mod network;

pub use meta::*;
pub use network::*;

/// What is wrong with a value, in words.
pub type Complaints = Vec<String>;

/// The longest DNS label.
pub const LABEL_MAX: usize = 63;
/// The longest DNS subdomain.
pub const SUBDOMAIN_MAX: usize = 253;
/// The most that all annotations of an object may weigh together: 256 KiB.
pub const ANNOTATIONS_MAX: usize = 256 << 10;

const DNS1123_LABEL_FMT: &str = "[a-z0-9]([-a-z0-9]*[a-z0-9])?";
const DNS1123_LABEL_MSG: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', \
     and must start and end with an alphanumeric character";
const DNS1123_SUBDOMAIN_FMT: &str = "[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*";
const DNS1123_SUBDOMAIN_MSG: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, \
     '-' or '.', and must start and end with an alphanumeric character";
const DNS1035_LABEL_FMT: &str = "[a-z]([-a-z0-9]*[a-z0-9])?";
const DNS1035_LABEL_MSG: &str = "a DNS-1035 label must consist of lower case alphanumeric characters or '-', \
     start with an alphabetic character, and end with an alphanumeric character";
const WILDCARD_FMT: &str = "\\*\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*";
const WILDCARD_MSG: &str = "a wildcard DNS-1123 subdomain must start with '*.', followed by a valid DNS subdomain, \
     which must consist of lower case alphanumeric characters, '-' or '.' and end with an alphanumeric character";
const QUALIFIED_FMT: &str = "([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]";
const QUALIFIED_MSG: &str = "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character";
const LABEL_VALUE_FMT: &str = "(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?";
const LABEL_VALUE_MSG: &str = "a valid label must be an empty string or consist of alphanumeric characters, \
     '-', '_' or '.', and must start and end with an alphanumeric character";
const C_IDENTIFIER_FMT: &str = "[A-Za-z_][A-Za-z0-9_]*";
const C_IDENTIFIER_MSG: &str = "a valid C identifier must start with alphabetic character or '_', \
     followed by a string of alphanumeric characters or '_'";
const CONDITION_REASON_FMT: &str = "[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?";
const CONDITION_REASON_MSG: &str = "a condition reason must start with alphabetic character, optionally followed by a \
     string of alphanumeric characters or '_,:', and must end with an alphanumeric character or '_'";
const ENV_NAME_FMT: &str = "[-._a-zA-Z][-._a-zA-Z0-9]*";
const ENV_NAME_MSG: &str = "a valid environment variable name must consist of alphabetic characters, digits, \
     '_', '-', or '.', and must not start with a digit";
const ENV_NAME_RELAXED_MSG: &str =
    "a valid environment variable name must consist only of printable ASCII characters other than '='";
const CONFIG_KEY_FMT: &str = "[-._a-zA-Z0-9]+";
const CONFIG_KEY_MSG: &str = "a valid config key must consist of alphanumeric characters, '-', '_' or '.'";
const HTTP_HEADER_FMT: &str = "[-A-Za-z0-9]+";
const HTTP_HEADER_MSG: &str = "a valid HTTP header must consist of alphanumeric characters or '-'";
const PERCENT_FMT: &str = "[0-9]+%";
const PERCENT_MSG: &str = "a valid percent string must be a numeric string followed by an ending '%'";

/// The explanation of a broken pattern: the rule, examples, the pattern.
pub fn regex_error(message: &str, pattern: &str, examples: &[&str]) -> String {
    if examples.is_empty() {
        return format!("{message} (regex used for validation is '{pattern}')");
    }
    let examples: Vec<String> = examples.iter().map(|example| format!("'{example}', ")).collect();
    format!(
        "{message} (e.g. {}regex used for validation is '{pattern}')",
        examples.join(" or ")
    )
}

/// The explanation of a text that is too long.
pub fn max_len_error(max: usize) -> String {
    format!("must be no more than {max} characters")
}

/// The explanation of a label part that is too long.
fn max_bytes_error(max: usize) -> String {
    format!("must be no more than {max} bytes")
}

/// The explanation of a number outside its range.
pub fn range_error(low: i64, high: i64) -> String {
    format!("must be between {low} and {high}, inclusive")
}

fn lower_or_digit(b: u8) -> bool {
    b.is_ascii_lowercase() || b.is_ascii_digit()
}

/// `[a-z0-9]([-a-z0-9]*[a-z0-9])?`
fn is_label_shape(text: &[u8]) -> bool {
    match text {
        [] => false,
        [one] => lower_or_digit(*one),
        [first, middle @ .., last] => {
            lower_or_digit(*first)
                && lower_or_digit(*last)
                && middle.iter().all(|&b| lower_or_digit(b) || b == b'-')
        }
    }
}

fn is_subdomain_shape(text: &str) -> bool {
    text.as_bytes().split(|&b| b == b'.').all(is_label_shape)
}

/// `([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]`
fn is_qualified_shape(text: &str) -> bool {
    match text.as_bytes() {
        [] => false,
        [one] => one.is_ascii_alphanumeric(),
        [first, middle @ .., last] => {
            first.is_ascii_alphanumeric()
                && last.is_ascii_alphanumeric()
                && middle
                    .iter()
                    .all(|&b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
        }
    }
}

/// A label of a host name (RFC 1123): what names of services' ports, namespaces and containers must be.
pub fn dns1123_label(value: &str) -> Complaints {
    let mut complaints = Vec::new();
    if value.len() > LABEL_MAX {
        complaints.push(max_len_error(LABEL_MAX));
    }
    if !is_label_shape(value.as_bytes()) {
        complaints.push(if is_subdomain_shape(value) {
            "must not contain dots".to_owned()
        } else {
            regex_error(DNS1123_LABEL_MSG, DNS1123_LABEL_FMT, &["my-name", "123-abc"])
        });
    }
    complaints
}

/// A host name (RFC 1123): what names of most objects must be.
pub fn dns1123_subdomain(value: &str) -> Complaints {
    let mut complaints = Vec::new();
    if value.len() > SUBDOMAIN_MAX {
        complaints.push(max_len_error(SUBDOMAIN_MAX));
    }
    if !is_subdomain_shape(value) {
        complaints.push(regex_error(
            DNS1123_SUBDOMAIN_MSG,
            DNS1123_SUBDOMAIN_FMT,
            &["example.com"],
        ));
    }
    complaints
}

/// A label of a host name as it was before digits could come first (RFC 1035): what names of services must be.
pub fn dns1035_label(value: &str) -> Complaints {
    let mut complaints = Vec::new();
    if value.len() > LABEL_MAX {
        complaints.push(max_len_error(LABEL_MAX));
    }
    if !is_label_shape(value.as_bytes()) || value.as_bytes()[0].is_ascii_digit() {
        complaints.push(regex_error(
            DNS1035_LABEL_MSG,
            DNS1035_LABEL_FMT,
            &["my-name", "abc-123"],
        ));
    }
    complaints
}

/// `*.` and a host name.
pub fn wildcard_dns1123_subdomain(value: &str) -> Complaints {
    let mut complaints = Vec::new();
    if value.len() > SUBDOMAIN_MAX {
        complaints.push(max_len_error(SUBDOMAIN_MAX));
    }
    if !value.strip_prefix("*.").is_some_and(is_subdomain_shape) {
        complaints.push(regex_error(WILDCARD_MSG, WILDCARD_FMT, &["*.example.com"]));
    }
    complaints
}

/// A host name of at least two labels; a trailing dot is fine.
pub fn fully_qualified_domain_name(path: &Path, name: &str) -> Errors {
    if name.is_empty() {
        return vec![Error::required(path, "")];
    }
    let name = name.strip_suffix('.').unwrap_or(name);
    let complaints = dns1123_subdomain(name);
    if !complaints.is_empty() {
        return vec![Error::invalid(path, name, complaints.join(","))];
    }
    if !name.contains('.') {
        let detail = "should be a domain with at least two segments separated by dots";
        return vec![Error::invalid(path, name, detail)];
    }
    for label in name.split('.') {
        let complaints = dns1123_label(label);
        if !complaints.is_empty() {
            return vec![Error::invalid(path, label, complaints.join(","))];
        }
    }
    Vec::new()
}

/// A name with an optional DNS prefix, `example.com/name`: label keys, annotation keys, resource names, finalizers.
pub fn qualified_name(value: &str) -> Complaints {
    let mut complaints = Vec::new();
    let explain = || regex_error(QUALIFIED_MSG, QUALIFIED_FMT, &["MyName", "my.name", "123-abc"]);
    let name = match value.split_once('/') {
        None => value,
        Some((_, name)) if name.contains('/') => {
            return vec![format!(
                "a valid label key {} with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')",
                explain()
            )];
        }
        Some(("", name)) => {
            complaints.push("prefix part must be non-empty".to_owned());
            name
        }
        Some((prefix, name)) => {
            complaints.extend(
                dns1123_subdomain(prefix)
                    .into_iter()
                    .map(|c| format!("prefix part {c}")),
            );
            name
        }
    };
    if name.is_empty() {
        complaints.push("name part must be non-empty".to_owned());
    } else if name.len() > LABEL_MAX {
        complaints.push(format!("name part {}", max_bytes_error(LABEL_MAX)));
    }
    if !is_qualified_shape(name) {
        complaints.push(format!("name part {}", explain()));
    }
    complaints
}

/// The value of a label; it may be empty.
pub fn label_value(value: &str) -> Complaints {
    let mut complaints = Vec::new();
    if value.len() > LABEL_MAX {
        complaints.push(max_bytes_error(LABEL_MAX));
    }
    if !value.is_empty() && !is_qualified_shape(value) {
        complaints.push(regex_error(
            LABEL_VALUE_MSG,
            LABEL_VALUE_FMT,
            &["MyValue", "my_value", "12345"],
        ));
    }
    complaints
}

/// An identifier of the C language.
pub fn c_identifier(value: &str) -> Complaints {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    let good = match value.as_bytes() {
        [] => false,
        [first, rest @ ..] => word(*first) && !first.is_ascii_digit() && rest.iter().all(|&b| word(b)),
    };
    if good {
        return Vec::new();
    }
    vec![regex_error(
        C_IDENTIFIER_MSG,
        C_IDENTIFIER_FMT,
        &["my_name", "MY_NAME", "MyName"],
    )]
}

/// The reason of a condition.
pub fn condition_reason(value: &str) -> Complaints {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    let good = match value.as_bytes() {
        [] => false,
        [only] => only.is_ascii_alphabetic(),
        [first, between @ .., last] => {
            first.is_ascii_alphabetic()
                && between.iter().all(|&b| word(b) || b",:".contains(&b))
                && word(*last)
        }
    };
    if good {
        return Vec::new();
    }
    vec![regex_error(
        CONDITION_REASON_MSG,
        CONDITION_REASON_FMT,
        &[
            "my_name",
            "MY_NAME",
            "MyName",
            "ReasonA,ReasonB",
            "ReasonA:ReasonB",
        ],
    )]
}

fn parent_directory(value: &str) -> Option<String> {
    match value {
        "." => Some("must not be '.'".to_owned()),
        ".." => Some("must not be '..'".to_owned()),
        _ if value.starts_with("..") => Some("must not start with '..'".to_owned()),
        _ => None,
    }
}

/// The name of an environment variable as shells like it: what `envFrom` takes over.
pub fn env_name(value: &str) -> Complaints {
    let good = |b: u8| b.is_ascii_alphanumeric() || b"-._".contains(&b);
    let mut complaints = Vec::new();
    if !value.bytes().all(good) || value.is_empty() || value.as_bytes()[0].is_ascii_digit() {
        complaints.push(regex_error(
            ENV_NAME_MSG,
            ENV_NAME_FMT,
            &["my.env-name", "MY_ENV.NAME", "MyEnvName1"],
        ));
    }
    complaints.extend(parent_directory(value));
    complaints
}

/// The name of an environment variable: any printable ASCII but `=`.
pub fn env_name_relaxed(value: &str) -> Complaints {
    if value.is_empty() {
        return vec!["environment variable name must be non-empty".to_owned()];
    }
    if value.bytes().any(|b| !(0x20..0x7f).contains(&b) || b == b'=') {
        return vec![ENV_NAME_RELAXED_MSG.to_owned()];
    }
    Vec::new()
}

/// A key of a ConfigMap or Secret: it becomes a file name.
pub fn config_map_key(value: &str) -> Complaints {
    let mut complaints = Vec::new();
    if value.len() > SUBDOMAIN_MAX {
        complaints.push(max_len_error(SUBDOMAIN_MAX));
    }
    if value.is_empty()
        || !value
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b))
    {
        complaints.push(regex_error(
            CONFIG_KEY_MSG,
            CONFIG_KEY_FMT,
            &["key.name", "KEY_NAME", "key-name"],
        ));
    }
    complaints.extend(parent_directory(value));
    complaints
}

/// The name of an HTTP header.
pub fn http_header_name(value: &str) -> Complaints {
    if !value.is_empty() && value.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-') {
        return Vec::new();
    }
    vec![regex_error(HTTP_HEADER_MSG, HTTP_HEADER_FMT, &["X-Header-Name"])]
}

/// A percentage, such as `25%`.
pub fn percent(value: &str) -> Complaints {
    match value.strip_suffix('%') {
        Some(digits) if !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()) => Vec::new(),
        _ => vec![regex_error(PERCENT_MSG, PERCENT_FMT, &["1%", "93%"])],
    }
}

/// The number of a user or group.
pub fn user_or_group_id(id: i64) -> Complaints {
    in_range(id, 0, i64::from(u32::MAX))
}

/// A number within a range, both ends included.
pub fn in_range(value: i64, low: i64, high: i64) -> Complaints {
    if (low..=high).contains(&value) {
        Vec::new()
    } else {
        vec![range_error(low, high)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_and_subdomains() {
        assert!(dns1123_label("a-1").is_empty() && dns1123_label("1").is_empty());
        assert_eq!(dns1123_label("a.b"), ["must not contain dots"]);
        assert_eq!(
            dns1123_label("A"),
            [
                "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start \
              and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is \
              '[a-z0-9]([-a-z0-9]*[a-z0-9])?')"
            ]
        );
        assert!(dns1123_subdomain("a.b-c.d").is_empty());
        for bad in ["", "a..b", "-a", "a-", "a_b", ".a", "A.b"] {
            assert_eq!(dns1123_subdomain(bad).len(), 1, "{bad}");
        }
        assert_eq!(
            dns1123_subdomain(&"a".repeat(254)),
            ["must be no more than 253 characters"]
        );
        assert!(
            dns1035_label("a1").is_empty()
                && !dns1035_label("1a").is_empty()
                && !dns1035_label("").is_empty()
        );
        assert!(
            wildcard_dns1123_subdomain("*.a.b").is_empty() && !wildcard_dns1123_subdomain("*").is_empty()
        );
    }

    #[test]
    fn names_and_values() {
        assert!(qualified_name("example.com/My_Name.1").is_empty() && qualified_name("x").is_empty());
        assert_eq!(qualified_name("/x"), ["prefix part must be non-empty"]);
        assert_eq!(qualified_name("a/b/c").len(), 1);
        assert_eq!(qualified_name("").len(), 2);
        assert!(
            label_value("").is_empty() && label_value("a_b.c").is_empty() && !label_value("a b").is_empty()
        );
        assert!(
            env_name("A.b-c").is_empty() && !env_name("1A").is_empty() && env_name_relaxed("1 A").is_empty()
        );
        assert_eq!(env_name_relaxed("a=b").len(), 1);
        assert!(config_map_key("a.b").is_empty());
        assert_eq!(config_map_key(".."), ["must not be '..'"]);
        assert!(percent("5%").is_empty() && !percent("%").is_empty() && !percent("5").is_empty());
        assert!(c_identifier("_a1").is_empty() && !c_identifier("1a").is_empty());
    }
}
