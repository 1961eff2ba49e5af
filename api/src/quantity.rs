//! Amounts of CPU, memory and everything else that is counted: `100m`, `1.5Gi`, `1e3`.
//!
//! An [`Amount`] counts billionths, which is the finest the API can express; anything finer is rounded up.
//! Amounts remember which family of suffixes they were written with and are written with it again.

use std::cmp::Ordering;
use std::fmt;
use std::ops::{Add, AddAssign, Neg, Sub, SubAssign};
use std::str::FromStr;

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

const NANO: i128 = 1_000_000_000;
const MAX_UNITS: i128 = i64::MAX as i128;

/// Which family of suffixes an amount is written with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Format {
    /// `e3`, `E-3`.
    DecimalExponent,
    /// `Ki`, `Mi`, …: powers of 1024.
    BinarySi,
    /// `n`, `u`, `m`, none, `k`, `M`, …: powers of 1000.
    #[default]
    DecimalSi,
}

/// Why a text is no quantity. The texts are upstream's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// The text does not have the shape of a quantity.
    #[error("quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'")]
    Format,
    /// The number cannot be read.
    #[error("unable to parse numeric part of quantity")]
    Numeric,
    /// There is no such suffix.
    #[error("unable to parse quantity's suffix")]
    Suffix,
}

/// An amount, exact to a billionth. Comparison ignores how it is written.
#[derive(Clone, Copy, Debug, Default)]
pub struct Amount {
    nanos: i128,
    format: Format,
}

impl Amount {
    /// Nothing.
    pub const ZERO: Self = Self {
        nanos: 0,
        format: Format::DecimalSi,
    };

    /// So many whole units, written with decimal suffixes.
    pub const fn from_units(units: i64) -> Self {
        Self {
            nanos: units as i128 * NANO,
            format: Format::DecimalSi,
        }
    }

    /// So many thousandths, written with decimal suffixes: the usual way to count CPU.
    pub const fn from_millis(millis: i64) -> Self {
        Self {
            nanos: millis as i128 * (NANO / 1000),
            format: Format::DecimalSi,
        }
    }

    /// So many bytes, written with binary suffixes.
    pub const fn from_bytes(bytes: i64) -> Self {
        Self {
            nanos: bytes as i128 * NANO,
            format: Format::BinarySi,
        }
    }

    /// So many billionths, written with decimal suffixes: how CPU usage is reported.
    pub const fn from_nanos(nanos: i128) -> Self {
        Self {
            nanos,
            format: Format::DecimalSi,
        }
    }

    /// The same amount, written with another family of suffixes.
    pub const fn with_format(self, format: Format) -> Self {
        Self {
            nanos: self.nanos,
            format,
        }
    }

    /// The family of suffixes the amount is written with.
    pub const fn format(self) -> Format {
        self.format
    }

    /// Whole units, rounded away from zero, capped at what 64 bits hold.
    pub fn value(self) -> i64 {
        self.scaled(NANO)
    }

    /// Thousandths, rounded away from zero, capped at what 64 bits hold.
    pub fn milli_value(self) -> i64 {
        self.scaled(NANO / 1000)
    }

    /// The same amount in thousandths, rounded away from zero.
    pub fn up_to_millis(self) -> Self {
        const MILLI: i128 = NANO / 1000;
        Self {
            nanos: div_away(self.nanos, MILLI) * MILLI,
            format: self.format,
        }
    }

    /// Billionths, exactly.
    pub const fn nanos(self) -> i128 {
        self.nanos
    }

    /// As a float, for ratios and metrics.
    pub fn as_f64(self) -> f64 {
        self.nanos as f64 / NANO as f64
    }

    fn scaled(self, unit: i128) -> i64 {
        let rounded = div_away(self.nanos, unit);
        i64::try_from(rounded).unwrap_or(if rounded < 0 { i64::MIN } else { i64::MAX })
    }

    /// Whether nothing is asked for.
    pub const fn is_zero(self) -> bool {
        self.nanos == 0
    }

