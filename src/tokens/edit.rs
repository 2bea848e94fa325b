//! Edits of the tokens file, which keep comments and the order of what the operator wrote.

/// How an entry begins.
const ENTRY: &str = "[[tokens]]";

/// The text with one more entry.
pub(super) fn appended(text: &str, entry: &str) -> String {
    let gap = match text {
        "" => "",
        text if text.ends_with("\n\n") => "",
        text if text.ends_with('\n') => "\n",
        _ => "\n\n",
    };
    format!("{text}{gap}{entry}")
}

/// The text without the entry at this place, counted from 0; none if the entries are not written one below the
/// other.
pub(super) fn without(text: &str, place: usize, entries: usize) -> Option<String> {
    let lines: Vec<&str> = text.lines().collect();
    let starts: Vec<usize> =
        (0..lines.len()).filter(|&line| lines[line].trim_start().starts_with(ENTRY)).collect();
    if starts.len() != entries {
        return None;
    }
    let start = *starts.get(place)?;
    let next = starts.get(place + 1).copied().unwrap_or(lines.len());
    // Comments and blank lines right above the next entry are the next entry's.
    let is_between = |line: &&str| line.trim().is_empty() || line.trim_start().starts_with('#');
    let mut end = next - lines[start..next].iter().rev().take_while(|line| is_between(line)).count();
    // One blank line is enough between what stood before and after it.
    let is_blank = |line: Option<&&str>| line.is_some_and(|line| line.trim().is_empty());
    if start > 0 && is_blank(lines.get(start - 1)) && is_blank(lines.get(end)) {
        end += 1;
    }
    let kept = lines[..start].iter().chain(&lines[end..]);
    Some(kept.fold(String::new(), |text, line| text + line + "\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_entry_goes_and_the_rest_stays() {
        let text = "# ours\n[[tokens]]\nname = \"a\"\n\n# of Ben\n[[tokens]]\nname = \"b\" # x\n# end\n";
        let first = without(text, 0, 2).unwrap();
        assert_eq!(first, "# ours\n\n# of Ben\n[[tokens]]\nname = \"b\" # x\n# end\n");
        assert_eq!(without(text, 1, 2).unwrap(), "# ours\n[[tokens]]\nname = \"a\"\n\n# of Ben\n# end\n");
        assert_eq!(without("tokens = [{ name = \"a\" }]\n", 0, 1), None);
    }

    #[test]
    fn an_entry_stands_apart() {
        for (text, wanted) in [("", "E"), ("a\n", "a\n\nE"), ("a", "a\n\nE"), ("a\n\n", "a\n\nE")] {
            assert_eq!(appended(text, "E"), wanted);
        }
    }
}
