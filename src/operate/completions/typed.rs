//! What a line says that is not finished yet. Pure.

use std::ffi::{OsStr, OsString};

use clap::Parser;

use crate::operate::target::At;

/// The words as they were typed, from those of bash, with the place of the one at the cursor, and how many bytes of
/// that come before what bash takes for the word.
pub(super) fn joined(words: &[OsString], index: usize) -> (Vec<OsString>, usize, usize) {
    let is_break =
        |word: &OsStr| !word.is_empty() && word.as_encoded_bytes().iter().all(|byte| b":=".contains(byte));
    let (mut whole, mut at, mut kept): (Vec<OsString>, _, _) = (Vec::new(), None, 0);
    let mut goes_on = false;
    for (number, word) in words.iter().enumerate() {
        let is_joint = is_break(word);
        let last = whole.len().saturating_sub(1);
        match whole.get_mut(last).filter(|_| last > 0 && (is_joint || goes_on)) {
            Some(before) => {
                if number == index {
                    (at, kept) = (Some(last), before.len());
                }
                before.push(word);
            }
            None => {
                if number == index {
                    at = Some(whole.len());
                }
                whole.push(word.clone());
            }
        }
        goes_on = is_joint;
    }
    let end = whole.len();
    (whole, at.unwrap_or(end), kept)
}

/// Which cluster and app a line means, as far as it says so.
#[derive(Debug, Default, Parser)]
#[command(disable_help_flag = true)]
pub(super) struct TypedTarget {
    #[command(flatten)]
    pub(super) at: At,
    #[arg(long)]
    pub(super) app: Option<String>,
}

/// The options that say it.
const SAID_BY: [&str; 9] = [
    "--cluster",
    "--addr",
    "--token-file",
    "--config",
    "--tls-ca",
    "--tls-cert",
    "--tls-key",
    "--tls-server-name",
    "--app",
];

impl TypedTarget {
    /// What these words say. None if that is not what a command would take.
    pub(super) fn of(words: &[OsString]) -> Option<Self> {
        let (words, ..) = joined(words, 0);
        let mut said: Vec<OsString> = vec!["broadgate".into()];
        let mut words = words.into_iter().skip(1).take_while(|word| word != "--").peekable();
        while let Some(word) = words.next() {
            let text = word.to_str().unwrap_or_default();
            let option = SAID_BY.iter().find(|option| {
                text.strip_prefix(**option).is_some_and(|rest| rest.is_empty() || rest.starts_with('='))
            });
            let Some(option) = option else { continue };
            if text.len() > option.len() {
                said.push(word);
            } else if words.peek().is_some_and(|value| !value.is_empty()) {
                said.extend([word].into_iter().chain(words.next()));
            }
        }
        Self::try_parse_from(said).ok()
    }
}

/// May this stand on a command line as it is, in every shell? Names of groups are chosen by clients, and a shell puts
/// a completion there unquoted.
pub(super) fn is_plain(name: &str) -> bool {
    let is_fit = |letter: char| letter.is_alphanumeric() || "-_.@,=:/+%".contains(letter);
    name.starts_with(|first: char| first.is_alphanumeric() || "_./@+".contains(first))
        && name.chars().all(is_fit)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<OsString> {
        line.split(' ').map(OsString::from).collect()
    }

    #[test]
    fn words_are_put_together_as_they_were_typed() {
        for (split, index, whole, at, kept) in [
            ("broadgate drain ga", 2, "broadgate drain ga", 2, 0),
            ("broadgate drain --cluster = pr", 4, "broadgate drain --cluster=pr", 2, 10),
            (
                "broadgate drain --addr 127.0.0.1 : 7200 ga",
                6,
                "broadgate drain --addr 127.0.0.1:7200 ga",
                4,
                0,
            ),
            ("broadgate group a : b : c", 6, "broadgate group a:b:c", 2, 4),
            ("broadgate group a : ", 4, "broadgate group a:", 2, 2),
            ("broadgate : x", 2, "broadgate :x", 1, 1),
        ] {
            assert_eq!(joined(&words(split), index), (words(whole), at, kept), "{split}");
        }
        assert_eq!(
            joined(&words("broadgate"), 1),
            (words("broadgate"), 1, 0),
            "the word at the cursor is missing"
        );
    }

    #[test]
    fn the_line_says_which_cluster_is_meant() {
        let typed = |line: &str| TypedTarget::of(&words(line)).unwrap();
        let one = typed("broadgate drain --cluster prod --app=shop --wait=1m ga");
        assert_eq!((one.at.cluster.as_deref(), one.app.as_deref()), (Some("prod"), Some("shop")));
        let one = typed("broadgate group --addr 127.0.0.1 : 7200 or");
        assert_eq!(one.at.addr.as_deref(), Some("127.0.0.1:7200"));
        let one = typed("broadgate send --token-file t --all -- --cluster prod");
        assert!(one.at.token_file.is_some() && one.at.cluster.is_none(), "{one:?}");
        assert!(typed("broadgate drain --applause x --cluster ").at.cluster.is_none());
        assert!(TypedTarget::of(&words("broadgate drain --cluster a --addr b:1 ga")).is_none());
    }

    #[test]
    fn a_strangers_name_does_nothing_to_the_line() {
        for name in ["orders.eu", "private-orders.42", "r\u{f6}om", "a:b", "7", "gw-1.example:7200", "a=b,c"]
        {
            assert!(is_plain(name), "{name}");
        }
        for name in [
            "",
            "a b",
            "$(reboot)",
            "`x`",
            "a;b",
            "a|b",
            "a&b",
            "a>b",
            "a\nb",
            "a\u{1b}[31m",
            "#x",
            "-x",
            "~",
            "a'b",
            "a\"b",
            "a*",
            "a?",
            "[x]",
            "{a,b}",
            "a\\b",
            "!x",
            "a\u{202e}b",
            "=ls",
        ] {
            assert!(!is_plain(name), "{name}");
        }
    }
}
