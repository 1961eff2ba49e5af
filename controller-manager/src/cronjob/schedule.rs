//! Cron schedules: five fields, or one of the names `@hourly` and its like.

use jiff::civil::{Date, DateTime};
use jiff::tz::{AmbiguousOffset, TimeZone};
use jiff::{Span, Timestamp, ToSpan as _};

/// A schedule that has not come up for this long never will: the 29th of February comes up sooner.
const HORIZON_YEARS: i16 = 9;

/// A schedule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Schedule {
    /// At certain minutes of the calendar.
    Calendar(Box<Calendar>),
    /// Every so many seconds.
    Every(i64),
}

/// Sets of minutes, hours, days, months and weekdays, one bit each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Calendar {
    minutes: u64,
    hours: u64,
    days: u64,
    months: u64,
    weekdays: u64,
    /// Whether day of month or day of week is `*`: then both have to fit, otherwise either.
    any_day: bool,
}

struct Field {
    name: &'static str,
    first: u32,
    last: u32,
    names: &'static [&'static str],
}

const MINUTE: Field = Field {
    name: "minute",
    first: 0,
    last: 59,
    names: &[],
};
const HOUR: Field = Field {
    name: "hour",
    first: 0,
    last: 23,
    names: &[],
};
const DAY: Field = Field {
    name: "day of month",
    first: 1,
    last: 31,
    names: &[],
};
const MONTH: Field = Field {
    name: "month",
    first: 1,
    last: 12,
    names: &[
        "jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec",
    ],
};
const WEEKDAY: Field = Field {
    name: "day of week",
    first: 0,
    last: 6,
    names: &["sun", "mon", "tue", "wed", "thu", "fri", "sat"],
};

impl std::str::FromStr for Schedule {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let text = text.trim();
        if let Some(every) = text.strip_prefix("@every ") {
            let span: Span = every
                .trim()
                .parse()
                .map_err(|error| format!("failed to parse duration {text}: {error}"))?;
            let seconds = span
                .total(jiff::Unit::Second)
                .map_err(|error| error.to_string())?;
            #[expect(clippy::cast_possible_truncation, reason = "casting saturates")]
            return Ok(Self::Every((seconds as i64).max(1)));
        }
        let fields = match text {
            "@yearly" | "@annually" => "0 0 1 1 *",
            "@monthly" => "0 0 1 * *",
            "@weekly" => "0 0 * * 0",
            "@daily" | "@midnight" => "0 0 * * *",
            "@hourly" => "0 * * * *",
            _ if text.starts_with('@') => return Err(format!("unrecognized descriptor: {text}")),
            _ => text,
        };
        let fields: Vec<&str> = fields.split_whitespace().collect();
        let [minute, hour, day, month, weekday] = fields[..] else {
            return Err(format!(
                "expected exactly 5 fields, found {}: [{}]",
                fields.len(),
                fields.join(" ")
            ));
        };
        let is_any = |field: &str| field.starts_with('*') || field.starts_with('?');
        Ok(Self::Calendar(Box::new(Calendar {
            minutes: MINUTE.parse(minute)?,
            hours: HOUR.parse(hour)?,
            days: DAY.parse(day)?,
            months: MONTH.parse(month)?,
            weekdays: WEEKDAY.parse(weekday)?,
            any_day: is_any(day) || is_any(weekday),
        })))
    }
}

impl Field {
    fn parse(&self, text: &str) -> Result<u64, String> {
        text.split(',')
            .try_fold(0, |bits, part| Ok(bits | self.range(part)?))
    }

    fn range(&self, text: &str) -> Result<u64, String> {
        let (range, step) = match text.split_once('/') {
            Some((range, step)) => {
                let step: u32 = step.parse().map_err(|_| self.wrong(text))?;
                (range, Some(step))
            }
            None => (text, None),
        };
        let (first, last) = match range {
            "*" | "?" => (self.first, self.last),
            _ => match range.split_once('-') {
                Some((first, last)) => (self.number(first)?, self.number(last)?),
                // A number with a step runs to the end.
                None if step.is_some() => (self.number(range)?, self.last),
                None => (self.number(range)?, self.number(range)?),
            },
        };
        let step = step.unwrap_or(1);
        if first < self.first || last > self.last || first > last || step == 0 {
            return Err(self.wrong(text));
        }
        let step = usize::try_from(step).unwrap_or(usize::MAX);
        Ok((first..=last)
            .step_by(step)
            .fold(0, |bits, number| bits | 1 << number))
    }

