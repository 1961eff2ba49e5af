//! The pods of a job.

use std::collections::BTreeMap;

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{Container, EnvVar, EnvVarSource, ObjectFieldSelector, Pod};
use keelson_api::deletion::{JOB_TRACKING_FINALIZER, add_finalizer};
use keelson_api::object::Object as _;
use keelson_api::owners::new_controller_ref;

use crate::common::template;

/// Which completion of an indexed job a pod works on: label and annotation.
pub const COMPLETION_INDEX: &str = "batch.kubernetes.io/job-completion-index";
/// How often the pod's index has failed before.
pub const INDEX_FAILURES: &str = "batch.kubernetes.io/job-index-failure-count";
const INDEX_VARIABLE: &str = "JOB_COMPLETION_INDEX";
/// Names made by the server end with five characters of its own, and a hostname has at most 63.
const LONGEST_HOSTNAME: usize = 63;

/// A pod for the job, for an index if the job is indexed.
#[must_use]
pub fn new(job: &Job, index: Option<i32>, index_failures: Option<i32>) -> Option<Pod> {
    let template = &job.spec.as_ref()?.template;
    let mut pod = template::pod_from(template, job.namespace(), new_controller_ref(job));
    add_finalizer(&mut pod.metadata, JOB_TRACKING_FINALIZER);
    let Some(index) = index else { return Some(pod) };
    pod.metadata.generate_name = Some(format!("{}-{index}-", job.name()));
    let set = |map: &mut Option<BTreeMap<String, String>>, key: &str, value: String| {
        map.get_or_insert_default().insert(key.to_owned(), value);
    };
    set(&mut pod.metadata.labels, COMPLETION_INDEX, index.to_string());
    set(&mut pod.metadata.annotations, COMPLETION_INDEX, index.to_string());
    if let Some(failures) = index_failures {
        set(
            &mut pod.metadata.annotations,
            INDEX_FAILURES,
            failures.to_string(),
        );
    }
    let spec = pod.spec.get_or_insert_default();
    if spec.hostname.is_none() {
        let hostname = format!("{}-{index}", job.name());
        spec.hostname = (hostname.len() <= LONGEST_HOSTNAME).then_some(hostname);
    }
    for container in spec
        .containers
        .iter_mut()
        .chain(spec.init_containers.iter_mut().flatten())
    {
        add_index_variable(container);
    }
    Some(pod)
}

fn add_index_variable(container: &mut Container) {
    let variables = container.env.get_or_insert_default();
    if variables.iter().any(|variable| variable.name == INDEX_VARIABLE) {
        return;
    }
    let field = ObjectFieldSelector {
        field_path: format!("metadata.labels['{COMPLETION_INDEX}']"),
        ..ObjectFieldSelector::default()
    };
    variables.push(EnvVar {
        name: INDEX_VARIABLE.into(),
        value_from: Some(EnvVarSource {
            field_ref: Some(field),
            ..EnvVarSource::default()
        }),
        ..EnvVar::default()
    });
}

/// The index a pod works on.
#[must_use]
pub fn index(pod: &Pod) -> Option<i32> {
    pod.annotations()
        .get(COMPLETION_INDEX)?
        .parse()
        .ok()
        .filter(|index| *index >= 0)
}

/// How often the pod's index had failed before the pod.
#[must_use]
pub fn index_failures(pod: &Pod) -> i32 {
    pod.annotations()
        .get(INDEX_FAILURES)
        .and_then(|text| text.parse().ok())
        .unwrap_or_default()
}
