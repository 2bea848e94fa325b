//! An app as it was understood from another server's settings, and its text.

use std::{fmt::Write as _, net::SocketAddr, path::Path};

use serde_json::{Value, json};

use crate::terminal_text::is_seen;

/// What became of a setting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// The app or the listener has it.
    Taken,
    /// Somebody has to do something.
    ToDo,
    /// Nothing here needs it.
    NotNeeded,
    /// The other server has no such setting.
    Unknown,
}

impl Fate {
    const fn word(self) -> &'static str {
        match self {
            Self::Taken => "taken",
            Self::ToDo => "to do",
            Self::NotNeeded => "not needed",
            Self::Unknown => "unknown",
        }
    }
}

/// One setting of the other server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Note {
    pub(super) setting: String,
    pub(super) fate: Fate,
    pub(super) text: String,
}

/// A key and its secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ImportedKey {
    pub(super) key: String,
    pub(super) secret: String,
    /// Whose it was.
    pub(super) of: String,
}

/// Where the events come from, if by Redis.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ImportedRedis {
    pub(super) url: String,
    pub(super) user: String,
    /// Where its password is expected, if it has one.
    pub(super) password_file: Option<String>,
    pub(super) prefix: String,
}

impl ImportedRedis {
    fn toml(&self) -> String {
        let mut text = format!("[apps.redis]\nurl = {}\n", quoted(&self.url));
        if !self.user.is_empty() {
            let _ = writeln!(text, "user = {}", quoted(&self.user));
        }
        if let Some(file) = &self.password_file {
            let _ = writeln!(text, "password_file = {}", quoted(file));
        }
        let _ = writeln!(text, "prefix = {}", quoted(&self.prefix));
        text
    }
}

/// Where clients connect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ImportedListener {
    pub(super) bind: SocketAddr,
    /// Files of certificate and key.
    pub(super) tls: Option<(String, String)>,
}

/// Everything that was understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Imported {
    pub(super) id: String,
    pub(super) keys: Vec<ImportedKey>,
    pub(super) auth_url: String,
    /// Origins, and whom to ask for clients from there.
    pub(super) auth_by_origin: Vec<(String, String)>,
    pub(super) redis: Option<ImportedRedis>,
    pub(super) listener: ImportedListener,
    pub(super) notes: Vec<Note>,
}

/// That server has no limits; with the defaults of ours, rooms and events that it took could be refused.
const LIMITS: &str = "# laravel-echo-server had no limits; the defaults are smaller.\n\
    [apps.limits]\n\
    presence_members_max = 10000\n\
    user_info_bytes_max = 3072\n\
    event_data_bytes_max = 100000\n\
    client_events_per_second_max = 100\n";

/// The file in which the password of Redis is expected.
pub(crate) const PASSWORD_FILE: &str = "redis.password";

/// What it was called.
pub(super) const PASSWORD_SETTING: &str = "databaseConfig.redis.password";

pub(super) fn password_note(file: &str) -> String {
    format!("write it to the file {file}, which only the gateway may read; password_file names it")
}

impl Imported {
    /// Says where the password of Redis is expected, if it has one: a path for a gateway of whatever folder.
    pub(crate) fn expect_password_in(&mut self, path: &Path) {
        let Some(redis) = self.redis.as_mut().filter(|redis| redis.password_file.is_some()) else { return };
        let path = path.display().to_string();
        for note in self.notes.iter_mut().filter(|note| note.setting == PASSWORD_SETTING) {
            note.text = password_note(&path);
        }
        redis.password_file = Some(path);
    }

    /// What is left to do after the app was written to a file.
    pub(crate) fn to_do(&self, file: &Path) -> String {
        let mut text = format!("{} is written, with a comment about each setting\n", file.display());
        for note in self.notes.iter().filter(|note| note.fate == Fate::ToDo) {
            let _ = writeln!(text, "{}: {}: {}", note.fate.word(), note.setting, note.text);
        }
        text
    }

    /// For a configuration or an apps file.
    pub(crate) fn toml(&self) -> String {
        let mut text = String::from(
            "# What became of each setting of laravel-echo-server. What is in its .env (LARAVEL_ECHO_SERVER_...)\n\
             # was not read.\n",
        );
        for fate in [Fate::ToDo, Fate::Taken, Fate::NotNeeded, Fate::Unknown] {
            for note in self.notes.iter().filter(|note| note.fate == fate) {
                let _ = writeln!(text, "# {}: {}: {}", fate.word(), note.setting, note.text);
            }
        }
        self.listener(&mut text);
        let _ = writeln!(text, "\n[[apps]]\nid = {}\nsocketio = true", quoted(&self.id));
        text += LIMITS;
        let _ = writeln!(text, "[apps.auth]\nurl = {}", quoted(&self.auth_url));
        if !self.auth_by_origin.is_empty() {
            let entries = self
                .auth_by_origin
                .iter()
                .map(|(origin, url)| format!("{{ origin = {}, url = {} }}", quoted(origin), quoted(url)));
            let _ = writeln!(text, "by_origin = [{}]", entries.collect::<Vec<_>>().join(", "));
        }
        if let Some(redis) = &self.redis {
            text += &redis.toml();
        }
        for ImportedKey { key, secret, of } in &self.keys {
            let (key, secret) = (quoted(key), quoted(secret));
            let _ = writeln!(text, "# {of}\n[[apps.keys]]\nkey = {key}\nsecret = {secret}");
        }
        text
    }

    fn listener(&self, text: &mut String) {
        let bind = quoted(&self.listener.bind.to_string());
        *text +=
            "#\n# Its listener, for the configuration of each gateway, in place of the one named \"web\":\n";
        let _ =
            writeln!(text, "# [[gateway.listeners]]\n# name = \"web\"\n# kind = \"web\"\n# bind = {bind}");
        *text += "# service = \"\"\n";
        if let Some((cert, key)) = &self.listener.tls {
            let (cert, key) = (quoted(cert), quoted(key));
            let _ = writeln!(text, "# [[gateway.listeners.tls]]\n# cert = {cert}\n# key = {key}");
        }
    }

    /// The same for scripts.
    pub(crate) fn json(&self) -> Value {
        let note =
            |note: &Note| json!({ "setting": note.setting, "fate": note.fate.word(), "text": note.text });
        json!({ "toml": self.toml(), "notes": self.notes.iter().map(note).collect::<Vec<_>>() })
    }
}

/// On one line, also where TOML could write it on several: it may stand in a comment.
fn quoted(text: &str) -> String {
    if text.chars().all(is_seen) {
        return toml::Value::String(text.to_owned()).to_string();
    }
    let mut quoted = String::from("\"");
    for char in text.chars() {
        match char {
            '"' | '\\' => quoted.extend(['\\', char]),
            char if is_seen(char) => quoted.push(char),
            char => _ = write!(quoted, "\\U{:08X}", char as u32),
        }
    }
    quoted + "\""
}
