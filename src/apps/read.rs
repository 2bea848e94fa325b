//! Apps are read from the configuration and from a file of their own. Always all of both: a reload
//! reads exactly what a start would.

use std::{
    path::{Path, PathBuf},
    time::SystemTime,
};

use broadgate_gateway::apps::{App, Apps, Change, Fault, KeySecret};
use serde::{Deserialize, de::IgnoredAny};
use toml::Spanned;

use crate::{
    config::Config,
    unreadable::{Unreadable, line_of},
};

/// Where apps are read from.
#[derive(Debug, Clone, Default)]
pub(crate) struct Source {
    pub(crate) config: Option<PathBuf>,
    /// The apps file; the configuration's `apps_file` if absent.
    pub(crate) apps: Option<PathBuf>,
    /// Apps that take raw clients, whatever the files say.
    pub(crate) raw: Vec<String>,
}

/// A file that was read, or could not be, and what it looked like just before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Seen {
    path: PathBuf,
    /// Modification time and length; none if there was no such file.
    stamp: Option<(SystemTime, u64)>,
}

impl Seen {
    fn of(path: &Path) -> Self {
        let metadata = std::fs::metadata(path).ok();
        let stamp = metadata.and_then(|data| Some((data.modified().ok()?, data.len())));
        Self { path: path.to_owned(), stamp }
    }

    /// How the same file looks now.
    pub(super) fn again(&self) -> Self {
        Self::of(&self.path)
    }
}

/// What was read at one moment: apps that are not checked yet.
#[derive(Debug)]
pub(crate) struct Reading {
    apps: Vec<App>,
    /// Where each app stands, such as `broadgate.toml:12: apps[1]`.
    places: Vec<String>,
}

/// The file that holds nothing but apps.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AppsFile {
    #[serde(default)]
    apps: Vec<App>,
}

/// Where the entries of a file are.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Entries {
    apps: Vec<Spanned<IgnoredAny>>,
}

impl Source {
    /// Reads all files, telling in `seen` which, also when one cannot be read.
    ///
    /// # Errors
    /// One sentence with the file and, where there is one, the line.
    pub(crate) fn read(&self, seen: &mut Vec<Seen>) -> Result<Reading, String> {
        seen.clear();
        seen.extend(self.config.as_deref().map(Seen::of));
        let (config, text) =
            Config::read(self.config.as_deref()).map_err(|unreadable| unreadable.sentence())?;
        let mut reading = Reading { apps: Vec::new(), places: Vec::new() };
        if let Some(path) = &self.config {
            reading.add(path, &text, config.apps);
        }
        if let Some(path) = self.apps.as_ref().or(config.apps_file.as_ref()) {
            seen.push(Seen::of(path));
            let text = std::fs::read_to_string(path)
                .map_err(|error| Unreadable::file("apps file", path, &error).sentence())?;
            let file: AppsFile = toml::from_str(&text).map_err(|error| {
                Unreadable::toml("apps file", &path.display().to_string(), &text, error).sentence()
            })?;
            reading.add(path, &text, file.apps);
        }
        reading.read_secrets(seen)?;
        for id in &self.raw {
            reading.let_raw_into(id);
        }
        Ok(reading)
    }
}

impl Reading {
    fn add(&mut self, path: &Path, text: &str, apps: Vec<App>) {
        let entries: Entries = toml::from_str(text).unwrap_or_default();
        let mut lines = entries.apps.iter().map(|entry| line_of(text, entry.span().start));
        for (index, app) in apps.into_iter().enumerate() {
            let line = lines.next().map(|line| format!(":{line}")).unwrap_or_default();
            self.places.push(format!("{}{line}: apps[{index}]", path.display()));
            self.apps.push(app);
        }
    }

    /// The secrets that are in files of their own.
    fn read_secrets(&mut self, seen: &mut Vec<Seen>) -> Result<(), String> {
        for (app, place) in self.apps.iter_mut().zip(&self.places) {
            for (index, key) in app.keys.iter_mut().enumerate() {
                let Some(path) = &key.secret_file else { continue };
                seen.push(Seen::of(path));
                let text = std::fs::read_to_string(path).map_err(|error| {
                    format!("{place}.keys[{index}]: secret_file {}: {error}", path.display())
                })?;
                key.secret = KeySecret::new(&text);
            }
        }
        Ok(())
    }

    fn let_raw_into(&mut self, id: &str) {
        match self.apps.iter_mut().find(|app| app.id == id) {
            Some(app) => app.raw = true,
            None => {
                self.apps.push(App { raw: true, ..App::new(id) });
                self.places.push(format!("--raw-app {id}"));
            }
        }
    }

    /// Where the app of this index stands.
    pub(crate) fn place(&self, index: usize) -> &str {
        self.places.get(index).map_or("apps", String::as_str)
    }

    /// Checks the apps and makes the table of a gateway.
    pub(crate) fn open(&self) -> Result<Apps, String> {
        Apps::new(self.apps.clone()).map_err(|fault| self.sentence(&fault))
    }

