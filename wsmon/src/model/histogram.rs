//! Histograms whose edges are powers of two, so that what the kernel counted by a shift is exact.

use wsmon_common::slot::SIZE_BUCKETS;

/// Edges of message sizes in bytes, as exponents of two: those of the kernel's buckets.
pub const SIZE_EDGES: [u8; SIZE_BUCKETS - 1] = [4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24];
/// Edges of handshake durations in nanoseconds, as exponents of two: 65.5 µs to 68.7 s.
pub const HANDSHAKE_EDGES: [u8; 11] = [16, 18, 20, 22, 24, 26, 28, 30, 32, 34, 36];
/// Edges of lifetimes in nanoseconds, as exponents of two: 67 ms to 3.3 days.
pub const LIFETIME_EDGES: [u8; 12] = [26, 28, 30, 32, 34, 36, 38, 40, 42, 44, 46, 48];
/// Edges of silences in nanoseconds, as exponents of two: 0.27 s to 73 min, fine around the
/// usual time-outs of 30 s, 60 s and 5 min.
pub const IDLE_EDGES: [u8; 12] = [28, 30, 32, 33, 34, 35, 36, 37, 38, 39, 40, 42];

/// Counts by size or time. Values are nanoseconds or bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Histogram {
    edges: &'static [u8],
    /// One for each edge, and one for what is above.
    counts: Vec<u64>,
    sum: u64,
}

impl Histogram {
    /// Without any observation.
    pub fn new(edges: &'static [u8]) -> Self {
        Self {
            edges,
            counts: vec![0; edges.len() + 1],
            sum: 0,
        }
    }

    /// Counts a value into the first bucket whose edge is not less.
    pub fn observe(&mut self, value: u64) {
        let bucket = self.edges.partition_point(|&edge| 1 << edge < value);
        self.counts[bucket] += 1;
        self.sum = self.sum.saturating_add(value);
    }

    /// Adds what was counted elsewhere into the same buckets.
    pub fn add_counts(&mut self, counts: &[u32; SIZE_BUCKETS], sum: u64) {
        for (own, more) in self.counts.iter_mut().zip(counts) {
            *own += u64::from(*more);
        }
        self.sum = self.sum.saturating_add(sum);
    }

    /// Edges (infinite for the last) with the observations between each and the one before.
    pub fn buckets(&self) -> impl Iterator<Item = (f64, u64)> {
        self.edges
            .iter()
            .map(|&edge| (1u64 << edge) as f64)
            .chain([f64::INFINITY])
            .zip(self.counts.iter().copied())
    }

    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    pub fn sum(&self) -> u64 {
        self.sum
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_on_an_edge_is_not_above_it() {
        let mut histogram = Histogram::new(&SIZE_EDGES);
        for value in [0, 16, 17, 1 << 24, (1 << 24) + 1] {
            histogram.observe(value);
        }
        let counts: Vec<_> = histogram.buckets().map(|(_, count)| count).collect();
        assert_eq!((counts[0], counts[1], counts[10], counts[11]), (2, 1, 1, 1));
        assert_eq!(histogram.count(), 5);
    }

    #[test]
    fn the_edges_are_those_of_the_kernel() {
        for len in [0, 16, 17, 64, 65, 5000, 1 << 24, 1 << 30] {
            let mut histogram = Histogram::new(&SIZE_EDGES);
            histogram.observe(len);
            assert_eq!(histogram.counts[wsmon_common::slot::size_bucket(len)], 1);
        }
    }
}
