//! Removing images that nobody uses: the longest unused first, when the disk fills up.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use keelson_proto::cri;
use parking_lot::Mutex;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::context::Context;
use crate::cri::CriResult;
use crate::events::Level;

/// How often the disk is looked at, as upstream does.
const PERIOD: Duration = Duration::from_secs(300);

/// How an image has been used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct History {
    seen: Instant,
    used: Option<Instant>,
}

/// An image that may go.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Unused {
    id: String,
    size: u64,
    seen: Instant,
    used: Option<Instant>,
}

/// Knows since when images are unused, and removes them.
pub struct ImageCollector {
    context: Arc<Context>,
    history: Mutex<HashMap<String, History>>,
}

/// The images to remove to have `wanted` bytes more, of those that have been there for `least` already.
fn choose(mut unused: Vec<Unused>, wanted: u64, least: Duration, now: Instant) -> Vec<String> {
    unused.retain(|image| now.saturating_duration_since(image.seen) >= least);
    // One that was never used counts as used before all others.
    unused.sort_by_key(|image| (image.used, image.seen));
    let mut freed = 0;
    let mut chosen = Vec::new();
    for image in unused {
        if freed >= wanted {
            break;
        }
        freed += image.size;
        chosen.push(image.id);
    }
    chosen
}

impl ImageCollector {
    /// Has seen no image yet.
    pub fn new(context: Arc<Context>) -> Self {
        Self {
            context,
            history: Mutex::default(),
        }
    }

    /// Looks at the disk until `shutdown`.
    pub async fn run(self: Arc<Self>, shutdown: CancellationToken) {
        loop {
            if let Err(error) = self.collect().await {
                tracing::warn!(%error, "removing unused images");
            }
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(PERIOD) => {}
            }
        }
    }

    /// Removes images if the disk is fuller than it should be, until it is as empty as it should be.
    async fn collect(&self) -> CriResult<()> {
        let unused = self.unused().await?;
        let config = &self.context.config;
        let disk = self.context.image_disk();
        let Some(wanted) = excess(
            disk.capacity,
            disk.available,
            config.image_gc_high_threshold,
            config.image_gc_low_threshold,
        ) else {
            return Ok(());
        };
        let chosen = choose(unused, wanted, config.minimum_image_ttl_duration, Instant::now());
        if chosen.is_empty() {
            let message = format!(
                "Failed to garbage collect required amount of images. Attempted to free {wanted} bytes, but only found 0 bytes eligible to free."
            );
            self.context.events.node(
                &self.context.node_name,
                Level::Warning,
                "FreeDiskSpaceFailed",
                &message,
            );
        }
        self.remove(chosen).await;
        Ok(())
    }

    /// Removes all images that nobody uses: the node is short of disk.
    pub async fn remove_unused(&self) {
        match self.unused().await {
            Ok(unused) => {
                self.remove(choose(unused, u64::MAX, Duration::ZERO, Instant::now()))
                    .await;
            }
            Err(error) => tracing::warn!(%error, "looking for unused images"),
        }
    }

    async fn remove(&self, images: Vec<String>) {
        for image in images {
            match self.context.runtime.remove_image(&image).await {
                Ok(()) => tracing::info!(image, "removed an unused image"),
                Err(error) => tracing::warn!(image, %error, "removing an unused image"),
            }
            self.history.lock().remove(&image);
        }
    }

    /// Images that no container uses and that may be fetched again.
    async fn unused(&self) -> CriResult<Vec<Unused>> {
        let images = self.context.runtime.list_images().await?;
        let containers = self.context.runtime.list_containers(None).await?;
        let in_use: HashSet<&str> = containers
            .iter()
            .flat_map(|container| {
                let named = container.image.as_ref().map(|image| image.image.as_str());
                [
                    Some(container.image_ref.as_str()),
                    Some(container.image_id.as_str()),
                    named,
                ]
            })
            .flatten()
            .filter(|name| !name.is_empty())
            .collect();
        let now = Instant::now();
        let mut history = self.history.lock();
        history.retain(|id, _| images.iter().any(|image| image.id == *id));
        let mut unused = Vec::new();
        for image in images {
            let known = history.entry(image.id.clone()).or_insert(History {
                seen: now,
                used: None,
            });
            if names(&image).any(|name| in_use.contains(name)) {
                known.used = Some(now);
            } else if !self.is_kept(&image) {
                unused.push(Unused {
                    id: image.id,
                    size: image.size,
                    seen: known.seen,
                    used: known.used,
                });
            }
        }
        Ok(unused)
    }

    fn is_kept(&self, image: &cri::Image) -> bool {
        let config = &self.context.config;
        image.pinned
            || names(image).any(|name| {
                config.pod_infra_container_image.as_deref() == Some(name)
                    || config.image_gc_exempt.iter().any(|kept| name.starts_with(kept))
            })
    }
}

fn names(image: &cri::Image) -> impl Iterator<Item = &str> {
    std::iter::once(&image.id)
        .chain(&image.repo_tags)
        .chain(&image.repo_digests)
        .map(String::as_str)
}

/// How many bytes are to be freed; none while less than `high` percent are used.
fn excess(capacity: u64, available: u64, high: u64, low: u64) -> Option<u64> {
    let used = capacity.saturating_sub(available.min(capacity));
    if capacity == 0 || u128::from(used) * 100 < u128::from(capacity) * u128::from(high) {
        return None;
    }
    let allowed = u128::from(capacity) * u128::from(low) / 100;
    Some(u64::try_from(u128::from(used).saturating_sub(allowed)).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_disk_is_emptied_to_the_lower_mark() {
        assert_eq!(excess(1000, 151, 85, 80), None);
        assert_eq!(excess(1000, 150, 85, 80), Some(50));
        assert_eq!(excess(1000, 0, 85, 80), Some(200));
        assert_eq!(excess(0, 0, 85, 80), None);
    }

    #[test]
    fn the_longest_unused_goes_first_and_the_newest_not_at_all() {
        let now = Instant::now() + Duration::from_secs(10_000);
        let ago = |seconds| now - Duration::from_secs(seconds);
        let image = |id: &str, seen, used: Option<u64>| Unused {
            id: id.into(),
            size: 10,
            seen: ago(seen),
            used: used.map(ago),
        };
        let images = vec![
            image("lately", 5000, Some(200)),
            image("long-ago", 5000, Some(3000)),
            image("never", 400, None),
            image("new", 30, None),
        ];
        let minute = Duration::from_secs(60);
        assert_eq!(choose(images.clone(), 15, minute, now), ["never", "long-ago"]);
        assert_eq!(choose(images.clone(), u64::MAX, minute, now).len(), 3);
        assert_eq!(choose(images, 0, Duration::ZERO, now), Vec::<String>::new());
    }
}
