//! What a check finds. Pure.

use std::{collections::BTreeMap, fmt::Write as _};

use serde_json::{Value, json};

use crate::terminal_text::one_line;

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Severity {
    Ok,
    Warn,
    Fail,
}

/// One thing that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Finding {
    pub(crate) level: Severity,
    pub(crate) what: String,
    /// What an operator can do about it.
    pub(crate) advice: String,
}

/// A check and what it has found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Checked {
    pub(crate) name: &'static str,
    /// What it says if all is well.
    pub(crate) well: String,
    /// Why it cannot say whether all is well; "" if it can.
    pub(crate) unknown: String,
    pub(crate) findings: Vec<Finding>,
    /// What it finds has happened, so it need not be seen twice.
    pub(crate) has_happened: bool,
}

impl Severity {
    fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warn => "warn",
            Self::Fail => "FAIL",
        }
    }
}

impl Checked {
    /// One that has found nothing so far.
    pub(crate) fn new(name: &'static str, well: impl Into<String>) -> Self {
        Self { name, well: well.into(), unknown: String::new(), findings: Vec::new(), has_happened: false }
    }

    /// Whether it has found nothing, and could have.
    fn is_well(&self) -> bool {
        self.level() == Severity::Ok && self.unknown.is_empty()
    }

    pub(crate) fn level(&self) -> Severity {
        self.findings.iter().map(|finding| finding.level).max().unwrap_or(Severity::Ok)
    }

    pub(crate) fn warn(&mut self, what: impl Into<String>, advice: impl Into<String>) {
        self.findings.push(Finding { level: Severity::Warn, what: what.into(), advice: advice.into() });
    }

    pub(crate) fn fail(&mut self, what: impl Into<String>, advice: impl Into<String>) {
        self.findings.push(Finding { level: Severity::Fail, what: what.into(), advice: advice.into() });
    }
}

/// What both of two looks have found: what passes within a second is no finding.
pub(crate) fn confirmed(first: &[Checked], second: Vec<Checked>) -> Vec<Checked> {
    let level = |name| first.iter().find(|checked| checked.name == name).map_or(Severity::Ok, Checked::level);
    let confirm = |mut checked: Checked| {
        if checked.has_happened {
            return checked;
        }
        let before = level(checked.name);
        if before == Severity::Ok {
            checked.findings.clear();
        }
        for finding in &mut checked.findings {
            finding.level = finding.level.min(before);
        }
        checked
    };
    second.into_iter().map(confirm).collect()
}

/// Names that one finding lists.
const NAMES_SHOWN: usize = 8;

/// Names, or the first of them.
pub(crate) fn some<T: AsRef<str>>(names: impl IntoIterator<Item = T>) -> String {
    let names: Vec<T> = names.into_iter().collect();
    let first: Vec<&str> = names.iter().take(NAMES_SHOWN).map(AsRef::as_ref).collect();
    match names.len() - first.len() {
        0 => first.join(", "),
        more => format!("{}, and {more} more", first.join(", ")),
    }
}

/// How many checks fail, and how many warn.
pub(crate) fn count(all: &[Checked]) -> (usize, usize) {
    let of = |level| all.iter().filter(|checked| checked.level() == level).count();
    (of(Severity::Fail), of(Severity::Warn))
}

/// "1 check failed, 2 warn".
pub(crate) fn sum(all: &[Checked]) -> String {
    match count(all) {
        (0, 0) => "all is well".to_owned(),
        (0, warned) => format!("{warned} of {} checks warn", all.len()),
        (failed, 0) => format!("{failed} of {} checks failed", all.len()),
        (failed, warned) => format!("{failed} of {} checks failed, {warned} warn", all.len()),
    }
}

