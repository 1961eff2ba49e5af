//! Images: whether to fetch one, with whose credentials, and how long to wait after a failure.

pub mod auth;
pub mod gc;
pub mod reference;

use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, Pod, Secret};
use keelson_proto::cri;
use parking_lot::Mutex;
use tokio::sync::Semaphore;

use crate::cri::{CriError, Runtime};
use crate::events::{Events, Level};
use crate::objects::PodExt;
use crate::pods::backoff::BackoffMap;

/// First and longest wait after a failed pull.
const PULL_BACKOFF: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(300));
/// How many pulls may run at once: more only share the same line.
const PARALLEL_PULLS: usize = 4;

/// Why an image is not there. The names are the reasons that containers wait with.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ImageError {
    /// The image's name is none.
    #[error("{0}")]
    InvalidImageName(String),
    /// It is not there and may not be fetched.
    #[error("Container image \"{0}\" is not present with pull policy of Never")]
    ErrImageNeverPull(String),
    /// Fetching it failed.
    #[error("{0}")]
    ErrImagePull(String),
    /// Fetching it failed a moment ago.
    #[error("{0}")]
    ImagePullBackOff(String),
    /// The runtime cannot say whether it is there.
    #[error("Failed to inspect image \"{0}\": {1}")]
    ImageInspectError(String, String),
}

impl ImageError {
    /// The reason a container waits with.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::InvalidImageName(_) => "InvalidImageName",
            Self::ErrImageNeverPull(_) => "ErrImageNeverPull",
            Self::ErrImagePull(_) => "ErrImagePull",
            Self::ImagePullBackOff(_) => "ImagePullBackOff",
            Self::ImageInspectError(..) => "ImageInspectError",
        }
    }
}

/// When the node fetches an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum PullPolicy {
    Always,
    IfNotPresent,
    Never,
}

impl PullPolicy {
    fn of(container: &Container, image: &str) -> Self {
        match container.image_pull_policy.as_deref() {
            Some("Always") => Self::Always,
            Some("Never") => Self::Never,
            Some("IfNotPresent") => Self::IfNotPresent,
            _ if image.ends_with(":latest") => Self::Always,
            _ => Self::IfNotPresent,
        }
    }
}

/// Fetches images.
pub struct Images {
    runtime: Arc<dyn Runtime>,
    events: Events,
    backoff: Mutex<BackoffMap<(String, String)>>,
    errors: Mutex<std::collections::HashMap<(String, String), String>>,
    pulls: Semaphore,
}

impl Images {
    /// Images of a runtime.
    pub fn new(runtime: Arc<dyn Runtime>, events: Events) -> Self {
        Self {
            runtime,
            events,
            backoff: Mutex::new(BackoffMap::new(PULL_BACKOFF)),
            errors: Mutex::default(),
            pulls: Semaphore::new(PARALLEL_PULLS),
        }
    }

    /// Sees to it that a container's image is there; returns it.
    ///
    /// # Errors
    /// See [`ImageError`].
    pub async fn ensure(
        &self,
        pod: &Pod,
        container: &Container,
        sandbox: &cri::PodSandboxConfig,
        secrets: &[Secret],
    ) -> Result<cri::Image, ImageError> {
        let given = container.image.clone().unwrap_or_default();
        let image = reference::with_default_tag(&given).map_err(|error| {
            let message = format!("Failed to apply default image tag \"{given}\": couldn't parse image name \"{given}\": {error}");
            self.events.container(pod, &container.name, Level::Warning, "InspectFailed", &message);
            ImageError::InvalidImageName(message)
        })?;
        let inspect = |error: CriError| ImageError::ImageInspectError(given.clone(), error.to_string());
        let present = self.runtime.image_status(&image).await.map_err(inspect)?;
        match (PullPolicy::of(container, &image), present) {
            (PullPolicy::Never, None) => {
                let error = ImageError::ErrImageNeverPull(given);
                self.events.container(
                    pod,
                    &container.name,
                    Level::Warning,
                    "ErrImageNeverPull",
                    &error.to_string(),
                );
                Err(error)
            }
            (PullPolicy::Never | PullPolicy::IfNotPresent, Some(found)) => {
                let message = format!("Container image \"{given}\" already present on machine");
                self.events
                    .container(pod, &container.name, Level::Normal, "Pulled", &message);
                Ok(found)
            }
            (PullPolicy::Always | PullPolicy::IfNotPresent, _) => {
                self.pull(pod, container, &given, &image, sandbox, secrets).await
            }
        }
    }

