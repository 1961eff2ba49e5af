//! Numbers as the Go components write them in JSON.

use std::io;

use serde::Serialize;
use serde_json::Serializer;
use serde_json::ser::Formatter;

/// The JSON of a value whose numbers may be fractions: as short as they can be, without a fraction that says nothing,
/// and with an exponent only if they are very small or very large (Go's `encoding/json`). What has no fraction is an
/// integer for whoever reads it next.
///
/// # Errors
/// When the value cannot be serialized.
pub fn to_json(value: &impl Serialize) -> serde_json::Result<Vec<u8>> {
    let mut json = Vec::with_capacity(1024);
    value.serialize(&mut Serializer::with_formatter(&mut json, Plain))?;
    Ok(json)
}

/// Writes numbers as Go does, and everything else compactly.
struct Plain;

impl Formatter for Plain {
    fn write_f64<W: ?Sized + io::Write>(&mut self, writer: &mut W, value: f64) -> io::Result<()> {
        let size = value.abs();
        if size != 0.0 && !(1e-6..1e21).contains(&size) {
            let text = format!("{value:e}");
            let text = match text.split_once('e') {
                Some((digits, exponent)) if !exponent.starts_with('-') => format!("{digits}e+{exponent}"),
                _ => text,
            };
            return writer.write_all(text.as_bytes());
        }
        write!(writer, "{value}")
    }

    // Go has no integers beyond 64 bits with a sign in objects without a type.
    fn write_u64<W: ?Sized + io::Write>(&mut self, writer: &mut W, value: u64) -> io::Result<()> {
        match i64::try_from(value) {
            Ok(value) => write!(writer, "{value}"),
            Err(_) => self.write_f64(writer, value as f64),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    #[test]
    fn numbers_read_and_written_are_those_of_go() {
        for (given, wanted) in [
            ("3.4028234663852886e38", "3.4028234663852886e+38"),
            ("9007199254740993.0", "9007199254740992"),
            ("1.0", "1"),
            ("1e2", "100"),
            ("1e20", "100000000000000000000"),
            ("1e21", "1e+21"),
            ("0.000001", "0.000001"),
            ("1.5e-7", "1.5e-7"),
            ("-0.0", "-0"),
            ("-2.5", "-2.5"),
            ("0.1", "0.1"),
            ("9223372036854775807", "9223372036854775807"),
            ("9223372036854775808", "9223372036854776000"),
            ("-9223372036854775808", "-9223372036854775808"),
        ] {
            let value: Value = serde_json::from_str(given).expect("a number");
            let json = to_json(&value).expect("json");
            assert_eq!(String::from_utf8_lossy(&json), wanted, "{given}");
        }
    }
}
