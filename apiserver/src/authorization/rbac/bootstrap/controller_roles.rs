//! The roles of the controllers, one each; `system:controller:NAME` is given to the service account NAME of kube-system.
//!
//! <https://kubernetes.io/docs/reference/access-authn-authz/rbac/#controller-roles>

use super::tables::{CORE, EVENTS, Line, READ, rule};

const APPS: &str = "apps";
const BATCH: &str = "batch";
const CERTIFICATES: &str = "certificates.k8s.io";
const DISCOVERY: &str = "discovery.k8s.io";
const EXTENSIONS_APPS: &str = "extensions apps";
const NETWORKING: &str = "networking.k8s.io";
const POLICY: &str = "policy";
const RESOURCE: &str = "resource.k8s.io";
const STORAGE: &str = "storage.k8s.io";

/// What the names of their roles begin with.
pub const PREFIX: &str = "system:controller:";

/// Each controller and what its role allows.
pub const CONTROLLERS: &[(&str, &[Line])] = &[
    (
        "attachdetach-controller",
        &[
            rule("list watch", CORE, "persistentvolumes persistentvolumeclaims"),
            rule(READ, CORE, "nodes"),
            rule("patch update", CORE, "nodes/status"),
            rule("list watch", CORE, "pods"),
            EVENTS,
            rule("get create delete list watch", STORAGE, "volumeattachments"),
            rule(READ, STORAGE, "csidrivers"),
            rule(READ, STORAGE, "csinodes"),
        ],
    ),
    (
        "clusterrole-aggregation-controller",
        &[rule(
            "escalate get list watch update patch",
            "rbac.authorization.k8s.io",
            "clusterroles",
        )],
    ),
    (
        "cronjob-controller",
        &[
            rule("get list watch update", BATCH, "cronjobs"),
            rule("get list watch create update delete patch", BATCH, "jobs"),
            rule("update", BATCH, "cronjobs/status"),
            rule("update", BATCH, "cronjobs/finalizers"),
            rule("list watch delete", CORE, "pods"),
            EVENTS,
        ],
    ),
    (
        "daemon-set-controller",
        &[
            rule(READ, EXTENSIONS_APPS, "daemonsets"),
            rule("update", EXTENSIONS_APPS, "daemonsets/status"),
            rule("update", EXTENSIONS_APPS, "daemonsets/finalizers"),
            rule("list watch", CORE, "nodes"),
            rule("list watch create delete patch", CORE, "pods"),
            rule("create", CORE, "pods/binding"),
            rule(
                "get list watch create delete update patch",
                APPS,
                "controllerrevisions",
            ),
            EVENTS,
        ],
    ),
    (
        "deployment-controller",
        &[
            rule("get list watch update", EXTENSIONS_APPS, "deployments"),
            rule("update", EXTENSIONS_APPS, "deployments/status"),
            rule("update", EXTENSIONS_APPS, "deployments/finalizers"),
            rule(
                "get list watch create update patch delete",
                EXTENSIONS_APPS,
                "replicasets",
            ),
            rule("get list watch update", CORE, "pods"),
            EVENTS,
        ],
    ),
    (
        "disruption-controller",
        &[
            rule(READ, EXTENSIONS_APPS, "deployments"),
            rule(READ, EXTENSIONS_APPS, "replicasets"),
            rule(READ, CORE, "replicationcontrollers"),
            rule(READ, POLICY, "poddisruptionbudgets"),
            rule(READ, APPS, "statefulsets"),
            rule("update", POLICY, "poddisruptionbudgets/status"),
            rule("patch update", CORE, "pods/status"),
            rule("get", "*", "*/scale"),
            EVENTS,
        ],
    ),
    (
        "endpoint-controller",
        &[
            rule(READ, CORE, "services pods"),
            rule("get list watch create update delete", CORE, "endpoints"),
            rule("create", CORE, "endpoints/restricted"),
            EVENTS,
        ],
    ),
    (
        "endpointslice-controller",
        &[
            rule(READ, CORE, "services pods nodes"),
            rule("update", CORE, "services/finalizers"),
            rule("get list watch create update delete", DISCOVERY, "endpointslices"),
            EVENTS,
        ],
    ),
    (
        "endpointslicemirroring-controller",
        &[
            rule(READ, CORE, "services endpoints"),
            rule("update", CORE, "services/finalizers"),
            rule("update", CORE, "endpoints/finalizers"),
            rule("get list watch create update delete", DISCOVERY, "endpointslices"),
            EVENTS,
        ],
    ),
    (
        "expand-controller",
        &[
            rule("get list watch update patch", CORE, "persistentvolumes"),
            rule("update patch", CORE, "persistentvolumeclaims/status"),
            rule(READ, CORE, "persistentvolumeclaims"),
            EVENTS,
        ],
    ),
    (
        "ephemeral-volume-controller",
        &[
            rule(READ, CORE, "pods"),
            rule("update", CORE, "pods/finalizers"),
            rule("get list watch create", CORE, "persistentvolumeclaims"),
            EVENTS,
        ],
    ),
    (
        "resource-claim-controller",
        &[
            rule(READ, CORE, "pods"),
            rule("update", CORE, "pods/finalizers"),
            rule("get list watch create delete", RESOURCE, "resourceclaims"),
            rule("update patch", RESOURCE, "resourceclaims resourceclaims/status"),
            rule("update patch", CORE, "pods/status"),
            EVENTS,
            rule("update patch", RESOURCE, "resourceclaims/binding"),
        ],
    ),
    (
        "device-taint-eviction-controller",
        &[
            rule("get list watch delete", CORE, "pods"),
            rule("update patch", CORE, "pods/status"),
            rule(READ, RESOURCE, "resourceclaims"),
            rule(READ, RESOURCE, "resourceslices"),
            rule(READ, RESOURCE, "deviceclasses"),
            EVENTS,
        ],
    ),
    (
        "generic-garbage-collector",
        &[
            rule("get list watch patch update delete", "*", "*"),
            EVENTS,
        ],
    ),
    (
        "horizontal-pod-autoscaler",
        &[
            rule(READ, "autoscaling", "horizontalpodautoscalers"),
            rule("update", "autoscaling", "horizontalpodautoscalers/status"),
            rule("get update", "*", "*/scale"),
            rule("list watch", CORE, "pods"),
            rule("list watch", "metrics.k8s.io", "pods"),
            rule(READ, "custom.metrics.k8s.io", "*"),
            rule(READ, "external.metrics.k8s.io", "*"),
            EVENTS,
        ],
    ),
    (
        "job-controller",
        &[
            rule("get list watch update patch", BATCH, "jobs"),
            rule("update", BATCH, "jobs/status"),
            rule("update", BATCH, "jobs/finalizers"),
            rule("list watch create delete patch", CORE, "pods"),
            EVENTS,
        ],
    ),
    (
        "namespace-controller",
        &[
            rule("get list watch delete", CORE, "namespaces"),
            rule("update", CORE, "namespaces/finalize namespaces/status"),
            rule("get list watch delete deletecollection", "*", "*"),
        ],
    ),
    (
        "node-controller",
        &[
            rule("get list watch update delete patch", CORE, "nodes"),
            rule("patch update", CORE, "nodes/status"),
            rule("patch update", CORE, "pods/status"),
            rule("list watch get delete", CORE, "pods"),
            EVENTS,
        ],
    ),
    (
        "persistent-volume-binder",
        &[
            rule("get list watch update create delete", CORE, "persistentvolumes"),
            rule("update", CORE, "persistentvolumes/status"),
            rule("get list watch update", CORE, "persistentvolumeclaims"),
            rule("update", CORE, "persistentvolumeclaims/status"),
            rule("list watch get create delete", CORE, "pods"),
            rule(READ, STORAGE, "storageclasses"),
            rule("list watch", CORE, "nodes"),
            EVENTS,
            rule("watch", CORE, "events"),
        ],
    ),
    (
        "pod-garbage-collector",
        &[
            rule("list watch delete", CORE, "pods"),
            rule(READ, CORE, "nodes"),
            rule("patch", CORE, "pods/status"),
        ],
    ),
    (
        "replicaset-controller",
        &[
            rule("get list watch update", EXTENSIONS_APPS, "replicasets"),
            rule("update", EXTENSIONS_APPS, "replicasets/status"),
            rule("update", EXTENSIONS_APPS, "replicasets/finalizers"),
            rule("list watch patch create delete", CORE, "pods"),
            EVENTS,
        ],
    ),
    (
        "replication-controller",
        &[
            rule("get list watch update", CORE, "replicationcontrollers"),
            rule("update", CORE, "replicationcontrollers/status"),
            rule("update", CORE, "replicationcontrollers/finalizers"),
            rule("list watch patch create delete", CORE, "pods"),
            EVENTS,
        ],
    ),
    (
        "resourcequota-controller",
        &[
            rule("list watch", "*", "*"),
            rule("update", CORE, "resourcequotas/status"),
            EVENTS,
        ],
    ),
    (
        "route-controller",
        &[
            rule("list watch", CORE, "nodes"),
            rule("patch", CORE, "nodes/status"),
            EVENTS,
        ],
    ),
    (
        "service-account-controller",
        &[rule("create", CORE, "serviceaccounts"), EVENTS],
    ),
    (
        "service-controller",
        &[
            rule(READ, CORE, "services"),
            rule("patch update", CORE, "services/status"),
            rule("list watch", CORE, "nodes"),
            EVENTS,
        ],
    ),
    (
        "service-cidrs-controller",
        &[
            rule("get list watch patch update", NETWORKING, "servicecidrs"),
            rule("patch update", NETWORKING, "servicecidrs/finalizers"),
            rule("patch update", NETWORKING, "servicecidrs/status"),
            rule(READ, NETWORKING, "ipaddresses"),
            EVENTS,
        ],
    ),
    (
        "statefulset-controller",
        &[
            rule("list watch", CORE, "pods"),
            rule(READ, APPS, "statefulsets"),
            rule("update", APPS, "statefulsets/status"),
            rule("update", APPS, "statefulsets/finalizers"),
            rule("get create delete update patch", CORE, "pods"),
            rule(
                "get create delete update patch list watch",
                APPS,
                "controllerrevisions",
            ),
            rule("get create list watch", CORE, "persistentvolumeclaims"),
            rule("update delete", CORE, "persistentvolumeclaims"),
            rule("update", CORE, "pods/finalizers"),
            EVENTS,
        ],
    ),
    (
        "ttl-controller",
        &[rule("update patch list watch", CORE, "nodes"), EVENTS],
    ),
    (
        "certificate-controller",
        &[
            rule(
                "get list watch delete",
                CERTIFICATES,
                "certificatesigningrequests",
            ),
            rule(
                "update",
                CERTIFICATES,
                "certificatesigningrequests/status certificatesigningrequests/approval",
            ),
            rule("approve", CERTIFICATES, "signers").named("kubernetes.io/kube-apiserver-client-kubelet"),
            rule("sign", CERTIFICATES, "signers").named(
                "kubernetes.io/legacy-unknown kubernetes.io/kube-apiserver-client kubernetes.io/kube-apiserver-client-kubelet kubernetes.io/kubelet-serving",
            ),
            rule("create", "authorization.k8s.io", "subjectaccessreviews"),
            EVENTS,
        ],
    ),
    (
        "pvc-protection-controller",
        &[
            rule("get list watch update", CORE, "persistentvolumeclaims"),
            rule("update", CORE, "persistentvolumeclaims/status"),
            rule("list watch get", CORE, "pods"),
            EVENTS,
        ],
    ),
    (
        "pv-protection-controller",
        &[rule("get list watch update", CORE, "persistentvolumes"), EVENTS],
    ),
    (
        "volumeattributesclass-protection-controller",
        &[
            rule("list watch get", CORE, "persistentvolumeclaims"),
            rule("list watch get", CORE, "persistentvolumes"),
            rule("get list watch update", STORAGE, "volumeattributesclasses"),
            EVENTS,
        ],
    ),
    (
        "ttl-after-finished-controller",
        &[rule("get list watch delete", BATCH, "jobs"), EVENTS],
    ),
    (
        "root-ca-cert-publisher",
        &[rule("create update", CORE, "configmaps"), EVENTS],
    ),
    (
        "validatingadmissionpolicy-status-controller",
        &[
            rule(READ, "admissionregistration.k8s.io", "validatingadmissionpolicies"),
            rule(
                "get patch update",
                "admissionregistration.k8s.io",
                "validatingadmissionpolicies/status",
            ),
            EVENTS,
        ],
    ),
    (
        "legacy-service-account-token-cleaner",
        &[
            rule("get", CORE, "configmaps").named("kube-apiserver-legacy-service-account-token-tracking"),
            rule("patch delete", CORE, "secrets"),
        ],
    ),
    (
        "selinux-warning-controller",
        &[
            EVENTS,
            rule(READ, CORE, "persistentvolumes"),
            rule(READ, CORE, "persistentvolumeclaims"),
            rule(READ, CORE, "pods"),
            rule(READ, STORAGE, "csidrivers"),
        ],
    ),
];