    fn number(&self, text: &str) -> Result<u32, String> {
        let lower = text.to_lowercase();
        if let Some(index) = self.names.iter().position(|name| *name == lower) {
            return Ok(self.first + u32::try_from(index).unwrap_or_default());
        }
        text.parse().map_err(|_| self.wrong(text))
    }

    fn wrong(&self, text: &str) -> String {
        format!(
            "\"{text}\" is not a {} ({} to {})",
            self.name, self.first, self.last
        )
    }
}

impl Schedule {
    /// The first time after `after`; `None` if there is none.
    #[must_use]
    pub fn next(&self, after: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        match self {
            Self::Every(seconds) => Timestamp::from_second(after.as_second() + seconds).ok(),
            Self::Calendar(calendar) => calendar.next(after, zone),
        }
    }

    /// The last time after `since` and not after `now`, and how many there were before it in that span
    /// (not counted further than a hundred).
    #[must_use]
    pub fn latest(&self, since: Timestamp, now: Timestamp, zone: &TimeZone) -> Option<(Timestamp, usize)> {
        const TOO_MANY: usize = 100;
        let first = self.next(since, zone).filter(|at| *at <= now)?;
        let (mut last, mut missed) = (first, 0);
        while let Some(at) = self.next(last, zone).filter(|at| *at <= now) {
            last = at;
            missed += 1;
            if missed > TOO_MANY {
                return Some((self.latest_near(now, first, zone), missed));
            }
        }
        Some((last, missed))
    }

    /// The last time not after `now`, looked for in ever longer spans before it.
    fn latest_near(&self, now: Timestamp, first: Timestamp, zone: &TimeZone) -> Timestamp {
        let mut span = 60;
        loop {
            let from = Timestamp::from_second(now.as_second() - span)
                .unwrap_or(first)
                .max(first);
            let mut last = None;
            let mut from_here = from;
            while let Some(at) = self.next(from_here, zone).filter(|at| *at <= now) {
                last = Some(at);
                from_here = at;
            }
            match last {
                Some(last) => return last,
                None if from == first => return first,
                None => span *= 2,
            }
        }
    }
}

impl Calendar {
    fn next(&self, after: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        let local = after.to_zoned(zone.clone()).datetime();
        let mut at = start_of_minute(local)?.checked_add(1.minute()).ok()?;
        let end = local.year().checked_add(HORIZON_YEARS)?;
        while at.year() <= end {
            if !has(self.months, at.month()) {
                at = at
                    .date()
                    .first_of_month()
                    .checked_add(1.month())
                    .ok()?
                    .at(0, 0, 0, 0);
            } else if !self.fits(at.date()) {
                at = at.date().checked_add(1.day()).ok()?.at(0, 0, 0, 0);
            } else if !has(self.hours, at.hour()) {
                at = at.date().at(at.hour(), 0, 0, 0).checked_add(1.hour()).ok()?;
            } else if !has(self.minutes, at.minute()) {
                at = at.checked_add(1.minute()).ok()?;
            } else {
                // A time that the clocks skip is left out; one that they repeat counts once.
                let moment = zone.to_ambiguous_zoned(at);
                let skipped = matches!(moment.offset(), AmbiguousOffset::Gap { .. });
                if !skipped
                    && let Ok(moment) = moment.earlier()
                    && moment.timestamp() > after
                {
                    return Some(moment.timestamp());
                }
                at = at.checked_add(1.minute()).ok()?;
            }
        }
        None
    }

    fn fits(&self, date: Date) -> bool {
        let day = has(self.days, date.day());
        let weekday = has(self.weekdays, date.weekday().to_sunday_zero_offset());
        if self.any_day {
            day && weekday
        } else {
            day || weekday
        }
    }
}

fn has(bits: u64, number: i8) -> bool {
    u32::try_from(number).is_ok_and(|number| bits >> number & 1 == 1)
}

