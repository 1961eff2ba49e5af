//! The `batch` group.

pub mod cron_job;
pub mod job;
pub mod schedule;

use super::strategy::{GET_PATCH_UPDATE, SubresourceForm, SubresourceInfo};

/// The `status` of a kind of this group.
const fn status(kind: &'static str) -> SubresourceInfo {
    SubresourceInfo {
        name: "status",
        kind,
        group: "batch",
        version: "v1",
        verbs: GET_PATCH_UPDATE,
        form: SubresourceForm::Object,
    }
}
