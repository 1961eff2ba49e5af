//! Completion indexes as a Job's status and its success policy write them: `1,3-5,7`.

/// An index, or several that follow each other.
type Interval = (i32, i32);

/// Reads indexes below `limit`.
///
/// # Errors
/// With what is wrong, in upstream's words.
pub fn intervals(text: &str, limit: i32) -> Result<Vec<Interval>, String> {
    let mut all: Vec<Interval> = Vec::new();
    let parts = text.split(',').filter(|_| !text.is_empty());
    for part in parts {
        let (first, last) = interval(part, limit)?;
        if let Some((_, before)) = all.last().filter(|(_, before)| *before >= first) {
            return Err(not_increasing(*before, first));
        }
        all.push((first, last));
    }
    Ok(all)
}

fn interval(text: &str, limit: i32) -> Result<Interval, String> {
    let ends: Vec<&str> = text.split('-').collect();
    let index = |text: &str| {
        let index: i32 = text
            .parse()
            .map_err(|_| format!("cannot convert string to integer for index: {text:?}"))?;
        match index < limit {
            true => Ok(index),
            false => Err(format!("too large index: {text:?}")),
        }
    };
    match ends[..] {
        [one] => index(one).map(|one| (one, one)),
        [first, last] => {
            let (first, last) = (index(first)?, index(last)?);
            match first < last {
                true => Ok((first, last)),
                false => Err(not_increasing(first, last)),
            }
        }
        _ => Err(format!(
            "the fragment {text:?} violates the requirement that an index interval can have at most two parts separated by \
             '-'"
        )),
    }
}

fn not_increasing(previous: i32, current: i32) -> String {
    format!("non-increasing order, previous: {previous}, current: {current}")
}

/// The first index that is in both.
pub fn common(one: &[Interval], other: &[Interval]) -> Option<i32> {
    let overlap = |a: &Interval, b: &Interval| (a.0 <= b.1 && b.0 <= a.1).then(|| a.0.max(b.0));
    let found = one
        .iter()
        .flat_map(|a| other.iter().filter_map(move |b| overlap(a, b)));
    found.min()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn indexes_are_read_or_refused_as_upstream_does() {
        assert_eq!(intervals("", 3), Ok(vec![]));
        assert_eq!(intervals("0,2-4,7", 8), Ok(vec![(0, 0), (2, 4), (7, 7)]));
        for (text, wanted) in [
            ("3", "too large index: \"3\""),
            ("0-3", "too large index: \"3\""),
            ("x", "cannot convert string to integer for index: \"x\""),
            ("1,", "cannot convert string to integer for index: \"\""),
            ("1,0", "non-increasing order, previous: 1, current: 0"),
            ("2-2", "non-increasing order, previous: 2, current: 2"),
            (
                "0-1-2",
                "the fragment \"0-1-2\" violates the requirement that an index interval can have at most two parts \
                 separated by '-'",
            ),
        ] {
            assert_eq!(intervals(text, 3), Err(wanted.to_owned()), "{text}");
        }
        assert_eq!(common(&[(0, 2), (5, 6)], &[(3, 4), (6, 9)]), Some(6));
        assert_eq!(common(&[(0, 2)], &[(3, 4)]), None);
    }
}
