//! The `storage.k8s.io` group.

pub mod csi_driver;
pub mod csi_node;
pub mod csi_storage_capacity;
pub mod storage_class;
pub mod volume_attachment;
pub mod volume_attributes_class;

use keelson_api::field::Errors;
use keelson_api::validation;

use super::common::loc::Loc;
use super::common::rules;

/// The longest name of a driver: it becomes part of labels and paths.
const DRIVER_NAME_MAX: usize = 63;

/// The name of a CSI driver. Upper case is fine, for older drivers' sake.
fn driver_name(errors: &mut Errors, at: &Loc<'_>, name: &str) {
    if name.is_empty() {
        errors.push(at.required(""));
    }
    if name.len() > DRIVER_NAME_MAX {
        errors.push(at.too_long(DRIVER_NAME_MAX));
    }
    let lower = name.to_lowercase();
    rules::complain(errors, at, name, validation::dns1123_subdomain(&lower));
}
