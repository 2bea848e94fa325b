//! Profiles: the clusters that an operator knows by name, in a file of the operator's own.
//!
//! A profile is taken as a whole: its address never gets another cluster's credentials.

mod edit;

use std::{
    collections::BTreeMap,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use broadgate_business::{ClusterFiles, ClusterTls, Credentials, Secret};
use broadgate_proto::{limits, name};
use broadgate_tasks::bounded_read::{self, ReadableKind};
use broadgate_tls::DEFAULT_SERVER_NAME;
use serde::Deserialize;
use toml::{Table, Value};

use crate::{
    failure::Failure,
    operate::{
        profiles::edit::{ProfileLines, USE},
        token_source,
    },
    replaced_file,
    unreadable::UnreadableInput,
};

/// One cluster, as the file has it. Relative paths begin at the file's folder.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Profile {
    /// Internal ports of gateways; the first that answers is asked.
    pub(crate) addresses: Vec<String>,
    pub(crate) secret_file: Option<PathBuf>,
    /// The operator's token, in the secret's place; or a program, and its arguments, that prints it.
    pub(crate) token_file: Option<PathBuf>,
    pub(crate) token_command: Option<Vec<String>>,
    pub(crate) tls_ca: Option<PathBuf>,
    pub(crate) tls_cert: Option<PathBuf>,
    pub(crate) tls_key: Option<PathBuf>,
    pub(crate) tls_server_name: Option<String>,
    /// The app of commands that name none.
    pub(crate) app: Option<String>,
    /// Orders ask for the cluster's name.
    pub(crate) protected: bool,
}

/// The file's content.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Profiles {
    pub(crate) path: PathBuf,
    /// The profile in use.
    pub(crate) used: Option<String>,
    pub(crate) all: BTreeMap<String, Profile>,
}

/// Where the file is: `$XDG_CONFIG_HOME/broadgate/clusters.toml`, else below `~/.config`.
fn path() -> Option<PathBuf> {
    let folder = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let config = folder("XDG_CONFIG_HOME").or_else(|| Some(folder("HOME")?.join(".config")))?;
    Some(config.join("broadgate/clusters.toml"))
}

impl Profiles {
    /// The operator's profiles; none if there is no file.
    ///
    /// # Errors
    /// If there is one, and it cannot be used.
    pub(crate) fn read() -> Result<Self, Failure> {
        let Some(path) = path() else { return Ok(Self::default()) };
        let text = text(&path)?;
        Self::parse(path, &text)
    }

    fn parse(path: PathBuf, text: &str) -> Result<Self, Failure> {
        let shown = path.display();
        let wrong = |what: String| Failure::usage(format!("clusters file {shown}: {what}"));
        let table: Table = toml::from_str(text).map_err(|error| {
            let unreadable = UnreadableInput::toml("clusters file", &shown.to_string(), text, error);
            Failure::usage(format!("clusters file {}", unreadable.sentence()))
        })?;
        let mut profiles = Self { path: path.clone(), ..Self::default() };
        for (name, value) in table {
            match value {
                Value::String(used) if name == USE => profiles.used = Some(used),
                Value::Table(_) if name != USE => {
                    let profile: Profile = value.try_into().map_err(|error: toml::de::Error| {
                        wrong(format!("cluster {name:?}: {}", error.message()))
                    })?;
                    let checked = check_name(&name).and_then(|()| profile.check());
                    checked.map_err(|what| wrong(format!("cluster {name:?}: {what}")))?;
                    profiles.all.insert(name, profile);
                }
                _ => {
                    let sentence = "a cluster is a section, such as [prod] with addresses = [\"gw-1:7200\"]";
                    return Err(wrong(format!("{name:?} is no cluster: {sentence}")));
                }
            }
        }
        if profiles.all.len() > limits::PROFILES_MAX {
            return Err(wrong(format!("it has more than {} clusters", limits::PROFILES_MAX)));
        }
        Ok(profiles)
    }