    /// Whether the amount is below nothing.
    pub const fn is_negative(self) -> bool {
        self.nanos < 0
    }

    /// Whether the amount is a whole number of units.
    pub const fn is_whole(self) -> bool {
        self.nanos % NANO == 0
    }

    /// The amount times a whole number, capped.
    pub fn times(self, factor: i64) -> Self {
        Self {
            nanos: self.nanos.saturating_mul(i128::from(factor)),
            format: self.format,
        }
    }

    /// Whether this is the amount's canonical spelling.
    pub fn is_spelled(self, text: &str) -> bool {
        use fmt::Write as _;

        /// Compares what is written with what is expected, without keeping it.
        struct Compare<'a>(&'a str);

        impl fmt::Write for Compare<'_> {
            fn write_str(&mut self, part: &str) -> fmt::Result {
                self.0 = self.0.strip_prefix(part).ok_or(fmt::Error)?;
                Ok(())
            }
        }

        let mut compare = Compare(text);
        write!(compare, "{self}").is_ok() && compare.0.is_empty()
    }

    /// Reads a wire quantity; a text that is none counts as nothing, as in objects that validation has accepted.
    pub fn of(quantity: &Quantity) -> Self {
        quantity.0.parse().unwrap_or_default()
    }
}

fn div_away(value: i128, unit: i128) -> i128 {
    let quotient = value / unit;
    match value % unit {
        0 => quotient,
        rest if rest > 0 => quotient + 1,
        _ => quotient - 1,
    }
}

impl PartialEq for Amount {
    fn eq(&self, other: &Self) -> bool {
        self.nanos == other.nanos
    }
}

impl Eq for Amount {}

impl PartialOrd for Amount {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Amount {
    fn cmp(&self, other: &Self) -> Ordering {
        self.nanos.cmp(&other.nanos)
    }
}

impl std::hash::Hash for Amount {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.nanos.hash(state);
    }
}

impl Add for Amount {
    type Output = Self;

    /// Adding to nothing takes over the other's format.
    fn add(self, other: Self) -> Self {
        let format = if self.is_zero() { other.format } else { self.format };
        Self {
            nanos: self.nanos.saturating_add(other.nanos),
            format,
        }
    }
}

impl AddAssign for Amount {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

impl Neg for Amount {
    type Output = Self;

    fn neg(self) -> Self {
        Self {
            nanos: self.nanos.saturating_neg(),
            format: self.format,
        }
    }
}

impl Sub for Amount {
    type Output = Self;

    fn sub(self, other: Self) -> Self {
        self + -other
    }
}

impl SubAssign for Amount {
    fn sub_assign(&mut self, other: Self) {
        *self = *self - other;
    }
}

impl std::iter::Sum for Amount {
    fn sum<I: Iterator<Item = Self>>(items: I) -> Self {
        items.fold(Self::ZERO, Add::add)
    }
}

impl From<Amount> for Quantity {
    fn from(amount: Amount) -> Self {
        Self(amount.to_string())
    }
}

impl TryFrom<&Quantity> for Amount {
    type Error = ParseError;

    fn try_from(quantity: &Quantity) -> Result<Self, ParseError> {
        quantity.0.parse()
    }
}

/// The canonical spelling of a quantity's text.
pub fn canonical(text: &str) -> Result<String, ParseError> {
    text.parse::<Amount>().map(|amount| amount.to_string())
}

/// The parts of a quantity's text.
struct Parts<'a> {
    negative: bool,
    whole: &'a str,
    fraction: &'a str,
    suffix: &'a str,
}

