//! The text format of a metrics page.

use std::collections::BTreeMap;

use crate::ledger::Ledger;

/// One line of the page.
#[derive(Clone, Debug)]
pub struct Sample {
    pub name: String,
    pub labels: BTreeMap<String, String>,
    pub value: f64,
}

impl Sample {
    pub fn label(&self, name: &str) -> &str {
        self.labels.get(name).map_or("", String::as_str)
    }
}

/// All samples of a page.
#[derive(Clone, Debug, Default)]
pub struct Page {
    pub samples: Vec<Sample>,
}

impl Page {
    /// # Panics
    ///
    /// If a line is not in the text format.
    pub fn parse(text: &str) -> Self {
        let lines = text
            .lines()
            .filter(|line| !line.is_empty() && !line.starts_with('#'));
        let samples = lines
            .map(|line| sample(line).unwrap_or_else(|| panic!("not a sample: {line}")))
            .collect();
        Self { samples }
    }

    /// Sum over all samples of this name whose labels are as given.
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        self.select(name, labels).map(|sample| sample.value).sum()
    }

    /// As [`Page::sum`], of what is counted.
    pub fn count(&self, name: &str, labels: &[(&str, &str)]) -> u64 {
        self.sum(name, labels) as u64
    }

    /// Samples of this name whose labels are as given.
    pub fn select<'a>(
        &'a self,
        name: &'a str,
        labels: &'a [(&'a str, &'a str)],
    ) -> impl Iterator<Item = &'a Sample> {
        self.samples.iter().filter(move |sample| {
            sample.name == name
                && labels
                    .iter()
                    .all(|(key, value)| sample.label(key) == *value)
        })
    }

    /// What the page says about one service, `hop` left aside.
    pub fn service(&self, role: &str, process: &str, port: u16) -> Ledger {
        let port = port.to_string();
        let mut ledger = Ledger::new();
        for sample in &self.samples {
            if sample.label("role") != role
                || sample.label("process") != process
                || sample.label("port") != port
            {
                continue;
            }
            let label = |name| sample.label(name);
            let direction = label("direction");
            let key = match sample.name.as_str() {
                "wsmon_frames_total" => format!("{direction}.frames.{}", label("opcode")),
                "wsmon_messages_total" => format!("{direction}.messages.{}", label("type")),
                "wsmon_message_size_bytes_count" => format!("{direction}.sizes"),
                "wsmon_payload_bytes_total" => format!("{direction}.payload"),
                "wsmon_compressed_messages_total" => format!("{direction}.compressed"),
                "wsmon_handshakes_total" => {
                    format!("handshakes.{}.{}", label("result"), label("status"))
                }
                "wsmon_handshake_duration_seconds_count" => "handshakes_timed".to_owned(),
                "wsmon_connections_closed_total" => {
                    let (code, cause, initiator) =
                        (label("code"), label("cause"), label("initiator"));
                    format!("closed.{code}.{cause}.{initiator}")
                }
                "wsmon_connection_duration_seconds_count" => "closed_timed".to_owned(),
                "wsmon_connections" => format!("connections.{}", label("state")),
                "wsmon_protocol_errors_total" => format!("errors.{}", label("kind")),
                _ => continue,
            };
            ledger.add(&key, sample.value as u64);
        }
        ledger
    }

    /// Every service that the page knows for a port: to see under which name it went astray.
    pub fn services(&self, port: u16) -> Vec<String> {
        let port = port.to_string();
        let mut found: Vec<_> = self
            .samples
            .iter()
            .filter(|sample| sample.label("port") == port)
            .map(|sample| {
                let label = |name| sample.label(name);
                format!("{} {} {}", label("role"), label("hop"), label("process"))
            })
            .collect();
        found.sort();
        found.dedup();
        found
    }
}

/// `name{label="value",…} number`, an exemplar or a time behind it left aside.
fn sample(line: &str) -> Option<Sample> {
    let mut labels = BTreeMap::new();
    let (name, mut rest) = line.split_at(line.find(['{', ' '])?);
    if let Some(inner) = rest.strip_prefix('{') {
        rest = inner;
        while !rest.starts_with('}') {
            let (key, after) = rest.split_once("=\"")?;
            let (value, after) = quoted(after)?;
            labels.insert(key.to_owned(), value);
            rest = after.strip_prefix(',').unwrap_or(after);
        }
        rest = &rest[1..];
    }
    let value = rest.split_whitespace().next()?.parse().ok()?;
    Some(Sample {
        name: name.to_owned(),
        labels,
        value,
    })
}

/// A label's value up to its closing quote, and what follows.
fn quoted(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, char)) = chars.next() {
        match char {
            '"' => return Some((value, &text[at + 1..])),
            '\\' => value.push(match chars.next()?.1 {
                'n' => '\n',
                other => other,
            }),
            other => value.push(other),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_read_line_by_line() {
        let page = Page::parse(
            "# HELP a b\n# TYPE a counter\na_total{role=\"server\",odd=\"q\\\"},\\n\"} 3\nplain 1e3\n",
        );
        assert_eq!(page.count("a_total", &[("role", "server")]), 3);
        assert_eq!(page.samples[0].label("odd"), "q\"},\n");
        assert_eq!(page.count("plain", &[]), 1000);
    }
}