    async fn pull(
        &self,
        pod: &Pod,
        container: &Container,
        given: &str,
        image: &str,
        sandbox: &cri::PodSandboxConfig,
        secrets: &[Secret],
    ) -> Result<cri::Image, ImageError> {
        let key = (pod.uid().to_owned(), image.to_owned());
        let now = nanos_now();
        let failed_at = self.backoff_since(&key);
        if failed_at.is_some_and(|at| self.backoff.lock().remaining(&key, at, now).is_some()) {
            let mut message = format!("Back-off pulling image \"{given}\"");
            self.events
                .container(pod, &container.name, Level::Normal, "BackOff", &message);
            if let Some(last) = self.errors.lock().get(&key) {
                message.push_str(&format!(
                    ": ErrImagePull: {}",
                    last.split_once('\n').map_or(last.as_str(), |(_, text)| text)
                ));
            }
            return Err(ImageError::ImagePullBackOff(message));
        }
        let asked = Instant::now();
        let Ok(_permit) = self.pulls.acquire().await else {
            return Err(ImageError::ErrImagePull("the kubelet is stopping".into()));
        };
        self.events.container(
            pod,
            &container.name,
            Level::Normal,
            "Pulling",
            &format!("Pulling image \"{given}\""),
        );
        let begun = Instant::now();
        match self.pull_with_credentials(image, sandbox, secrets).await {
            Ok(_) => {
                self.backoff.lock().forget(&key);
                self.errors.lock().remove(&key);
                let found = self
                    .runtime
                    .image_status(image)
                    .await
                    .ok()
                    .flatten()
                    .ok_or_else(|| {
                        ImageError::ImageInspectError(
                            given.into(),
                            "it is not there after it was pulled".into(),
                        )
                    })?;
                let message = format!(
                    "Successfully pulled image \"{given}\" in {} ({} including waiting). Image size: {} bytes.",
                    seconds(begun.elapsed()),
                    seconds(asked.elapsed()),
                    found.size
                );
                self.events
                    .container(pod, &container.name, Level::Normal, "Pulled", &message);
                Ok(found)
            }
            Err(error) => {
                let text = error.message;
                let now = nanos_now();
                self.backoff.lock().next(&key, now, now);
                self.errors.lock().insert(key, format!("{now}\n{text}"));
                self.events.container(
                    pod,
                    &container.name,
                    Level::Warning,
                    "Failed",
                    &format!("Failed to pull image \"{given}\": {text}"),
                );
                Err(ImageError::ErrImagePull(text))
            }
        }
    }

    fn backoff_since(&self, key: &(String, String)) -> Option<i64> {
        self.errors.lock().get(key)?.split_once('\n')?.0.parse().ok()
    }

    async fn pull_with_credentials(
        &self,
        image: &str,
        sandbox: &cri::PodSandboxConfig,
        secrets: &[Secret],
    ) -> Result<String, CriError> {
        let mut last = None;
        for credential in auth::matching(image, secrets) {
            match self
                .runtime
                .pull_image(image, Some(credential), sandbox.clone())
                .await
            {
                Ok(reference) => return Ok(reference),
                Err(error) => last = Some(error),
            }
        }
        match last {
            Some(error) => Err(error),
            None => self.runtime.pull_image(image, None, sandbox.clone()).await,
        }
    }

    /// The pod is gone: its failures do not matter any more.
    pub fn release(&self, pod_uid: &str) {
        self.errors.lock().retain(|(uid, image), _| {
            if uid == pod_uid {
                self.backoff.lock().forget(&(uid.clone(), image.clone()));
            }
            uid != pod_uid
        });
    }
}

fn nanos_now() -> i64 {
    i64::try_from(Timestamp::now().as_nanosecond()).unwrap_or(i64::MAX)
}

fn seconds(duration: Duration) -> String {
    if duration.as_secs() == 0 {
        format!("{}ms", duration.as_millis())
    } else {
        format!("{:.3}s", duration.as_secs_f64())
    }
}
