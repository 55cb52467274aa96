//! Times as the kernel gives them and as people read them.

use jiff::Timestamp;

pub const SECOND_NS: u64 = 1_000_000_000;

/// What turns `CLOCK_MONOTONIC` into the time of day.
#[derive(Clone, Copy, Debug, Default)]
pub struct ClockOffset {
    /// `CLOCK_REALTIME` less `CLOCK_MONOTONIC`, in nanoseconds.
    pub realtime_minus_monotonic_ns: i64,
}

impl ClockOffset {
    /// RFC 3339 in UTC, with microseconds.
    pub fn rfc3339(self, monotonic_ns: u64) -> String {
        let ns = i128::from(monotonic_ns) + i128::from(self.realtime_minus_monotonic_ns);
        let time = Timestamp::from_nanosecond(ns).unwrap_or(Timestamp::UNIX_EPOCH);
        format!("{time:.6}")
    }
}

/// Nanoseconds as seconds.
pub fn seconds(ns: u64) -> f64 {
    ns as f64 / SECOND_NS as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_of_day_has_microseconds() {
        let clock = ClockOffset {
            realtime_minus_monotonic_ns: 1_700_000_000_000_000_000,
        };
        assert_eq!(clock.rfc3339(1_500_000_999), "2023-11-14T22:13:21.500000Z");
    }
}
