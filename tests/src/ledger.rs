//! What happened on the wire, as a flat list of counts: `sent.frames.text`, `received.payload`,
//! `handshakes.accepted.101`, `closed.1000.close_frame.local`.

use std::{collections::BTreeMap, fmt::Write as _, ops::AddAssign};

use serde_json::Value;

/// Counts by name, from one side's point of view. Zeros are left out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ledger(BTreeMap<String, u64>);

impl Ledger {
    pub fn new() -> Self {
        Self::default()
    }

    /// The ledger that a program reported.
    ///
    /// # Panics
    ///
    /// If it is not an object of numbers.
    pub fn from_json(value: &Value) -> Self {
        let mut ledger = Self::new();
        for (key, count) in value.as_object().expect("a ledger is an object") {
            ledger.add(key, count.as_u64().expect("a ledger holds counts"));
        }
        ledger
    }

    /// The ledger as a program reports it.
    pub fn to_json(&self) -> Value {
        self.0
            .iter()
            .map(|(key, count)| (key.clone(), Value::from(*count)))
            .collect()
    }

    pub fn add(&mut self, key: &str, count: u64) {
        if count != 0 {
            *self.0.entry(key.to_owned()).or_default() += count;
        }
    }

    /// The same ledger with `count` more of `key`.
    #[must_use]
    pub fn with(mut self, key: &str, count: u64) -> Self {
        self.add(key, count);
        self
    }

    pub fn get(&self, key: &str) -> u64 {
        self.0.get(key).copied().unwrap_or(0)
    }

    /// Only what begins with one of the prefixes.
    #[must_use]
    pub fn only(&self, prefixes: &[&str]) -> Self {
        self.filtered(|key| prefixes.iter().any(|prefix| key.starts_with(prefix)))
    }

    /// Sum of the counts whose names begin with `prefix`.
    pub fn total(&self, prefix: &str) -> u64 {
        let counts = self.0.iter().filter(|(key, _)| key.starts_with(prefix));
        counts.map(|(_, count)| count).sum()
    }

    /// Whether it has an end by `fin_or_reset`.
    pub fn leaves_open_how(&self) -> bool {
        self.0.keys().any(|key| key.contains(".fin_or_reset."))
    }

    /// With FIN and RST as one cause: which of the two a dying process's kernel sends depends on
    /// what it had not read.
    #[must_use]
    pub fn merging_ends(&self) -> Self {
        let mut merged = Self::new();
        for (key, count) in &self.0 {
            let key = key
                .replace(".fin.", ".fin_or_reset.")
                .replace(".reset.", ".fin_or_reset.");
            merged.add(&key, *count);
        }
        merged
    }

    /// Without what has the part between dots.
    #[must_use]
    pub fn without(&self, part: &str) -> Self {
        self.filtered(|key| key.split('.').all(|one| one != part))
    }

    /// What the other end of the connection has: sent and received change places.
    #[must_use]
    pub fn mirrored(&self) -> Self {
        let swap = |key: &String| match key.split_once('.') {
            Some(("sent", rest)) => format!("received.{rest}"),
            Some(("received", rest)) => format!("sent.{rest}"),
            _ => key.clone(),
        };
        Self(
            self.0
                .iter()
                .map(|(key, count)| (swap(key), *count))
                .collect(),
        )
    }

    /// A table of what differs; `None` if nothing does.
    pub fn difference(&self, expected: &Self) -> Option<String> {
        if self == expected {
            return None;
        }
        let mut table = format!("{:<44}{:>16}{:>16}\n", "", "expected", "seen");
        let keys: std::collections::BTreeSet<_> = self.0.keys().chain(expected.0.keys()).collect();
        for key in keys {
            let (seen, wanted) = (self.get(key), expected.get(key));
            if seen != wanted {
                let _ = writeln!(table, "{key:<44}{wanted:>16}{seen:>16}");
            }
        }
        Some(table)
    }

    fn filtered(&self, keep: impl Fn(&str) -> bool) -> Self {
        let kept = self.0.iter().filter(|(key, _)| keep(key));
        Self(kept.map(|(key, count)| (key.clone(), *count)).collect())
    }
}

impl AddAssign<&Ledger> for Ledger {
    fn add_assign(&mut self, other: &Self) {
        for (key, count) in &other.0 {
            self.add(key, *count);
        }
    }
}
