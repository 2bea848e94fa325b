//! Errors of settings files: with the line they are about, for the start of a process, and in one sentence,
//! for the log of a running one.

use std::{fmt, path::Path};

use broadgate_proto::parse_error::without_value;

use crate::setting_errors;

/// A file, or the environment, that cannot be used.
#[derive(Debug)]
pub(crate) enum UnreadableInput {
    /// It cannot be opened.
    File(String),
    /// It is not what it should be.
    Toml { what: &'static str, file: String, text: String, error: Box<toml::de::Error> },
    /// A variable of the environment.
    Variable(String),
}

impl UnreadableInput {
    pub(crate) fn file(what: &str, path: &Path, error: &std::io::Error) -> Self {
        Self::File(format!("{what} {}: {error}", path.display()))
    }

    pub(crate) fn toml(what: &'static str, file: &str, text: &str, error: toml::de::Error) -> Self {
        Self::Toml { what, file: file.to_owned(), text: text.to_owned(), error: Box::new(error) }
    }

    /// One sentence that begins with `file:line`.
    pub(crate) fn sentence(&self) -> String {
        match self {
            Self::File(sentence) | Self::Variable(sentence) => sentence.clone(),
            Self::Toml { file, text, error, .. } => {
                let line = error.span().map(|span| format!(":{}", line_of(text, span.start)));
                // The log of a running process has this sentence.
                let message = if self.is_delicate() {
                    without_value(error.message())
                } else {
                    error.message().to_owned()
                };
                let message = setting_errors::message(&message).replace('\n', ", ");
                format!("{file}{}: {message}", line.unwrap_or_default())
            }
        }
    }

    /// Might the line that is shown tell a secret? Any line about apps might: also a mistyped word has
    /// a value.
    fn is_delicate(&self) -> bool {
        let Self::Toml { text, error, .. } = self else { return false };
        let Some(line) = error.span().map(|span| line_of(text, span.start)) else { return false };
        let lines: Vec<&str> = text.lines().take(line).collect();
        let shown = lines.last().copied().unwrap_or_default();
        let section = lines.iter().rev().find(|line| line.trim_start().starts_with('['));
        shown.contains("secret")
            || shown.contains("apps")
            || section.is_some_and(|line| line.contains("apps"))
    }
}

impl fmt::Display for UnreadableInput {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Toml { what, file, error, .. } if !self.is_delicate() => {
                write!(f, "{what} {file}: {}", said(error))
            }
            Self::Toml { what, .. } => write!(f, "{what} {}", self.sentence()),
            Self::File(sentence) | Self::Variable(sentence) => f.write_str(sentence),
        }
    }
}

/// All that an error says, in plain words.
pub(crate) fn said(error: &toml::de::Error) -> String {
    let (text, message) = (error.to_string(), error.message());
    let text = match text.rfind(message) {
        Some(at) => text[..at].to_owned() + &setting_errors::message(message) + &text[at + message.len()..],
        None => text,
    };
    text.trim_end().to_owned()
}

/// The line, from 1, in which this byte of a text is.
pub(crate) fn line_of(text: &str, byte: usize) -> usize {
    1 + text.bytes().take(byte).filter(|&byte| byte == b'\n').count()
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Only {
        #[serde(rename = "secret")]
        _secret: String,
    }

    #[test]
    fn secrets_are_not_shown() {
        let error_of = |text: &str| {
            let error = toml::from_str::<Only>(text).unwrap_err();
            UnreadableInput::toml("apps file", "a.toml", text, error)
        };
        let unknown = error_of("secret = \"x\"\nsceret = 1\n");
        assert!(unknown.to_string().starts_with("apps file a.toml: TOML parse error at line 2"), "{unknown}");
        assert!(unknown.sentence().starts_with("a.toml:2: unknown field `sceret`"), "{}", unknown.sentence());
        let delicate = error_of("\nsecret = \"hush\n");
        assert!(!delicate.to_string().contains("hush"), "{delicate}");
        assert!(delicate.to_string().starts_with("apps file a.toml:2: "), "{delicate}");
        let misplaced = "[[apps]]\nid = \"a\"\nkeys = \"hush\"\n";
        let error = toml::from_str::<crate::config::Config>(misplaced).unwrap_err();
        let misplaced = UnreadableInput::toml("config file", "c.toml", misplaced, error);
        assert!(
            misplaced.sentence().starts_with("c.toml:3: ") && !misplaced.sentence().contains("hush"),
            "{}",
            misplaced.sentence()
        );
        let mistyped = "[gateway]\nname = \"x\"\n[[apps]]\n[[apps.keys]]\nkey = \"k\"\nsercet = \"hush\"\n";
        let error = toml::from_str::<crate::config::Config>(mistyped).unwrap_err();
        let mistyped = UnreadableInput::toml("config file", "b.toml", mistyped, error).to_string();
        assert!(
            mistyped.contains("b.toml:6: unknown field `sercet`") && !mistyped.contains("hush"),
            "{mistyped}"
        );
    }
}
