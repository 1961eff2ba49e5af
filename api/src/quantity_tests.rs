use proptest::prelude::*;

use super::*;

fn amount(text: &str) -> Amount {
    text.parse().unwrap_or_else(|e| panic!("{text}: {e}"))
}

#[test]
fn canonical_forms() {
    for (text, wanted) in [
        ("0", "0"),
        ("0n", "0"),
        ("-0", "0"),
        ("+1", "1"),
        ("1.5", "1500m"),
        ("1.5Gi", "1536Mi"),
        ("100m", "100m"),
        ("0.1", "100m"),
        ("1000m", "1"),
        ("1000", "1k"),
        ("1024", "1024"),
        ("1024Ki", "1Mi"),
        ("1023Ki", "1023Ki"),
        ("0.5Ki", "512"),
        ("1Ki", "1Ki"),
        ("12e6", "12e6"),
        ("1e3", "1e3"),
        ("1E3", "1e3"),
        ("100e-3", "100e-3"),
        ("1e28", "10e27"),
        ("1e40", "9223372036854775807"),
        (".5", "500m"),
        ("5.", "5"),
        ("0.1n", "1n"),
        ("1.00000000001", "1000000001n"),
        ("-1.00000000001", "-1000000001n"),
        ("-1536Mi", "-1536Mi"),
        ("9223372036854775807", "9223372036854775807"),
        ("99999999999999999999", "99999999999999999999"),
        ("100E", "100E"),
        ("16Ei", "9223372036854775807"),
        ("0.0001Ki", "102400u"),
        ("0012", "12"),
        ("500000m", "500"),
        ("1.2Ki", "1228800m"),
    ] {
        assert_eq!(amount(text).to_string(), wanted, "{text}");
    }
}

#[test]
fn values_round_away_from_zero() {
    assert_eq!(amount("100m").value(), 1);
    assert_eq!(amount("-100m").value(), -1);
    assert_eq!(amount("1.5Gi").value(), 1_610_612_736);
    assert_eq!(amount("250u").milli_value(), 1);
    assert_eq!(amount("2").milli_value(), 2000);
    assert_eq!(amount("100E").milli_value(), i64::MAX);
}

#[test]
fn what_is_no_quantity() {
    for (text, wanted) in [
        ("", ParseError::Format),
        ("-", ParseError::Format),
        ("abc", ParseError::Format),
        ("1x", ParseError::Format),
        ("1.2.3", ParseError::Format),
        ("1 Gi", ParseError::Format),
        ("1KiB", ParseError::Format),
        ("1K", ParseError::Suffix),
        ("1mm", ParseError::Suffix),
        ("1Mi5", ParseError::Suffix),
        ("1e", ParseError::Suffix),
    ] {
        assert_eq!(text.parse::<Amount>(), Err(wanted), "{text}");
    }
}

#[test]
fn sums_take_the_first_format() {
    assert_eq!(
        (Amount::ZERO + amount("1Gi") + amount("512Mi")).to_string(),
        "1536Mi"
    );
    assert_eq!((amount("2") - amount("500m")).to_string(), "1500m");
    assert_eq!(Amount::from_bytes(1 << 20).to_string(), "1Mi");
    assert!(amount("1Ki") > amount("1k") && amount("1000m") == amount("1"));
}

proptest! {
    #[test]
    fn few_digits_come_to_what_many_do(digits in "[0-9]{0,10}", power in 1_u8..7, exponent in prop_oneof![-12_i32..24, Just(i32::MAX)]) {
        let decimal = few_digits(&digits, 10, exponent);
        prop_assert!(decimal.is_none() || decimal == decimal_nanos(&digits, "", exponent));
        let exponent = 10 * i32::from(power);
        let binary = few_digits(&digits, 2, exponent);
        prop_assert_eq!(binary.is_none(), digits.len() > 9);
        prop_assert!(binary.is_none() || binary == binary_nanos(&digits, "", exponent.unsigned_abs()));
    }
}

proptest! {
    #[test]
    fn canonical_text_reads_back(units in any::<i64>(), nanos in 0i128..1_000_000_000, form in 0..3usize) {
        let format = [Format::DecimalSi, Format::BinarySi, Format::DecimalExponent][form];
        let one = Amount::from_nanos(i128::from(units) * NANO / 2 + nanos).with_format(format);
        let text = one.to_string();
        let back: Amount = text.parse().expect("a canonical form");
        prop_assert_eq!(back, one);
        prop_assert_eq!(back.to_string(), text);
    }

    #[test]
    fn reading_never_panics(text in "[+-]?[0-9.]{0,45}[eEinumkKMGTP]{0,3}[-+]?[0-9]{0,12}") {
        let _ = text.parse::<Amount>();
    }
}
