//! Flags that several commands share.

use std::time::Duration;

use clap::Args;
use wsmon::model::filter::{Filter, Remote};

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
#[derive(Clone, Debug, Default, Args)]
pub struct FilterFlags {
    /// Only connections of this process.
    #[arg(long)]
    pid: Option<u32>,

    /// Only connections to servers on this TCP port.
    #[arg(long)]
    port: Option<u16>,

    /// Only peers at this address: `10.0.0.7`, `127.0.0.1:51234`, `10.0.0.0/8`.
    #[arg(long, value_name = "ADDRESS")]
    remote: Option<Remote>,

    /// Only requests for this path; `*` stands for any characters.
    #[arg(long, value_name = "PATTERN")]
    path: Option<String>,
}

impl FilterFlags {
    pub fn filter(&self) -> Filter {
        Filter {
            pid: self.pid,
            port: self.port,
            remote: self.remote,
            path: self.path.clone(),
            ..Filter::default()
        }
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

/// A size as people write it: `4194304`, `512KiB`, `4MiB`, `1GiB`.
pub fn bytes(text: &str) -> Result<u32, String> {
    let digits = text.trim_end_matches(|character: char| !character.is_ascii_digit());
    let unit = match text[digits.len()..].trim() {
        "" | "B" => 0,
        "K" | "KiB" => 10,
        "M" | "MiB" => 20,
        "G" | "GiB" => 30,
        other => {
            return Err(format!(
                "`{other}` is not a unit; there are KiB, MiB and GiB"
            ));
        }
    };
    let number: u64 = digits
        .parse()
        .map_err(|_| "not a whole number".to_owned())?;
    number
        .checked_mul(1 << unit)
        .and_then(|bytes| u32::try_from(bytes).ok())
        .filter(|&bytes| bytes <= 1 << 30)
        .ok_or_else(|| "more than 1 GiB".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_is_in_bytes_or_in_powers_of_1024() {
        assert_eq!(bytes("4096"), Ok(4096));
        assert_eq!(bytes("4MiB"), Ok(4 << 20));
        assert_eq!(bytes("64 KiB"), Ok(64 << 10));
        assert!(bytes("4MB").is_err() && bytes("4GiB").is_err() && bytes("-1").is_err());
    }

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
