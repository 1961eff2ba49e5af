//! JSONPath as Kubernetes writes it: printer columns, scale paths, selectable fields, `kubectl -o jsonpath`.
//!
//! `.spec.containers[*].name`, `.status.conditions[?(@.type=="Ready")].status`, `..image`, `.items[-1:]`, `['a.b']`.
//! What a path names need not be there: then it finds nothing.

mod parse;

use serde_json::Value;

/// Steps a path may have at most.
const MAX_STEPS: usize = 64;
/// Values one path may find at most: `..` over a large object is quadratic work otherwise.
const MAX_FOUND: usize = 10_000;

/// A path that has been read.
#[derive(Clone, Debug, PartialEq)]
pub struct JsonPath {
    steps: Vec<Step>,
}

#[derive(Clone, Debug, PartialEq)]
enum Step {
    /// `.name`, `['name']`
    Field(String),
    /// `.*`, `[*]`
    Wildcard,
    /// `..`
    Descend,
    /// `[1]`, `[-1]`
    Index(i64),
    /// `[0:2]`, `[::2]`
    Slice(Option<i64>, Option<i64>, i64),
    /// `[0,2]`, `['a','b']`
    Union(Vec<Step>),
    /// `['metadata.name']`
    Chain(Vec<Step>),
    /// `[?(@.type=="Ready")]`
    Filter(Box<Filter>),
}

#[derive(Clone, Debug, PartialEq)]
struct Filter {
    left: Operand,
    /// Absent: whether `left` finds anything.
    right: Option<(Comparison, Operand)>,
}

#[derive(Clone, Debug, PartialEq)]
enum Operand {
    Path(Vec<Step>),
    Literal(Value),
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Comparison {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

impl JsonPath {
    /// Reads a path, with or without braces around it. The error says what is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let inner = text
            .trim()
            .strip_prefix('{')
            .and_then(|rest| rest.strip_suffix('}'))
            .unwrap_or(text);
        Ok(Self {
            steps: parse::steps(inner)?,
        })
    }

    /// Everything the path names, in order.
    pub fn find<'v>(&self, root: &'v Value) -> Vec<&'v Value> {
        walk(&self.steps, root)
    }

    /// The field names, where the path has nothing but those: `.spec.replicas`.
    pub fn fields(&self) -> Option<Vec<&str>> {
        self.steps
            .iter()
            .map(|step| match step {
                Step::Field(name) => Some(name.as_str()),
                _ => None,
            })
            .collect()
    }
}

fn walk<'v>(steps: &[Step], root: &'v Value) -> Vec<&'v Value> {
    let mut found = vec![root];
    for step in steps {
        let mut next = Vec::new();
        for value in found {
            step.apply(value, &mut next);
            if next.len() > MAX_FOUND {
                next.truncate(MAX_FOUND);
                break;
            }
        }
        found = next;
        if found.is_empty() {
            break;
        }
    }
    found
}

impl Step {
    fn apply<'v>(&self, value: &'v Value, out: &mut Vec<&'v Value>) {
        match (self, value) {
            (Step::Field(name), Value::Object(map)) => out.extend(map.get(name)),
            (Step::Wildcard, Value::Object(map)) => out.extend(map.values()),
            (Step::Wildcard, Value::Array(list)) => out.extend(list),
            (Step::Descend, _) => descend(value, out),
            (Step::Index(index), Value::Array(list)) => {
                out.extend(position(*index, list.len()).and_then(|at| list.get(at)));
            }
            (Step::Slice(from, to, step), Value::Array(list)) => {
                let bound = |index: Option<i64>, default: usize| match index {
                    None => default,
                    Some(index) if index < 0 => {
                        usize::try_from(index + i64::try_from(list.len()).unwrap_or(i64::MAX)).unwrap_or(0)
                    }
                    Some(index) => usize::try_from(index).unwrap_or(usize::MAX).min(list.len()),
                };
                let (from, to) = (bound(*from, 0), bound(*to, list.len()));
                if from < to {
                    let step = usize::try_from(*step).unwrap_or(1).max(1);
                    out.extend(list[from..to].iter().step_by(step));
                }
            }
            (Step::Chain(steps), _) => out.extend(walk(steps, value)),
            (Step::Union(steps), _) => steps.iter().for_each(|step| step.apply(value, out)),
            (Step::Filter(filter), Value::Array(list)) => {
                out.extend(list.iter().filter(|element| filter.holds(element)));
            }
            (Step::Filter(filter), Value::Object(map)) => {
                out.extend(map.values().filter(|element| filter.holds(element)));
            }
            _ => {}
        }
    }
}

fn position(index: i64, length: usize) -> Option<usize> {
    if index < 0 {
        length.checked_sub(usize::try_from(index.unsigned_abs()).ok()?)
    } else {
        usize::try_from(index).ok()
    }
}

fn descend<'v>(value: &'v Value, out: &mut Vec<&'v Value>) {
    if out.len() > MAX_FOUND {
        return;
    }
    out.push(value);
    match value {
        Value::Object(map) => map.values().for_each(|inner| descend(inner, out)),
        Value::Array(list) => list.iter().for_each(|inner| descend(inner, out)),
        _ => {}
    }
}