    /// The profile of this name.
    ///
    /// # Errors
    /// If there is none.
    pub(crate) fn get(&self, name: &str) -> Result<&Profile, String> {
        self.all.get(name).ok_or_else(|| {
            let file = match self.path.as_os_str().is_empty() {
                true => "no clusters file was found: set HOME or XDG_CONFIG_HOME".to_owned(),
                false => format!("{} has {}", self.path.display(), self.known()),
            };
            format!("no cluster {name:?}: {file}; add it with `broadgate cluster add`")
        })
    }

    fn known(&self) -> String {
        let names: Vec<&str> = self.all.keys().map(String::as_str).collect();
        if names.is_empty() { "none".to_owned() } else { names.join(", ") }
    }

    /// What a profile's addresses are shown.
    ///
    /// # Errors
    /// If a file that it names cannot be used.
    pub(crate) fn credentials(&self, name: &str, profile: &Profile) -> Result<Credentials, Failure> {
        let wrong = |what: String| Failure::usage(format!("cluster {name:?}: {what}"));
        let at = |path: &PathBuf| self.path.parent().unwrap_or(Path::new("")).join(path);
        let secret = match (&profile.token_file, &profile.token_command, &profile.secret_file) {
            (Some(path), ..) => token_source::of_file(&at(path)).map_err(wrong)?,
            (None, Some(command), _) => token_source::of_command(command).map_err(wrong)?,
            (None, None, None) => Secret::default(),
            (None, None, Some(path)) => {
                let path = at(path);
                let place = |error: String| wrong(format!("secret_file {}: {error}", path.display()));
                let text = bounded_read::read_text(&path, ReadableKind::Any)
                    .map_err(|error| place(error.to_string()))?;
                Secret::of_file(&text).map_err(|error| place(error.to_string()))?
            }
        };
        let paths = [&profile.tls_ca, &profile.tls_cert, &profile.tls_key].map(|path| path.as_ref().map(at));
        let server_name = profile.tls_server_name.clone().filter(|name| name != DEFAULT_SERVER_NAME);
        let settings = ["tls_ca", "tls_cert", "tls_key", "tls_server_name"];
        let files = ClusterFiles::all_or_none(paths, server_name, settings);
        let tls = files.and_then(|files| files.map(ClusterTls::open).transpose());
        Ok(Credentials { secret, tls: tls.map_err(|error| wrong(format!("{error:#}")))? })
    }

    /// Why the profile in use cannot be used, if it is not there: only commands that would go there are refused.
    pub(crate) fn used_warning(&self) -> Option<String> {
        let used = self.used.as_ref().filter(|used| !self.all.contains_key(*used))?;
        Some(format!(
            "clusters file {}: {USE} = {used:?} names no cluster of the file: choose one with `broadgate cluster use \
             NAME`, or none with `broadgate cluster use --none`",
            self.path.display()
        ))
    }

    /// Adds a section at the end of the file, if what it names can be used.
    ///
    /// # Errors
    /// If there is a cluster of this name, or the file cannot be written.
    pub(crate) fn add(name: &str, profile: &Profile, is_used: bool) -> Result<Self, Failure> {
        check_name(name).map_err(|what| Failure::usage(format!("cluster {name:?}: {what}")))?;
        profile.check().map_err(|what| Failure::usage(format!("cluster {name:?}: {what}")))?;
        Self::change(|profiles, lines| {
            // What could not be used later is refused now.
            profiles.credentials(name, profile)?;
            if profiles.all.contains_key(name) {
                let sentence = format!("there is a cluster {name:?} in {} already", profiles.path.display());
                return Err(Failure::Failed(format!(
                    "{sentence}: `broadgate cluster remove {name}` removes it"
                )));
            }
            lines.append(name, &profile.keys());
            if is_used {
                lines.set_used(Some(name));
            }
            Ok(())
        })
    }

