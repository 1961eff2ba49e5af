//! How long a pod puts up with the taints of its node.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, Taint, Toleration};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use keelson_api::conditions;

use crate::common::tolerations::tolerates;

/// What becomes of a pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It may stay.
    Stays,
    /// It goes at that time.
    Goes(Timestamp),
}

/// Judges a pod under the taints of its node that have the effect `NoExecute`.
///
/// Time counts from when the taint was added, or from when the pod came, whichever is later.
#[must_use]
pub fn verdict(pod: &Pod, taints: &[Taint], now: Timestamp) -> Verdict {
    let tolerations = pod
        .spec
        .as_ref()
        .and_then(|spec| spec.tolerations.as_deref())
        .unwrap_or_default();
    let mut goes: Option<Timestamp> = None;
    for taint in taints {
        let at = match patience(tolerations, taint) {
            Patience::Endless => continue,
            Patience::None => now,
            Patience::Of(duration) => keelson_api::time::after(since(pod, taint, now), duration),
        };
        goes = Some(goes.map_or(at, |earlier| earlier.min(at)));
    }
    goes.map_or(Verdict::Stays, Verdict::Goes)
}

enum Patience {
    None,
    Of(Duration),
    Endless,
}

/// The shortest among the tolerations that fit.
fn patience(tolerations: &[Toleration], taint: &Taint) -> Patience {
    let mut fits = false;
    let mut shortest: Option<Duration> = None;
    for toleration in tolerations
        .iter()
        .filter(|toleration| tolerates(toleration, taint))
    {
        fits = true;
        if let Some(seconds) = toleration.toleration_seconds {
            let duration = Duration::from_secs(u64::try_from(seconds).unwrap_or_default());
            shortest = Some(shortest.map_or(duration, |other| other.min(duration)));
        }
    }
    match (fits, shortest) {
        (false, _) => Patience::None,
        (true, Some(duration)) => Patience::Of(duration),
        (true, None) => Patience::Endless,
    }
}

fn since(pod: &Pod, taint: &Taint, now: Timestamp) -> Timestamp {
    let added = taint.time_added.as_ref().map_or(now, |time| time.0);
    added.max(came(pod).map_or(added, |time| time.0))
}

/// When the pod came to its node: the kubelet says so, or else the scheduler; without either it was made for that node.
fn came(pod: &Pod) -> Option<&Time> {
    let status = pod.status.as_ref();
    let started = status.and_then(|status| status.start_time.as_ref());
    let bound = || {
        let scheduled = conditions::find(status?.conditions.as_ref(), "PodScheduled")?;
        let time = scheduled.last_transition_time.as_ref();
        time.filter(|_| scheduled.status == conditions::TRUE)
    };
    started
        .or_else(bound)
        .or(pod.metadata.creation_timestamp.as_ref())
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::{PodCondition, PodSpec};

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("a time")
    }

    fn pod(tolerations: Vec<Toleration>) -> Pod {
        Pod {
            spec: Some(PodSpec {
                tolerations: Some(tolerations),
                ..PodSpec::default()
            }),
            ..Pod::default()
        }
    }

    fn exists(key: &str, seconds: Option<i64>) -> Toleration {
        Toleration {
            key: Some(key.into()),
            operator: Some("Exists".into()),
            effect: Some("NoExecute".into()),
            toleration_seconds: seconds,
            value: None,
        }
    }

    fn taint(key: &str) -> Taint {
        Taint {
            key: key.into(),
            effect: "NoExecute".into(),
            time_added: Some(Time(at(100))),
            value: None,
        }
    }

    #[test]
    fn patience_is_counted_from_the_taint() {
        let taint = taint("lost");
        let judge = |pod: &Pod| verdict(pod, std::slice::from_ref(&taint), at(200));
        assert_eq!(judge(&pod(vec![])), Verdict::Goes(at(200)));
        assert_eq!(
            judge(&pod(vec![exists("lost", Some(300))])),
            Verdict::Goes(at(400))
        );
        assert_eq!(judge(&pod(vec![exists("lost", None)])), Verdict::Stays);
        assert_eq!(judge(&pod(vec![exists("other", None)])), Verdict::Goes(at(200)));
        assert_eq!(
            judge(&pod(vec![exists("lost", None), exists("lost", Some(5))])),
            Verdict::Goes(at(105))
        );
        let everything = Toleration {
            operator: Some("Exists".into()),
            ..Toleration::default()
        };
        assert_eq!(judge(&pod(vec![everything])), Verdict::Stays);
    }

    #[test]
    fn patience_begins_when_a_pod_comes_to_a_node_tainted_before() {
        let judge = |pod: &Pod| verdict(pod, &[taint("lost")], at(2000));
        let mut pod = pod(vec![exists("lost", Some(300))]);
        pod.metadata.creation_timestamp = Some(Time(at(1900)));
        assert_eq!(judge(&pod), Verdict::Goes(at(2200)));
        let status = pod.status.get_or_insert_default();
        status.conditions = Some(vec![PodCondition {
            type_: "PodScheduled".into(),
            status: "True".into(),
            last_transition_time: Some(Time(at(1950))),
            ..PodCondition::default()
        }]);
        assert_eq!(judge(&pod), Verdict::Goes(at(2250)));
        pod.status.get_or_insert_default().start_time = Some(Time(at(1960)));
        assert_eq!(judge(&pod), Verdict::Goes(at(2260)));
    }

    #[test]
    fn the_least_tolerated_taint_decides() {
        let (a, b) = (taint("a"), taint("b"));
        let pod = pod(vec![exists("a", Some(50)), exists("b", Some(10))]);
        assert_eq!(verdict(&pod, &[a, b], at(100)), Verdict::Goes(at(110)));
        assert_eq!(verdict(&pod, &[], at(100)), Verdict::Stays);
    }
}
