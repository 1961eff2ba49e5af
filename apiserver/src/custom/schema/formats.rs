//! The formats strings may be held to; others say nothing.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use base64::Engine as _;

/// Whether the format is one of those that are checked.
pub fn known(format: &str) -> bool {
    matches!(
        normalized(format).as_str(),
        "bsonobjectid"
            | "uri"
            | "email"
            | "hostname"
            | "ipv4"
            | "ipv6"
            | "cidr"
            | "mac"
            | "uuid"
            | "uuid3"
            | "uuid4"
            | "uuid5"
            | "isbn"
            | "isbn10"
            | "isbn13"
            | "creditcard"
            | "ssn"
            | "hexcolor"
            | "rgbcolor"
            | "byte"
            | "password"
            | "date"
            | "duration"
            | "datetime"
            | "k8sshortname"
            | "k8slongname"
    )
}

fn normalized(format: &str) -> String {
    format.replace('-', "")
}

/// Whether the text has the format.
pub fn holds(format: &str, text: &str) -> bool {
    match normalized(format).as_str() {
        "date" => jiff::civil::Date::strptime("%Y-%m-%d", text).is_ok() && text.len() == 10,
        "datetime" => text.contains(['T', 't']) && text.parse::<jiff::Timestamp>().is_ok(),
        "duration" => duration(text),
        "ipv4" => text.parse::<Ipv4Addr>().is_ok(),
        "ipv6" => text.parse::<Ipv6Addr>().is_ok(),
        "cidr" => text
            .split_once('/')
            .and_then(|(ip, bits)| Some((ip.parse::<IpAddr>().ok()?, bits.parse::<u8>().ok()?)))
            .is_some_and(|(ip, bits)| bits <= if ip.is_ipv4() { 32 } else { 128 }),
        "mac" => {
            let parts: Vec<&str> = text.split([':', '-']).collect();
            matches!(parts.len(), 6 | 8 | 20) && parts.iter().all(|p| p.len() == 2 && hex(p))
        }
        "uuid" => uuid(text, None),
        "uuid3" => uuid(text, Some('3')),
        "uuid4" => uuid(text, Some('4')),
        "uuid5" => uuid(text, Some('5')),
        "byte" => {
            let standard = &base64::engine::general_purpose::STANDARD;
            standard.decode(text).is_ok()
        }
        "uri" => text
            .split_once(':')
            .map_or(text.starts_with('/'), |(scheme, rest)| {
                scheme.starts_with(|c: char| c.is_ascii_alphabetic())
                    && scheme
                        .chars()
                        .all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c))
                    && !rest.is_empty()
                    && !text.contains(' ')
            }),
        "email" => text.split_once('@').is_some_and(|(local, domain)| {
            !local.is_empty() && hostname(domain) && !text.contains([' ', '<', '>'])
        }),
        "hostname" => hostname(text),
        "hexcolor" => {
            let digits = text.strip_prefix('#').unwrap_or(text);
            matches!(digits.len(), 3 | 6) && hex(digits)
        }
        "rgbcolor" => text
            .strip_prefix("rgb(")
            .and_then(|rest| rest.strip_suffix(')'))
            .is_some_and(|inside| {
                let parts: Vec<_> = inside.split(',').map(|p| p.trim().parse::<u8>()).collect();
                parts.len() == 3 && parts.iter().all(Result::is_ok)
            }),
        "bsonobjectid" => text.len() == 24 && hex(text),
        "creditcard" => luhn(text),
        "ssn" => {
            let digits: String = text.chars().filter(char::is_ascii_digit).collect();
            digits.len() == 9 && text.chars().all(|c| c.is_ascii_digit() || matches!(c, '-' | ' '))
        }
        "isbn" => isbn10(text) || isbn13(text),
        "isbn10" => isbn10(text),
        "isbn13" => isbn13(text),
        "k8sshortname" => keelson_api::validation::dns1123_label(text).is_empty(),
        "k8slongname" => keelson_api::validation::dns1123_subdomain(text).is_empty(),
        _ => true,
    }
}

fn hex(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_hexdigit())
}

fn uuid(text: &str, version: Option<char>) -> bool {
    let plain: String = text.chars().filter(|c| *c != '-').collect();
    let groups: Vec<usize> = text.split('-').map(str::len).collect();
    plain.len() == 32
        && hex(&plain)
        && (groups == [8, 4, 4, 4, 12] || groups == [32])
        && version.is_none_or(|version| plain.chars().nth(12) == Some(version))
}

fn hostname(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= 253
        && text.split('.').all(|label| {
            !label.is_empty()
                && label.len() <= 63
                && label
                    .chars()
                    .all(|c| c.is_alphanumeric() || matches!(c, '-' | '_'))
                && !label.starts_with('-')
                && !label.ends_with('-')
        })
}

