//! Cells by name, and how they are printed.

use std::collections::BTreeMap;

use super::EXAMPLES_MAX;

/// Cells that are what they are.
pub const MAY_BE: [&str; 18] = [
    "tried",
    "complete",
    "incomplete",
    "refused",
    "unanswered",
    "repeats",
    "attempts complete",
    "attempts complete, not ordered",
    "attempts incomplete",
    "attempts refused",
    "attempts unanswered",
    "connections",
    "ends",
    "deliveries",
    "promised",
    "receipts compared in quiet",
    "in doubt",
    "order: told as repeated",
];

/// Cells that make a round fail.
pub const MUST_BE_ZERO: [&str; 10] = [
    "lost after a complete receipt",
    "duplicates",
    "order differences",
    "a publisher's order",
    "presence errors",
    "receipts below the sockets",
    "too few acknowledged",
    "unexplained ends",
    "clients not accounted for",
    "processes ended badly",
];

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tally {
    cells: BTreeMap<&'static str, usize>,
    /// The first of each kind, to look at.
    pub examples: Vec<(&'static str, String)>,
}

impl Tally {
    pub fn get(&self, cell: &str) -> usize {
        self.cells.get(cell).copied().unwrap_or_default()
    }

    pub fn add(&mut self, cell: &'static str, count: usize) {
        debug_assert!(MAY_BE.contains(&cell) || MUST_BE_ZERO.contains(&cell));
        *self.cells.entry(cell).or_default() += count;
    }

    pub fn wrong(&mut self, cell: &'static str, example: impl FnOnce() -> String) {
        self.add(cell, 1);
        if self.get(cell) <= EXAMPLES_MAX {
            self.examples.push((cell, example()));
        }
    }

    pub fn is_good(&self) -> bool {
        MUST_BE_ZERO.iter().all(|cell| self.get(cell) == 0)
    }
}

/// One line per cell, one column per round, and the total.
pub fn render(rounds: &[Tally]) -> String {
    let mut lines = vec![line("", (1..=rounds.len()).map(|round| format!("round {round}")), "total")];
    let cells = |names: &'static [&str]| {
        names.iter().map(|name| {
            let counts: Vec<usize> = rounds.iter().map(|tally| tally.get(name)).collect();
            let total = counts.iter().sum::<usize>().to_string();
            line(name, counts.iter().map(ToString::to_string), &total)
        })
    };
    lines.extend(cells(&MAY_BE));
    lines.push("must be zero:".to_owned());
    lines.extend(cells(&MUST_BE_ZERO));
    lines.join("\n")
}

fn line(name: &str, counts: impl Iterator<Item = String>, total: &str) -> String {
    let counts: String = counts.map(|count| format!("{count:>10}")).collect();
    format!("{name:<31}{counts}{total:>10}")
}