fn split(text: &str) -> Result<Parts<'_>, ParseError> {
    let (negative, rest) = match text.as_bytes().first() {
        None => return Err(ParseError::Format),
        Some(b'-') => (true, &text[1..]),
        Some(b'+') => (false, &text[1..]),
        Some(_) => (false, text),
    };
    let digits = |s: &str| s.bytes().take_while(u8::is_ascii_digit).count();
    let (whole, rest) = rest.split_at(digits(rest));
    let (fraction, suffix) = match rest.strip_prefix('.') {
        Some(rest) => rest.split_at(digits(rest)),
        None => ("", rest),
    };
    // The suffix: letters, then perhaps a sign, then digits, and nothing after them.
    let letters = suffix.bytes().take_while(|b| b"eEinumkKMGTP".contains(b)).count();
    let tail = &suffix[letters..];
    let tail = tail.strip_prefix(['+', '-']).unwrap_or(tail);
    if !tail.bytes().all(|b| b.is_ascii_digit()) {
        return Err(ParseError::Format);
    }
    if whole.is_empty() && fraction.is_empty() {
        // No digits at all: upstream reads the number as zero only when something else is wrong.
        return Err(ParseError::Format);
    }
    Ok(Parts {
        negative,
        whole,
        fraction,
        suffix,
    })
}

/// Base 2 or 10, exponent, format.
fn suffix_scale(suffix: &str) -> Option<(u32, i32, Format)> {
    let decimal = |exponent| Some((10, exponent, Format::DecimalSi));
    let binary = |exponent| Some((2, exponent, Format::BinarySi));
    match suffix {
        "n" => decimal(-9),
        "u" => decimal(-6),
        "m" => decimal(-3),
        "" => decimal(0),
        "k" => decimal(3),
        "M" => decimal(6),
        "G" => decimal(9),
        "T" => decimal(12),
        "P" => decimal(15),
        "E" => decimal(18),
        "Ki" => binary(10),
        "Mi" => binary(20),
        "Gi" => binary(30),
        "Ti" => binary(40),
        "Pi" => binary(50),
        "Ei" => binary(60),
        _ => {
            let exponent = suffix.strip_prefix(['e', 'E'])?;
            // An exponent of hundreds is far beyond every cap: no need to read more.
            let exponent: i64 = exponent.parse().ok()?;
            Some((10, i32::try_from(exponent).ok()?, Format::DecimalExponent))
        }
    }
}

impl FromStr for Amount {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let parts = split(text)?;
        let (base, exponent, format) = suffix_scale(parts.suffix).ok_or(ParseError::Suffix)?;
        let whole = parts.whole.trim_start_matches('0');
        let few = match parts.fraction {
            "" => few_digits(whole, base, exponent),
            _ => None,
        };
        let magnitude = few.or_else(|| match base {
            2 => binary_nanos(whole, parts.fraction, exponent.unsigned_abs()),
            _ => decimal_nanos(whole, parts.fraction, exponent),
        });
        // Binary amounts stop at what 64 bits hold, decimal ones only where this type does.
        let magnitude = match magnitude {
            Some(nanos) if base == 10 => nanos,
            Some(nanos) => nanos.min(MAX_UNITS * NANO),
            None => MAX_UNITS * NANO,
        };
        // A binary suffix cannot show less than one.
        let format = if format == Format::BinarySi && magnitude > 0 && magnitude < NANO {
            Format::DecimalSi
        } else {
            format
        };
        Ok(Self {
            nanos: if parts.negative { -magnitude } else { magnitude },
            format,
        })
    }
}

/// Digits × base^exponent in billionths, where both are so small that nothing can overflow and nothing has to be rounded,
/// as in most amounts; `None` otherwise.
fn few_digits(digits: &str, base: u32, exponent: i32) -> Option<i128> {
    /// 10^0 to 10^27.
    const POWERS: [i128; 28] = {
        let mut powers = [1; 28];
        let mut at = 1;
        while at < powers.len() {
            powers[at] = powers[at - 1] * 10;
            at += 1;
        }
        powers
    };
    if digits.len() > 9 {
        return None;
    }
    let number = digits
        .bytes()
        .fold(0_u32, |number, digit| number * 10 + u32::from(digit - b'0'));
    let number = i128::from(number);
    match base {
        2 => Some((number << exponent) * NANO),
        _ => Some(number * POWERS.get(usize::try_from(exponent.checked_add(9)?).ok()?)?),
    }
}