/// Go's durations (`1h30m`), and the longer words upstream's library takes as well (`3 days`).
fn duration(text: &str) -> bool {
    go_duration(text).is_some() || {
        const UNITS: [&str; 24] = [
            "ns", "us", "ms", "s", "m", "h", "d", "w", "nano", "nanos", "micro", "micros", "milli", "millis",
            "second", "seconds", "minute", "minutes", "hour", "hours", "day", "days", "week", "weeks",
        ];
        let split = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(0);
        let (number, unit) = text.split_at(split);
        !number.is_empty() && number.parse::<f64>().is_ok() && UNITS.contains(&unit.trim())
    }
}

/// Nanoseconds of a duration as Go writes it: `1h2m3.5s`, `-5ms`, `0`.
pub fn go_duration(text: &str) -> Option<i64> {
    let (negative, mut rest) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    if rest == "0" {
        return Some(0);
    }
    if rest.is_empty() {
        return None;
    }
    let mut total: i128 = 0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, after) = rest.split_at(digits);
        let end = after
            .find(|c: char| c.is_ascii_digit() || c == '.')
            .unwrap_or(after.len());
        let (unit, after) = after.split_at(end);
        let scale: i128 = match unit {
            "ns" => 1,
            "us" | "µs" | "μs" => 1_000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60_000_000_000,
            "h" => 3_600_000_000_000,
            _ => return None,
        };
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') || number.len() > 30 {
            return None;
        }
        let whole: i128 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
        total = total.checked_add(whole.checked_mul(scale)?)?;
        if !fraction.is_empty() {
            let part: i128 = fraction.parse().ok()?;
            let power = 10_i128.checked_pow(u32::try_from(fraction.len()).ok()?)?;
            total = total.checked_add(part.checked_mul(scale)? / power)?;
        }
        rest = after;
    }
    i64::try_from(if negative { -total } else { total }).ok()
}

fn luhn(text: &str) -> bool {
    let digits: Vec<u32> = text
        .chars()
        .filter(|c| !matches!(c, ' ' | '-'))
        .map(|c| c.to_digit(10).unwrap_or(100))
        .collect();
    if !(12..=19).contains(&digits.len()) || digits.contains(&100) {
        return false;
    }
    let sum: u32 = digits
        .iter()
        .rev()
        .enumerate()
        .map(|(at, digit)| match at % 2 {
            0 => *digit,
            _ if digit * 2 > 9 => digit * 2 - 9,
            _ => digit * 2,
        })
        .sum();
    sum.is_multiple_of(10)
}

fn isbn_digits(text: &str) -> Vec<u32> {
    text.chars()
        .filter(|c| !matches!(c, ' ' | '-'))
        .map(|c| {
            if matches!(c, 'X' | 'x') {
                10
            } else {
                c.to_digit(10).unwrap_or(100)
            }
        })
        .collect()
}

fn isbn10(text: &str) -> bool {
    let digits = isbn_digits(text);
    digits.len() == 10
        && !digits.contains(&100)
        && !digits[..9].contains(&10)
        && digits
            .iter()
            .zip(1..)
            .map(|(d, place)| d * place)
            .sum::<u32>()
            .is_multiple_of(11)
}

fn isbn13(text: &str) -> bool {
    let digits = isbn_digits(text);
    digits.len() == 13
        && digits.iter().all(|d| *d < 10)
        && digits
            .iter()
            .enumerate()
            .map(|(at, d)| d * if at % 2 == 0 { 1 } else { 3 })
            .sum::<u32>()
            .is_multiple_of(10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_hold_or_do_not() {
        for (format, good, bad) in [
            ("date", "2024-02-29", "2024-02-30"),
            ("date-time", "2024-01-01T00:00:00Z", "2024-01-01"),
            ("duration", "1h2m3.5s", "an hour"),
            ("ipv4", "10.0.0.1", "10.0.0"),
            ("ipv6", "::1", "10.0.0.1"),
            ("cidr", "10.0.0.0/8", "10.0.0.0/33"),
            ("mac", "01:23:45:67:89:ab", "01:23"),
            ("uuid", "123e4567-e89b-12d3-a456-426614174000", "123e4567"),
            ("byte", "aGVsbG8=", "not base64!"),
            ("uri", "https://example.com/x", "no uri"),
            ("email", "a@example.com", "a@"),
            ("hostname", "example.com", "-x.com"),
            ("hexcolor", "#ff00ff", "#ff00f"),
            ("rgbcolor", "rgb(1, 2, 3)", "rgb(1,2)"),
            ("isbn10", "0306406152", "0306406153"),
            ("isbn13", "9780306406157", "9780306406158"),
            ("creditcard", "4111111111111111", "4111111111111112"),
        ] {
            assert!(known(format), "{format}");
            assert!(holds(format, good), "{format} {good}");
            assert!(!holds(format, bad), "{format} {bad}");
        }
        assert!(!known("int32-ish") && holds("whatever", "x"));
        assert_eq!(go_duration("1h0.5s"), Some(3_600_500_000_000));
        assert_eq!(go_duration("1x"), None);
    }
}
