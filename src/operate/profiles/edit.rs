//! Edits of the clusters file, which keep comments and the order of what the operator wrote.

use std::collections::BTreeSet;

use toml::{Table, Value};

/// The key that says which profile is in use, and so is no name.
pub(super) const USE: &str = "use";

/// The file's lines.
pub(super) struct ProfileLines(Vec<String>);

impl ProfileLines {
    pub(super) fn of(text: &str) -> Self {
        Self(text.lines().map(str::to_owned).collect())
    }

    pub(super) fn text(&self) -> String {
        self.0.iter().fold(String::new(), |text, line| text + line + "\n")
    }

    /// Adds a section at the end.
    pub(super) fn append(&mut self, name: &str, keys: &Table) {
        if self.0.last().is_some_and(|line| !line.trim().is_empty()) {
            self.0.push(String::new());
        }
        self.0.push(format!("[{name}]"));
        self.0.extend(keys.iter().map(|(key, value)| format!("{key} = {value}")));
    }

    /// Removes a section, up to the comments of the next one.
    pub(super) fn remove(&mut self, name: &str) {
        let Some(from) = self.0.iter().position(|line| section(line).as_deref() == Some(name)) else {
            return;
        };
        let next = self.0[from + 1..].iter().position(|line| section(line).is_some());
        let mut to = next.map_or(self.0.len(), |next| from + 1 + next);
        if next.is_some() {
            while to > from + 1 && self.0[to - 1].trim_start().starts_with('#') {
                to -= 1;
            }
        }
        self.0.drain(from..to);
    }

    /// Sets the key that stands before all sections, or removes it.
    pub(super) fn set_used(&mut self, name: Option<&str>) {
        let end = self.0.iter().position(|line| section(line).is_some()).unwrap_or(self.0.len());
        let is_used = |line: &String| {
            line.split_once('=').is_some_and(|(key, _)| key.trim().trim_matches(['"', '\'']) == USE)
        };
        let at = self.0[..end].iter().position(is_used);
        let line = name.map(|name| format!("{USE} = {}", Value::String(name.to_owned())));
        match (at, line) {
            (Some(at), Some(line)) => self.0[at] = line,
            (Some(at), None) => drop(self.0.remove(at)),
            (None, Some(line)) => self.0.insert(0, line),
            (None, None) => {}
        }
    }
}

/// The name of the section that begins with this line.
fn section(line: &str) -> Option<String> {
    let line = line.trim_start();
    if !line.starts_with('[') {
        return None;
    }
    let table: Table = toml::from_str(line).ok()?;
    let names: BTreeSet<String> = table.into_iter().map(|(name, _)| name).collect();
    names.into_iter().next()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn edited(text: &str, edit: impl FnOnce(&mut ProfileLines)) -> String {
        let mut lines = ProfileLines::of(text);
        edit(&mut lines);
        lines.text()
    }

    const TEXT: &str = "# mine\nuse = \"a\"\n\n[a]\naddresses = [\n  \"x:1\",\n]\n\n# the other\n[ \"b\" ] # b\naddresses = [\"y:2\"]\n";

    #[test]
    fn comments_are_kept() {
        assert_eq!(
            edited(TEXT, |lines| lines.remove("a")),
            "# mine\nuse = \"a\"\n\n# the other\n[ \"b\" ] # b\naddresses = [\"y:2\"]\n"
        );
        assert_eq!(
            edited(TEXT, |lines| lines.remove("b")),
            "# mine\nuse = \"a\"\n\n[a]\naddresses = [\n  \"x:1\",\n]\n\n# the other\n"
        );
        assert_eq!(
            edited(TEXT, |lines| lines.set_used(Some("b"))),
            TEXT.replace("use = \"a\"", "use = \"b\"")
        );
        assert_eq!(edited(TEXT, |lines| lines.set_used(None)), TEXT.replace("use = \"a\"\n", ""));
        assert_eq!(edited("[a]\n", |lines| lines.set_used(Some("a"))), "use = \"a\"\n[a]\n");
        let keys = Table::from_iter([("protected".to_owned(), Value::Boolean(true))]);
        assert_eq!(edited("[a]\n", |lines| lines.append("c", &keys)), "[a]\n\n[c]\nprotected = true\n");
    }
}
