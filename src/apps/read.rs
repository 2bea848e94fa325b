//! Apps are read from the configuration and from a file of their own. Always all of both: a reload
//! reads exactly what a start would.

use std::{
    collections::{BTreeMap, BTreeSet},
    hash::{DefaultHasher, Hasher as _},
    path::{Path, PathBuf},
};

use broadgate_gateway::apps::{App, Apps, AppsChange, Fault, KeySecret};
use broadgate_proto::limits::APP_SECRET_BYTES_MIN;
use broadgate_tasks::bounded_read::{self, ReadableKind};
use serde::{Deserialize, de::IgnoredAny};
use toml::Spanned;

use crate::{
    config::Config,
    secret_files::exposed,
    unreadable::{UnreadableInput, line_of},
};

/// Where apps are read from.
#[derive(Debug, Clone, Default)]
pub struct Source {
    /// The configuration, whose `[[apps]]` are read.
    pub config: Option<PathBuf>,
    /// The apps file; the configuration's `apps_file` if absent.
    pub apps: Option<PathBuf>,
    /// Apps that take raw clients, whatever the files say.
    pub raw: Vec<String>,
}

/// A file that was read, or could not be, and what was in it. Only its content says whether it has
/// changed: a file of the same length may be written within one tick of the clock, or be given its old
/// time back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeenFile {
    path: PathBuf,
    /// A hash of what was read; none if nothing could be.
    content: Option<u64>,
}

impl SeenFile {
    /// Reads a file and remembers what was in it.
    fn read(path: &Path, seen: &mut Vec<Self>) -> std::io::Result<String> {
        let read = bounded_read::read(path, ReadableKind::Regular);
        let content = read.as_ref().ok().map(|bytes| hash(bytes));
        seen.push(Self { path: path.to_owned(), content });
        String::from_utf8(read?)
            .map_err(|_| std::io::Error::new(std::io::ErrorKind::InvalidData, "it is not UTF-8"))
    }

    /// How the same file looks now.
    pub(super) fn again(&self) -> Self {
        let content = bounded_read::read(&self.path, ReadableKind::Regular).ok().map(|bytes| hash(&bytes));
        Self { path: self.path.clone(), content }
    }
}

fn hash(bytes: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    hasher.write(bytes);
    hasher.finish()
}

/// What was read at one moment: apps that are not checked yet.
#[derive(Debug, Default)]
pub struct AppsReading {
    apps: Vec<App>,
    /// Where each app stands, such as `broadgate.toml:12: apps[1]`.
    places: Vec<String>,
    /// The ids of the apps that each file has.
    files: Files,
    /// The apps file, if there is one.
    apps_file: Option<PathBuf>,
    /// Files in which a secret stands.
    with_secrets: BTreeSet<PathBuf>,
}

/// The ids of the apps of each file.
pub(super) type Files = BTreeMap<PathBuf, Vec<String>>;

/// The file that holds nothing but apps.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AppsDocument {
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
    pub fn read(&self, seen: &mut Vec<SeenFile>) -> Result<AppsReading, String> {
        seen.clear();
        let text = match &self.config {
            None => String::new(),
            Some(path) => SeenFile::read(path, seen)
                .map_err(|error| UnreadableInput::file("config file", path, &error).sentence())?,
        };
        let config = Config::of(self.config.as_deref(), &text).map_err(|unreadable| unreadable.sentence())?;
        let mut reading = AppsReading::default();
        if let Some(path) = &self.config {
            reading.add(path, &text, config.apps);
        }
        if let Some(path) = self.apps.as_ref().or(config.apps_file.as_ref()) {
            let text = SeenFile::read(path, seen)
                .map_err(|error| UnreadableInput::file("apps file", path, &error).sentence())?;
            let file: AppsDocument = toml::from_str(&text).map_err(|error| {
                UnreadableInput::toml("apps file", &path.display().to_string(), &text, error).sentence()
            })?;
            reading.add(path, &text, file.apps);
            reading.apps_file = Some(path.clone());
        }
        reading.read_secrets(seen)?;
        for id in &self.raw {
            reading.let_raw_into(id);
        }
        Ok(reading)
    }
}

