//! Small steps of defaulting.
//!
//! Upstream keeps many optional fields as plain values: an empty text, a false and an absent field are the same to it and
//! it writes none of them. The `drop_*` functions do that, so that what is stored looks as it does there.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use keelson_api::quantity::Amount;

/// Sets a text that is absent or empty.
pub fn fill(field: &mut Option<String>, default: &str) {
    if field.as_deref().unwrap_or("").is_empty() {
        *field = Some(default.to_owned());
    }
}

/// Sets a text of a required field that is empty.
pub fn fill_text(field: &mut String, default: &str) {
    if field.is_empty() {
        default.clone_into(field);
    }
}

/// Removes an empty text.
pub fn drop_empty(field: &mut Option<String>) {
    if field.as_deref() == Some("") {
        *field = None;
    }
}

/// Removes a `false` that says no more than its absence.
pub fn drop_false(field: &mut Option<bool>) {
    if *field == Some(false) {
        *field = None;
    }
}

/// Removes a zero that says no more than its absence.
pub fn drop_zero(field: &mut Option<i32>) {
    if *field == Some(0) {
        *field = None;
    }
}

/// Writes every quantity of a list of resources in its canonical form: `1024Mi` as `1Gi`, `0.5` as `500m`. There is
/// nothing below a thousandth in such lists: what is finer is rounded up.
pub fn quantities(list: &mut BTreeMap<String, Quantity>) {
    for quantity in list.values_mut() {
        rewrite(quantity, Amount::up_to_millis);
    }
}

/// Writes a quantity in its canonical form. One that cannot be read is left for validation to complain about.
pub fn quantity(quantity: &mut Quantity) {
    rewrite(quantity, |amount| amount);
}

fn rewrite(quantity: &mut Quantity, change: fn(Amount) -> Amount) {
    if is_canonical(&quantity.0) {
        return;
    }
    if let Ok(amount) = quantity.0.trim().parse() {
        quantity.0 = change(amount).to_string();
    }
}

/// Whether a quantity certainly is in canonical form already: small whole numbers with a usual suffix.
fn is_canonical(text: &str) -> bool {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, suffix) = text.split_at(digits);
    let Ok(number) = number.parse::<u64>() else {
        return false;
    };
    if number == 0 || text.starts_with('0') || digits > 15 {
        return text == "0";
    }
    match suffix {
        "m" | "" | "k" | "M" | "G" | "T" => number % 1000 != 0,
        "Ki" | "Mi" | "Gi" | "Ti" => number % 1024 != 0,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_resources_know_nothing_below_a_thousandth() {
        for (given, stored) in [
            ("0.0001", "1m"),
            ("1.0001Gi", "1073849198183m"),
            ("100u", "1m"),
            ("-100u", "-1m"),
            ("1500u", "2m"),
            ("1", "1"),
        ] {
            let mut list = BTreeMap::from([("cpu".to_owned(), Quantity(given.to_owned()))]);
            quantities(&mut list);
            assert_eq!(list["cpu"].0, stored, "{given}");
        }
    }

    #[test]
    fn quantities_become_canonical() {
        for (given, stored) in [
            ("100m", "100m"),
            ("1000m", "1"),
            ("0.5", "500m"),
            ("1024Mi", "1Gi"),
            ("1536Mi", "1536Mi"),
            ("1.5Gi", "1536Mi"),
            ("1000", "1k"),
            ("0", "0"),
            ("nonsense", "nonsense"),
        ] {
            let mut q = Quantity(given.to_owned());
            quantity(&mut q);
            assert_eq!(q.0, stored, "{given}");
        }
    }
}