impl Filter {
    fn holds(&self, element: &Value) -> bool {
        let left = match &self.left {
            Operand::Literal(value) => vec![value],
            Operand::Path(steps) => walk(steps, element),
        };
        let Some((comparison, right)) = &self.right else {
            return !left.is_empty();
        };
        let right = match right {
            Operand::Literal(value) => vec![value],
            Operand::Path(steps) => walk(steps, element),
        };
        match (left.first(), right.first()) {
            (Some(left), Some(right)) => comparison.holds(left, right),
            _ => false,
        }
    }
}

impl Comparison {
    fn holds(self, left: &Value, right: &Value) -> bool {
        let order = match (left, right) {
            (Value::String(left), Value::String(right)) => Some(left.cmp(right)),
            (Value::Number(left), Value::Number(right)) => left
                .as_f64()
                .zip(right.as_f64())
                .and_then(|(l, r)| l.partial_cmp(&r)),
            (Value::Bool(left), Value::Bool(right)) => Some(left.cmp(right)),
            _ => None,
        };
        let Some(order) = order else {
            return self == Comparison::NotEqual;
        };
        match self {
            Comparison::Equal => order.is_eq(),
            Comparison::NotEqual => order.is_ne(),
            Comparison::Less => order.is_lt(),
            Comparison::LessOrEqual => order.is_le(),
            Comparison::Greater => order.is_gt(),
            Comparison::GreaterOrEqual => order.is_ge(),
        }
    }
}

/// A value as a path prints it: text without quotes, everything else as JSON.
pub fn print(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => "<nil>".to_owned(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn found(path: &str, root: &Value) -> String {
        let path = JsonPath::parse(path).expect("a path");
        let texts: Vec<String> = path.find(root).into_iter().map(print).collect();
        texts.join(" ")
    }

    #[test]
    fn the_examples_of_the_reference() {
        let root = json!({
            "kind": "List",
            "items": [
                {"kind": "None", "metadata": {"name": "127.0.0.1", "labels": {"kubernetes.io/hostname": "127.0.0.1"}},
                 "status": {"capacity": {"cpu": "4"}, "addresses": [{"type": "LegacyHostIP", "address": "127.0.0.1"}]}},
                {"kind": "None", "metadata": {"name": "127.0.0.2", "labels": {"kubernetes.io/hostname": "127.0.0.2"}},
                 "status": {"capacity": {"cpu": "8"}, "addresses": [
                    {"type": "LegacyHostIP", "address": "127.0.0.2"}, {"type": "another", "address": "127.0.0.3"}]}}
            ],
            "users": [
                {"name": "myself", "user": {}},
                {"name": "e2e", "user": {"username": "admin", "password": "secret"}}
            ]
        });
        assert_eq!(found("{.kind}", &root), "List");
        assert_eq!(found("{['kind']}", &root), "List");
        assert_eq!(found("{..name}", &root), "127.0.0.1 127.0.0.2 myself e2e");
        assert_eq!(found("{.items[*].metadata.name}", &root), "127.0.0.1 127.0.0.2");
        assert_eq!(found("{.users[0].name}", &root), "myself");
        assert_eq!(
            found("{.items[*]['metadata.name', 'status.capacity.cpu']}", &root),
            "127.0.0.1 4 127.0.0.2 8"
        );
        assert_eq!(
            found("{.users[?(@.name==\"e2e\")].user.password}", &root),
            "secret"
        );
        assert_eq!(
            found("{.items[0].metadata.labels.kubernetes\\.io/hostname}", &root),
            "127.0.0.1"
        );
        assert_eq!(found("{.users[-1].name}", &root), "e2e");
        assert_eq!(found("{.users[0:1].name}", &root), "myself");
        assert_eq!(found("{.users[-1:].name}", &root), "e2e");
        assert_eq!(found("{.users[*].name}", &root), "myself e2e");
        assert_eq!(
            found("{..addresses[?(@.type=='another')].address}", &root),
            "127.0.0.3"
        );
        assert_eq!(found("{.nothing.here}", &root), "");
        assert_eq!(found(".kind", &root), "List");
    }

    #[test]
    fn filters_compare() {
        let root = json!({"a": [{"n": 1, "ok": true}, {"n": 2}, {"n": 3, "ok": false}]});
        assert_eq!(found(".a[?(@.n>1)].n", &root), "2 3");
        assert_eq!(found(".a[?(@.n<=2)].n", &root), "1 2");
        assert_eq!(found(".a[?(@.ok)].n", &root), "1 3");
        assert_eq!(found(".a[?(@.ok==true)].n", &root), "1");
        assert_eq!(found(".a[?(@.n!=2)].n", &root), "1 3");
    }

    #[test]
    fn nonsense_is_refused() {
        for text in [
            ".a[",
            ".a['b",
            ".a[?(@.x==)]",
            ".a[1:2:3:4]",
            ".a[?(@.x",
            &".a".repeat(100),
        ] {
            assert!(JsonPath::parse(text).is_err(), "{text}");
        }
        assert_eq!(
            JsonPath::parse(".spec.replicas").expect("a path").fields(),
            Some(vec!["spec", "replicas"])
        );
    }
}