    /// Checks the apps and puts them in the place of a table's.
    pub(super) fn swap_into(&self, apps: &Apps) -> Result<Change, String> {
        apps.swap(self.apps.clone()).map_err(|fault| self.sentence(&fault))
    }

    fn sentence(&self, fault: &Fault) -> String {
        let other = fault.other.filter(|&other| other != fault.app);
        let other = other.map(|other| format!("; the other is {}", self.place(other))).unwrap_or_default();
        format!("{}{}: {}{other}", self.place(fault.app), fault.at, fault.sentence)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A directory of its own, which goes with the value.
    struct Files(PathBuf);

    impl Files {
        fn new(name: &str) -> Self {
            let dir = std::env::temp_dir().join(format!("broadgate-read-{}-{name}", std::process::id()));
            std::fs::create_dir_all(&dir).unwrap();
            Self(dir)
        }

        fn write(&self, name: &str, text: &str) -> PathBuf {
            let path = self.0.join(name);
            std::fs::write(&path, text).unwrap();
            path
        }
    }

    impl Drop for Files {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    fn told(source: &Source) -> Result<Vec<String>, String> {
        let apps = source.read(&mut Vec::new())?.open()?;
        Ok(apps.load().iter().map(|app| app.id.clone()).collect())
    }

    #[test]
    fn the_configuration_and_the_apps_file_are_merged() {
        let files = Files::new("merged");
        let other = files.write("other.toml", "[[apps]]\nid = \"c\"\n");
        let secret = files.write("secret", "hush\n");
        let text = format!(
            "[[apps]]\nid = \"b\"\n[[apps.keys]]\nkey = \"k\"\nsecret_file = {:?}\n",
            secret.display().to_string()
        );
        let apps = files.write("apps.toml", &text);
        let config = format!("apps_file = {:?}\n[[apps]]\nid = \"a\"\n", apps.display().to_string());
        let config = files.write("broadgate.toml", &config);
        let source = Source { config: Some(config.clone()), raw: vec!["b".into(), "d".into()], apps: None };
        let mut seen = Vec::new();
        let table = source.read(&mut seen).unwrap().open().unwrap().load();
        assert_eq!(table.iter().map(|app| &app.id[..]).collect::<Vec<_>>(), ["a", "b", "d"]);
        assert!(table.by_id("b").unwrap().raw && table.by_id("d").unwrap().raw);
        assert_eq!(table.by_key("k").unwrap().0.keys[0].secret.reveal(), "hush");
        assert_eq!(seen.iter().map(|seen| &seen.path).collect::<Vec<_>>(), [&config, &apps, &secret]);
        assert!(seen.iter().all(|seen| *seen == seen.again()));
        let flag = Source { apps: Some(other), raw: Vec::new(), ..source };
        assert_eq!(told(&flag).unwrap(), ["a", "c"], "the flag comes before the file");
        assert!(told(&Source::default()).unwrap().is_empty());
    }

    #[test]
    fn what_is_wrong_is_told_with_file_and_line() {
        let files = Files::new("wrong");
        let config = files.write("config.toml", "# apps\n[[apps]]\nid = \"a\"\n");
        let cases = [
            (
                "[[apps]]\nid = \"b\"\n\n[[apps]]\nid = \"a\"\n",
                "apps.toml:4: apps[1]: another app has the id \"a\"",
            ),
            ("\n[[apps]]\nnmae = \"b\"\n", "apps.toml:3: unknown field `nmae`"),
            ("[gateway]\n", "apps.toml:1: unknown field `gateway`"),
            (
                "[[apps]]\nid = \"b\"\n[[apps.keys]]\nkey = \"a:b\"\nsecret = \"s\"\n",
                "apps.toml:1: apps[0].keys[0]: ",
            ),
            ("[[apps]]\nid = \"b\"\norigins = [\"x/\"]\n", "apps.toml:3: "),
            ("apps = [\n  { id = \"b\" },\n  { id = \"\" },\n]\n", "apps.toml:3: apps[1]: id is empty"),
            (
                "[[apps]]\nid = \"b\"\nkeys = [{ key = \"k\", secret_file = \"/nowhere\" }]\n",
                "apps.toml:1: apps[0].keys[0]: secret_file /nowhere: ",
            ),
        ];
        for (text, words) in cases {
            let apps = files.write("apps.toml", text);
            let source = Source { config: Some(config.clone()), apps: Some(apps), raw: Vec::new() };
            let sentence = told(&source).unwrap_err();
            assert!(sentence.contains(words) && !sentence.contains('\n'), "{text}: {sentence}");
            if words.contains("another app") {
                assert!(sentence.ends_with("config.toml:2: apps[0]"), "{sentence}");
            }
        }
        let source = Source { apps: Some(files.0.join("none.toml")), ..Source::default() };
        let mut seen = Vec::new();
        assert!(source.read(&mut seen).unwrap_err().contains("none.toml"));
        assert_eq!(seen.len(), 1, "what is missing is watched too");
    }
}