/// digits × 10^exponent in billionths, rounded up; `None` if that is beyond 128 bits.
fn decimal_nanos(whole: &str, fraction: &str, exponent: i32) -> Option<i128> {
    let digits = || {
        whole
            .bytes()
            .chain(fraction.bytes())
            .map(|b| i128::from(b - b'0'))
    };
    let count = whole.len() + fraction.len();
    if digits().all(|d| d == 0) {
        return Some(0);
    }
    // How many of the digits stand left of the billionths' own decimal point.
    let kept = i64::try_from(whole.len()).ok()? + i64::from(exponent) + 9;
    let mut value: i128 = 0;
    for (i, digit) in digits().enumerate() {
        if i64::try_from(i).ok()? < kept {
            value = value.checked_mul(10)?.checked_add(digit)?;
        }
    }
    let count = i64::try_from(count).ok()?;
    if kept > count {
        let zeros = u32::try_from(kept - count).ok()?;
        return if value == 0 {
            Some(0)
        } else {
            value.checked_mul(10i128.checked_pow(zeros)?)
        };
    }
    let dropped = digits().skip(usize::try_from(kept.max(0)).ok()?).any(|d| d != 0);
    Some(value + i128::from(dropped))
}

/// (whole + fraction) × 2^exponent in billionths, rounded up; `None` if that is beyond 128 bits.
fn binary_nanos(whole: &str, fraction: &str, exponent: u32) -> Option<i128> {
    const FRACTION_DIGITS: usize = 18;
    let mut units: i128 = 0;
    for digit in whole.bytes() {
        units = units.checked_mul(10)?.checked_add(i128::from(digit - b'0'))?;
    }
    let nanos = units.checked_mul(1i128 << exponent)?.checked_mul(NANO)?;
    // 18 digits below the point times 2^60 still fit; further ones can only round up.
    let (used, rest) = fraction.split_at(fraction.len().min(FRACTION_DIGITS));
    let below = used
        .bytes()
        .fold(0i128, |sum, digit| sum * 10 + i128::from(digit - b'0'))
        << exponent;
    let scale = 10i128.pow(u32::try_from(used.len()).ok()?);
    let sticky = i128::from(rest.bytes().any(|digit| digit != b'0'));
    let below = if scale >= NANO {
        let unit = scale / NANO;
        below / unit + i128::from(below % unit != 0 || sticky != 0)
    } else {
        below * (NANO / scale)
    };
    nanos.checked_add(below)
}

impl fmt::Display for Amount {
    /// The canonical form: no precision lost, no fraction, the largest suffix that fits.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.nanos == 0 {
            return f.write_str("0");
        }
        let small = self.nanos.abs() < 1024 * NANO;
        if self.format == Format::BinarySi && !small && self.is_whole() {
            let mut number = self.nanos / NANO;
            let mut power = 0;
            while power < 6 && number % 1024 == 0 {
                number /= 1024;
                power += 1;
            }
            return write!(f, "{number}{}", ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"][power]);
        }
        let mut number = self.nanos;
        let mut exponent = -9;
        while exponent < 18 && number % 1000 == 0 {
            number /= 1000;
            exponent += 3;
        }
        if self.format == Format::DecimalExponent {
            while number % 1000 == 0 {
                number /= 1000;
                exponent += 3;
            }
            return if exponent == 0 {
                write!(f, "{number}")
            } else {
                write!(f, "{number}e{exponent}")
            };
        }
        let suffix = match exponent {
            -9 => "n",
            -6 => "u",
            -3 => "m",
            0 => "",
            3 => "k",
            6 => "M",
            9 => "G",
            12 => "T",
            15 => "P",
            _ => "E",
        };
        write!(f, "{number}{suffix}")
    }
}

#[cfg(test)]
#[path = "quantity_tests.rs"]
mod tests;
