//! How many seats each level may use now: its own, what others lend it, less what it lends.
//!
//! Every ten seconds the seats are dealt anew. What a level wanted of its own it keeps; what nobody wanted of theirs, as
//! far as they lend it, goes to those who wanted more, in proportion (KEP-1040, "Dispatching Requests", "Borrowing").
//! Upstream's measure of what a level wants is the mean over the period and its deviation; here it is the most it wanted
//! at once, which falls off as slowly.

/// What is left of an earlier, higher wish in each period.
const FADING: f64 = 0.977;

/// What a level has and wants, in seats.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Wants {
    /// Seats it has when everybody has what is theirs.
    pub nominal: u32,
    /// It never has fewer.
    pub least: u32,
    /// It never has more.
    pub most: u32,
    /// The most it wanted at once since seats were last dealt.
    pub demand: u32,
    /// That, with what it wanted before.
    pub smoothed: f64,
}

/// What a level wants, knowing what it wanted before: more at once, less only slowly.
pub fn smoothed(before: f64, demand: u32) -> f64 {
    let demand = f64::from(demand);
    demand.max(FADING * before + (1.0 - FADING) * demand)
}

/// Halvings until nothing finer than a seat is left to find out.
const HALVINGS: usize = 50;

/// Seats for each level, about as many in all as there are.
pub fn deal(total: u32, levels: &[Wants]) -> Vec<u32> {
    let bounds: Vec<(f64, f64, f64)> = levels
        .iter()
        .map(|level| {
            let low = f64::from(level.least.max(level.nominal.min(level.demand)));
            let high = f64::from(level.most).max(low);
            (low, high, level.smoothed.max(low).max(1.0))
        })
        .collect();
    let at = |fraction: f64| -> f64 {
        bounds
            .iter()
            .map(|(low, high, target)| (fraction * target).clamp(*low, *high))
            .sum()
    };
    let total = f64::from(total);
    let (mut low, mut high) = (0.0, total.max(1.0));
    for _ in 0..HALVINGS {
        let middle = f64::midpoint(low, high);
        if at(middle) > total {
            high = middle;
        } else {
            low = middle;
        }
    }
    // Rounded, and between bounds that are counts of seats themselves.
    bounds
        .iter()
        .map(|(least, most, target)| (low * target).clamp(*least, *most).round() as u32)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn level(nominal: u32, lendable: u32, demand: u32) -> Wants {
        Wants {
            nominal,
            least: nominal - lendable,
            most: 600,
            demand,
            smoothed: f64::from(demand),
        }
    }

    #[test]
    fn what_nobody_wants_goes_to_those_who_want_more() {
        let dealt = deal(100, &[level(50, 40, 0), level(50, 0, 500)]);
        assert!(dealt[0] >= 10 && dealt[1] >= 85, "{dealt:?}");
        assert!((98..=101).contains(&(dealt[0] + dealt[1])), "{dealt:?}");
    }

    #[test]
    fn nobody_loses_what_is_wanted_of_its_own() {
        let dealt = deal(100, &[level(50, 40, 50), level(50, 50, 5000)]);
        assert_eq!(dealt, [50, 50]);
        let dealt = deal(100, &[level(60, 30, 20), level(40, 0, 40)]);
        assert!(dealt[0] >= 30 && dealt[1] >= 40, "{dealt:?}");
    }

    #[test]
    fn nobody_borrows_more_than_allowed() {
        let modest = Wants {
            most: 60,
            ..level(50, 0, 500)
        };
        assert_eq!(deal(100, &[level(50, 50, 0), modest])[1], 60);
    }

    #[test]
    fn wishes_rise_at_once_and_fall_slowly() {
        let high = smoothed(0.0, 100);
        let later = smoothed(high, 0);
        assert!(high > 99.9 && later > 97.0 && later < 98.0, "{high} {later}");
    }
}