/// What is not well, and then the names of the rest; all in full if all is well.
pub(crate) fn as_text(all: &[Checked]) -> String {
    let mut text = String::new();
    let wide = all.iter().map(|checked| checked.name.len()).max().unwrap_or_default();
    let line = |level: Severity, name: &str, words: &str| {
        format!("{:<5} {name:<wide$}  {}\n", level.word(), one_line(words))
    };
    let (well, bad): (Vec<_>, Vec<_>) = all.iter().partition(|checked| checked.is_well());
    if bad.is_empty() {
        return well.iter().map(|checked| line(Severity::Ok, checked.name, &checked.well)).collect();
    }
    for checked in &bad {
        for finding in &checked.findings {
            text += &line(finding.level, checked.name, &finding.what);
            if !finding.advice.is_empty() {
                let _ = writeln!(text, "{:wide$}        do: {}", "", one_line(&finding.advice));
            }
        }
    }
    let mut unknown: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for checked in bad.iter().filter(|checked| checked.level() == Severity::Ok) {
        unknown.entry(&checked.unknown).or_default().push(checked.name);
    }
    for (why, names) in unknown {
        let _ = writeln!(text, "?     {}: not known, since {}", names.join(" "), one_line(why));
    }
    if !well.is_empty() {
        let names: Vec<&str> = well.iter().map(|checked| checked.name).collect();
        let _ = writeln!(text, "ok    {} more: {}", well.len(), names.join(" "));
    }
    text
}

/// The checks as JSON.
pub(crate) fn as_json(all: &[Checked]) -> Value {
    let word = |level: Severity| level.word().to_lowercase();
    all.iter()
        .map(|checked| {
            let findings = checked.findings.iter().map(
                |finding| json!({ "level": word(finding.level), "what": finding.what, "do": finding.advice }),
            );
            let level = if checked.level() == Severity::Ok && !checked.unknown.is_empty() {
                "unknown".to_owned()
            } else {
                word(checked.level())
            };
            json!({ "check": checked.name, "level": level, "findings": findings.collect::<Vec<_>>() })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(name: &'static str, level: Severity) -> Checked {
        let mut checked = Checked::new(name, format!("{name} is well"));
        match level {
            Severity::Ok => {}
            Severity::Warn => checked.warn("odd", "look"),
            Severity::Fail => checked.fail("bad", "act"),
        }
        checked
    }

    #[test]
    fn what_passes_is_no_finding() {
        use Severity::{Fail, Ok, Warn};
        for (before, now, expected) in
            [(Ok, Fail, Ok), (Fail, Ok, Ok), (Fail, Fail, Fail), (Warn, Fail, Warn), (Fail, Warn, Warn)]
        {
            let all = confirmed(&[checked("links", before)], vec![checked("links", now)]);
            assert_eq!(all[0].level(), expected, "{before:?} {now:?}");
        }
    }

    #[test]
    fn what_cannot_be_known_is_not_said_to_be_well() {
        let unknown =
            |name| Checked { unknown: "gw-3 is in no cluster".to_owned(), ..checked(name, Severity::Ok) };
        let all = [
            unknown("links"),
            checked("views", Severity::Fail),
            unknown("secrets"),
            checked("files", Severity::Ok),
        ];
        let text = as_text(&all);
        assert!(text.contains("?     links secrets: not known, since gw-3 is in no cluster\n"), "{text}");
        assert!(text.ends_with("ok    1 more: files\n"), "{text}");
        assert_eq!((&as_json(&all)[0]["level"], count(&all)), (&json!("unknown"), (1, 0)));
    }

    #[test]
    fn what_has_happened_is_a_finding_at_once() {
        let removed = Checked { has_happened: true, ..checked("removed", Severity::Fail) };
        let all = confirmed(&[checked("removed", Severity::Ok)], vec![removed]);
        assert_eq!(all[0].level(), Severity::Fail);
    }

    #[test]
    fn troubles_come_first_and_the_rest_is_named() {
        let all = [
            checked("links", Severity::Ok),
            checked("views", Severity::Fail),
            checked("drops", Severity::Warn),
        ];
        let expected = "FAIL  views  bad\n             do: act\nwarn  drops  odd\n             do: look\n\
                        ok    1 more: links\n";
        assert_eq!(as_text(&all), expected);
        assert_eq!((count(&all), sum(&all)), ((1, 1), "1 of 3 checks failed, 1 warn".to_owned()));
        assert_eq!(as_text(&all[..1]), "ok    links  links is well\n");
        assert_eq!(as_json(&all)[1]["findings"][0]["do"], "act");
    }
}
