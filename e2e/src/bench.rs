//! Benchmarks of whole programs. Each prints one row a target: what, figure, target, `ok` or `MISS`.

mod first_light;
pub mod pki;
pub mod source;
pub mod wire;

use std::fmt;

pub use first_light::first_light;

/// One measured figure and its target. Smaller is better.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// What was measured.
    pub what: String,
    /// The figure.
    pub figure: f64,
    /// The most that it may be; none for a figure that is shown for comparison.
    pub target: Option<f64>,
    /// Unit of both.
    pub unit: &'static str,
}

impl Row {
    /// Whether the target is met. A figure without a target always is.
    pub fn is_met(&self) -> bool {
        self.target.is_none_or(|target| self.figure <= target)
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { what, figure, target, unit } = self;
        let number = |value: f64| format!("{value:.*} {unit}", usize::from(value < 100.0) * 2);
        let target = target.map_or_else(|| "-".to_owned(), |target| format!("<= {}", number(target)));
        let verdict = match (self.target, self.is_met()) {
            (None, _) => "",
            (_, true) => "ok",
            (_, false) => "MISS",
        };
        write!(f, "{what:<64} {:>12} {target:>16}  {verdict}", number(*figure))
    }
}

/// The value at `part` of 100 of the samples, which need not be sorted. 0 if there are none.
pub fn percentile(samples: &[u64], part: usize) -> u64 {
    let mut sorted = samples.to_vec();
    sorted.sort_unstable();
    sorted.get(sorted.len().saturating_sub(1) * part / 100).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_figure_above_its_target_is_a_miss() {
        let row = |figure| Row { what: "x".into(), figure, target: Some(5.0), unit: "ms" };
        assert!(row(5.0).is_met() && !row(5.1).is_met());
        assert!(row(5.1).to_string().ends_with("MISS"), "{}", row(5.1));
        assert!(row(5.0).to_string().ends_with("ok"), "{}", row(5.0));
    }

    #[test]
    fn percentiles() {
        let samples: Vec<u64> = (1..=100).rev().collect();
        assert_eq!([50, 99, 100].map(|part| percentile(&samples, part)), [50, 99, 100]);
        assert_eq!(percentile(&[], 50), 0);
    }
}
