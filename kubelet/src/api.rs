//! The apiserver, as the kubelet needs it: single objects watched for as long as a pod uses them, services, and
//! tokens that are asked for anew before they end.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{ConfigMap, Node, Pod, Secret, Service, ServiceAccount};
use keelson_api::{ApiError, Kind, ObjectKey};
use keelson_client::{Client, Informer, InformerOptions, ResourceClient};
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use crate::objects::PodExt;

/// How long to wait for the first sight of an object.
const FIRST_SIGHT: Duration = Duration::from_secs(10);
/// Tokens live this long unless a pod asks otherwise.
const TOKEN_SECONDS: i64 = 3600;
/// Steps of the clock that make no difference to tokens.
const CLOCK_STEP: Duration = Duration::from_secs(5);

/// Called with the UIDs of pods whose objects changed.
pub type Changed = Arc<dyn Fn(&HashSet<String>) + Send + Sync>;

/// Objects of one kind that pods refer to, each watched on its own: a node sees nothing it does not use.
pub struct ObjectCache<K> {
    client: Client,
    shutdown: CancellationToken,
    changed: Changed,
    watched: Mutex<HashMap<ObjectKey, Watched<K>>>,
}

struct Watched<K> {
    informer: Informer<K>,
    stop: CancellationToken,
    users: Arc<Mutex<HashSet<String>>>,
}

impl<K: Kind> ObjectCache<K> {
    fn new(client: Client, changed: Changed, shutdown: CancellationToken) -> Self {
        Self {
            client,
            shutdown,
            changed,
            watched: Mutex::new(HashMap::new()),
        }
    }

    /// The object, if there is one, on behalf of a pod. It is watched until the pod is [`ObjectCache::release`]d.
    ///
    /// # Errors
    /// While the apiserver cannot be asked.
    pub async fn get(&self, pod_uid: &str, key: &ObjectKey) -> Result<Option<Arc<K>>, ApiError> {
        let informer = self.informer(pod_uid, key);
        if tokio::time::timeout(FIRST_SIGHT, informer.synced())
            .await
            .is_err()
        {
            return Err(ApiError::timeout(
                format!("failed to sync {key} cache: timed out waiting for the condition"),
                1,
            ));
        }
        Ok(informer.store().get(key))
    }

    fn informer(&self, pod_uid: &str, key: &ObjectKey) -> Informer<K> {
        let mut watched = self.watched.lock();
        let entry = watched.entry(key.clone()).or_insert_with(|| {
            let stop = self.shutdown.child_token();
            let options = InformerOptions {
                namespace: key.namespace.clone(),
                field_selector: format!("metadata.name={}", key.name),
                ..Default::default()
            };
            let informer = Informer::start(&self.client, options, Vec::new(), &stop);
            let users = Arc::new(Mutex::new(HashSet::new()));
            let (changed, seen_by) = (self.changed.clone(), users.clone());
            informer.subscribe(move |_| {
                let users = seen_by.lock().clone();
                changed(&users);
            });
            Watched {
                informer,
                stop,
                users,
            }
        });
        entry.users.lock().insert(pod_uid.to_owned());
        entry.informer.clone()
    }

    /// The pod is gone: objects that nobody else uses are no longer watched.
    pub fn release(&self, pod_uid: &str) {
        self.watched.lock().retain(|_, watched| {
            let mut users = watched.users.lock();
            users.remove(pod_uid);
            if users.is_empty() {
                watched.stop.cancel();
            }
            !users.is_empty()
        });
    }
}

/// A token of a service account, for one pod and one set of audiences.
#[derive(Clone)]
struct Token {
    text: String,
    asked_at: Timestamp,
    renew_at: Timestamp,
}

impl Token {
    /// Whether it can be handed out: not near its end, nor from a time that has still to come. That is what a token
    /// looks like once the clock has been set back, and the apiserver refuses it until then.
    fn is_good(&self, now: Timestamp) -> bool {
        self.asked_at <= keelson_api::time::after(now, CLOCK_STEP) && now < self.renew_at
    }
}

/// Pod UID, audience, seconds.
type TokenKey = (String, String, i64);

/// The apiserver.
pub struct Api {
    /// For whatever has no better place here.
    pub client: Client,
    /// Pods.
    pub pods: ResourceClient<Pod>,
    /// Nodes.
    pub nodes: ResourceClient<Node>,
    /// Config maps that pods refer to.
    pub config_maps: ObjectCache<ConfigMap>,
    /// Secrets that pods refer to.
    pub secrets: ObjectCache<Secret>,
    services: Informer<Service>,
    service_accounts: ResourceClient<ServiceAccount>,
    tokens: Mutex<HashMap<TokenKey, Token>>,
}

