//! Flags that several commands share.

use std::time::Duration;

/// A span of time as people write it: `90`, `90s`, `1m30s`, `2h`.
pub fn period(text: &str) -> Result<Duration, String> {
    if let Ok(seconds) = text.parse() {
        return Ok(Duration::from_secs(seconds));
    }
    text.parse::<jiff::SignedDuration>()
        .map_err(|error| error.to_string())
        .and_then(|span| {
            Duration::try_from(span).map_err(|_| "a time in the past cannot be waited for".into())
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_period_is_written_with_or_without_units() {
        assert_eq!(period("90"), Ok(Duration::from_secs(90)));
        assert_eq!(period("1m30s"), Ok(Duration::from_secs(90)));
        assert_eq!(period("250ms"), Ok(Duration::from_millis(250)));
    }

    #[test]
    fn a_period_is_neither_negative_nor_a_word() {
        assert!(period("-5s").is_err());
        assert!(period("soon").is_err());
    }
}
