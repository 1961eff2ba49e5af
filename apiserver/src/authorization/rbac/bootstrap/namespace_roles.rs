//! The roles inside of kube-system and kube-public.

use super::tables::{Bound, CORE, EVENTS, Line, READ, Role, To, bound, role, rule};

const COORDINATION: &str = "coordination.k8s.io";

/// A namespace, its roles and its bindings.
pub const NAMESPACES: &[(&str, &[Role], &[Bound])] = &[
    ("kube-system", SYSTEM_ROLES, SYSTEM_BINDINGS),
    ("kube-public", PUBLIC_ROLES, PUBLIC_BINDINGS),
];

/// What it takes to lead, or to be a candidate for it.
const LEADING: &[Line] = &[
    rule("create get list update watch", COORDINATION, "leases"),
    rule("create get list update watch", COORDINATION, "leasecandidates"),
];

const SYSTEM_ROLES: &[Role] = &[
    role(
        "extension-apiserver-authentication-reader",
        &[rule(READ, CORE, "configmaps").named("extension-apiserver-authentication")],
    ),
    role(
        "system:controller:bootstrap-signer",
        &[rule(READ, CORE, "secrets")],
    ),
    role(
        "system:controller:cloud-provider",
        &[rule("create get list watch", CORE, "configmaps")],
    ),
    role(
        "system:controller:token-cleaner",
        &[rule("get list watch delete", CORE, "secrets"), EVENTS],
    ),
    role("system::leader-locking-kube-controller-manager", LEADING),
    role("system::leader-locking-kube-scheduler", LEADING),
];

const CONTROLLER_MANAGER: To = To::User("system:kube-controller-manager");
const SCHEDULER: To = To::User("system:kube-scheduler");

const SYSTEM_BINDINGS: &[Bound] = &[
    Bound {
        name: "system::extension-apiserver-authentication-reader",
        role: "extension-apiserver-authentication-reader",
        to: &[CONTROLLER_MANAGER, SCHEDULER],
    },
    bound(
        "system::leader-locking-kube-controller-manager",
        &[
            CONTROLLER_MANAGER,
            To::Account("kube-controller-manager"),
            To::Account("leader-election-controller"),
        ],
    ),
    bound(
        "system::leader-locking-kube-scheduler",
        &[SCHEDULER, To::Account("kube-scheduler")],
    ),
    bound(
        "system:controller:bootstrap-signer",
        &[To::Account("bootstrap-signer")],
    ),
    bound(
        "system:controller:cloud-provider",
        &[To::Account("cloud-provider")],
    ),
    bound("system:controller:token-cleaner", &[To::Account("token-cleaner")]),
];

const PUBLIC_ROLES: &[Role] = &[role(
    "system:controller:bootstrap-signer",
    &[
        rule(READ, CORE, "configmaps"),
        rule("update", CORE, "configmaps").named("cluster-info"),
        EVENTS,
    ],
)];

const PUBLIC_BINDINGS: &[Bound] = &[bound(
    "system:controller:bootstrap-signer",
    &[To::Account("bootstrap-signer")],
)];
