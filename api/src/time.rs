//! The wire's two kinds of timestamps: `Time` counts seconds, `MicroTime` microseconds.
//!
//! Both are cut to what they can say as they are made: what is compared in memory is what is written.

use jiff::Timestamp;
use jiff::fmt::temporal::DateTimePrinter;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, Time};

/// The moment that Go has for none: what a time must be that is not said, where there must be one.
pub const ZERO: &str = "0001-01-01T00:00:00Z";
/// Its second.
const ZERO_SECOND: i64 = -62_135_596_800;

/// Whether nobody has said a time that there must be.
pub fn is_zero(time: &Time) -> bool {
    time.0.as_second() == ZERO_SECOND
}

/// The present, to the second.
pub fn now() -> Time {
    Time(to_seconds(Timestamp::now()))
}

/// The present, to the microsecond.
pub fn now_micro() -> MicroTime {
    MicroTime(to_micros(Timestamp::now()))
}

/// A moment cut to whole seconds.
pub fn to_seconds(at: Timestamp) -> Timestamp {
    Timestamp::from_second(at.as_second()).unwrap_or(at)
}

/// A moment cut to whole microseconds.
pub fn to_micros(at: Timestamp) -> Timestamp {
    Timestamp::from_microsecond(at.as_microsecond()).unwrap_or(at)
}

/// How long ago something was; zero if it lies in the future.
pub fn since(at: Timestamp) -> std::time::Duration {
    let nanos = Timestamp::now().as_nanosecond() - at.as_nanosecond();
    u64::try_from(nanos)
        .map(std::time::Duration::from_nanos)
        .unwrap_or_default()
}

/// How long until something is; zero if it is over.
pub fn until(at: Timestamp) -> std::time::Duration {
    let nanos = at.as_nanosecond() - Timestamp::now().as_nanosecond();
    u64::try_from(nanos)
        .map(std::time::Duration::from_nanos)
        .unwrap_or_default()
}

/// The moment `duration` after `at`; the end of time if that is beyond it.
pub fn after(at: Timestamp, duration: std::time::Duration) -> Timestamp {
    at.checked_add(duration).unwrap_or(Timestamp::MAX)
}

/// RFC 3339 in UTC to the second, as `Time` is written.
pub fn rfc3339(at: Timestamp) -> String {
    const PRINTER: DateTimePrinter = DateTimePrinter::new().precision(Some(0));
    PRINTER.timestamp_to_string(&at)
}

/// RFC 3339 in UTC with nanoseconds, trailing zeros dropped: as Go's `RFC3339Nano` and the log format write it.
pub fn rfc3339_nano(at: Timestamp) -> String {
    at.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zero_is_the_year_one() {
        assert!(is_zero(&Time(ZERO.parse().expect("a moment"))));
        assert!(!is_zero(&now()));
    }

    #[test]
    fn cuts_and_spells() {
        let at: Timestamp = "2026-01-02T03:04:05.123456789Z".parse().expect("a timestamp");
        assert_eq!(rfc3339(at), "2026-01-02T03:04:05Z");
        assert_eq!(rfc3339_nano(at), "2026-01-02T03:04:05.123456789Z");
        let ends = [ZERO, "0000-01-01T00:00:00Z", "9999-12-30T21:59:59.9Z"]
            .map(|end| end.parse().expect("a moment"));
        for at in ends.into_iter().chain([at]) {
            let time = serde_json::to_value(Time(to_seconds(at))).expect("json");
            assert_eq!(time, rfc3339(at));
        }
        assert_eq!(
            serde_json::to_string(&MicroTime(to_micros(at))).expect("json"),
            "\"2026-01-02T03:04:05.123456Z\""
        );
        assert_eq!(
            after(at, std::time::Duration::from_secs(u64::MAX)),
            Timestamp::MAX
        );
    }
}
