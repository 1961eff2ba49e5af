//! Every controller there is, in one list.

use futures::future::BoxFuture;

use crate::context::Context;
use crate::{
    bootstraptokens, certificates, clusterroleaggregation, cronjob, daemonset, deployment, endpoints,
    endpointslice, garbagecollector, job, namespace, nodeipam, nodelifecycle, podgc, replicaset,
    replicationcontroller, resourcequota, rootca, serviceaccount, serviceaccounttoken, statefulset,
    tainteviction, volumeprotection,
};

/// A controller: a name for `--controllers`, and what runs until the context shuts down.
pub struct Controller {
    /// Upstream's name.
    pub name: &'static str,
    /// Group and plural name of the resource it is for: without it, there is nothing to do.
    pub resource: (&'static str, &'static str),
    /// Starts it.
    pub run: fn(Context) -> BoxFuture<'static, ()>,
}

macro_rules! controllers {
    ($($name:literal, $group:literal, $resource:literal => $run:path;)*) => {
        &[$(Controller { name: $name, resource: ($group, $resource), run: |context| Box::pin($run(context)) }),*]
    };
}

/// The list.
pub const CONTROLLERS: &[Controller] = controllers! {
    "deployment-controller", "apps", "deployments" => deployment::run;
    "replicaset-controller", "apps", "replicasets" => replicaset::run;
    "replicationcontroller-controller", "", "replicationcontrollers" => replicationcontroller::run;
    "daemonset-controller", "apps", "daemonsets" => daemonset::run;
    "statefulset-controller", "apps", "statefulsets" => statefulset::run;
    "job-controller", "batch", "jobs" => job::run;
    "cronjob-controller", "batch", "cronjobs" => cronjob::run;
    "endpoints-controller", "", "endpoints" => endpoints::run;
    "endpointslice-controller", "discovery.k8s.io", "endpointslices" => endpointslice::run;
    "namespace-controller", "", "namespaces" => namespace::run;
    "serviceaccount-controller", "", "serviceaccounts" => serviceaccount::run;
    "serviceaccount-token-controller", "", "secrets" => serviceaccounttoken::run;
    "bootstrap-signer-controller", "", "secrets" => bootstraptokens::signer::run;
    "token-cleaner-controller", "", "secrets" => bootstraptokens::cleaner::run;
    "root-ca-certificate-publisher-controller", "", "configmaps" => rootca::run;
    "clusterrole-aggregation-controller", "rbac.authorization.k8s.io", "clusterroles" => clusterroleaggregation::run;
    "certificatesigningrequest-approving-controller", "certificates.k8s.io", "certificatesigningrequests" => certificates::approving::run;
    "certificatesigningrequest-signing-controller", "certificates.k8s.io", "certificatesigningrequests" => certificates::signing::run;
    "certificatesigningrequest-cleaner-controller", "certificates.k8s.io", "certificatesigningrequests" => certificates::cleaner::run;
    "node-ipam-controller", "", "nodes" => nodeipam::run;
    "node-lifecycle-controller", "", "nodes" => nodelifecycle::run;
    "taint-eviction-controller", "", "nodes" => tainteviction::run;
    "pod-garbage-collector-controller", "", "pods" => podgc::run;
    "resourcequota-controller", "", "resourcequotas" => resourcequota::run;
    "persistentvolumeclaim-protection-controller", "", "persistentvolumeclaims" => volumeprotection::run_claims;
    "persistentvolume-protection-controller", "", "persistentvolumes" => volumeprotection::run_volumes;
    "garbage-collector-controller", "", "pods" => garbagecollector::run;
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
