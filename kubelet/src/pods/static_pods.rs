//! Static pods: from a folder of manifests, without the apiserver. For each there is a mirror in the apiserver, so
//! that it can be seen; whoever deletes the mirror does not delete the pod.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, Toleration};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{DeleteOptions, OwnerReference, Preconditions};
use keelson_api::ObjectKey;
use keelson_client::Informer;
use keelson_daemon::yaml;
use tokio_util::sync::CancellationToken;

use crate::context::Context;
use crate::objects::PodExt;
use crate::pods::host_processes;
use crate::pods::manager::PodManager;

/// Where a pod comes from.
pub(super) const SOURCE: &str = "kubernetes.io/config.source";
/// Hash of a static pod's manifest.
pub(super) const HASH: &str = "kubernetes.io/config.hash";
/// On a mirror: the hash of what it mirrors.
const MIRROR: &str = "kubernetes.io/config.mirror";
/// How often the folder is looked at.
const PERIOD: Duration = Duration::from_secs(2);

fn annotation<'a>(pod: &'a Pod, key: &str) -> Option<&'a str> {
    pod.metadata.annotations.as_ref()?.get(key).map(String::as_str)
}

/// Does the pod come from a manifest of this node?
pub fn is_static(pod: &Pod) -> bool {
    annotation(pod, SOURCE) == Some("file") && annotation(pod, MIRROR).is_none()
}

/// Does the pod only show a static one?
pub fn is_mirror(pod: &Pod) -> bool {
    annotation(pod, MIRROR).is_some()
}

/// Reads one manifest into the pod this node makes of it.
///
/// # Errors
/// A text that says what is wrong with it.
pub fn read(text: &str, file: &str, node: &str) -> Result<Pod, String> {
    let mut pod: Pod = yaml::from_str(text).map_err(|error| error.to_string())?;
    let name = pod
        .metadata
        .name
        .clone()
        .filter(|name| !name.is_empty())
        .ok_or("metadata.name is missing")?;
    if pod.containers().is_empty() {
        return Err("spec.containers is empty".into());
    }
    let hash = hash(&format!("{node}\0{file}\0{text}"));
    pod.metadata.name = Some(format!("{name}-{node}"));
    pod.metadata.namespace.get_or_insert_with(|| "default".into());
    pod.metadata.uid = Some(hash.clone());
    let annotations = pod.metadata.annotations.get_or_insert_default();
    annotations.insert(SOURCE.into(), "file".into());
    annotations.insert(HASH.into(), hash);
    annotations.remove(MIRROR);
    if let Some(spec) = &mut pod.spec {
        spec.node_name = Some(node.into());
        // What the node itself wants is not driven away by the node's taints.
        let tolerations = spec.tolerations.get_or_insert_default();
        tolerations.push(Toleration {
            operator: Some("Exists".into()),
            effect: Some("NoExecute".into()),
            ..Default::default()
        });
    }
    Ok(pod)
}

/// FNV-1a of 128 bits in hexadecimal: the same for the same manifest, whatever kubelet reads it.
pub(super) fn hash(text: &str) -> String {
    let mut hash: u128 = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
    for byte in text.bytes() {
        hash = (hash ^ u128::from(byte)).wrapping_mul(0x0000_0000_0100_0000_0000_0000_0000_013b);
    }
    format!("{hash:032x}")
}

fn read_folder(folder: &Path, node: &str, complained: &mut HashMap<String, String>) -> Vec<Arc<Pod>> {
    let mut pods = Vec::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        let file = entry.file_name().to_string_lossy().into_owned();
        if file.starts_with('.') || !path.is_file() {
            continue;
        }
        let read = std::fs::read_to_string(&path)
            .map_err(|error| error.to_string())
            .and_then(|text| read(&text, &file, node));
        match read {
            Ok(pod) => {
                complained.remove(&file);
                pods.push(Arc::new(pod));
            }
            // Said once, not every time the folder is looked at.
            Err(error) => {
                if complained.insert(file, error.clone()).as_ref() != Some(&error) {
                    tracing::error!(path = %path.display(), error, "manifest");
                }
            }
        }
    }
    pods
}