    /// Makes a profile the one in use, or none.
    ///
    /// # Errors
    /// If there is none of this name, or the file cannot be written.
    pub(crate) fn set_used(name: Option<&str>) -> Result<Self, Failure> {
        Self::change(|profiles, lines| {
            if let Some(name) = name {
                profiles.get(name).map_err(Failure::NotFound)?;
            }
            lines.set_used(name);
            Ok(())
        })
    }

    /// Removes a profile; one that was in use leaves none in use.
    ///
    /// # Errors
    /// If there is none of this name, or the file cannot be written.
    pub(crate) fn remove(name: &str) -> Result<Self, Failure> {
        Self::change(|profiles, lines| {
            profiles.get(name).map_err(Failure::NotFound)?;
            lines.remove(name);
            if profiles.used.as_deref() == Some(name) {
                lines.set_used(None);
            }
            Ok(())
        })
    }

    /// Changes the text and keeps what else the operator wrote there. One command at a time reads and writes.
    fn change(edit: impl FnOnce(&Self, &mut ProfileLines) -> Result<(), Failure>) -> Result<Self, Failure> {
        let path = path()
            .ok_or_else(|| Failure::usage("no place for the clusters file: set HOME or XDG_CONFIG_HOME"))?;
        let wrong =
            |error: std::io::Error| Failure::Failed(format!("clusters file {}: {error}", path.display()));
        let _lock = replaced_file::lock(&path).map_err(wrong)?;
        let before = text(&path)?;
        let mut lines = ProfileLines::of(&before);
        edit(&Self::parse(path.clone(), &before)?, &mut lines)?;
        let after = lines.text();
        let changed = Self::parse(path.clone(), &after)?;
        replaced_file::replace(&path, &after).map_err(wrong)?;
        Ok(changed)
    }
}

impl Profile {
    fn check(&self) -> Result<(), String> {
        if self.addresses.is_empty() {
            return Err("it has no address: name the internal port of a gateway in addresses".to_owned());
        }
        if self.addresses.len() > limits::PROFILE_ADDRESSES_MAX {
            return Err(format!("it has more than {} addresses", limits::PROFILE_ADDRESSES_MAX));
        }
        let shown = [
            (self.secret_file.is_some(), "secret_file"),
            (self.token_file.is_some(), "token_file"),
            (self.token_command.is_some(), "token_command"),
        ];
        let shown: Vec<&str> = shown.into_iter().filter(|(is_set, _)| *is_set).map(|(_, key)| key).collect();
        if shown.len() > 1 {
            return Err(format!("it has {}: keep the one that is to be shown", shown.join(" and ")));
        }
        if self.token_command.as_ref().is_some_and(Vec::is_empty) {
            return Err("token_command is empty: name the program, then its arguments".to_owned());
        }
        self.addresses
            .iter()
            .try_for_each(|address| name::check_address(address))
            .map_err(|error| error.to_string())
    }

    /// What the file says of it.
    fn keys(&self) -> Table {
        let text = |path: &PathBuf| Value::String(path.display().to_string());
        let addresses = self.addresses.iter().cloned().map(Value::String).collect();
        let optional = [
            ("secret_file", self.secret_file.as_ref().map(text)),
            ("token_file", self.token_file.as_ref().map(text)),
            ("token_command", self.token_command.clone().map(Value::from)),
            ("tls_ca", self.tls_ca.as_ref().map(text)),
            ("tls_cert", self.tls_cert.as_ref().map(text)),
            ("tls_key", self.tls_key.as_ref().map(text)),
            ("tls_server_name", self.tls_server_name.clone().map(Value::String)),
            ("app", self.app.clone().map(Value::String)),
            ("protected", self.protected.then_some(Value::Boolean(true))),
        ];
        let given = optional.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?)));
        std::iter::once(("addresses".to_owned(), Value::Array(addresses))).chain(given).collect()
    }
}

