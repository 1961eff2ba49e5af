//! Label selectors.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use k8s_openapi::apimachinery::pkg::apis::meta::v1 as meta;

use super::{SelectorError, parser};
use crate::field::{self, Error, Path};
use crate::text::quote;
use crate::validation;

/// How a requirement compares.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Operator {
    /// `key in (a,b)`
    In,
    /// `key notin (a,b)`
    NotIn,
    /// `key=a`
    Equals,
    /// `key==a`
    DoubleEquals,
    /// `key!=a`
    NotEquals,
    /// `key`
    Exists,
    /// `!key`
    DoesNotExist,
    /// `key>5`
    GreaterThan,
    /// `key<5`
    LessThan,
}

/// One condition on the labels.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Requirement {
    key: String,
    operator: Operator,
    values: Vec<String>,
}

impl Requirement {
    /// A checked requirement.
    pub fn new(
        key: impl Into<String>,
        operator: Operator,
        values: Vec<String>,
    ) -> Result<Self, SelectorError> {
        let key = key.into();
        let mut errors = Vec::new();
        check_key(&key, &Path::new("key"), &mut errors);
        let path = Path::new("values");
        let shown = || serde_json::Value::from(values.clone());
        match operator {
            Operator::In | Operator::NotIn if values.is_empty() => {
                let detail = "for 'in', 'notin' operators, values set can't be empty";
                errors.push(Error::invalid(&path, shown(), detail));
            }
            Operator::Equals | Operator::DoubleEquals | Operator::NotEquals if values.len() != 1 => {
                errors.push(Error::invalid(
                    &path,
                    shown(),
                    "exact-match compatibility requires one single value",
                ));
            }
            Operator::Exists | Operator::DoesNotExist if !values.is_empty() => {
                errors.push(Error::invalid(
                    &path,
                    shown(),
                    "values set must be empty for exists and does not exist",
                ));
            }
            Operator::GreaterThan | Operator::LessThan => {
                if values.len() != 1 {
                    let detail = "for 'Gt', 'Lt' operators, exactly one value is required";
                    errors.push(Error::invalid(&path, shown(), detail));
                }
                for (i, value) in values
                    .iter()
                    .enumerate()
                    .filter(|(_, v)| v.parse::<i64>().is_err())
                {
                    let detail = "for 'Gt', 'Lt' operators, the value must be an integer";
                    errors.push(Error::invalid(&path.index(i), value.as_str(), detail));
                }
            }
            _ => {}
        }
        for (i, value) in values.iter().enumerate() {
            let complaints = validation::label_value(value);
            if !complaints.is_empty() {
                let path = path.index(i).key(key.as_str());
                errors.push(Error::invalid(&path, value.as_str(), complaints.join("; ")));
            }
        }
        if !errors.is_empty() {
            return Err(SelectorError(field::aggregate(&errors)));
        }
        Ok(Self {
            key,
            operator,
            values,
        })
    }

    /// The label's key.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// How it compares.
    pub fn operator(&self) -> Operator {
        self.operator
    }

    /// What it compares with.
    pub fn values(&self) -> &[String] {
        &self.values
    }

    fn matches<'a>(&self, lookup: impl Fn(&str) -> Option<&'a str>) -> bool {
        let found = lookup(&self.key);
        let listed = |value: &str| self.values.iter().any(|one| one == value);
        match self.operator {
            Operator::In | Operator::Equals | Operator::DoubleEquals => found.is_some_and(listed),
            Operator::NotIn | Operator::NotEquals => !found.is_some_and(listed),
            Operator::Exists => found.is_some(),
            Operator::DoesNotExist => found.is_none(),
            Operator::GreaterThan | Operator::LessThan => {
                let number = |text: &str| text.parse::<i64>().ok();
                match (
                    found.and_then(number),
                    self.values.first().and_then(|text| number(text)),
                ) {
                    (Some(have), Some(than)) if self.operator == Operator::GreaterThan => have > than,
                    (Some(have), Some(than)) => have < than,
                    _ => false,
                }
            }
        }
    }
}

pub(super) fn check_key(key: &str, path: &Path, errors: &mut Vec<Error>) {
    let complaints = validation::qualified_name(key);
    if !complaints.is_empty() {
        errors.push(Error::invalid(path, key, complaints.join("; ")));
    }
}