/// Follows the folder, and what runs beside the pods on the host, until `shutdown`. `known` are the node's pods in the apiserver.
pub async fn run(
    context: Arc<Context>,
    manager: Arc<PodManager>,
    known: Informer<Pod>,
    shutdown: CancellationToken,
) {
    let folder = context.config.pod_manifest_path.clone();
    let mut complained = HashMap::new();
    let mut running: HashMap<String, Arc<Pod>> = HashMap::new();
    loop {
        let wanted = folder
            .as_ref()
            .map(|folder| read_folder(folder, &context.node_name, &mut complained))
            .unwrap_or_default();
        running.retain(|uid, pod| {
            let stays = wanted.iter().any(|pod| pod.uid() == uid);
            if !stays {
                manager.remove(pod);
            }
            stays
        });
        for pod in &wanted {
            // One that replaces another waits until that has ended.
            let free = manager.find(pod.namespace(), pod.name(), None).is_none();
            if !running.contains_key(pod.uid()) && free {
                manager.update(pod);
                running.insert(pod.uid().to_owned(), pod.clone());
            }
        }
        if known.has_synced() {
            let processes = host_processes::pods(&context);
            let mut shown = running.clone();
            shown.extend(
                processes
                    .iter()
                    .map(|(pod, ..)| (pod.uid().to_owned(), pod.clone())),
            );
            mirror(&context, &manager, &shown, &known).await;
            for (pod, name, process) in &processes {
                let mirror = context.mirrors.read().get(pod.uid()).cloned();
                if let Some(mirror) = mirror {
                    let now = Timestamp::now();
                    let status = host_processes::status(name, process, &mirror, &context.host_ips, now);
                    context.statuses.set(&mirror, &status);
                }
            }
        }
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(PERIOD) => {}
        }
    }
}

/// Makes mirrors where they are missing, and removes those that mirror nothing.
async fn mirror(
    context: &Context,
    manager: &PodManager,
    running: &HashMap<String, Arc<Pod>>,
    known: &Informer<Pod>,
) {
    for found in known.store().list().into_iter().filter(|pod| is_mirror(pod)) {
        let shows = running.values().find(|pod| {
            pod.name() == found.name()
                && pod.namespace() == found.namespace()
                && annotation(pod, HASH) == annotation(&found, MIRROR)
        });
        match shows {
            Some(pod) if !found.is_deleted() => {
                note(context, manager, pod.uid(), found);
            }
            _ => {
                context
                    .mirrors
                    .write()
                    .retain(|_, mirror| mirror.uid() != found.uid());
                let options = DeleteOptions {
                    grace_period_seconds: Some(0),
                    preconditions: Some(Preconditions {
                        uid: found.metadata.uid.clone(),
                        ..Default::default()
                    }),
                    ..Default::default()
                };
                let key = ObjectKey::new(found.namespace(), found.name());
                if let Err(error) = context.api.pods.delete(&key, &options).await
                    && !error.is_not_found()
                {
                    tracing::warn!(pod = %key, error = error.message(), "deleting a mirror");
                }
            }
        }
    }
    for pod in running.values() {
        let key = ObjectKey::new(pod.namespace(), pod.name());
        if known.store().get(&key).is_some() {
            continue;
        }
        match context.api.pods.create(&mirror_of(context, pod)).await {
            Ok(made) => {
                note(context, manager, pod.uid(), Arc::new(made));
            }
            Err(error) if error.is_already_exists() => {}
            Err(error) => tracing::warn!(pod = %key, error = error.message(), "making a mirror"),
        }
    }
}

/// A pod has a mirror: a new one has no status yet.
fn note(context: &Context, manager: &PodManager, uid: &str, mirror: Arc<Pod>) {
    let before = context.mirrors.write().insert(uid.to_owned(), mirror.clone());
    if before.is_none_or(|before| before.uid() != mirror.uid()) {
        manager.wake(uid);
    }
}

fn mirror_of(context: &Context, pod: &Pod) -> Pod {
    let mut mirror = pod.clone();
    mirror.metadata.uid = None;
    mirror.status = None;
    let hash = annotation(pod, HASH).unwrap_or_default().to_owned();
    mirror
        .metadata
        .annotations
        .get_or_insert_default()
        .insert(MIRROR.into(), hash);
    let node = context
        .node
        .read()
        .as_ref()
        .and_then(|node| node.metadata.uid.clone());
    mirror.metadata.owner_references = node.map(|uid| {
        vec![OwnerReference {
            api_version: "v1".into(),
            kind: "Node".into(),
            name: context.node_name.clone(),
            uid,
            controller: Some(true),
            ..Default::default()
        }]
    });
    mirror
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manifest_becomes_the_nodes_pod() {
        let text =
            "apiVersion: v1\nkind: Pod\nmetadata: {name: web}\nspec:\n  containers: [{name: c, image: i}]\n";
        let pod = read(text, "web.yaml", "n1").expect("a pod");
        assert_eq!(
            (pod.name(), pod.namespace(), pod.uid().len()),
            ("web-n1", "default", 32)
        );
        assert!(is_static(&pod) && !is_mirror(&pod));
        assert_eq!(
            read(text, "web.yaml", "n1").map(|pod| pod.metadata.uid),
            Ok(pod.metadata.uid.clone())
        );
        let changed = read(&text.replace("image: i", "image: j"), "web.yaml", "n1").expect("a pod");
        assert_ne!(changed.uid(), pod.uid());
        assert!(read("kind: Pod\nmetadata: {}\n", "x", "n").is_err());
    }
}
