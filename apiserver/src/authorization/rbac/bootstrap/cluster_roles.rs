//! The roles for users, nodes and components.
//!
//! <https://kubernetes.io/docs/reference/access-authn-authz/rbac/#default-roles-and-role-bindings>

use super::tables::{
    Bound, CORE, EVENTS, EVENTS_GROUPS, Line, READ, READ_UPDATE, READ_WRITE, Role, To, WRITE, bound, role,
    rule, urls,
};

const APPS: &str = "apps";
const AUTHENTICATION: &str = "authentication.k8s.io";
const AUTHORIZATION: &str = "authorization.k8s.io";
const BATCH: &str = "batch";
const CERTIFICATES: &str = "certificates.k8s.io";
const COORDINATION: &str = "coordination.k8s.io";
const DISCOVERY: &str = "discovery.k8s.io";
const EXTENSIONS: &str = "extensions";
const NETWORKING: &str = "networking.k8s.io";
const POLICY: &str = "policy";
const RBAC: &str = "rbac.authorization.k8s.io";
const RESOURCE: &str = "resource.k8s.io";
const STORAGE: &str = "storage.k8s.io";

/// What the Node authorizer lets every node do with what belongs to no node in particular; also the role `system:node`,
/// which is bound to nobody.
pub const NODE: &[Line] = &[
    rule("create", AUTHENTICATION, "tokenreviews"),
    rule(
        "create",
        AUTHORIZATION,
        "subjectaccessreviews localsubjectaccessreviews",
    ),
    rule(READ, CORE, "services"),
    rule("create get list watch", CORE, "nodes"),
    rule("update patch", CORE, "nodes/status"),
    rule("update patch", CORE, "nodes"),
    EVENTS,
    rule(READ, CORE, "pods"),
    rule("create delete", CORE, "pods"),
    rule("update patch", CORE, "pods/status"),
    rule("create", CORE, "pods/eviction"),
    rule(READ, CORE, "secrets configmaps"),
    rule("get", CORE, "persistentvolumeclaims persistentvolumes"),
    rule("get", CORE, "endpoints"),
    rule(
        "create get list watch",
        CERTIFICATES,
        "certificatesigningrequests",
    ),
    rule("get create update patch delete", COORDINATION, "leases"),
    rule("get", STORAGE, "volumeattachments"),
    rule("create", CORE, "serviceaccounts/token"),
    rule("get update patch", CORE, "persistentvolumeclaims/status"),
    rule(READ, STORAGE, "csidrivers"),
    rule("get create update patch delete", STORAGE, "csinodes"),
    rule(READ, "node.k8s.io", "runtimeclasses"),
    rule("get", RESOURCE, "resourceclaims"),
    rule("deletecollection", RESOURCE, "resourceslices"),
    rule("get", CORE, "serviceaccounts"),
];