impl fmt::Display for Requirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut values: Vec<&str> = self.values.iter().map(String::as_str).collect();
        values.sort_unstable();
        let (key, values) = (&self.key, values.join(","));
        match self.operator {
            Operator::In => write!(f, "{key} in ({values})"),
            Operator::NotIn => write!(f, "{key} notin ({values})"),
            Operator::Equals => write!(f, "{key}={values}"),
            Operator::DoubleEquals => write!(f, "{key}=={values}"),
            Operator::NotEquals => write!(f, "{key}!={values}"),
            Operator::Exists => f.write_str(key),
            Operator::DoesNotExist => write!(f, "!{key}"),
            Operator::GreaterThan => write!(f, "{key}>{values}"),
            Operator::LessThan => write!(f, "{key}<{values}"),
        }
    }
}

/// Which objects are meant, by their labels: all requirements must hold.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct LabelSelector(Option<Vec<Requirement>>);

impl Default for LabelSelector {
    fn default() -> Self {
        Self::everything()
    }
}

impl LabelSelector {
    /// Every object.
    pub const fn everything() -> Self {
        Self(Some(Vec::new()))
    }

    /// No object: what an absent `metav1.LabelSelector` means.
    pub const fn nothing() -> Self {
        Self(None)
    }

    /// Objects that meet all requirements.
    pub fn of(mut requirements: Vec<Requirement>) -> Self {
        requirements.sort_by(|a, b| a.key.cmp(&b.key));
        Self(Some(requirements))
    }

    /// Objects that carry exactly these labels and perhaps more: the selectors of services and replication
    /// controllers. They have been validated with their object; here they are only compared.
    pub fn from_map(labels: &BTreeMap<String, String>) -> Self {
        Self(Some(
            labels
                .iter()
                .map(|(key, value)| Requirement {
                    key: key.clone(),
                    operator: Operator::Equals,
                    values: vec![value.clone()],
                })
                .collect(),
        ))
    }

    /// From the selector inside an object; an absent one selects nothing, an empty one everything.
    pub fn from_meta(selector: Option<&meta::LabelSelector>) -> Result<Self, SelectorError> {
        let Some(selector) = selector else {
            return Ok(Self::nothing());
        };
        let mut requirements = Vec::new();
        for (key, value) in selector.match_labels.iter().flatten() {
            requirements.push(Requirement::new(
                key.as_str(),
                Operator::Equals,
                vec![value.clone()],
            )?);
        }
        for expression in selector.match_expressions.iter().flatten() {
            let operator = match expression.operator.as_str() {
                "In" => Operator::In,
                "NotIn" => Operator::NotIn,
                "Exists" => Operator::Exists,
                "DoesNotExist" => Operator::DoesNotExist,
                other => {
                    return Err(SelectorError(format!(
                        "{} is not a valid label selector operator",
                        quote(other)
                    )));
                }
            };
            let values = expression.values.clone().unwrap_or_default();
            requirements.push(Requirement::new(expression.key.as_str(), operator, values)?);
        }
        Ok(Self::of(requirements))
    }

    /// The requirements; none for a selector of everything and for one of nothing.
    pub fn requirements(&self) -> &[Requirement] {
        self.0.as_deref().unwrap_or_default()
    }

    /// Whether every object is meant.
    pub fn is_everything(&self) -> bool {
        self.0.as_ref().is_some_and(Vec::is_empty)
    }

    /// Whether no object is meant.
    pub fn is_nothing(&self) -> bool {
        self.0.is_none()
    }

    /// Whether an object with these labels is meant.
    pub fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        self.matches_with(|key| labels.get(key).map(String::as_str))
    }

    /// Whether an object is meant whose labels are looked up by a function, wherever they are kept.
    pub fn matches_with<'a>(&self, lookup: impl Fn(&str) -> Option<&'a str>) -> bool {
        match &self.0 {
            None => false,
            Some(requirements) => requirements.iter().all(|one| one.matches(&lookup)),
        }
    }

    /// The one value that a label must have, if there is one.
    pub fn exact_value(&self, key: &str) -> Option<&str> {
        let one = self.requirements().iter().find(|one| one.key == key)?;
        let exact = matches!(
            one.operator,
            Operator::Equals | Operator::DoubleEquals | Operator::In
        );
        match one.values.as_slice() {
            [value] if exact => Some(value),
            _ => None,
        }
    }
}

