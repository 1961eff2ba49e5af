//! Tokens in secrets of type `kubernetes.io/service-account-token`: filled in, and removed with their account.
//!
//! Nobody makes such secrets by itself any more; whoever wants a token without an end still may.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{Secret, ServiceAccount};
use keelson_api::object::{Object as _, ObjectKey};
use keelson_client::{Event, Informer, ReconcileError, ResourceClient, WorkQueue, run_workers};
use keelson_daemon::jwt::SigningKey;
use serde_json::{Value, json};

use crate::common::answers::{only, unless_gone};
use crate::context::Context;

/// The type of the secrets.
pub const TYPE: &str = "kubernetes.io/service-account-token";
/// Annotations that say whose token a secret is.
const ACCOUNT: &str = "kubernetes.io/service-account.name";
const UID: &str = "kubernetes.io/service-account.uid";

/// Runs the controller until shutdown, if there is a key to sign tokens with.
pub async fn run(context: Context) {
    let config = context.config();
    let Some(path) = config.service_account_private_key_file.as_deref() else {
        return;
    };
    let (key, root) = match load(path, config.root_ca_file.as_deref()) {
        Ok(loaded) => loaded,
        Err(error) => return tracing::error!(error = %format!("{error:#}"), "no tokens are made"),
    };
    let controller = Arc::new(Controller {
        key,
        root,
        secrets: context.token_secrets(),
        accounts: context.service_accounts(),
        client: context.client().resource(),
        accounts_client: context.client().resource(),
    });
    let queue: WorkQueue<ObjectKey> = WorkQueue::new("serviceaccounttoken");
    let to = queue.clone();
    controller.secrets.subscribe(move |event| match event {
        Event::Added(secret) | Event::Updated { new: secret, .. } => to.add(secret.key()),
        Event::Deleted(_) => {}
    });
    let (to, of) = (queue.clone(), controller.secrets.clone());
    controller.accounts.subscribe(move |event| {
        let (Event::Added(account) | Event::Updated { new: account, .. } | Event::Deleted(account)) = event;
        for secret in of.store().namespace(account.namespace()) {
            if annotation(&secret, ACCOUNT) == account.name() {
                to.add(secret.key());
            }
        }
    });
    controller.secrets.synced().await;
    controller.accounts.synced().await;
    let workers = context.config().concurrent_serviceaccount_token_syncs;
    run_workers(queue, workers, context.shutdown().clone(), move |key| {
        let controller = controller.clone();
        async move { controller.sync(&key).await }
    })
    .await;
}

fn load(key: &Path, root: Option<&Path>) -> anyhow::Result<(SigningKey, Vec<u8>)> {
    let key = SigningKey::load(key)?;
    let root = root.map(std::fs::read).transpose()?.unwrap_or_default();
    Ok((key, root))
}

struct Controller {
    key: SigningKey,
    /// The cluster's root certificate, for who uses the token.
    root: Vec<u8>,
    secrets: Informer<Secret>,
    accounts: Informer<ServiceAccount>,
    client: ResourceClient<Secret>,
    accounts_client: ResourceClient<ServiceAccount>,
}

impl Controller {
    async fn sync(&self, key: &ObjectKey) -> Result<(), ReconcileError> {
        let Some(secret) = self.secrets.store().get(key) else {
            return Ok(());
        };
        if secret.metadata.deletion_timestamp.is_some() {
            return Ok(());
        }
        let Some(account) = self.account(&secret).await? else {
            unless_gone(self.client.delete(key, &only(secret.uid())).await)?;
            tracing::info!(%key, "removed: its service account is gone");
            return Ok(());
        };
        let Some(filled) = filled(&self.key, &self.root, &secret, &account)? else {
            return Ok(());
        };
        match self.client.update(&filled).await {
            Ok(_) => Ok(()),
            Err(error) if error.is_not_found() => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// The account the secret is for. One the informer does not know may just have been made.
    async fn account(&self, secret: &Secret) -> Result<Option<Arc<ServiceAccount>>, ReconcileError> {
        let name = annotation(secret, ACCOUNT);
        let uid = annotation(secret, UID);
        let same = |account: &ServiceAccount| uid.is_empty() || account.uid() == uid;
        let key = ObjectKey::new(secret.namespace(), name);
        if let Some(account) = self.accounts.store().get(&key)
            && same(&account)
        {
            return Ok(Some(account));
        }
        match self.accounts_client.get(secret.namespace(), name).await {
            Ok(account) => Ok(same(&account).then(|| Arc::new(account))),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

fn annotation<'s>(secret: &'s Secret, name: &str) -> &'s str {
    let annotations = secret.metadata.annotations.as_ref();
    annotations
        .and_then(|all| all.get(name))
        .map_or("", String::as_str)
}

/// The secret with everything in it that it lacks; `None` when it lacks nothing.
fn filled(
    key: &SigningKey,
    root: &[u8],
    secret: &Secret,
    account: &ServiceAccount,
) -> Result<Option<Secret>, ReconcileError> {
    let mut new = secret.clone();
    let annotations = new.metadata.annotations.get_or_insert_default();
    annotations.insert(UID.into(), account.uid().to_owned());
    let data: &mut BTreeMap<String, ByteString> = new.data.get_or_insert_default();
    if !root.is_empty() {
        data.insert("ca.crt".into(), ByteString(root.to_vec()));
    }
    let lacks =
        |data: &BTreeMap<String, ByteString>, key: &str| data.get(key).is_none_or(|value| value.0.is_empty());
    if lacks(data, "namespace") {
        data.insert("namespace".into(), ByteString(secret.namespace().into()));
    }
    if lacks(data, "token") {
        let token = key
            .sign(&claims(secret, account))
            .map_err(|error| ReconcileError::other(format!("{error:#}")))?;
        data.insert("token".into(), ByteString(token.into_bytes()));
    }
    Ok((new != *secret).then_some(new))
}

fn claims(secret: &Secret, account: &ServiceAccount) -> Value {
    let (namespace, name) = (account.namespace(), account.name());
    json!({
        "iss": "kubernetes/serviceaccount",
        "sub": format!("system:serviceaccount:{namespace}:{name}"),
        "kubernetes.io/serviceaccount/namespace": namespace,
        "kubernetes.io/serviceaccount/secret.name": secret.name(),
        "kubernetes.io/serviceaccount/service-account.name": name,
        "kubernetes.io/serviceaccount/service-account.uid": account.uid(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_filled_once() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("sa.key");
        let pair = rcgen::KeyPair::generate().expect("a key");
        std::fs::write(&path, pair.serialize_pem()).expect("written");
        let (key, root) = load(&path, None).expect("loaded");
        let read = |value: Value| serde_json::from_value(value).expect("an object");
        let account: ServiceAccount =
            serde_json::from_value(json!({"metadata": {"name": "robot", "namespace": "a", "uid": "1"}}))
                .expect("one");
        let secret: Secret = read(json!({
            "metadata": {"name": "s", "namespace": "a", "annotations": {ACCOUNT: "robot"}}, "type": TYPE,
        }));
        let first = filled(&key, &root, &secret, &account)
            .expect("filled")
            .expect("changed");
        assert_eq!(annotation(&first, UID), "1");
        let data = first.data.as_ref().expect("data");
        assert_eq!(data["namespace"].0, b"a");
        assert_eq!(data["token"].0.iter().filter(|byte| **byte == b'.').count(), 2);
        assert!(filled(&key, &root, &first, &account).expect("filled").is_none());
    }
}
