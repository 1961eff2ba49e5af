//! The `batch` group.

pub mod cron_job;
mod indexes;
pub mod job;
mod job_status;
pub mod schedule;

use super::strategy::SubresourceInfo;

/// The `status` of a kind of this group.
const fn status(kind: &'static str) -> SubresourceInfo {
    SubresourceInfo::status("batch", "v1", kind)
}
