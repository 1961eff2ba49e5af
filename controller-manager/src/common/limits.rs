//! Counts given as numbers or percentages.

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

/// Which way a percentage that is not a whole number goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rounding {
    /// To the next whole number.
    Up,
    /// To the whole number before.
    Down,
}

/// The count meant by a number or by a percentage of `total`; `None` if it is neither.
#[must_use]
pub fn scaled(value: &IntOrString, total: i32, rounding: Rounding) -> Option<i32> {
    match value {
        IntOrString::Int(number) => Some(*number),
        IntOrString::String(text) => {
            let percent: i64 = text.strip_suffix('%')?.parse().ok()?;
            let parts = percent * i64::from(total);
            let count = match rounding {
                Rounding::Up => parts.div_euclid(100) + i64::from(parts.rem_euclid(100) != 0),
                Rounding::Down => parts.div_euclid(100),
            };
            i32::try_from(count).ok()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentages() {
        let quarter = IntOrString::String("25%".into());
        assert_eq!(scaled(&quarter, 10, Rounding::Up), Some(3));
        assert_eq!(scaled(&quarter, 10, Rounding::Down), Some(2));
        assert_eq!(scaled(&IntOrString::Int(7), 10, Rounding::Down), Some(7));
        assert_eq!(scaled(&IntOrString::String("7".into()), 10, Rounding::Down), None);
    }
}
