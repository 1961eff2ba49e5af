//! What Kubernetes 1.36 gives whom in a fresh cluster, held against the tables: how many rules each role has, and what
//! they come to.

use super::*;
use crate::authentication::User;
use crate::authorization::Attributes;
use crate::authorization::attributes::Resource;
use crate::authorization::rbac::Rbac;

/// Roles of the cluster and the number of their rules; those of controllers without what their names begin with.
const RULES: &str = "
cluster-admin 2  system:discovery 1  system:monitoring 2  system:basic-user 2  system:public-info-viewer 1
admin 0  edit 0  view 0  system:aggregate-to-admin 2  system:aggregate-to-edit 15  system:aggregate-to-view 12
system:heapster 2  system:node 25  system:node-problem-detector 3  system:node-bootstrapper 1
system:auth-delegator 2  system:kube-aggregator 1  system:kube-controller-manager 11  system:kube-dns 1
system:persistent-volume-provisioner 5  system:volume-scheduler 3  system:service-account-issuer-discovery 1
system:kubelet-api-admin 4  system:node-proxier 5  system:kube-scheduler 27
system:certificates.k8s.io:certificatesigningrequests:nodeclient 1
system:certificates.k8s.io:certificatesigningrequests:selfnodeclient 1
system:certificates.k8s.io:legacy-unknown-approver 1  system:certificates.k8s.io:kubelet-serving-approver 1
system:certificates.k8s.io:kube-apiserver-client-approver 1
system:certificates.k8s.io:kube-apiserver-client-kubelet-approver 1
";
const RULES_OF_CONTROLLERS: &str = "
attachdetach-controller 8  clusterrole-aggregation-controller 1  cronjob-controller 6  daemon-set-controller 8
deployment-controller 6  disruption-controller 9  endpoint-controller 4  endpointslice-controller 4
endpointslicemirroring-controller 5  expand-controller 4  ephemeral-volume-controller 4
resource-claim-controller 7  device-taint-eviction-controller 6  generic-garbage-collector 2
horizontal-pod-autoscaler 8  job-controller 5  namespace-controller 3  node-controller 5
persistent-volume-binder 9  pod-garbage-collector 3  replicaset-controller 5  replication-controller 5
resourcequota-controller 3  route-controller 3  service-account-controller 2  service-controller 4
service-cidrs-controller 5  statefulset-controller 10  ttl-controller 2  certificate-controller 6
pvc-protection-controller 4  pv-protection-controller 2  volumeattributesclass-protection-controller 4
ttl-after-finished-controller 2  root-ca-cert-publisher 2  validatingadmissionpolicy-status-controller 3
legacy-service-account-token-cleaner 2  selinux-warning-controller 5
";
/// Roles of namespaces.
const RULES_OF_NAMESPACES: &str = "
kube-system/extension-apiserver-authentication-reader 1  kube-system/system:controller:bootstrap-signer 1
kube-system/system:controller:cloud-provider 1  kube-system/system:controller:token-cleaner 2
kube-system/system::leader-locking-kube-controller-manager 2  kube-system/system::leader-locking-kube-scheduler 2
kube-public/system:controller:bootstrap-signer 3
";

/// Who has which of them: the role, then groups (`%`), users, and service accounts of kube-system (`@`). Roles of
/// controllers are given to the account of the same name.
const GIVEN: &str = "
cluster-admin: %system:masters
system:monitoring: %system:monitoring
system:discovery: %system:authenticated
system:basic-user: %system:authenticated
system:public-info-viewer: %system:authenticated %system:unauthenticated
system:node-proxier: system:kube-proxy
system:kube-controller-manager: system:kube-controller-manager
system:kube-dns: @kube-dns
system:kube-scheduler: system:kube-scheduler
system:volume-scheduler: system:kube-scheduler
system:node:
system:service-account-issuer-discovery: %system:serviceaccounts
";

