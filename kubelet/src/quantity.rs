//! Quantities as the numbers a kubelet counts in.

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use keelson_api::Amount;

/// Whole units, rounded up.
pub fn value(quantity: &Quantity) -> i64 {
    Amount::of(quantity).value()
}

/// Thousandths, rounded up.
pub fn milli(quantity: &Quantity) -> i64 {
    Amount::of(quantity).milli_value()
}