/// The roles of the cluster.
pub const ROLES: &[Role] = &[
    role("cluster-admin", &[rule("*", "*", "*"), urls("*", "*")]),
    role(
        "system:discovery",
        &[urls(
            "get",
            "/livez /readyz /healthz /version /version/ /openapi /openapi/* /api /api/* /apis /apis/*",
        )],
    ),
    role(
        "system:monitoring",
        &[
            urls(
                "get",
                "/livez /readyz /healthz /livez/* /readyz/* /healthz/* /metrics /metrics/slis /flagz /statusz",
            ),
            rule("get", CORE, "nodes/metrics"),
        ],
    ),
    role(
        "system:basic-user",
        &[
            rule(
                "create",
                AUTHORIZATION,
                "selfsubjectaccessreviews selfsubjectrulesreviews",
            ),
            rule("create", AUTHENTICATION, "selfsubjectreviews"),
        ],
    ),
    role(
        "system:public-info-viewer",
        &[urls("get", "/livez /readyz /healthz /version /version/")],
    ),
    role("admin", &[]).of_parts(),
    role("edit", &[]).of_parts().part_of("admin"),
    role("view", &[]).of_parts().part_of("edit"),
    role(
        "system:aggregate-to-admin",
        &[
            rule("create", AUTHORIZATION, "localsubjectaccessreviews"),
            rule(READ_WRITE, RBAC, "roles rolebindings"),
        ],
    )
    .part_of("admin"),
    role(
        "system:aggregate-to-edit",
        &[
            rule(
                READ,
                CORE,
                "pods/attach pods/proxy pods/exec pods/portforward secrets services/proxy",
            ),
            rule("impersonate", CORE, "serviceaccounts"),
            rule(
                WRITE,
                CORE,
                "pods pods/attach pods/proxy pods/exec pods/portforward",
            ),
            rule("create", CORE, "pods/eviction"),
            rule(
                WRITE,
                CORE,
                "replicationcontrollers replicationcontrollers/scale serviceaccounts services services/proxy persistentvolumeclaims configmaps secrets",
            ),
            rule("create", CORE, "serviceaccounts/token"),
            rule(WRITE, EVENTS_GROUPS, "events"),
            rule(
                WRITE,
                APPS,
                "statefulsets statefulsets/scale daemonsets deployments deployments/scale deployments/rollback replicasets replicasets/scale",
            ),
            rule(WRITE, "autoscaling", "horizontalpodautoscalers"),
            rule(WRITE, BATCH, "jobs cronjobs"),
            rule(
                WRITE,
                EXTENSIONS,
                "daemonsets deployments deployments/scale deployments/rollback ingresses replicasets replicasets/scale replicationcontrollers/scale networkpolicies",
            ),
            rule(WRITE, POLICY, "poddisruptionbudgets"),
            rule(WRITE, NETWORKING, "networkpolicies ingresses"),
            rule(READ_WRITE, COORDINATION, "leases"),
            rule(WRITE, RESOURCE, "resourceclaims resourceclaimtemplates"),
        ],
    )
    .part_of("edit"),
    role(
        "system:aggregate-to-view",
        &[
            rule(
                READ,
                CORE,
                "pods replicationcontrollers replicationcontrollers/scale serviceaccounts services services/status endpoints persistentvolumeclaims persistentvolumeclaims/status configmaps",
            ),
            rule(
                READ,
                CORE,
                "limitranges resourcequotas bindings pods/status resourcequotas/status namespaces/status replicationcontrollers/status pods/log",
            ),
            rule(READ, CORE, "namespaces"),
            rule(READ, EVENTS_GROUPS, "events"),
            rule(READ, DISCOVERY, "endpointslices"),
            rule(
                READ,
                APPS,
                "controllerrevisions statefulsets statefulsets/status statefulsets/scale daemonsets daemonsets/status deployments deployments/status deployments/scale replicasets replicasets/status replicasets/scale",
            ),
            rule(
                READ,
                "autoscaling",
                "horizontalpodautoscalers horizontalpodautoscalers/status",
            ),
            rule(READ, BATCH, "jobs cronjobs cronjobs/status jobs/status"),
            rule(
                READ,
                EXTENSIONS,
                "daemonsets daemonsets/status deployments deployments/scale deployments/status ingresses ingresses/status replicasets replicasets/scale replicasets/status replicationcontrollers/scale networkpolicies",
            ),
            rule(READ, POLICY, "poddisruptionbudgets poddisruptionbudgets/status"),
            rule(READ, NETWORKING, "networkpolicies ingresses ingresses/status"),
            rule(
                READ,
                RESOURCE,
                "resourceclaims resourceclaims/status resourceclaimtemplates",
            ),
        ],
    )
    .part_of("view"),
    role(
        "system:heapster",
        &[
            rule(READ, CORE, "events pods nodes namespaces"),
            rule(READ, EXTENSIONS, "deployments"),
        ],
    ),
    role("system:node", NODE),
    role(
        "system:node-problem-detector",
        &[
            rule("get", CORE, "nodes"),
            rule("patch", CORE, "nodes/status"),
            EVENTS,
        ],
    ),
    role(
        "system:kubelet-api-admin",
        &[
            rule(READ, CORE, "nodes"),
            rule("proxy", CORE, "nodes"),
            rule("*", CORE, "nodes/proxy nodes/metrics nodes/stats nodes/log"),
            rule("*", CORE, "nodes/pods nodes/healthz nodes/configz"),
        ],
    ),
    role(
        "system:node-bootstrapper",
        &[rule(
            "create get list watch",
            CERTIFICATES,
            "certificatesigningrequests",
        )],
    ),
    role(
        "system:auth-delegator",
        &[
            rule("create", AUTHENTICATION, "tokenreviews"),
            rule("create", AUTHORIZATION, "subjectaccessreviews"),
        ],
    ),
    role("system:kube-aggregator", &[rule(READ, CORE, "services endpoints")]),
    role(
        "system:kube-controller-manager",
        &[
            EVENTS,
            rule("create", COORDINATION, "leases"),
            rule("get update", COORDINATION, "leases").named("kube-controller-manager"),
            rule("create", CORE, "secrets serviceaccounts"),
            rule("delete", CORE, "secrets"),
            rule("get", CORE, "namespaces secrets serviceaccounts configmaps"),
            rule("update", CORE, "secrets serviceaccounts"),
            rule("create", AUTHENTICATION, "tokenreviews"),
            rule("create", AUTHORIZATION, "subjectaccessreviews"),
            rule("list watch", "*", "*"),
            rule("create", CORE, "serviceaccounts/token"),
        ],
    ),
    role("system:kube-dns", &[rule("list watch", CORE, "endpoints services")]),
    role(
        "system:persistent-volume-provisioner",
        &[
            rule("get list watch create delete", CORE, "persistentvolumes"),
            rule("get list watch update", CORE, "persistentvolumeclaims"),
            rule(READ, STORAGE, "storageclasses"),
            rule("watch", CORE, "events"),
            EVENTS,
        ],
    ),
    role(
        "system:certificates.k8s.io:certificatesigningrequests:nodeclient",
        &[rule(
            "create",
            CERTIFICATES,
            "certificatesigningrequests/nodeclient",
        )],
    ),
    role(
        "system:certificates.k8s.io:certificatesigningrequests:selfnodeclient",
        &[rule(
            "create",
            CERTIFICATES,
            "certificatesigningrequests/selfnodeclient",
        )],
    ),
    role(
        "system:volume-scheduler",
        &[
            rule(READ_UPDATE, CORE, "persistentvolumes"),
            rule(READ, STORAGE, "storageclasses"),
            rule(READ_UPDATE, CORE, "persistentvolumeclaims"),
        ],
    ),
    role(
        "system:certificates.k8s.io:legacy-unknown-approver",
        &[rule("approve", CERTIFICATES, "signers").named("kubernetes.io/legacy-unknown")],
    ),
    role(
        "system:certificates.k8s.io:kubelet-serving-approver",
        &[rule("approve", CERTIFICATES, "signers").named("kubernetes.io/kubelet-serving")],
    ),
    role(
        "system:certificates.k8s.io:kube-apiserver-client-approver",
        &[rule("approve", CERTIFICATES, "signers").named("kubernetes.io/kube-apiserver-client")],
    ),
    role(
        "system:certificates.k8s.io:kube-apiserver-client-kubelet-approver",
        &[rule("approve", CERTIFICATES, "signers").named("kubernetes.io/kube-apiserver-client-kubelet")],
    ),
    role(
        "system:service-account-issuer-discovery",
        &[urls(
            "get",
            "/.well-known/openid-configuration /.well-known/openid-configuration/ /openid/v1/jwks /openid/v1/jwks/",
        )],
    ),
    role(
        "system:node-proxier",
        &[
            rule("list watch", CORE, "services endpoints"),
            rule(READ, CORE, "nodes"),
            EVENTS,
            rule("list watch", NETWORKING, "servicecidrs"),
            rule("list watch", DISCOVERY, "endpointslices"),
        ],
    ),
    role(
        "system:kube-scheduler",
        &[
            EVENTS,
            rule("create", COORDINATION, "leases"),
            rule("get update list watch", COORDINATION, "leases").named("kube-scheduler"),
            rule(READ_WRITE, COORDINATION, "leasecandidates"),
            rule(READ, CORE, "nodes"),
            rule("get list watch delete", CORE, "pods"),
            rule("create", CORE, "pods/binding bindings"),
            rule("patch update", CORE, "pods/status"),
            rule(READ, CORE, "services replicationcontrollers"),
            rule(READ, "apps extensions", "replicasets"),
            rule(READ, APPS, "statefulsets"),
            rule(READ, POLICY, "poddisruptionbudgets"),
            rule(READ, CORE, "persistentvolumeclaims persistentvolumes"),
            rule("create", AUTHENTICATION, "tokenreviews"),
            rule("create", AUTHORIZATION, "subjectaccessreviews"),
            rule(READ, STORAGE, "csinodes"),
            rule(READ, STORAGE, "volumeattachments"),
            rule(READ, CORE, "namespaces"),
            rule(READ, STORAGE, "csidrivers"),
            rule(READ, STORAGE, "csistoragecapacities"),
            rule(READ, RESOURCE, "deviceclasses"),
            rule(READ_UPDATE, RESOURCE, "resourceclaims"),
            rule(READ_UPDATE, RESOURCE, "resourceclaims/status"),
            rule("update", CORE, "pods/finalizers"),
            rule(READ, RESOURCE, "resourceslices"),
            rule("create delete", RESOURCE, "resourceclaims"),
            rule("update patch", RESOURCE, "resourceclaims/binding"),
        ],
    ),
    // Finalizers of storage are patched here, not updated.
    role(
        "keelson:storage-protection",
        &[rule("patch", CORE, "persistentvolumes persistentvolumeclaims")],
    ),
    // What kube-proxy enforces beside services: it is this cluster's network.
    role(
        "keelson:network",
        &[
            rule(READ, CORE, "pods namespaces"),
            rule(READ, NETWORKING, "networkpolicies"),
            rule("patch", CORE, "nodes/status"),
        ],
    ),
];

