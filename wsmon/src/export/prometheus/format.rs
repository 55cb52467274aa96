//! In which form a client gets the page.

/// The forms in which a page can be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// OpenMetrics 1.0.
    OpenMetrics,
    /// Prometheus's text format 0.0.4.
    Text,
}

impl Format {
    /// What a client that sent this `Accept` header reads best.
    pub fn negotiate(accept: &str) -> Self {
        let quality = |wanted: &str| {
            accept
                .split(',')
                .filter_map(|range| {
                    let mut parts = range.split(';').map(str::trim);
                    let kind = parts.next()?;
                    let quality = parts
                        .find_map(|part| part.strip_prefix("q=")?.parse::<f32>().ok())
                        .unwrap_or(1.0);
                    kind.eq_ignore_ascii_case(wanted).then_some(quality)
                })
                .fold(0.0, f32::max)
        };
        let open_metrics = quality("application/openmetrics-text");
        if open_metrics > 0.0 && open_metrics >= quality("text/plain") {
            Self::OpenMetrics
        } else {
            Self::Text
        }
    }

    pub fn content_type(self) -> &'static str {
        match self {
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Text => "text/plain; version=0.0.4; charset=utf-8",
        }
    }
}
