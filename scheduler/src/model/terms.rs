//! Node selectors and node affinity, ready to be evaluated.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{NodeSelectorRequirement, NodeSelectorTerm, Pod};
use keelson_api::object::Object;

use super::NodeInfo;

#[derive(Clone, Debug, PartialEq)]
enum Test {
    In(Vec<String>),
    NotIn(Vec<String>),
    Exists,
    DoesNotExist,
    Greater(i64),
    Less(i64),
    /// An operator or a value that makes no sense matches nothing.
    Never,
}

#[derive(Clone, Debug, PartialEq)]
struct Requirement {
    key: String,
    test: Test,
}

impl Requirement {
    fn parse(requirement: &NodeSelectorRequirement) -> Self {
        let values = requirement.values.clone().unwrap_or_default();
        let number = || values.first().and_then(|value| value.parse().ok());
        let test = match requirement.operator.as_str() {
            "In" => Test::In(values),
            "NotIn" => Test::NotIn(values),
            "Exists" => Test::Exists,
            "DoesNotExist" => Test::DoesNotExist,
            "Gt" => number().map_or(Test::Never, Test::Greater),
            "Lt" => number().map_or(Test::Never, Test::Less),
            _ => Test::Never,
        };
        Requirement {
            key: requirement.key.clone(),
            test,
        }
    }

    fn holds(&self, value: Option<&str>) -> bool {
        let is_one_of =
            |values: &[String]| value.is_some_and(|value| values.iter().any(|wanted| wanted == value));
        let number = || value.and_then(|value| value.parse::<i64>().ok());
        match &self.test {
            Test::In(values) => is_one_of(values),
            Test::NotIn(values) => !is_one_of(values),
            Test::Exists => value.is_some(),
            Test::DoesNotExist => value.is_none(),
            Test::Greater(than) => number().is_some_and(|value| value > *than),
            Test::Less(than) => number().is_some_and(|value| value < *than),
            Test::Never => false,
        }
    }
}

/// One term of a node selector: everything in it must hold; an empty one matches no node.
#[derive(Clone, Debug, PartialEq)]
pub struct NodeTerm {
    labels: Vec<Requirement>,
    fields: Vec<Requirement>,
}

impl NodeTerm {
    /// Parses a term.
    pub fn parse(term: &NodeSelectorTerm) -> Self {
        let parse = |list: &Option<Vec<NodeSelectorRequirement>>| {
            list.iter().flatten().map(Requirement::parse).collect::<Vec<_>>()
        };
        NodeTerm {
            labels: parse(&term.match_expressions),
            fields: parse(&term.match_fields),
        }
    }

    /// Whether the node is one the term describes.
    pub fn matches(&self, node: &NodeInfo) -> bool {
        if self.labels.is_empty() && self.fields.is_empty() {
            return false;
        }
        let labels = node.node.labels();
        self.labels
            .iter()
            .all(|requirement| requirement.holds(labels.get(&requirement.key).map(String::as_str)))
            && self.fields.iter().all(|requirement| {
                // The only field nodes can be selected by.
                requirement.holds((requirement.key == "metadata.name").then_some(&*node.name))
            })
    }

    /// The nodes the term names, if it names any.
    fn names(&self) -> Option<Vec<&str>> {
        let named = self
            .fields
            .iter()
            .filter(|requirement| requirement.key == "metadata.name");
        let mut lists = named.filter_map(|requirement| match &requirement.test {
            Test::In(values) => Some(values.iter().map(String::as_str).collect::<Vec<_>>()),
            _ => None,
        });
        let mut names = lists.next()?;
        for list in lists {
            names.retain(|name| list.contains(name));
        }
        Some(names)
    }
}

/// A preferred term and how much it is worth.
#[derive(Clone, Debug, PartialEq)]
pub struct WeightedTerm {
    /// 1 to 100.
    pub weight: i64,
    /// What is preferred.
    pub term: NodeTerm,
}

/// Which nodes a pod may run on: its node selector and its required node affinity.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RequiredNodes {
    selector: BTreeMap<String, String>,
    /// Any of these; `None`: no requirement.
    terms: Option<Vec<NodeTerm>>,
}

impl RequiredNodes {
    /// Of a pod.
    pub fn of(pod: &Pod) -> Self {
        let Some(spec) = &pod.spec else {
            return Self::default();
        };
        let affinity = spec
            .affinity
            .as_ref()
            .and_then(|affinity| affinity.node_affinity.as_ref());
        let required = affinity.and_then(|a| a.required_during_scheduling_ignored_during_execution.as_ref());
        RequiredNodes {
            selector: spec.node_selector.clone().unwrap_or_default(),
            terms: required
                .map(|selector| selector.node_selector_terms.iter().map(NodeTerm::parse).collect()),
        }
    }

    /// Whether every node will do.
    pub fn is_any(&self) -> bool {
        self.selector.is_empty() && self.terms.is_none()
    }

    /// Whether the pod may run on that node.
    pub fn matches(&self, node: &NodeInfo) -> bool {
        let labels = node.node.labels();
        self.selector
            .iter()
            .all(|(key, value)| labels.get(key) == Some(value))
            && self
                .terms
                .as_ref()
                .is_none_or(|terms| terms.iter().any(|term| term.matches(node)))
    }

    /// The only nodes that can match, where every term names some, as in the pods of a daemon set.
    pub fn names(&self) -> Option<Vec<&str>> {
        let terms = self.terms.as_ref().filter(|terms| !terms.is_empty())?;
        let lists = terms.iter().map(NodeTerm::names).collect::<Option<Vec<_>>>()?;
        Some(lists.into_iter().flatten().collect())
    }
}
