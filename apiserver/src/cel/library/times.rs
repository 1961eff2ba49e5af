//! Timestamps and durations.

use jiff::civil::Weekday;
use jiff::tz::{Offset, TimeZone};

use super::super::eval::Failure;
use super::super::value::Value;
use super::Outcome;

/// Methods of timestamps and durations.
pub fn method<'v>(name: &str, target: &Value<'v>, args: &[Value<'v>]) -> Option<Outcome<'v>> {
    match target {
        Value::Duration(nanoseconds) if args.is_empty() => {
            let unit = match name {
                "getHours" => 3_600_000_000_000,
                "getMinutes" => 60_000_000_000,
                "getSeconds" => 1_000_000_000,
                "getMilliseconds" => 1_000_000,
                _ => return None,
            };
            Some(Ok(Value::Int(nanoseconds / unit)))
        }
        Value::Timestamp(at) => {
            let zone = match args {
                [] => TimeZone::UTC,
                [name] => match zone_of(name.as_str()?) {
                    Ok(zone) => zone,
                    Err(failure) => return Some(Err(failure)),
                },
                _ => return None,
            };
            let at = at.to_zoned(zone);
            let number = match name {
                "getFullYear" => i64::from(at.year()),
                "getMonth" => i64::from(at.month()) - 1,
                "getDate" => i64::from(at.day()),
                "getDayOfMonth" => i64::from(at.day()) - 1,
                "getDayOfWeek" => match at.weekday() {
                    Weekday::Sunday => 0,
                    other => i64::from(other.to_monday_one_offset()),
                },
                "getDayOfYear" => i64::from(at.day_of_year()) - 1,
                "getHours" => i64::from(at.hour()),
                "getMinutes" => i64::from(at.minute()),
                "getSeconds" => i64::from(at.second()),
                "getMilliseconds" => i64::from(at.millisecond()),
                _ => return None,
            };
            Some(Ok(Value::Int(number)))
        }
        _ => None,
    }
}

/// `Europe/Berlin`, `+02:00`
fn zone_of(name: &str) -> Result<TimeZone, Failure> {
    let unknown = || Failure::error(format!("unknown time zone {name}"));
    if let Some((hours, minutes)) = name.split_once(':') {
        let negative = hours.starts_with('-');
        let hours: i32 = hours
            .trim_start_matches(['+', '-'])
            .parse()
            .map_err(|_| unknown())?;
        let minutes: i32 = minutes.parse().map_err(|_| unknown())?;
        let seconds = hours
            .saturating_mul(3600)
            .saturating_add(minutes.saturating_mul(60));
        let offset =
            Offset::from_seconds(if negative { -seconds } else { seconds }).map_err(|_| unknown())?;
        return Ok(TimeZone::fixed(offset));
    }
    TimeZone::get(name).map_err(|_| unknown())
}

/// A duration in seconds, as CEL spells it: `3.5s`.
pub fn show_duration(nanoseconds: i64) -> String {
    let (seconds, rest) = (
        nanoseconds / 1_000_000_000,
        (nanoseconds % 1_000_000_000).unsigned_abs(),
    );
    let sign = if nanoseconds < 0 && seconds == 0 { "-" } else { "" };
    if rest == 0 {
        return format!("{sign}{seconds}s");
    }
    let fraction = format!("{rest:09}");
    format!("{sign}{seconds}.{}s", fraction.trim_end_matches('0'))
}
