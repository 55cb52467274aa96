//! Numbers as people read them. Never wider than seven columns.

/// A span in its two largest units: `840µs`, `1.25s`, `4m12s`, `3d7h`.
pub fn span(seconds: f64) -> String {
    if !seconds.is_finite() || seconds < 0.0 {
        return "?".into();
    }
    match seconds {
        s if s < 0.000_999_5 => format!("{:.0}µs", s * 1e6),
        s if s < 0.009_995 => format!("{:.2}ms", s * 1e3),
        s if s < 0.099_95 => format!("{:.1}ms", s * 1e3),
        s if s < 0.999_5 => format!("{:.0}ms", s * 1e3),
        s if s < 9.995 => format!("{s:.2}s"),
        _ => age(seconds),
    }
}

/// A span in whole seconds and larger units: `0s`, `42s`, `4m12s`, `2h5m`, `3d7h`.
pub fn age(seconds: f64) -> String {
    if !seconds.is_finite() || seconds < 0.0 {
        return "?".into();
    }
    let whole = seconds as u64;
    let two = |large: u64, unit: char, small: u64, less: char| {
        if small == 0 {
            format!("{large}{unit}")
        } else {
            format!("{large}{unit}{small}{less}")
        }
    };
    match whole {
        0..60 => format!("{whole}s"),
        60..3600 => two(whole / 60, 'm', whole % 60, 's'),
        3600..86_400 => two(whole / 3600, 'h', whole % 3600 / 60, 'm'),
        86_400..8_640_000 => two(whole / 86_400, 'd', whole % 86_400 / 3600, 'h'),
        _ => format!("{}d", whole / 86_400),
    }
}

/// Bytes by powers of 1024: `999 B`, `64 KiB`, `1.5 MiB`.
pub fn bytes(count: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if count < 1024 {
        return format!("{count} B");
    }
    let mut value = count as f64 / 1024.0;
    let mut unit = 0;
    while value >= 999.5 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{} {}", three_digits(value), UNITS[unit])
}

/// A count by powers of 1000: `999`, `12.5k`, `3M`.
pub fn count(count: u64) -> String {
    rate(count as f64)
}

/// Like [`count`], with one decimal below ten: `0.5`, `7`, `120`, `1.2k`.
pub fn rate(per_second: f64) -> String {
    const UNITS: [&str; 6] = ["", "k", "M", "G", "T", "P"];
    let mut value = per_second;
    let mut unit = 0;
    while value >= 999.5 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    format!("{}{}", three_digits(value), UNITS[unit])
}

fn three_digits(value: f64) -> String {
    let text = if value < 99.95 {
        format!("{value:.1}")
    } else {
        format!("{value:.0}")
    };
    text.strip_suffix(".0").unwrap_or(&text).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_keeps_three_digits() {
        let shown = [0.000_000_4, 0.000_84, 0.001_234, 0.0445, 0.5, 1.25, 252.0];
        let expected = [
            "0µs", "840µs", "1.23ms", "44.5ms", "500ms", "1.25s", "4m12s",
        ];
        assert_eq!(shown.map(span), expected);
    }

    #[test]
    fn an_age_has_its_two_largest_units() {
        let shown = [0.9, 59.9, 60.0, 252.0, 7500.0, 284_400.0, 1e9, f64::NAN];
        let expected = ["0s", "59s", "1m", "4m12s", "2h5m", "3d7h", "11574d", "?"];
        assert_eq!(shown.map(age), expected);
    }

    #[test]
    fn bytes_go_by_1024() {
        let shown = [0, 1023, 1024, 65_535, 1_572_864, 1_048_000, u64::MAX];
        let expected = [
            "0 B", "1023 B", "1 KiB", "64 KiB", "1.5 MiB", "1 MiB", "16 EiB",
        ];
        assert_eq!(shown.map(bytes), expected);
    }

    #[test]
    fn counts_go_by_1000() {
        assert_eq!(
            [0, 999, 1000, 12_540, 3_000_000].map(count),
            ["0", "999", "1k", "12.5k", "3M"]
        );
        assert_eq!([0.5, 7.0, 120.4].map(rate), ["0.5", "7", "120"]);
    }
}