/// `+` may and `-` may not: who, verb, resource or path, then the object's name if it counts. `ns:` before a resource
/// names the namespace.
const MAY: &str = "
+ @deployment-controller update deployments.apps/status
+ @deployment-controller patch replicasets.extensions
- @deployment-controller create pods
+ @device-taint-eviction-controller delete pods
- @device-taint-eviction-controller list devicetaintrules.resource.k8s.io
- @expand-controller get services
- @persistent-volume-binder get services
+ @pvc-protection-controller update persistentvolumeclaims/status
- @pvc-protection-controller delete persistentvolumeclaims
- @resource-claim-controller list resourceclaimtemplates.resource.k8s.io
+ @resource-claim-controller patch resourceclaims.resource.k8s.io/binding
+ @selinux-warning-controller watch csidrivers.storage.k8s.io
- @selinux-warning-controller delete pods
+ @certificate-controller sign signers.certificates.k8s.io kubernetes.io/kubelet-serving
- @certificate-controller approve signers.certificates.k8s.io kubernetes.io/kubelet-serving
- @resourcequota-controller get resourcequotas
- @node-controller get leases.coordination.k8s.io
+ @clusterrole-aggregation-controller escalate clusterroles.rbac.authorization.k8s.io
- @statefulset-controller get secrets
+ @legacy-service-account-token-cleaner delete secrets
- @legacy-service-account-token-cleaner get secrets
+ @bootstrap-signer list kube-system:secrets
- @bootstrap-signer list kube-public:secrets
+ @bootstrap-signer update kube-public:configmaps cluster-info
- @bootstrap-signer update kube-public:configmaps other
+ @token-cleaner delete kube-system:secrets
- @token-cleaner delete default:secrets
+ @leader-election-controller update kube-system:leases.coordination.k8s.io anything
- @kube-controller-manager update default:leases.coordination.k8s.io anything
+ system:kube-controller-manager create serviceaccounts/token
+ system:kube-controller-manager watch widgets.example.com
- system:kube-controller-manager delete pods
- system:kube-controller-manager create pods
+ system:kube-scheduler create leasecandidates.coordination.k8s.io
+ system:kube-scheduler update pods/finalizers
- system:kube-scheduler patch pods/finalizers
+ system:kube-scheduler delete resourceclaims.resource.k8s.io
+ system:kube-scheduler list volumeattachments.storage.k8s.io
- system:kube-scheduler update leases.coordination.k8s.io other
+ system:kube-scheduler watch leases.coordination.k8s.io kube-scheduler
- system:kube-scheduler get secrets
+ system:kube-proxy watch servicecidrs.networking.k8s.io
- system:kube-proxy get secrets
+ %system:monitoring get /statusz
+ %system:monitoring get /flagz
+ %system:monitoring get nodes/metrics
- %system:monitoring get nodes
- %system:authenticated get /metrics
+ %system:authenticated get /openapi/v3
- %system:unauthenticated get /openapi/v3
+ %system:unauthenticated get /version
- %system:unauthenticated get /version/other
+ %system:serviceaccounts get /openid/v1/jwks/
- %system:nodes get pods
+ %admins create roles.rbac.authorization.k8s.io
+ %editors create events.events.k8s.io
- %editors create roles.rbac.authorization.k8s.io
- %editors create endpoints
+ %editors list secrets
+ %viewers list events.events.k8s.io
- %viewers list secrets
- %viewers create events
+ %kubelet-api-admins delete nodes/pods
- %kubelet-api-admins create nodes/checkpoint
";

fn counts(text: &str) -> Vec<(&str, usize)> {
    let words: Vec<&str> = text.split_whitespace().collect();
    let pairs = words
        .chunks(2)
        .map(|pair| (pair[0], pair[1].parse().expect("a number")));
    let mut counts: Vec<(&str, usize)> = pairs.collect();
    counts.sort_unstable();
    counts
}

/// Ours are not among the facts.
fn theirs(name: &str) -> bool {
    !name.starts_with("keelson:")
}

