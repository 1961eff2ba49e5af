//! The `Date` of answers (RFC 9110, section 6.6.1).

use std::cell::RefCell;

use http::{HeaderMap, HeaderValue, header};
use jiff::Timestamp;
use jiff::fmt::rfc2822::DateTimePrinter;

thread_local! {
    /// A second, and how it is written.
    static WRITTEN: RefCell<Option<(i64, HeaderValue)>> = const { RefCell::new(None) };
}

/// Dates an answer that has no date yet.
///
/// Connections are not to remember dates: they would look through a minute of them for each answer
/// (RFC 7541, section 6.2.3).
pub fn mark(headers: &mut HeaderMap) {
    if headers.contains_key(header::DATE) {
        return;
    }
    if let Some(date) = date(Timestamp::now()) {
        headers.insert(header::DATE, date);
    }
}

/// Written once a second. `None`: the clock shows a year that has no such form.
fn date(now: Timestamp) -> Option<HeaderValue> {
    WRITTEN.with_borrow_mut(|written| {
        if let Some((second, date)) = written
            && *second == now.as_second()
        {
            return Some(date.clone());
        }
        let text = DateTimePrinter::new().timestamp_to_rfc9110_string(&now).ok()?;
        let mut date = HeaderValue::try_from(text).ok()?;
        date.set_sensitive(true);
        *written = Some((now.as_second(), date.clone()));
        Some(date)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_second_has_its_own() {
        // The example of RFC 9110, section 5.6.7.
        let then = Timestamp::from_second(784_111_777).expect("a time");
        for _ in 0..2 {
            let date = date(then).expect("a date");
            assert_eq!(date, "Sun, 06 Nov 1994 08:49:37 GMT");
            assert!(date.is_sensitive());
        }
        let next = Timestamp::from_second(784_111_778).expect("a time");
        assert_eq!(date(next).expect("a date"), "Sun, 06 Nov 1994 08:49:38 GMT");
    }

    #[test]
    fn a_date_that_is_there_stays() {
        let mut headers = HeaderMap::new();
        mark(&mut headers);
        assert!(headers.contains_key(header::DATE));
        headers.insert(header::DATE, HeaderValue::from_static("then"));
        mark(&mut headers);
        assert_eq!(headers[header::DATE], "then");
    }
}
