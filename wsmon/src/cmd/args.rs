//! Flags that several commands share.

use std::time::Duration;

use clap::Args;

/// Where a running agent answers.
#[derive(Clone, Debug, Args)]
pub struct AgentAddress {
    /// The running agent's address.
    #[arg(
        long = "agent",
        value_name = "URL",
        default_value = "http://127.0.0.1:9790",
        env = "WSMON_AGENT"
    )]
    pub url: String,
}

/// Which connections.
#[derive(Clone, Debug, Default, PartialEq, Args)]
pub struct Filter {
    /// Only connections of this process.
    #[arg(long)]
    pub pid: Option<u32>,

    /// Only connections to servers on this TCP port.
    #[arg(long)]
    pub port: Option<u16>,

    /// Only peers whose address (and port) begins so: `10.0.`, `127.0.0.1:51234`.
    #[arg(long, value_name = "ADDRESS")]
    pub remote: Option<String>,

    /// Only requests whose path begins so.
    #[arg(long, value_name = "PREFIX")]
    pub path: Option<String>,
}

impl Filter {
    /// As the agent's API takes it.
    pub fn query(&self) -> Vec<(&'static str, String)> {
        [
            ("pid", self.pid.map(|pid| pid.to_string())),
            ("port", self.port.map(|port| port.to_string())),
            ("remote", self.remote.clone()),
            ("path", self.path.clone()),
        ]
        .into_iter()
        .filter_map(|(key, value)| Some((key, value?)))
        .collect()
    }
}

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

    #[test]
    fn a_filter_asks_the_agent_only_for_what_was_given() {
        let filter = Filter {
            port: Some(80),
            path: Some("/a".into()),
            ..Filter::default()
        };
        assert_eq!(
            filter.query(),
            [("port", "80".into()), ("path", "/a".into())]
        );
        assert!(Filter::default().query().is_empty());
    }
}