/// A name can be typed without quotes, and be a section's.
fn check_name(name: &str) -> Result<(), String> {
    let is_fit = |letter: char| letter.is_ascii_alphanumeric() || letter == '-' || letter == '_';
    if name == USE
        || name.is_empty()
        || name.len() > limits::PROFILE_NAME_BYTES_MAX
        || !name.chars().all(is_fit)
    {
        return Err(format!(
            "a name has 1 to {} letters, digits, - and _, and is not {USE:?}",
            limits::PROFILE_NAME_BYTES_MAX
        ));
    }
    Ok(())
}

/// The file's text; empty if there is none.
fn text(path: &Path) -> Result<String, Failure> {
    let wrong = |error: std::io::Error| Failure::usage(format!("clusters file {}: {error}", path.display()));
    let mode = match std::fs::metadata(path) {
        Ok(found) => found.permissions().mode() & 0o777,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(String::new()),
        Err(error) => return Err(wrong(error)),
    };
    // Who can write it sends secrets elsewhere.
    if mode & 0o077 != 0 {
        let shown = path.display();
        return Err(Failure::usage(format!(
            "clusters file {shown}: others may use it (mode {mode:o}), and it says where secrets go: chmod 600 {shown}"
        )));
    }
    bounded_read::read_text(path, ReadableKind::Any).map_err(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Profiles, String> {
        Profiles::parse("/p/clusters.toml".into(), text).map_err(|failure| failure.to_string())
    }

    #[test]
    fn file_is_read() {
        let profiles = parse(
            "use = \"prod\"\n[prod]\naddresses = [\"a:1\", \"b:2\"]\nsecret_file = \"prod.secret\"\napp = \"shop\"\n\
             protected = true\n[test]\naddresses = [\"c:3\"]\n",
        )
        .unwrap();
        assert_eq!(profiles.used.as_deref(), Some("prod"));
        let prod = profiles.get("prod").unwrap();
        assert!(prod.protected && prod.addresses == ["a:1", "b:2"] && prod.app.as_deref() == Some("shop"));
        assert!(!profiles.get("test").unwrap().protected);
        let unknown = profiles.get("pord").unwrap_err();
        assert!(unknown.contains("no cluster \"pord\"") && unknown.contains("prod, test"), "{unknown}");
        assert_eq!(parse("").unwrap().all.len(), 0);
        assert_eq!(profiles.used_warning(), None);
    }

    /// A name that is gone is in nobody's way: the file can be listed, and another cluster chosen.
    #[test]
    fn missing_cluster_in_use_is_a_warning() {
        let profiles = parse("use = \"gone\"\n[prod]\naddresses = [\"a:1\"]\n").unwrap();
        assert!(profiles.get("prod").is_ok());
        let warning = profiles.used_warning().unwrap();
        assert!(warning.contains("use = \"gone\" names no cluster"), "{warning}");
    }

    #[test]
    fn errors_say_what_to_do() {
        for (text, said) in [
            ("[prod\n", "clusters.toml:1: "),
            ("[prod]\nadresses = [\"a:1\"]\n", "cluster \"prod\": unknown field `adresses`"),
            ("[prod]\n", "it has no address"),
            (
                "[prod]\naddresses = [\"a:1\"]\nsecret_file = \"s\"\ntoken_file = \"t\"\n",
                "it has secret_file and token_file",
            ),
            ("[prod]\naddresses = [\"a:1\"]\ntoken_command = []\n", "token_command is empty"),
            ("[prod]\naddresses = [\"a\"]\n", "the port is missing"),
            ("prod = 1\n", "\"prod\" is no cluster"),
            ("[use]\naddresses = [\"a:1\"]\n", "\"use\" is no cluster"),
            ("[\"a b\"]\naddresses = [\"a:1\"]\n", "a name has 1 to"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.starts_with("clusters file /p/clusters.toml:") && error.contains(said), "{error}");
        }
    }
}
