//! Which taints a pod puts up with.

use k8s_openapi::api::core::v1::{Taint, Toleration};

/// Whether the toleration covers the taint.
pub fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    let effect = toleration.effect.as_deref().unwrap_or_default();
    let key = toleration.key.as_deref().unwrap_or_default();
    // An empty effect covers all effects, an empty key with Exists all keys.
    if !effect.is_empty() && effect != taint.effect || !key.is_empty() && key != taint.key {
        return false;
    }
    let value = taint.value.as_deref().unwrap_or_default();
    let wanted = toleration.value.as_deref().unwrap_or_default();
    let numbers = || Some((value.parse::<i64>().ok()?, wanted.parse::<i64>().ok()?));
    match toleration.operator.as_deref().unwrap_or_default() {
        "" | "Equal" => value == wanted,
        "Exists" => true,
        "Lt" => numbers().is_some_and(|(value, wanted)| value < wanted),
        "Gt" => numbers().is_some_and(|(value, wanted)| value > wanted),
        _ => false,
    }
}

/// The first taint that keeps a pod with these tolerations away for good.
pub fn forbidding<'a>(taints: &'a [Taint], tolerations: &[Toleration]) -> Option<&'a Taint> {
    taints
        .iter()
        .filter(|taint| matches!(taint.effect.as_str(), "NoSchedule" | "NoExecute"))
        .find(|taint| !tolerations.iter().any(|toleration| tolerates(toleration, taint)))
}

/// How many taints would rather keep a pod with these tolerations away.
pub fn discouraging(taints: &[Taint], tolerations: &[Toleration]) -> usize {
    let soft = taints.iter().filter(|taint| taint.effect == "PreferNoSchedule");
    soft.filter(|taint| !tolerations.iter().any(|toleration| tolerates(toleration, taint)))
        .count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tolerations_cover_as_upstream_says() {
        let taint = Taint {
            key: "k".into(),
            value: Some("v".into()),
            effect: "NoSchedule".into(),
            ..Default::default()
        };
        let toleration = |key: &str, operator: &str, value: &str, effect: &str| {
            let some = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
            Toleration {
                key: some(key),
                operator: some(operator),
                value: some(value),
                effect: some(effect),
                toleration_seconds: None,
            }
        };
        for (good, key, operator, value, effect) in [
            (true, "k", "", "v", "NoSchedule"),
            (true, "k", "Equal", "v", ""),
            (true, "", "Exists", "", ""),
            (true, "k", "Exists", "", "NoSchedule"),
            (false, "k", "Equal", "other", ""),
            (false, "k", "Exists", "", "NoExecute"),
            (false, "other", "Exists", "", ""),
        ] {
            assert_eq!(
                tolerates(&toleration(key, operator, value, effect), &taint),
                good,
                "{key} {operator}"
            );
        }
    }
}