impl Api {
    /// Starts watching services. `changed` hears of changed config maps and secrets.
    pub fn start(client: &Client, changed: Changed, shutdown: &CancellationToken) -> Self {
        Self {
            client: client.clone(),
            pods: client.resource(),
            nodes: client.resource(),
            config_maps: ObjectCache::new(client.clone(), changed.clone(), shutdown.clone()),
            secrets: ObjectCache::new(client.clone(), changed, shutdown.clone()),
            services: Informer::start(client, InformerOptions::default(), Vec::new(), shutdown),
            service_accounts: client.resource(),
            tokens: Mutex::new(HashMap::new()),
        }
    }

    /// All services. Before they are known, no container may start: it would miss their variables.
    ///
    /// # Errors
    /// While they are not known.
    pub async fn services(&self) -> Result<Vec<Service>, ApiError> {
        if tokio::time::timeout(FIRST_SIGHT, self.services.synced())
            .await
            .is_err()
        {
            return Err(ApiError::service_unavailable(
                "services have not yet been read at least once, cannot construct envvars",
            ));
        }
        Ok(self
            .services
            .store()
            .list()
            .iter()
            .map(|service| (**service).clone())
            .collect())
    }

    /// A token of the pod's service account, good for a while yet.
    ///
    /// # Errors
    /// Those of the apiserver.
    pub async fn token(&self, pod: &Pod, audience: &str, seconds: Option<i64>) -> Result<String, ApiError> {
        let seconds = seconds.unwrap_or(TOKEN_SECONDS);
        let key: TokenKey = (pod.uid().into(), audience.into(), seconds);
        let now = Timestamp::now();
        if let Some(token) = self.tokens.lock().get(&key).filter(|token| token.is_good(now)) {
            return Ok(token.text.clone());
        }
        let account = pod
            .spec()
            .service_account_name
            .as_deref()
            .filter(|name| !name.is_empty())
            .unwrap_or("default");
        let request = TokenRequest {
            spec: Some(TokenRequestSpec {
                audiences: (!audience.is_empty()).then(|| vec![audience.into()]),
                bound_object_ref: Some(BoundObjectReference {
                    api_version: Some("v1".into()),
                    kind: Some("Pod".into()),
                    name: Some(pod.name().into()),
                    uid: Some(pod.uid().into()),
                }),
                expiration_seconds: Some(seconds),
            }),
            ..Default::default()
        };
        let account = ObjectKey::new(pod.namespace(), account);
        let answer: TokenRequest = self
            .service_accounts
            .create_subresource(&account, "token", &request)
            .await?;
        let status = answer.status.unwrap_or_default();
        // Renewed when four fifths of its life are over, as upstream does, and at least once a day.
        let lifetime = status
            .expiration_timestamp
            .map_or(Duration::ZERO, |end| keelson_api::time::until(end.0));
        let renew_at = keelson_api::time::after(now, (lifetime * 4 / 5).min(Duration::from_secs(24 * 3600)));
        let text = status
            .token
            .ok_or_else(|| ApiError::internal("the apiserver answered a token request without a token"))?;
        self.tokens.lock().insert(
            key,
            Token {
                text: text.clone(),
                asked_at: now,
                renew_at,
            },
        );
        Ok(text)
    }

    /// The pod is gone.
    pub fn release(&self, pod_uid: &str) {
        self.config_maps.release(pod_uid);
        self.secrets.release(pod_uid);
        self.tokens.lock().retain(|(uid, ..), _| uid != pod_uid);
    }

    /// A config map of the pod's namespace.
    ///
    /// # Errors
    /// While the apiserver cannot be asked.
    pub async fn config_map(&self, pod: &Pod, name: &str) -> Result<Option<Arc<ConfigMap>>, ApiError> {
        self.config_maps
            .get(pod.uid(), &ObjectKey::new(pod.namespace(), name))
            .await
    }

    /// A secret of the pod's namespace.
    ///
    /// # Errors
    /// While the apiserver cannot be asked.
    pub async fn secret(&self, pod: &Pod, name: &str) -> Result<Option<Arc<Secret>>, ApiError> {
        self.secrets
            .get(pod.uid(), &ObjectKey::new(pod.namespace(), name))
            .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_from_the_future_is_asked_for_anew() {
        let at = |second| Timestamp::from_second(second).expect("a time");
        let token = Token {
            text: String::new(),
            asked_at: at(10_000),
            renew_at: at(12_880),
        };
        assert!(token.is_good(at(10_000)));
        assert!(token.is_good(at(12_879)));
        assert!(!token.is_good(at(12_880)));
        assert!(
            token.is_good(at(9_998)),
            "clocks are set by a little all the time"
        );
        assert!(!token.is_good(at(2_800)), "two hours back");
    }
}
