//! CSIStorageCapacities: how much a driver can still provision, and where.

use jiff::Timestamp;
use k8s_openapi::api::storage::v1::CSIStorageCapacity;
use keelson_api::field::Errors;
use serde_json::Value;

use crate::registry::common::loc::Loc;
use crate::registry::common::{cells, defaults, rules, selectors};
use crate::registry::strategy::{Column, RequestContext, ResourceInfo, Strategy};

/// The kind's strategy.
pub struct CsiStorageCapacityKind;

static INFO: ResourceInfo = ResourceInfo {
    group: "storage.k8s.io",
    kind: "CSIStorageCapacity",
    plural: "csistoragecapacities",
    singular: "csistoragecapacity",
    storage_prefix: "csistoragecapacities",
    ..ResourceInfo::base()
};

impl Strategy for CsiStorageCapacityKind {
    type Object = CSIStorageCapacity;

    fn info(&self) -> &'static ResourceInfo {
        &INFO
    }

    fn default(&self, capacity: &mut CSIStorageCapacity) {
        for quantity in [&mut capacity.capacity, &mut capacity.maximum_volume_size]
            .into_iter()
            .flatten()
        {
            defaults::quantity(quantity);
        }
    }

    fn validate_create(&self, _ctx: &RequestContext<'_>, capacity: &CSIStorageCapacity) -> Errors {
        validate(capacity)
    }

    fn validate_update(
        &self,
        _ctx: &RequestContext<'_>,
        new: &CSIStorageCapacity,
        old: &CSIStorageCapacity,
    ) -> Errors {
        let mut errors = validate(new);
        rules::immutable(
            &mut errors,
            &Loc::new("nodeTopology"),
            &new.node_topology,
            &old.node_topology,
        );
        rules::immutable(
            &mut errors,
            &Loc::new("storageClassName"),
            &new.storage_class_name,
            &old.storage_class_name,
        );
        errors
    }

    fn allow_unconditional_update(&self) -> bool {
        false
    }

    fn columns(&self) -> &'static [Column] {
        const COLUMNS: &[Column] = &[
            Column::name(),
            Column::new("StorageClassName", "The class the capacity is for."),
            Column::new("Capacity", "How much there is."),
        ];
        COLUMNS
    }

    fn cells(&self, capacity: &CSIStorageCapacity, _now: Timestamp) -> Vec<Value> {
        let amount = capacity.capacity.as_ref().map_or("<unset>", |q| q.0.as_str());
        vec![
            cells::name(&capacity.metadata),
            capacity.storage_class_name.as_str().into(),
            amount.into(),
        ]
    }
}

fn validate(capacity: &CSIStorageCapacity) -> Errors {
    let mut errors = Errors::new();
    if let Some(topology) = &capacity.node_topology {
        selectors::label_selector(&mut errors, &Loc::new("nodeTopology"), topology);
    }
    let class = &capacity.storage_class_name;
    let at = Loc::new("storageClassName");
    if class.is_empty() {
        errors.push(at.required(""));
    } else {
        rules::subdomain(&mut errors, &at, class);
    }
    if let Some(quantity) = &capacity.capacity {
        rules::quantity(&mut errors, &Loc::new("capacity"), quantity);
    }
    if let Some(quantity) = &capacity.maximum_volume_size {
        rules::quantity(&mut errors, &Loc::new("maximumVolumeSize"), quantity);
    }
    errors
}