impl AppsReading {
    fn add(&mut self, path: &Path, text: &str, apps: Vec<App>) {
        let entries: Entries = toml::from_str(text).unwrap_or_default();
        let mut lines = entries.apps.iter().map(|entry| line_of(text, entry.span().start));
        let ids = apps.iter().map(|app| app.id.clone());
        self.files.entry(path.to_owned()).or_default().extend(ids);
        if apps.iter().flat_map(|app| &app.keys).any(|key| !key.secret.reveal().is_empty()) {
            self.with_secrets.insert(path.to_owned());
        }
        for (index, app) in apps.into_iter().enumerate() {
            let line = lines.next().map(|line| format!(":{line}")).unwrap_or_default();
            self.places.push(format!("{}{line}: apps[{index}]", path.display()));
            self.apps.push(app);
        }
    }

    /// The secrets that are in files of their own.
    fn read_secrets(&mut self, seen: &mut Vec<SeenFile>) -> Result<(), String> {
        for (app, place) in self.apps.iter_mut().zip(&self.places) {
            if let Some(redis) = &mut app.redis {
                if let Some(path) = &redis.password_file {
                    let text = SeenFile::read(path, seen).map_err(|error| {
                        format!("{place}.redis: password_file {}: {error}", path.display())
                    })?;
                    redis.password = KeySecret::new(&text);
                    self.with_secrets.insert(path.clone());
                }
                if redis.urls.iter().any(|url| url.is_tls) {
                    redis.tls.open().map_err(|sentence| format!("{place}.redis.{sentence}"))?;
                }
            }
            for (index, key) in app.keys.iter_mut().enumerate() {
                let Some(path) = &key.secret_file else { continue };
                let text = SeenFile::read(path, seen).map_err(|error| {
                    format!("{place}.keys[{index}]: secret_file {}: {error}", path.display())
                })?;
                key.secret = KeySecret::new(&text);
                self.with_secrets.insert(path.clone());
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

    /// The file that had apps in a former reading and has none now, if none of them is elsewhere: an empty
    /// file is a full disk or an interrupted copy, and no order to close every client of these apps.
    pub(super) fn lost_since(&self, former: &Files) -> Option<PathBuf> {
        let is_here = |id: &String| self.files.values().flatten().any(|here| here == id);
        let lost = former.iter().find(|(path, ids)| {
            let has_some = self.files.get(*path).is_some_and(|now| !now.is_empty());
            !ids.is_empty() && !has_some && !ids.iter().any(is_here)
        });
        lost.map(|(path, _)| path.clone())
    }

    /// Which apps each file has.
    pub(super) fn files(&self) -> &Files {
        &self.files
    }

    /// What would change if these apps took the place of a table's.
    pub(super) fn compare(&self, apps: &Apps) -> Result<AppsChange, String> {
        self.check_secrets()?;
        apps.compare(self.apps.clone()).map_err(|fault| self.sentence(&fault))
    }

    /// Where the app of this index stands.
    pub(crate) fn place(&self, index: usize) -> &str {
        self.places.get(index).map_or("apps", String::as_str)
    }

    /// A secret that is too short for what it signs, or that others can read.
    fn check_secrets(&self) -> Result<(), String> {
        for (index, app) in self.apps.iter().enumerate() {
            for (number, key) in app.keys.iter().enumerate() {
                let len = key.secret.reveal().len();
                // A file without any app has a message of its own.
                if (1..APP_SECRET_BYTES_MIN).contains(&len) {
                    return Err(format!(
                        "{}.keys[{number}]: the secret has {len} bytes: at least {APP_SECRET_BYTES_MIN} are \
                         needed (`broadgate apps new ID` prints an app with one)",
                        self.place(index)
                    ));
                }
            }
        }
        Ok(())
    }

    /// Files with secrets that others than their owner can read, and an apps file without any app.
    pub(crate) fn warnings(&self) -> Vec<String> {
        let has_none = |path: &&PathBuf| self.files.get(*path).is_none_or(Vec::is_empty);
        let empty = self.apps_file.as_ref().filter(has_none).map(|path| {
            let path = path.display();
            format!("apps file {path} has no app: was it written to its end? `broadgate apps new ID` prints an app")
        });
        self.with_secrets.iter().filter_map(|path| exposed("apps", path)).chain(empty).collect()
    }

    /// Checks the apps and makes the table of a gateway.
    pub fn open(&self) -> Result<Apps, String> {
        self.check_secrets()?;
        Apps::new(self.apps.clone()).map_err(|fault| self.sentence(&fault))
    }

    /// Checks the apps and puts them in the place of a table's.
    pub(super) fn swap_into(&self, apps: &Apps) -> Result<AppsChange, String> {
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
    use std::os::unix::fs::PermissionsExt as _;

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

    fn loaded(source: &Source) -> Result<Vec<String>, String> {
        let apps = source.read(&mut Vec::new())?.open()?;
        Ok(apps.load().iter().map(|app| app.id.clone()).collect())
    }

    #[test]
    fn the_configuration_and_the_apps_file_are_merged() {
        let files = Files::new("merged");
        let other = files.write("other.toml", "[[apps]]\nid = \"c\"\n");
        let secret = files.write("secret", "hush-hush-hush-hush\n");
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
        assert_eq!(table.by_key("k").unwrap().0.keys[0].secret.reveal(), "hush-hush-hush-hush");
        assert_eq!(seen.iter().map(|seen| &seen.path).collect::<Vec<_>>(), [&config, &apps, &secret]);
        assert!(seen.iter().all(|seen| *seen == seen.again()));
        let flag = Source { apps: Some(other), raw: Vec::new(), ..source };
        assert_eq!(loaded(&flag).unwrap(), ["a", "c"], "the flag comes before the file");
        assert!(loaded(&Source::default()).unwrap().is_empty());
    }

    #[test]
    fn files_with_secrets_that_others_can_read_are_warned_of() {
        let files = Files::new("exposed");
        let secret = files.write("secret", "hush-hush-hush-hush\n");
        let key = format!("keys = [{{ key = \"k\", secret_file = {:?} }}]\n", secret.display().to_string());
        let apps = files.write("apps.toml", &format!("[[apps]]\nid = \"a\"\n{key}"));
        let source = Source { apps: Some(apps.clone()), ..Source::default() };
        let warned = |modes: [u32; 2]| {
            for (path, mode) in [&secret, &apps].into_iter().zip(modes) {
                std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
            }
            source.read(&mut Vec::new()).unwrap().warnings()
        };
        assert!(warned([0o600, 0o644]).is_empty(), "no secret stands in the apps file");
        let warnings = warned([0o640, 0o644]);
        assert!(warnings.len() == 1 && warnings[0].contains("mode 640"), "{warnings:?}");
        files.write(
            "apps.toml",
            "[[apps]]\nid = \"a\"\nkeys = [{ key = \"k\", secret = \"hush-hush-hush-hush\" }]\n",
        );
        assert!(warned([0o644, 0o604])[0].contains("chmod 600"));
        assert!(warned([0o644, 0o400]).is_empty());
    }

    #[test]
    fn only_the_content_says_whether_a_file_has_changed() {
        let files = Files::new("content");
        let path = files.write("apps.toml", "[[apps]]\nid = \"a\"\n");
        let source = Source { apps: Some(path.clone()), ..Source::default() };
        let mut seen = Vec::new();
        source.read(&mut seen).unwrap();
        let time = std::fs::metadata(&path).unwrap().modified().unwrap();
        files.write("apps.toml", "[[apps]]\nid = \"b\"\n");
        std::fs::File::options().write(true).open(&path).unwrap().set_modified(time).unwrap();
        assert_ne!(seen[0], seen[0].again(), "same length, same time");
        files.write("apps.toml", "[[apps]]\nid = \"a\"\n");
        assert_eq!(seen[0], seen[0].again(), "another time, the same content");
        std::fs::remove_file(&path).unwrap();
        assert_ne!(seen[0], seen[0].again());
    }

    /// Every later look would wait for ever, and no change be seen any more.
    #[test]
    fn pipe_in_the_place_of_a_file_is_trouble_that_ends() {
        let files = Files::new("pipe");
        let path = files.write("apps.toml", "[[apps]]\nid = \"a\"\n");
        let source = Source { apps: Some(path.clone()), ..Source::default() };
        let mut seen = Vec::new();
        source.read(&mut seen).unwrap();
        std::fs::remove_file(&path).unwrap();
        assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success());
        assert_ne!(seen[0], seen[0].again());
        let error = source.read(&mut seen).unwrap_err();
        assert!(error.contains("apps.toml: it is not a regular file"), "{error}");
        assert_eq!(seen[0], seen[0].again(), "it is reported once");
        std::fs::remove_file(&path).unwrap();
        files.write("apps.toml", "[[apps]]\nid = \"b\"\n");
        assert_ne!(seen[0], seen[0].again());
        assert_eq!(loaded(&source).unwrap(), ["b"]);
    }

    #[test]
    fn a_file_that_loses_all_its_apps_is_noticed() {
        let files = Files::new("lost");
        let apps = files.write("apps.toml", "[[apps]]\nid = \"a\"\n[[apps]]\nid = \"b\"\n");
        let named = format!("apps_file = {:?}\n", apps.display().to_string());
        let own = "[[apps]]\nid = \"own\"\n";
        let config = files.write("config.toml", &format!("{named}{own}"));
        let source = Source { config: Some(config.clone()), raw: vec!["raw".into()], apps: None };
        let read = || source.read(&mut Vec::new()).unwrap();
        let former = read();
        let lost = |reading: &AppsReading| reading.lost_since(former.files());
        assert_eq!(lost(&read()), None);
        for empty in ["", "# nothing\n", "apps = []\n"] {
            files.write("apps.toml", empty);
            assert_eq!(lost(&read()), Some(apps.clone()), "{empty}");
        }
        files.write("config.toml", own);
        assert_eq!(lost(&read()), Some(apps.clone()), "it is not named any more");
        files.write("config.toml", "");
        assert!(lost(&read()).is_some());
        files.write("config.toml", &named);
        files.write("apps.toml", "[[apps]]\nid = \"c\"\n");
        assert_eq!(lost(&read()), Some(config), "the other file has lost its only one");
        files.write("apps.toml", own);
        assert_eq!(lost(&read()), None, "an app has moved, and others took the place of the rest");
    }

    #[test]
    fn errors_name_file_and_line() {
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
            (
                "[[apps]]\nid = \"b\"\nkeys = [{ key = \"k\", secret = \"only-15-bytes--\" }]\n",
                "apps.toml:1: apps[0].keys[0]: the secret has 15 bytes: at least 16",
            ),
            ("apps = [\n  { id = \"b\" },\n  { id = \"\" },\n]\n", "apps.toml:3: apps[1]: id is empty"),
            (
                "[[apps]]\nid = \"b\"\nkeys = [{ key = \"k\", secret_file = \"/nowhere\" }]\n",
                "apps.toml:1: apps[0].keys[0]: secret_file /nowhere: ",
            ),
        ];
        for (text, words) in cases {
            let apps = files.write("apps.toml", text);
            let source = Source { config: Some(config.clone()), apps: Some(apps), raw: Vec::new() };
            let sentence = loaded(&source).unwrap_err();
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
