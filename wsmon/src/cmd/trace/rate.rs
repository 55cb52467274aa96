//! `--max-rate`: so many lines in a second, and a count of the others.

use std::time::{Duration, Instant};

const WINDOW: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub struct Rate {
    /// Lines in a window; 0: no limit.
    limit: u64,
    opened: Option<Instant>,
    admitted: u64,
    left_out: u64,
}

impl Rate {
    pub fn new(limit: u64) -> Self {
        Self {
            limit,
            opened: None,
            admitted: 0,
            left_out: 0,
        }
    }

    /// Whether one more line may be printed now; if not, it is counted.
    pub fn admits(&mut self, now: Instant) -> bool {
        if self.limit == 0 {
            return true;
        }
        if self.opened.is_none_or(|opened| now >= opened + WINDOW) {
            self.opened = Some(now);
            self.admitted = 0;
        }
        let admitted = self.admitted < self.limit;
        if admitted {
            self.admitted += 1;
        } else {
            self.left_out += 1;
        }
        admitted
    }

    /// When there will be something to say, if nothing else comes.
    pub fn window_end(&self) -> Option<Instant> {
        self.opened
            .filter(|_| self.left_out > 0)
            .map(|opened| opened + WINDOW)
    }

    /// The lines that were left out in a window that is over, once.
    pub fn left_out(&mut self, now: Instant) -> Option<u64> {
        self.window_end().filter(|&end| now >= end)?;
        self.rest()
    }

    /// Those of the window that is open.
    pub fn rest(&mut self) -> Option<u64> {
        Some(std::mem::take(&mut self.left_out)).filter(|&lines| lines > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_has_its_lines_and_a_count_of_the_others() {
        let start = Instant::now();
        let mut rate = Rate::new(2);
        assert_eq!(
            [(); 5].map(|()| rate.admits(start)),
            [true, true, false, false, false]
        );
        assert_eq!(rate.left_out(start), None);
        assert_eq!(rate.window_end(), Some(start + WINDOW));
        assert_eq!(rate.left_out(start + WINDOW), Some(3));
        assert_eq!(rate.left_out(start + WINDOW), None);
        assert!(rate.admits(start + WINDOW));
    }

    #[test]
    fn without_a_limit_nothing_is_left_out() {
        let now = Instant::now();
        let mut rate = Rate::new(0);
        assert!((0..10_000).all(|_| rate.admits(now)));
        assert_eq!(rate.rest(), None);
    }
}