#[test]
fn roles_have_upstream_s_rules() {
    let mut ours: Vec<(&str, usize)> = cluster_roles::ROLES
        .iter()
        .filter(|role| theirs(role.name))
        .map(|role| (role.name, role.lines.len()))
        .collect();
    ours.sort_unstable();
    assert_eq!(ours, counts(RULES));
    let controllers = controller_roles::CONTROLLERS.iter();
    let mut ours: Vec<(&str, usize)> = controllers.map(|(name, lines)| (*name, lines.len())).collect();
    ours.sort_unstable();
    assert_eq!(ours, counts(RULES_OF_CONTROLLERS));
    let mut ours: Vec<(String, usize)> = Vec::new();
    for (namespace, roles, _) in namespace_roles::NAMESPACES {
        ours.extend(
            roles
                .iter()
                .map(|role| (format!("{namespace}/{}", role.name), role.lines.len())),
        );
    }
    ours.sort_unstable();
    let wanted: Vec<(String, usize)> = counts(RULES_OF_NAMESPACES)
        .into_iter()
        .map(|(name, count)| (name.to_owned(), count))
        .collect();
    assert_eq!(ours, wanted);
}

#[test]
fn roles_are_given_to_whom_upstream_gives_them() {
    let subject = |to: &To| match to {
        To::User(name) => (*name).to_owned(),
        To::Group(name) => format!("%{name}"),
        To::Account(name) => format!("@{name}"),
    };
    let mut ours: Vec<(String, Vec<String>)> = cluster_roles::BINDINGS
        .iter()
        .filter(|bound| theirs(bound.name))
        .map(|bound| (bound.role.to_owned(), bound.to.iter().map(subject).collect()))
        .collect();
    ours.sort_unstable();
    let mut wanted: Vec<(String, Vec<String>)> = GIVEN
        .lines()
        .filter(|line| !line.is_empty())
        .map(|line| {
            let (role, to) = line
                .rsplit_once(':')
                .filter(|(_, to)| to.is_empty())
                .unwrap_or_else(|| line.split_once(": ").expect("a role and a colon"));
            (
                role.to_owned(),
                to.split_whitespace().map(str::to_owned).collect(),
            )
        })
        .collect();
    wanted.sort_unstable();
    assert_eq!(ours, wanted);
}

#[test]
fn a_fresh_cluster_allows_what_upstream_s_does() {
    let mut index = index();
    // These roles are given to nobody.
    for (group, role) in [
        ("admins", "admin"),
        ("editors", "edit"),
        ("viewers", "view"),
        ("kubelet-api-admins", "system:kubelet-api-admin"),
    ] {
        let name = format!("{role} of {group}");
        let group = Subject {
            kind: "Group".into(),
            name: group.into(),
            ..Subject::default()
        };
        index.put_binding("", &name, &reference("ClusterRole", role), &[group]);
    }
    let rbac = Rbac::from(index);
    for line in MAY.lines().filter(|line| !line.is_empty()) {
        let mut words = line.split(' ');
        let mut next = || words.next().unwrap_or_default();
        let (sign, who, verb, what, name) = (next(), next(), next(), next(), next());
        let mut user = match who.strip_prefix('@') {
            Some(account) => User::named(format!("system:serviceaccount:kube-system:{account}"), []),
            None => User::named(who, []),
        };
        if let Some(group) = who.strip_prefix('%') {
            user.groups = vec![group.to_owned()];
        }
        let (namespace, what) = match what.split_once(':') {
            Some(parts) if !what.starts_with('/') => parts,
            _ => ("", what),
        };
        let (full, subresource) = match what.rsplit_once('/') {
            Some(parts) if !what.starts_with('/') => parts,
            _ => (what, ""),
        };
        let (resource, group) = full.split_once('.').unwrap_or((full, ""));
        let attributes = if what.starts_with('/') {
            Attributes::path(verb, what)
        } else {
            Attributes::resource(
                verb,
                Resource {
                    group,
                    resource,
                    subresource,
                    namespace,
                    name,
                    ..Resource::default()
                },
            )
        };
        assert_eq!(rbac.decide(&user, &attributes).allowed(), sign == "+", "{line}");
    }
}
