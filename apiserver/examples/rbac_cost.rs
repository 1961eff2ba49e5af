//! What one decision of RBAC costs in a cluster with the roles every cluster has and 200 more.
//!
//! `cargo run --release -p keelson-apiserver --example rbac_cost`

use std::hint::black_box;

use k8s_openapi::api::rbac::v1::{PolicyRule, RoleRef, Subject};
use keelson_apiserver::authentication::User;
use keelson_apiserver::authorization::attributes::{Attributes, Resource};
use keelson_apiserver::authorization::rbac::{Rbac, bootstrap};

/// Roles beside the bootstrap ones.
const ROLES: usize = 200;
/// Decisions measured for each question.
const TIMES: u32 = 200_000;

/// Microseconds of a processor that this thread has had so far: what others do on the machine counts less this way.
fn cpu() -> f64 {
    let schedule = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let nanoseconds = schedule.split(' ').next().and_then(|first| first.parse().ok());
    nanoseconds.unwrap_or(0.0) / 1e3
}

fn main() {
    let mut index = bootstrap::index();
    for number in 0..ROLES {
        let name = format!("role-{number}");
        let rules: Vec<PolicyRule> = (0..4)
            .map(|rule| PolicyRule {
                verbs: ["get", "list", "watch"].map(str::to_owned).to_vec(),
                api_groups: Some(vec![format!("group-{number}.example.com")]),
                resources: Some(vec![format!("things-{rule}"), format!("others-{rule}")]),
                ..PolicyRule::default()
            })
            .collect();
        index.put_role("", &name, &rules);
        let role = RoleRef {
            api_group: Some("rbac.authorization.k8s.io".into()),
            kind: "ClusterRole".into(),
            name: name.clone(),
        };
        let to = |kind: &str, name: String| Subject {
            kind: kind.into(),
            name,
            ..Subject::default()
        };
        // Everybody has one of them; one group has them all, which is the worst there is.
        let subjects = [
            to("User", format!("user-{number}")),
            to("Group", "everything".into()),
        ];
        index.put_binding("", &name, &role, &subjects);
    }
    let rbac = Rbac::from(index);
    let ask = |group, resource| {
        Attributes::resource(
            "list",
            Resource {
                group,
                resource,
                version: "v1",
                namespace: "default",
                ..Resource::default()
            },
        )
    };
    let scheduler = User::named("system:kube-scheduler", []);
    let one = User::named("user-199", []);
    let many = User::named("somebody", ["everything".to_owned()]);
    let kubelet = User::named("system:node:n1", ["system:nodes".to_owned()]);
    println!("{ROLES} roles beside the bootstrap ones, {TIMES} decisions each");
    for (what, user, attributes) in [
        ("the scheduler lists pods: allowed", &scheduler, ask("", "pods")),
        (
            "a user with one role: allowed",
            &one,
            ask("group-199.example.com", "things-3"),
        ),
        ("a user with one role: refused", &one, ask("", "secrets")),
        (
            "a kubelet, whom roles give nothing: refused",
            &kubelet,
            ask("", "pods"),
        ),
        (
            "a group with all 200 roles, the last one: allowed",
            &many,
            ask("group-199.example.com", "others-3"),
        ),
        (
            "a group with all 200 roles, none of them: refused",
            &many,
            ask("", "secrets"),
        ),
    ] {
        let begun = cpu();
        for _ in 0..TIMES {
            black_box(rbac.decide(black_box(user), black_box(&attributes)));
        }
        println!("{:>9.3} µs  {what}", (cpu() - begun) / f64::from(TIMES));
    }
}
