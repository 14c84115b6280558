//! The table: ours beside etcd's, how many times better, the target, `ok` or `MISS`.

use std::fmt;

/// One measure of one server.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Figure {
    /// What was measured; equal for all servers.
    pub(super) what: String,
    unit: &'static str,
    better: Better,
    value: f64,
    target: Option<Target>,
}

/// One measure of all servers.
#[derive(Clone, Debug, PartialEq)]
pub struct Line {
    /// What was measured.
    pub what: String,
    /// Its unit.
    pub unit: &'static str,
    /// Which way is better.
    pub better: Better,
    /// Our figure.
    pub ours: f64,
    /// The figures of the others, in the order of the header; none where it was not measured.
    pub others: Vec<Option<f64>>,
    /// What ours should be.
    pub target: Option<Target>,
}

/// Which figures are better.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Better {
    /// Costs.
    Smaller,
    /// Rates.
    Larger,
}

/// What a figure is held against.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Target {
    /// As good as this figure, in the line's unit.
    Figure(f64),
    /// This many times better than the first of the others, in the same run.
    Times(f64),
}

impl Figure {
    /// A figure without a target.
    pub(super) fn new(what: String, unit: &'static str, better: Better, value: f64) -> Self {
        Self { what, unit, better, value, target: None }
    }

    /// What ours should be.
    pub(super) fn target(self, target: Target) -> Self {
        Self { target: Some(target), ..self }
    }
}

/// Puts our figures beside those of the others.
pub(super) fn compare(ours: Vec<Figure>, others: &[Vec<Figure>]) -> Vec<Line> {
    let line = |Figure { what, unit, better, value, target }: Figure| {
        let same = |figures: &Vec<Figure>| figures.iter().find(|f| f.what == what).map(|f| f.value);
        let others = others.iter().map(same).collect();
        Line { what, unit, better, ours: value, others, target }
    };
    ours.into_iter().map(line).collect()
}

impl Line {
    /// How many times better ours is than the first of the others.
    pub fn times(&self) -> Option<f64> {
        let other = self.others.first().copied().flatten()?;
        let times = match self.better {
            Better::Smaller => other / self.ours,
            Better::Larger => self.ours / other,
        };
        times.is_finite().then_some(times)
    }

    /// Whether the target is met. A line without one always is; so is a ratio to what was not measured.
    pub fn is_met(&self) -> bool {
        match (self.target, self.better) {
            (None, _) => true,
            (Some(Target::Figure(most)), Better::Smaller) => self.ours <= most,
            (Some(Target::Figure(least)), Better::Larger) => self.ours >= least,
            (Some(Target::Times(least)), _) => self.times().is_none_or(|times| times >= least),
        }
    }
}

/// The line above the lines.
pub(super) fn header(others: &[String]) -> String {
    let others: String = others.iter().map(|name| format!(" {name:>12}")).collect();
    format!("{:<58} {:<6} {:>10}{others} {:>8} {:>9}", "what", "unit", "hub", "better", "target")
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let others: String = self
            .others
            .iter()
            .map(|other| format!(" {:>12}", other.map_or_else(|| "-".to_owned(), number)))
            .collect();
        let times = self.times().map_or_else(String::new, |times| format!("{times:.1}x"));
        let target = match (self.target, self.better) {
            (None, _) => "-".to_owned(),
            (Some(Target::Figure(most)), Better::Smaller) => format!("<= {}", number(most)),
            (Some(Target::Figure(least)), Better::Larger) => format!(">= {}", number(least)),
            (Some(Target::Times(least)), _) => format!(">= {least}x"),
        };
        let verdict = match (self.target, self.times(), self.is_met()) {
            (None, ..) => "",
            (Some(Target::Times(_)), None, _) => "  not compared",
            (_, _, true) => "  ok",
            (_, _, false) => "  MISS",
        };
        let Self { what, unit, ours, .. } = self;
        write!(f, "{what:<58} {unit:<6} {:>10}{others} {times:>8} {target:>9}{verdict}", number(*ours))
    }
}

/// Three digits that matter.
fn number(value: f64) -> String {
    let decimals = match value.abs() {
        large if large >= 100.0 => 0,
        middle if middle >= 10.0 => 1,
        small if small >= 1.0 || small == 0.0 => 2,
        _ => 3,
    };
    format!("{value:.decimals$}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(better: Better, ours: f64, other: f64, target: Target) -> Line {
        Line { what: "x".into(), unit: "s", better, ours, others: vec![Some(other)], target: Some(target) }
    }

    #[test]
    fn verdicts() {
        use Better::{Larger, Smaller};
        use Target::{Figure, Times};
        for (line, met) in [
            (line(Smaller, 2.0, 30.0, Times(15.0)), true),
            (line(Smaller, 2.1, 30.0, Times(15.0)), false),
            (line(Larger, 30.0, 10.0, Times(3.0)), true),
            (line(Larger, 29.0, 10.0, Times(3.0)), false),
            (line(Smaller, 2.0, 9.0, Figure(2.0)), true),
            (line(Larger, 998.0, 205.0, Figure(1000.0)), false),
        ] {
            assert_eq!(line.is_met(), met, "{line}");
            assert_eq!(line.to_string().ends_with("MISS"), !met, "{line}");
        }
        let alone = Line { others: vec![None], ..line(Larger, 1.0, 1.0, Times(3.0)) };
        assert!(alone.is_met() && alone.to_string().ends_with("not compared"), "{alone}");
    }
}
