//! Runs `cargo test` and counts what it says.

use std::{
    io::{BufRead as _, BufReader},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result};

/// Counts over several runs.
#[derive(Default)]
pub struct Tally {
    pub passed: u32,
    pub failed: u32,
    skipped: Vec<String>,
    /// Those of `skipped` that the next result line will count as passed.
    skipped_as_passed: u32,
}

impl Tally {
    /// Runs a `cargo test` command, all of it even if something fails, and counts.
    ///
    /// libtest has no word for a test that finds, while it runs, that it cannot: such a test
    /// prints a line `SKIPPED name: reason` and returns.
    pub fn add(&mut self, name: &str, mut cargo: Command, filter: Option<&str>) -> Result<()> {
        println!("test: {name}");
        cargo.arg("--no-fail-fast").stdout(Stdio::piped());
        cargo.arg("--").args(filter).arg("--show-output");
        let mut child = cargo.spawn().context("cannot start cargo")?;
        let stdout = child.stdout.take().context("cargo has no output")?;
        let failed_before = self.failed;
        for line in BufReader::new(stdout).lines() {
            let line = line?;
            println!("{line}");
            self.read(&line);
        }
        let status = child.wait()?;
        if !status.success() && self.failed == failed_before {
            // It did not compile, or a test program died before it could say its result.
            eprintln!("test: {name}: cargo ended with {status}");
            self.failed += 1;
        }
        Ok(())
    }

    /// Takes in what a test came to that is no `cargo test`.
    pub fn judge(&mut self, name: &str, result: Result<()>) {
        match result {
            Ok(()) => self.passed += 1,
            Err(error) => {
                eprintln!("test: {name}: {error:#}");
                self.failed += 1;
            }
        }
    }

    /// Takes in a test that cannot run here.
    pub fn skip(&mut self, name: &str, reason: &str) {
        let skipped = format!("{name}: {reason}");
        println!("SKIPPED {skipped}");
        self.skipped.push(skipped);
    }

    /// Names what was skipped, and closes with the line that counts.
    pub fn sum_up(&self) {
        println!();
        for skipped in &self.skipped {
            println!("SKIPPED {skipped}");
        }
        let (passed, failed, skipped) = (self.passed, self.failed, self.skipped.len());
        println!("{passed} passed, {failed} failed, {skipped} skipped");
    }

    /// Takes in one line of libtest's output.
    fn read(&mut self, line: &str) {
        if let Some(skipped) = line.strip_prefix("SKIPPED ") {
            self.skipped_as_passed += 1;
            self.skipped.push(skipped.to_owned());
        } else if let Some(counts) = line.strip_prefix("test result: ") {
            let passed = count(counts, "passed");
            self.passed += passed.saturating_sub(self.skipped_as_passed);
            self.skipped_as_passed = 0;
            self.failed += count(counts, "failed");
        } else if let Some((name, reason)) = ignored(line) {
            self.skipped.push(format!("{name}: {reason}"));
        }
    }
}

/// `N` of `… N what; …` in libtest's result line.
fn count(counts: &str, what: &str) -> u32 {
    counts
        .split([';', '.'])
        .filter_map(|part| part.trim().strip_suffix(what))
        .find_map(|number| number.trim().parse().ok())
        .unwrap_or(0)
}

/// `test NAME ... ignored, REASON`.
fn ignored(line: &str) -> Option<(&str, &str)> {
    let (name, rest) = line.strip_prefix("test ")?.split_once(" ... ignored")?;
    let reason = rest.strip_prefix(", ").unwrap_or("ignored");
    Some((name, reason))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(lines: &[&str]) -> Tally {
        let mut tally = Tally::default();
        for line in lines {
            tally.read(line);
        }
        tally
    }

    #[test]
    fn results_of_several_programs_add_up() {
        let tally = read(&[
            "test result: ok. 3 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.20s",
            "test result: FAILED. 12 passed; 2 failed; 0 ignored; 0 measured; 1 filtered out; finished in 1.02s",
        ]);
        assert_eq!((tally.passed, tally.failed), (15, 2));
    }

    #[test]
    fn a_test_that_skips_itself_is_not_counted_as_passed() {
        let tally = read(&[
            "SKIPPED the_tap_attaches: needs root",
            "test result: ok. 3 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.20s",
        ]);
        assert_eq!(tally.passed, 2);
        assert_eq!(tally.skipped, ["the_tap_attaches: needs root"]);
    }

    #[test]
    fn an_ignored_test_is_named_with_its_reason() {
        let tally = read(&["test soak ... ignored, takes an hour"]);
        assert_eq!(tally.skipped, ["soak: takes an hour"]);
    }
}
