//! Since when taints are there that do not say it themselves.
//!
//! The controller of nodes dates its taints; those that people add have no date, and time has to be counted from when
//! they were first seen. A controller that starts anew counts from its start.

use std::collections::HashMap;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Taint;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use parking_lot::Mutex;

/// What is remembered of undated taints.
#[derive(Debug, Default)]
pub struct FirstSeen {
    /// By node: the taints, as they were first seen, dated.
    nodes: Mutex<HashMap<String, Vec<Taint>>>,
}

impl FirstSeen {
    /// A node's taints, each with a date. Those that are gone are forgotten.
    #[must_use]
    pub fn dated(&self, node: &str, taints: &[&Taint], now: Timestamp) -> Vec<Taint> {
        let mut nodes = self.nodes.lock();
        let known = nodes.remove(node).unwrap_or_default();
        let date = |taint: &&Taint| {
            let same = |other: &&Taint| {
                (&other.key, &other.value, &other.effect) == (&taint.key, &taint.value, &taint.effect)
            };
            let seen = known.iter().find(same).and_then(|other| other.time_added.clone());
            Taint {
                time_added: taint.time_added.clone().or(seen).or(Some(Time(now))),
                ..(*taint).clone()
            }
        };
        let dated: Vec<_> = taints.iter().map(date).collect();
        let undated = |(taint, dated): (&&Taint, &Taint)| taint.time_added.is_none().then(|| dated.clone());
        let remembered: Vec<_> = taints.iter().zip(&dated).filter_map(undated).collect();
        if !remembered.is_empty() {
            nodes.insert(node.to_owned(), remembered);
        }
        dated
    }

    /// The node is gone.
    pub fn forget(&self, node: &str) {
        self.nodes.lock().remove(node);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("a time")
    }

    fn taint(key: &str, added: Option<i64>) -> Taint {
        Taint {
            key: key.into(),
            effect: "NoExecute".into(),
            time_added: added.map(|second| Time(at(second))),
            value: None,
        }
    }

    #[test]
    fn an_undated_taint_is_as_old_as_the_first_look_at_it() {
        let seen = FirstSeen::default();
        let dates = |taints: &[&Taint], now: i64| -> Vec<i64> {
            let dated = seen.dated("node", taints, at(now));
            dated
                .iter()
                .filter_map(|taint| Some(taint.time_added.as_ref()?.0.as_second()))
                .collect()
        };
        let (mine, yours) = (taint("mine", None), taint("yours", Some(5)));
        assert_eq!(dates(&[&mine, &yours], 10), [10, 5]);
        assert_eq!(dates(&[&mine, &yours], 20), [10, 5]);
        // Gone and back again is another one.
        assert_eq!(dates(&[&yours], 30), [5]);
        assert_eq!(dates(&[&mine], 40), [40]);
        seen.forget("node");
        assert_eq!(dates(&[&mine], 50), [50]);
    }
}
