//! The service accounts controllers act as: one for each role, in kube-system, with tokens that are renewed.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use jiff::Timestamp;
use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::ServiceAccount;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use keelson_api::ApiError;
use keelson_api::object::{Object as _, ObjectKey};
use keelson_client::{Client, ClientConfig, ConfigError, Event, LiveToken, ResourceClient};
use keelson_daemon::backoff::Backoff;
use parking_lot::Mutex;
use tokio::sync::{Notify, OnceCell};
use tokio_util::sync::CancellationToken;

use crate::context::Context;

const NAMESPACE: &str = "kube-system";
/// How long a token is asked for, in seconds.
const LIFETIME: i64 = 60 * 60;
/// A token is replaced when this share of its life is over.
const RENEW_AT: f64 = 0.8;
/// Waits between attempts.
const RETRY: Duration = Duration::from_millis(200);
const RETRY_MAX: Duration = Duration::from_secs(10);

/// An account in use.
#[derive(Default)]
struct Account {
    client: OnceCell<Client>,
    token: LiveToken,
    /// The account is gone, and its token with it.
    lost: Notify,
}

/// Clients by account. All of them share one connection, which shows no certificate.
pub struct Identities {
    accounts: ResourceClient<ServiceAccount>,
    bare: Client,
    known: Arc<Mutex<HashMap<&'static str, Arc<Account>>>>,
}

impl Identities {
    /// Accounts that `root` may make and ask tokens for, at the servers of `config`.
    ///
    /// # Errors
    /// When the configuration cannot be used without its identity.
    pub fn new(root: &Client, config: ClientConfig) -> Result<Self, ConfigError> {
        let bare = ClientConfig {
            identity: None,
            token: None,
            ..config
        };
        Ok(Self {
            accounts: root.resource(),
            bare: Client::new(bare)?,
            known: Arc::default(),
        })
    }

    /// The same, with an eye on accounts that somebody deletes: they are made again.
    #[must_use]
    pub fn renewed_in(self, context: &Context) -> Self {
        let known = self.known.clone();
        context.service_accounts().subscribe(move |event| {
            if let Event::Deleted(account) = event
                && account.namespace() == NAMESPACE
                && let Some(account) = known.lock().get(account.name())
            {
                account.lost.notify_one();
            }
        });
        self
    }

    /// A client that acts as the account; `None` when the process has to stop before there is one.
    pub async fn client(
        self: &Arc<Self>,
        account: &'static str,
        shutdown: &CancellationToken,
    ) -> Option<Client> {
        let known = self.known.lock().entry(account).or_default().clone();
        let first = known.client.get_or_init(|| async {
            let renewal = self.renew(account, &known.token).await;
            let (this, known, shutdown) = (self.clone(), known.clone(), shutdown.clone());
            let client = self.bare.with_bearer(known.token.clone());
            tokio::spawn(async move {
                shutdown
                    .run_until_cancelled(this.keep(account, &known, renewal))
                    .await
            });
            client
        });
        shutdown.run_until_cancelled(first).await.cloned()
    }

    /// Renews a token when it is due, for ever.
    async fn keep(&self, account: &str, known: &Account, mut due: Duration) {
        loop {
            tokio::select! {
                () = tokio::time::sleep(due) => {}
                () = known.lost.notified() => tracing::warn!(account, "somebody deleted it: it is made again"),
                () = known.token.stale() => tracing::warn!(account, "the clock was set: its token is renewed"),
            }
            due = self.renew(account, &known.token).await;
        }
    }

    /// Gets a token, however long that takes, and says when the next one is due.
    async fn renew(&self, account: &str, token: &LiveToken) -> Duration {
        let mut backoff = Backoff::new(RETRY, RETRY_MAX);
        loop {
            match self.request(account).await {
                Ok((text, life)) if set(token, &text, life).is_ok() => return life.mul_f64(RENEW_AT),
                Ok(_) => tracing::warn!(account, "the token cannot be used"),
                Err(error) => tracing::warn!(account, %error, "no token yet"),
            }
            tokio::time::sleep(backoff.next_wait()).await;
        }
    }

    async fn request(&self, account: &str) -> Result<(String, Duration), ApiError> {
        let request = TokenRequest {
            metadata: ObjectMeta::default(),
            spec: Some(TokenRequestSpec {
                audiences: Some(Vec::new()),
                expiration_seconds: Some(LIFETIME),
                bound_object_ref: None,
            }),
            status: None,
        };
        let key = ObjectKey::new(NAMESPACE, account);
        let ask = || self.accounts.create_subresource(&key, "token", &request);
        let answered: Result<TokenRequest, ApiError> = ask().await;
        let answered = match answered {
            Err(error) if error.is_not_found() => {
                self.make(account).await?;
                ask().await?
            }
            other => other?,
        };
        let status = answered.status.unwrap_or_default();
        let end = status.expiration_timestamp.map_or(Timestamp::MIN, |end| end.0);
        let left = end.as_second() - Timestamp::now().as_second();
        let token = status.token.unwrap_or_default();
        Ok((token, Duration::from_secs(left.max(1).unsigned_abs())))
    }

    async fn make(&self, account: &str) -> Result<(), ApiError> {
        let object = ServiceAccount {
            metadata: ObjectMeta {
                name: Some(account.to_owned()),
                namespace: Some(NAMESPACE.to_owned()),
                ..ObjectMeta::default()
            },
            ..ServiceAccount::default()
        };
        match self.accounts.create(&object).await {
            Ok(_) => Ok(()),
            Err(error) if error.is_already_exists() => Ok(()),
            Err(error) => Err(error),
        }
    }
}

/// A token that is good from now on, for so long.
fn set(token: &LiveToken, text: &str, life: Duration) -> Result<(), ConfigError> {
    let now = SystemTime::now();
    token.set(text, now..now + life)
}
