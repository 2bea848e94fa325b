//! Medians, ratios, verdicts. Pure.

use super::rows::{Against, Goal, Row};

/// One run's.
#[derive(Debug, Clone, Default)]
pub(super) struct Figures {
    pub(super) figure: f64,
    /// The server's, per delivery, echo or connect.
    pub(super) cpu_us: Option<f64>,
    pub(super) p50_ms: Option<f64>,
    pub(super) p99_ms: Option<f64>,
    pub(super) load_us: Option<f64>,
    /// What should have been 0.
    pub(super) broken: Vec<String>,
}

/// What became of a row.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    pub(super) ceiling: Vec<Figures>,
    pub(super) broadgate: Vec<Figures>,
    pub(super) failed: Option<String>,
}

#[derive(Debug, PartialEq)]
pub(super) enum Verdict {
    Met,
    Missed,
    /// There is nothing to reach.
    Told,
    /// What was measured cannot be judged by this.
    Void(String),
    Failed(String),
}

/// The middle one, or the mean of the two in the middle.
pub(super) fn median(values: impl IntoIterator<Item = f64>) -> Option<f64> {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    let upper = *values.get(middle)?;
    if values.len() % 2 == 1 {
        return Some(upper);
    }
    Some((values[middle - 1] + upper) / 2.0)
}

impl Outcome {
    pub(super) fn ratio(&self) -> Option<f64> {
        let ceiling = figure(&self.ceiling)?;
        Some(figure(&self.broadgate)? / ceiling).filter(|ratio| ratio.is_finite())
    }

    pub(super) fn verdict(&self, row: &Row) -> Verdict {
        if let Some(failed) = &self.failed {
            return Verdict::Failed(failed.clone());
        }
        if let Some(broken) = self.broadgate.iter().find(|run| !run.broken.is_empty()) {
            return Verdict::Failed(broken.broken.join(", "));
        }
        let (Against::Merged { cpu_us_max } | Against::Single { cpu_us_max }) = row.against else {
            return self.judge(row.goal);
        };
        let cpu = median(self.ceiling.iter().filter_map(|run| run.cpu_us));
        if let (Some(max), Some(cpu)) = (cpu_us_max, cpu)
            && cpu > max
        {
            return Verdict::Void(format!("the ceiling took {cpu:.2} µs per delivery, more than {max}"));
        }
        if let Some(broken) = self.ceiling.iter().find(|run| !run.broken.is_empty()) {
            return Verdict::Void(format!("the ceiling: {}", broken.broken.join(", ")));
        }
        self.judge(row.goal)
    }

    fn judge(&self, goal: Goal) -> Verdict {
        let met = match goal {
            Goal::RatioMin(min) => self.ratio().map(|ratio| ratio >= min),
            Goal::RatioMax(max) => self.ratio().map(|ratio| ratio <= max),
            Goal::Max(max) => figure(&self.broadgate).map(|value| value <= max),
            Goal::Whole => figure(&self.broadgate).map(|_| true),
            Goal::Told => return Verdict::Told,
        };
        match met {
            Some(true) => Verdict::Met,
            Some(false) => Verdict::Missed,
            None => Verdict::Failed("nothing was measured".to_owned()),
        }
    }
}

pub(super) fn figure(runs: &[Figures]) -> Option<f64> {
    median(runs.iter().map(|run| run.figure))
}

#[cfg(test)]
mod tests {
    use super::{super::rows, *};

    fn runs(figures: &[f64], cpu_us: f64) -> Vec<Figures> {
        let one = |figure: &f64| Figures { figure: *figure, cpu_us: Some(cpu_us), ..Figures::default() };
        figures.iter().map(one).collect()
    }

    #[test]
    fn the_median_is_the_middle() {
        assert_eq!(median([3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median([4.0, 1.0, 2.0, 3.0]), Some(2.5));
        assert_eq!(median([]), None);
    }

    #[test]
    fn a_slow_ceiling_and_a_broken_run_count_for_nothing() {
        let row = rows::all().into_iter().find(|row| row.name == "fanout-1000").unwrap();
        let good = runs(&[70.0, 80.0, 10.0], 0.9);
        let outcome = |ceiling, broadgate| Outcome { ceiling, broadgate, failed: None };
        assert_eq!(outcome(runs(&[100.0], 1.0), good.clone()).verdict(&row), Verdict::Met);
        assert_eq!(outcome(runs(&[101.0], 1.0), good.clone()).verdict(&row), Verdict::Missed);
        assert!(matches!(outcome(runs(&[100.0], 1.1), good.clone()).verdict(&row), Verdict::Void(_)));
        let mut broken = good;
        broken[1].broken = vec!["lost 3".to_owned()];
        assert_eq!(outcome(runs(&[100.0], 1.0), broken).verdict(&row), Verdict::Failed("lost 3".to_owned()));
        assert!(matches!(outcome(vec![], vec![]).verdict(&row), Verdict::Failed(_)));
    }
}
