//! The schemas and levels every cluster has. Two of each are mandatory: their specs never change; the others are
//! suggestions an administrator may change.
//!
//! <https://kubernetes.io/docs/concepts/cluster-administration/flow-control/#mandatory-configuration-objects>

use k8s_openapi::api::flowcontrol::v1::{
    ExemptPriorityLevelConfiguration, FlowDistinguisherMethod, FlowSchema, FlowSchemaSpec, GroupSubject,
    LimitResponse, LimitedPriorityLevelConfiguration, NonResourcePolicyRule, PolicyRulesWithSubjects,
    PriorityLevelConfiguration, PriorityLevelConfigurationReference, PriorityLevelConfigurationSpec,
    QueuingConfiguration, ResourcePolicyRule, ServiceAccountSubject, Subject, UserSubject,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::{CATCH_ALL, EXEMPT};

const KUBE_SYSTEM: &str = "kube-system";
/// An administrator who wants to keep a changed object sets this to false.
const AUTO_UPDATE: &str = "apf.kubernetes.io/autoupdate-spec";
const QUEUE_LENGTH: i32 = 50;

/// A level with queues: name, shares, percent it lends, queues and how many of them a flow is dealt.
const QUEUED: &[(&str, i32, i32, i32, i32)] = &[
    ("system", 30, 33, 64, 6),
    ("node-high", 40, 25, 64, 6),
    ("leader-election", 10, 0, 16, 4),
    ("workload-high", 40, 50, 128, 6),
    ("workload-low", 100, 90, 128, 6),
    ("global-default", 20, 50, 128, 6),
];
const CATCH_ALL_SHARES: i32 = 5;

fn meta(name: &str) -> ObjectMeta {
    ObjectMeta {
        name: Some(name.to_owned()),
        annotations: Some([(AUTO_UPDATE.to_owned(), "true".to_owned())].into()),
        ..ObjectMeta::default()
    }
}

fn limited(shares: i32, lendable: i32, queues: Option<(i32, i32)>) -> PriorityLevelConfigurationSpec {
    let queuing = queues.map(|(queues, hand)| QueuingConfiguration {
        queues: Some(queues),
        hand_size: Some(hand),
        queue_length_limit: Some(QUEUE_LENGTH),
    });
    let kind = if queuing.is_some() { "Queue" } else { "Reject" };
    PriorityLevelConfigurationSpec {
        type_: "Limited".to_owned(),
        exempt: None,
        limited: Some(LimitedPriorityLevelConfiguration {
            nominal_concurrency_shares: Some(shares),
            lendable_percent: Some(lendable),
            borrowing_limit_percent: None,
            limit_response: Some(LimitResponse {
                type_: kind.to_owned(),
                queuing,
            }),
        }),
    }
}

/// Every priority level, the mandatory ones first.
pub fn priority_levels() -> Vec<PriorityLevelConfiguration> {
    let level = |name, spec| PriorityLevelConfiguration {
        metadata: meta(name),
        spec: Some(spec),
        status: None,
    };
    let exempt = PriorityLevelConfigurationSpec {
        type_: "Exempt".to_owned(),
        exempt: Some(ExemptPriorityLevelConfiguration {
            nominal_concurrency_shares: Some(0),
            lendable_percent: Some(0),
        }),
        limited: None,
    };
    let mut levels = vec![
        level(EXEMPT, exempt),
        level(CATCH_ALL, limited(CATCH_ALL_SHARES, 0, None)),
    ];
    levels.extend(QUEUED.iter().map(|&(name, shares, lendable, queues, hand)| {
        level(name, limited(shares, lendable, Some((queues, hand))))
    }));
    levels
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

fn groups(names: &[&str]) -> Vec<Subject> {
    let subject = |name: &&str| Subject {
        kind: "Group".to_owned(),
        group: Some(GroupSubject {
            name: (*name).to_owned(),
        }),
        ..Subject::default()
    };
    names.iter().map(subject).collect()
}

fn users(names: &[&str]) -> Vec<Subject> {
    let subject = |name: &&str| Subject {
        kind: "User".to_owned(),
        user: Some(UserSubject {
            name: (*name).to_owned(),
        }),
        ..Subject::default()
    };
    names.iter().map(subject).collect()
}

fn system_accounts(names: &[&str]) -> Vec<Subject> {
    let subject = |name: &&str| Subject {
        kind: "ServiceAccount".to_owned(),
        service_account: Some(ServiceAccountSubject {
            name: (*name).to_owned(),
            namespace: KUBE_SYSTEM.to_owned(),
        }),
        ..Subject::default()
    };
    names.iter().map(subject).collect()
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Reach {
    /// Objects in namespaces.
    Namespaces,
    /// Objects of the cluster too.
    Cluster,
}

fn resources(
    verbs: &[&str],
    group: &str,
    resources: &[&str],
    namespace: &str,
    reach: Reach,
) -> ResourcePolicyRule {
    ResourcePolicyRule {
        verbs: words(verbs),
        api_groups: words(&[group]),
        resources: words(resources),
        namespaces: Some(words(&[namespace])),
        cluster_scope: (reach == Reach::Cluster).then_some(true),
    }
}

fn everything(subjects: Vec<Subject>) -> PolicyRulesWithSubjects {
    PolicyRulesWithSubjects {
        subjects,
        resource_rules: Some(vec![resources(&["*"], "*", &["*"], "*", Reach::Cluster)]),
        non_resource_rules: Some(vec![NonResourcePolicyRule {
            verbs: words(&["*"]),
            non_resource_urls: words(&["*"]),
        }]),
    }
}

fn some(subjects: Vec<Subject>, rules: Vec<ResourcePolicyRule>) -> PolicyRulesWithSubjects {
    PolicyRulesWithSubjects {
        subjects,
        resource_rules: Some(rules),
        non_resource_rules: None,
    }
}

/// Name, level, precedence and what tells flows apart.
type Head = (&'static str, &'static str, i32, Option<&'static str>);

fn schema((name, level, precedence, method): Head, rules: PolicyRulesWithSubjects) -> FlowSchema {
    FlowSchema {
        metadata: meta(name),
        spec: Some(FlowSchemaSpec {
            priority_level_configuration: PriorityLevelConfigurationReference {
                name: level.to_owned(),
            },
            matching_precedence: Some(precedence),
            distinguisher_method: method.map(|method| FlowDistinguisherMethod {
                type_: method.to_owned(),
            }),
            rules: Some(vec![rules]),
        }),
        status: None,
    }
}

/// Every flow schema, the mandatory ones first.
pub fn flow_schemas() -> Vec<FlowSchema> {
    const BY_USER: Option<&str> = Some("ByUser");
    const BY_NAMESPACE: Option<&str> = Some("ByNamespace");
    const CHANGE: &[&str] = &["get", "create", "update"];
    const COORDINATION: &str = "coordination.k8s.io";
    const ANYBODY: &[&str] = &["system:unauthenticated", "system:authenticated"];
    const MANAGER: &str = "system:kube-controller-manager";
    const SCHEDULER: &str = "system:kube-scheduler";
    let leases = |verbs| resources(verbs, COORDINATION, &["leases"], "*", Reach::Namespaces);
    let locks = |namespace| {
        resources(
            CHANGE,
            "",
            &["endpoints", "configmaps"],
            namespace,
            Reach::Namespaces,
        )
    };
    let probes = PolicyRulesWithSubjects {
        subjects: groups(ANYBODY),
        resource_rules: None,
        non_resource_rules: Some(vec![NonResourcePolicyRule {
            verbs: words(&["get"]),
            non_resource_urls: words(&["/healthz", "/readyz", "/livez"]),
        }]),
    };
    let nodes = resources(&["*"], "", &["nodes", "nodes/status"], "*", Reach::Cluster);
    let endpoints = resources(CHANGE, "", &["endpoints"], "*", Reach::Namespaces);
    let mut leaders = users(&[MANAGER, SCHEDULER]);
    leaders.extend(system_accounts(&["*"]));
    let mut endpoint_controllers = users(&[MANAGER]);
    endpoint_controllers.extend(system_accounts(&[
        "endpoint-controller",
        "endpointslicemirroring-controller",
    ]));
    vec![
        schema((EXEMPT, EXEMPT, 1, None), everything(groups(&["system:masters"]))),
        schema(
            (CATCH_ALL, CATCH_ALL, 10_000, BY_USER),
            everything(groups(ANYBODY)),
        ),
        schema(("probes", EXEMPT, 2, None), probes),
        schema(
            ("system-leader-election", "leader-election", 100, BY_USER),
            some(leaders, vec![locks(KUBE_SYSTEM), leases(CHANGE)]),
        ),
        schema(
            ("endpoint-controller", "workload-high", 150, BY_USER),
            some(endpoint_controllers, vec![endpoints]),
        ),
        schema(
            ("workload-leader-election", "leader-election", 200, BY_USER),
            some(system_accounts(&["*"]), vec![locks("*"), leases(CHANGE)]),
        ),
        schema(
            ("system-node-high", "node-high", 400, BY_USER),
            some(groups(&["system:nodes"]), vec![nodes, leases(&["*"])]),
        ),
        schema(
            ("system-nodes", "system", 500, BY_USER),
            everything(groups(&["system:nodes"])),
        ),
        schema(
            ("kube-controller-manager", "workload-high", 800, BY_NAMESPACE),
            everything(users(&[MANAGER])),
        ),
        schema(
            ("kube-scheduler", "workload-high", 800, BY_NAMESPACE),
            everything(users(&[SCHEDULER])),
        ),
        schema(
            ("kube-system-service-accounts", "workload-high", 900, BY_NAMESPACE),
            everything(system_accounts(&["*"])),
        ),
        schema(
            ("service-accounts", "workload-low", 9000, BY_USER),
            everything(groups(&["system:serviceaccounts"])),
        ),
        schema(
            ("global-default", "global-default", 9900, BY_USER),
            everything(groups(ANYBODY)),
        ),
    ]
}
