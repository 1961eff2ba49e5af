//! What is answered when a configuration wants what others manage.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::StatusCause;

use super::managers::{Manager, Operation};
use super::set::show_path;
use super::update::Conflict;
use crate::status::ApiError;
use crate::text::quote;

/// The 409 for these conflicts, with a cause for each.
pub fn refusal(mut conflicts: Vec<Conflict>) -> ApiError {
    // Stable: fields of a manager stay in their order.
    conflicts.sort_by_key(|conflict| sort_key(&conflict.manager));
    let causes = conflicts.iter().map(|conflict| StatusCause {
        field: Some(show_path(&conflict.path)),
        message: Some(format!("conflict with {}", show(&conflict.manager))),
        reason: Some("FieldManagerConflict".to_owned()),
    });
    ApiError::apply_conflict(causes.collect(), message(&conflicts))
}

fn message(conflicts: &[Conflict]) -> String {
    if let [only] = conflicts {
        return format!(
            "Apply failed with 1 conflict: conflict with {}: {}",
            show(&only.manager),
            show_path(&only.path)
        );
    }
    let mut lines = Vec::with_capacity(conflicts.len() + 1);
    let mut last: Option<&Manager> = None;
    for conflict in conflicts {
        if last != Some(&conflict.manager) {
            lines.push(format!("conflicts with {}:", show(&conflict.manager)));
            last = Some(&conflict.manager);
        }
        lines.push(format!("- {}", show_path(&conflict.path)));
    }
    format!(
        "Apply failed with {} conflicts: {}",
        conflicts.len(),
        lines.join("\n")
    )
}

fn sort_key(manager: &Manager) -> (String, Operation, String, String) {
    let Manager {
        name,
        operation,
        version,
        subresource,
    } = manager.clone();
    (name, operation, version, subresource)
}

fn show(manager: &Manager) -> String {
    let mut shown = quote(&manager.name);
    if !manager.subresource.is_empty() {
        shown.push_str(" with subresource ");
        shown.push_str(&quote(&manager.subresource));
    }
    if manager.operation == Operation::Update {
        shown.push_str(" using ");
        shown.push_str(&manager.version);
    }
    shown
}
