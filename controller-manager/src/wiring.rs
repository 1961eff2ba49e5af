//! Every controller there is, in one list.

use futures::future::BoxFuture;

use crate::context::Context;
use crate::{
    bootstraptokens, certificates, clusterroleaggregation, cronjob, daemonset, deployment, disruption,
    endpoints, endpointslice, endpointslicemirroring, garbagecollector, job, namespace, nodeipam,
    nodelifecycle, podgc, replicaset, replicationcontroller, resourcequota, rootca, serviceaccount,
    serviceaccounttoken, servicecidr, statefulset, tainteviction, volumeprotection,
};

/// A controller: a name for `--controllers`, and what runs until the context shuts down.
pub struct Controller {
    /// Upstream's name.
    pub name: &'static str,
    /// Group and plural name of the resource it is for: without it, there is nothing to do.
    pub resource: (&'static str, &'static str),
    /// The service account of kube-system it acts as with `--use-service-account-credentials`; `None` for what makes
    /// tokens itself, and therefore always acts as the process.
    pub account: Option<&'static str>,
    /// Starts it.
    pub run: fn(Context) -> BoxFuture<'static, ()>,
}

macro_rules! controllers {
    ($($name:literal as $account:expr, $group:literal, $resource:literal => $run:path;)*) => {
        &[$(Controller {
            name: $name,
            account: $account,
            resource: ($group, $resource),
            run: |context| Box::pin($run(context)),
        }),*]
    };
}

/// The list.
pub const CONTROLLERS: &[Controller] = controllers! {
    "deployment-controller" as Some("deployment-controller"), "apps", "deployments" => deployment::run;
    "replicaset-controller" as Some("replicaset-controller"), "apps", "replicasets" => replicaset::run;
    "replicationcontroller-controller" as Some("replication-controller"), "", "replicationcontrollers" => replicationcontroller::run;
    "daemonset-controller" as Some("daemon-set-controller"), "apps", "daemonsets" => daemonset::run;
    "statefulset-controller" as Some("statefulset-controller"), "apps", "statefulsets" => statefulset::run;
    "job-controller" as Some("job-controller"), "batch", "jobs" => job::run;
    "cronjob-controller" as Some("cronjob-controller"), "batch", "cronjobs" => cronjob::run;
    "endpoints-controller" as Some("endpoint-controller"), "", "endpoints" => endpoints::run;
    "endpointslice-controller" as Some("endpointslice-controller"), "discovery.k8s.io", "endpointslices" => endpointslice::run;
    "endpointslice-mirroring-controller" as Some("endpointslicemirroring-controller"), "discovery.k8s.io", "endpointslices" => endpointslicemirroring::run;
    "namespace-controller" as Some("namespace-controller"), "", "namespaces" => namespace::run;
    "serviceaccount-controller" as Some("service-account-controller"), "", "serviceaccounts" => serviceaccount::run;
    "serviceaccount-token-controller" as None, "", "secrets" => serviceaccounttoken::run;
    "bootstrap-signer-controller" as Some("bootstrap-signer"), "", "secrets" => bootstraptokens::signer::run;
    "token-cleaner-controller" as Some("token-cleaner"), "", "secrets" => bootstraptokens::cleaner::run;
    "root-ca-certificate-publisher-controller" as Some("root-ca-cert-publisher"), "", "configmaps" => rootca::run;
    "clusterrole-aggregation-controller" as Some("clusterrole-aggregation-controller"), "rbac.authorization.k8s.io", "clusterroles" => clusterroleaggregation::run;
    "certificatesigningrequest-approving-controller" as Some("certificate-controller"), "certificates.k8s.io", "certificatesigningrequests" => certificates::approving::run;
    "certificatesigningrequest-signing-controller" as Some("certificate-controller"), "certificates.k8s.io", "certificatesigningrequests" => certificates::signing::run;
    "certificatesigningrequest-cleaner-controller" as Some("certificate-controller"), "certificates.k8s.io", "certificatesigningrequests" => certificates::cleaner::run;
    "node-ipam-controller" as Some("node-controller"), "", "nodes" => nodeipam::run;
    "node-lifecycle-controller" as Some("node-controller"), "", "nodes" => nodelifecycle::run;
    "taint-eviction-controller" as Some("node-controller"), "", "nodes" => tainteviction::run;
    "pod-garbage-collector-controller" as Some("pod-garbage-collector"), "", "pods" => podgc::run;
    "disruption-controller" as Some("disruption-controller"), "policy", "poddisruptionbudgets" => disruption::run;
    "service-cidr-controller" as Some("service-cidrs-controller"), "networking.k8s.io", "servicecidrs" => servicecidr::run;
    "resourcequota-controller" as Some("resourcequota-controller"), "", "resourcequotas" => resourcequota::run;
    "persistentvolumeclaim-protection-controller" as Some("pvc-protection-controller"), "", "persistentvolumeclaims" => volumeprotection::run_claims;
    "persistentvolume-protection-controller" as Some("pv-protection-controller"), "", "persistentvolumes" => volumeprotection::run_volumes;
    "garbage-collector-controller" as Some("generic-garbage-collector"), "", "pods" => garbagecollector::run;
};

/// Controllers that run only when they are named.
pub const OFF: &[&str] = &["bootstrap-signer-controller", "token-cleaner-controller"];

/// The controllers that `--controllers` asks for: `*` is all that are not [`OFF`], `name` one, `-name` all but that.
///
/// # Errors
/// When a name is not that of a controller.
pub fn selected(wanted: &[String]) -> Result<Vec<&'static Controller>, String> {
    for name in wanted {
        let bare = name.strip_prefix('-').unwrap_or(name);
        if bare != "*" && !CONTROLLERS.iter().any(|controller| controller.name == bare) {
            return Err(format!(
                "--controllers: \"{bare}\" is not in the list of known controllers"
            ));
        }
    }
    let asked = |controller: &&Controller| {
        let named = |name: &str| wanted.iter().any(|wanted| wanted == name);
        if named(controller.name) {
            return true;
        }
        !named(&format!("-{}", controller.name)) && named("*") && !OFF.contains(&controller.name)
    };
    Ok(CONTROLLERS.iter().filter(asked).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(wanted: &[&str]) -> Result<Vec<&'static str>, String> {
        let wanted: Vec<String> = wanted.iter().map(|name| (*name).to_owned()).collect();
        Ok(selected(&wanted)?
            .into_iter()
            .map(|controller| controller.name)
            .collect())
    }

    #[test]
    fn controllers_are_chosen_by_name() {
        assert_eq!(
            names(&["*"]).map(|names| names.len()),
            Ok(CONTROLLERS.len() - OFF.len())
        );
        assert_eq!(
            names(&["*", OFF[0]]).map(|names| names.contains(&OFF[0])),
            Ok(true)
        );
        assert_eq!(names(&["namespace-controller"]), Ok(vec!["namespace-controller"]));
        let without = names(&["*", "-namespace-controller"]).expect("names");
        assert!(!without.contains(&"namespace-controller") && without.contains(&"deployment-controller"));
        assert!(
            names(&["nonesuch"])
                .expect_err("unknown")
                .contains("\"nonesuch\"")
        );
    }
}