impl fmt::Display for LabelSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, requirement) in self.requirements().iter().enumerate() {
            if i > 0 {
                f.write_str(",")?;
            }
            write!(f, "{requirement}")?;
        }
        Ok(())
    }
}

impl FromStr for LabelSelector {
    type Err = SelectorError;

    /// Reads the text form: `a=b,c!=d,e in (f,g),h,!i,j>5`.
    fn from_str(text: &str) -> Result<Self, SelectorError> {
        parser::parse(text).map(Self::of)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(text: &str) -> BTreeMap<String, String> {
        text.split(',')
            .filter_map(|pair| pair.split_once('='))
            .map(|(k, v)| (k.to_owned(), v.to_owned()))
            .collect()
    }

    #[test]
    fn reads_and_matches() {
        for (selector, labels, wanted) in [
            ("", "", true),
            ("x=y", "x=y", true),
            ("x==y,z=w", "x=y,z=w", true),
            ("x!=y", "x=z", true),
            ("x!=y", "", true),
            ("x!=y", "x=y", false),
            ("x in (a, b)", "x=b", true),
            ("x in (a,b)", "x=c", false),
            ("x notin (a,b)", "", true),
            ("x notin (a,b)", "x=a", false),
            ("x", "x=", true),
            ("!x", "x=1", false),
            (" ! x , y ", "y=1", true),
            ("x>5", "x=6", true),
            ("x<5", "x=6", false),
            ("x>5", "x=a", false),
            ("x=", "x=", true),
            ("x in (,a)", "x=", true),
            ("notin=in", "notin=in", true),
            ("in in (in,notin)", "in=notin", true),
        ] {
            let parsed: LabelSelector = selector.parse().unwrap_or_else(|e| panic!("{selector}: {e}"));
            assert_eq!(parsed.matches(&map(labels)), wanted, "{selector} on {labels}");
            let again: LabelSelector = parsed.to_string().parse().expect("its own text");
            assert_eq!(again.to_string(), parsed.to_string());
        }
    }

    #[test]
    fn refuses_with_upstreams_texts() {
        for (selector, wanted) in [
            ("x==a==b", "found '==', expected: ',' or 'end of string'"),
            (",x", "found ',', expected: !, identifier, or 'end of string'"),
            ("x,", "found '', expected: identifier after ','"),
            ("x in", "unable to parse requirement: found '', expected: '('"),
            (
                "x in (",
                "unable to parse requirement: found '', expected: ',', ')' or identifier",
            ),
            (
                "x y",
                "unable to parse requirement: found 'y', expected: in, notin, =, ==, !=, gt, lt",
            ),
            (
                "x>a",
                "unable to parse requirement: values[0]: Invalid value: \"a\": for 'Gt', 'Lt' operators, the value \
                 must be an integer",
            ),
        ] {
            let got = selector.parse::<LabelSelector>().expect_err(selector).to_string();
            assert_eq!(got, wanted, "{selector}");
        }
        let got = "-x=a"
            .parse::<LabelSelector>()
            .expect_err("a bad key")
            .to_string();
        assert!(
            got.starts_with("unable to parse requirement: <nil>: Invalid value: \"-x\": name part must"),
            "{got}"
        );
    }

    #[test]
    fn converts_from_objects() {
        let selector: meta::LabelSelector = serde_json::from_str(
            r#"{"matchLabels":{"a":"b"},"matchExpressions":[{"key":"c","operator":"NotIn","values":["d"]}]}"#,
        )
        .expect("a selector");
        let parsed = LabelSelector::from_meta(Some(&selector)).expect("valid");
        assert_eq!(parsed.to_string(), "a=b,c notin (d)");
        assert_eq!(parsed.exact_value("a"), Some("b"));
        assert!(LabelSelector::from_meta(None).expect("nothing").is_nothing());
        assert!(
            LabelSelector::from_meta(Some(&meta::LabelSelector::default()))
                .expect("all")
                .is_everything()
        );
        assert!(!LabelSelector::nothing().matches(&map("")));
    }
}