fn start_of_minute(at: DateTime) -> Option<DateTime> {
    at.with().second(0).subsec_nanosecond(0).build().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn next(schedule: &str, after: &str, zone: &str) -> String {
        let schedule: Schedule = schedule.parse().expect("a schedule");
        let after: Timestamp = after.parse().expect("a time");
        let zone = TimeZone::get(zone).expect("a zone");
        schedule
            .next(after, &zone)
            .map_or_else(|| "never".into(), |at| at.to_string())
    }

    fn next_utc(schedule: &str, after: &str) -> String {
        next(schedule, after, "UTC")
    }

    #[test]
    fn fields() {
        let now = "2026-07-09T14:45:10Z";
        assert_eq!(next_utc("*/15 * * * *", now), "2026-07-09T15:00:00Z");
        assert_eq!(next_utc("* * * * *", now), "2026-07-09T14:46:00Z");
        assert_eq!(next_utc("20-35/15 * * * *", now), "2026-07-09T15:20:00Z");
        assert_eq!(next_utc("0 5/6 * * *", now), "2026-07-09T17:00:00Z");
        assert_eq!(next_utc("0 0 1 jan *", now), "2027-01-01T00:00:00Z");
        assert_eq!(next_utc("0 0 * * Mon,WED", now), "2026-07-13T00:00:00Z");
        assert_eq!(next_utc("0 0 29 2 *", now), "2028-02-29T00:00:00Z");
        assert_eq!(next_utc("0 0 31 2 *", now), "never");
        assert_eq!(next_utc("@weekly", now), "2026-07-12T00:00:00Z");
        assert_eq!(next_utc("@every 1h30m", now), "2026-07-09T16:15:10Z");
    }

    #[test]
    fn days_of_month_and_week() {
        // Both given: either will do. 2026-07-13 is a Monday.
        assert_eq!(
            next_utc("0 0 20 * 1", "2026-07-09T00:00:00Z"),
            "2026-07-13T00:00:00Z"
        );
        assert_eq!(
            next_utc("0 0 20 * 1", "2026-07-13T00:00:00Z"),
            "2026-07-20T00:00:00Z"
        );
        assert_eq!(
            next_utc("0 0 */10 * 5", "2026-07-09T00:00:00Z"),
            "2026-07-31T00:00:00Z"
        );
    }

    #[test]
    fn mistakes() {
        for text in [
            "",
            "* * * *",
            "60 * * * *",
            "* 24 * * *",
            "* * 0 * *",
            "5-3 * * * *",
            "*/0 * * * *",
            "x * * * *",
            "@often",
        ] {
            assert!(text.parse::<Schedule>().is_err(), "{text}");
        }
    }

    #[test]
    fn clocks_that_jump() {
        // 2026-03-29: Berlin skips 02:00 to 03:00. 2026-10-25: it repeats 02:00 to 03:00.
        assert_eq!(
            next("30 2 * * *", "2026-03-28T12:00:00Z", "Europe/Berlin"),
            "2026-03-30T00:30:00Z"
        );
        assert_eq!(
            next("30 2 * * *", "2026-10-24T12:00:00Z", "Europe/Berlin"),
            "2026-10-25T00:30:00Z"
        );
        assert_eq!(
            next("30 2 * * *", "2026-10-25T00:30:00Z", "Europe/Berlin"),
            "2026-10-26T01:30:00Z"
        );
    }

    #[test]
    fn what_was_missed() {
        let schedule: Schedule = "*/10 * * * *".parse().expect("a schedule");
        let at = |text: &str| text.parse::<Timestamp>().expect("a time");
        let latest = |since: &str, now: &str| {
            schedule
                .latest(at(since), at(now), &TimeZone::UTC)
                .map(|(at, missed)| (at.to_string(), missed))
        };
        assert_eq!(latest("2026-07-09T10:00:00Z", "2026-07-09T10:09:00Z"), None);
        assert_eq!(
            latest("2026-07-09T10:00:00Z", "2026-07-09T10:31:00Z"),
            Some(("2026-07-09T10:30:00Z".into(), 2))
        );
        assert_eq!(
            latest("2025-07-09T10:00:00Z", "2026-07-09T10:31:00Z"),
            Some(("2026-07-09T10:30:00Z".into(), 101))
        );
    }
}