const AUTHENTICATED: To = To::Group("system:authenticated");

/// Who has the roles of the cluster.
pub const BINDINGS: &[Bound] = &[
    bound("cluster-admin", &[To::Group("system:masters")]),
    bound("system:monitoring", &[To::Group("system:monitoring")]),
    bound("system:discovery", &[AUTHENTICATED]),
    bound("system:basic-user", &[AUTHENTICATED]),
    bound(
        "system:public-info-viewer",
        &[AUTHENTICATED, To::Group("system:unauthenticated")],
    ),
    bound("system:node-proxier", &[To::User("system:kube-proxy")]),
    bound(
        "system:kube-controller-manager",
        &[To::User("system:kube-controller-manager")],
    ),
    bound("system:kube-dns", &[To::Account("kube-dns")]),
    bound("system:kube-scheduler", &[To::User("system:kube-scheduler")]),
    bound("system:volume-scheduler", &[To::User("system:kube-scheduler")]),
    bound("system:node", &[]),
    bound(
        "system:service-account-issuer-discovery",
        &[To::Group("system:serviceaccounts")],
    ),
    bound(
        "keelson:storage-protection",
        &[
            To::Account("pvc-protection-controller"),
            To::Account("pv-protection-controller"),
            To::Account("statefulset-controller"),
        ],
    ),
    // Jobs that may go some time after their end are removed by who runs them.
    Bound {
        name: "keelson:ttl-after-finished",
        role: "system:controller:ttl-after-finished-controller",
        to: &[To::Account("job-controller")],
    },
    bound("keelson:network", &[To::User("system:kube-proxy")]),
];
