//! What the documents say is so.

use std::path::Path;

use clap::{CommandFactory as _, Parser as _};

fn read(path: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

/// Every document that a reader is sent to.
const DOCUMENTS: [&str; 14] = [
    "README.md",
    "ARCHITECTURE.md",
    "BENCHMARKS.md",
    "CHANGELOG.md",
    "gateway/BOUNDS.md",
    "gateway/DECISIONS.md",
    "gateway/benches/FINDINGS.md",
    "business/ECHO-SERVER.md",
    "business/LARAVEL.md",
    "business/MIGRATING.md",
    "business/WORKERS.md",
    "deploy/README.md",
    "deploy/CLUSTER.md",
    "deploy/RUNBOOK.md",
];

/// The README's lines: a stranger reads no more.
const README_LINES_MAX: usize = 110;

/// ARCHITECTURE.md's words: a contributor reads it before the first change.
const ARCHITECTURE_WORDS_MAX: usize = 2_500;

#[test]
fn the_architecture_is_short() {
    let text = read("ARCHITECTURE.md");
    let words = text.split_whitespace().filter(|word| word.contains(char::is_alphanumeric)).count();
    assert!(words <= ARCHITECTURE_WORDS_MAX, "{words} words");
}

/// The README's picture, in bytes: it is loaded with the page.
const PICTURE_BYTES_MAX: u64 = 1_000_000;

#[test]
fn the_readme_is_short() {
    let lines = read("README.md").lines().count();
    assert!(lines <= README_LINES_MAX, "{lines} lines");
    let picture = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/picture/broadgate.svg");
    assert!(picture.metadata().unwrap().len() < PICTURE_BYTES_MAX);
}

/// Words that mark a sentence as another language's: write it with a subject, a verb and the standard term.
const DIALECT: [&str; 7] =
    ["whoever", "anew", "is told", "are told", "lets go", "let go", "stands in the line"];

fn speaks_plainly(place: &str, text: &str) {
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ").to_lowercase();
    let is_word =
        |letter: Option<char>| letter.is_some_and(|letter| letter.is_alphanumeric() || letter == '_');
    for mark in DIALECT {
        let mut found = text.match_indices(mark).filter(|(at, _)| {
            !is_word(text[..*at].chars().next_back()) && !is_word(text[at + mark.len()..].chars().next())
        });
        let found = found.next().map(|(at, _)| text[at..].chars().take(60).collect::<String>());
        assert!(found.is_none(), "{place}: {:?}", found.unwrap());
    }
}

#[test]
fn documents_are_in_plain_words() {
    let more = ["deploy/config/broadgate.toml", "deploy/alerts.yml", "business/src/lib.rs"];
    for document in DOCUMENTS.iter().chain(&more) {
        speaks_plainly(document, &read(document).replace("\n# ", " "));
    }
    let mut commands = vec![broadgate::cli::Cli::command()];
    while let Some(mut command) = commands.pop() {
        speaks_plainly(
            &format!("the help of {}", command.get_name()),
            &command.render_long_help().to_string(),
        );
        commands.extend(command.get_subcommands().cloned());
    }
}

/// Sources and the contract, too: comments, names and messages.
#[test]
fn sources_are_in_plain_words() {
    let mut files = 0;
    for folder in ["proto", "register", "gateway", "business", "src", "tests"] {
        visit(&Path::new(env!("CARGO_MANIFEST_DIR")).join(folder), &mut |file, text| {
            // This file has the list itself.
            if file.ends_with("documents.rs") {
                return;
            }
            let lines = text.lines().map(|line| line.trim_start().trim_start_matches(['/', '!', '#', '*']));
            speaks_plainly(&file.display().to_string(), &lines.collect::<Vec<_>>().join(" "));
            files += 1;
        });
    }
    assert!(files > 300, "{files}");
}

/// The anchors of a document's headings, as GitHub makes them.
fn anchors(text: &str) -> Vec<String> {
    let headings = text.lines().filter(|line| line.starts_with('#'));
    let anchor = |heading: &str| {
        let words = heading.trim_start_matches('#').trim().to_lowercase();
        let kept = words.chars().filter(|&letter| letter.is_alphanumeric() || " -_".contains(letter));
        kept.map(|letter| if letter == ' ' { '-' } else { letter }).collect()
    };
    headings.map(anchor).collect()
}

#[test]
fn links_resolve() {
    let mut links = 0;
    for document in DOCUMENTS {
        let text = read(document);
        let base = Path::new(document).parent().unwrap();
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            if link.contains("://") {
                continue;
            }
            let (path, anchor) = link.split_once('#').unwrap_or((link, ""));
            let target = if path.is_empty() { document.into() } else { base.join(path) };
            let place = Path::new(env!("CARGO_MANIFEST_DIR")).join(&target);
            assert!(place.exists(), "{document}: {link}");
            let there =
                anchor.is_empty() || anchors(&read(target.to_str().unwrap())).contains(&anchor.to_owned());
            assert!(there, "{document}: no heading for {link}");
            links += 1;
        }
    }
    assert!(links > 40, "{links}");
}

/// Every command line that a document shows is one that the executable takes.
#[test]
fn commands_that_are_shown_parse() {
    let mut commands = 0;
    for document in DOCUMENTS {
        let text = read(document).replace("\\\n", " ");
        let mut fenced = false;
        for line in text.lines() {
            if line.trim_start().starts_with("```") {
                fenced = line.trim() == "```sh";
                continue;
            }
            let shown: Vec<&str> =
                if fenced { vec![line] } else { line.split('`').skip(1).step_by(2).collect() };
            for command in shown {
                let command = command.trim().replace("cargo run --release -- ", "broadgate ");
                if command.starts_with("broadgate ") && !command.contains('…') && !command.contains("...") {
                    let parsed = broadgate::cli::Cli::try_parse_from(words(&command));
                    assert!(parsed.is_ok(), "{document}: {command}: {}", parsed.unwrap_err());
                    commands += 1;
                }
            }
        }
    }
    assert!(commands > 30, "{commands}");
}

/// The words of a simple command: quotes, a comment, a redirection.
fn words(line: &str) -> Vec<String> {
    let (mut words, mut word, mut quote) = (Vec::new(), None::<String>, None);
    for letter in line.chars() {
        match (quote, letter) {
            (Some(open), _) if letter == open => quote = None,
            (None, '\'' | '"') => {
                quote = Some(letter);
                word.get_or_insert_default();
            }
            (None, '#' | '>' | '|') if word.is_none() => break,
            (None, ' ') => words.extend(word.take()),
            _ => word.get_or_insert_default().push(letter),
        }
    }
    words.extend(word);
    words
}

#[test]
fn paths_that_are_named_exist() {
    for document in ["ARCHITECTURE.md", "gateway/BOUNDS.md", "gateway/DECISIONS.md"] {
        for path in read(document).split('`').skip(1).step_by(2) {
            let first = path.split('/').next().unwrap_or_default();
            let rooms = ["proto", "register", "gateway", "business", "src", "tests", "deploy"];
            if path.contains('/') && rooms.contains(&first) && !path.contains(' ') {
                assert!(Path::new(env!("CARGO_MANIFEST_DIR")).join(path).exists(), "{document}: {path}");
            }
        }
    }
}

/// The tests that the migration guide names as proofs are there.
#[test]
fn proofs_that_are_named_exist() {
    let guide = read("business/MIGRATING.md");
    let mut proofs = 0;
    for named in guide.split('`').skip(1).step_by(2) {
        let Some((room, test)) = named.split_once("::") else { continue };
        let file = format!("tests/whole/{room}.rs");
        if Path::new(env!("CARGO_MANIFEST_DIR")).join(&file).exists() && test != "x" {
            assert!(read(&file).contains(&format!("fn {test}(")), "{file} has no test {test}");
            proofs += 1;
        }
    }
    assert!(proofs > 20, "{proofs}");
}

/// Every symptom of the runbook is made by a test, which the table in `runbook_when.rs` names, or says why not.
#[test]
fn symptoms_of_the_runbook_have_tests() {
    let runbook = read("deploy/RUNBOOK.md");
    let when = runbook.split("\n## When\n").nth(1).unwrap();
    let symptoms: Vec<&str> =
        when.lines().filter_map(|line| line.strip_prefix("| ")?.split(" | ").next()).skip(1).collect();
    let table = read("tests/whole/runbook_when.rs");
    let rows =
        table.lines().filter_map(|line| line.strip_prefix("//! | ")?.strip_suffix(" |")?.split_once(" | "));
    let rows: Vec<(&str, &str)> = rows.skip(1).collect();
    for (begins, test) in &rows {
        let fits = symptoms.iter().filter(|symptom| symptom.starts_with(begins)).count();
        assert_eq!(fits, 1, "so many symptoms begin with {begins:?}");
        if test.starts_with("by hand: ") {
            continue;
        }
        let (file, test) = test.trim_matches('`').split_once("::").unwrap();
        let file =
            if file.contains('/') { format!("tests/{file}.rs") } else { format!("tests/whole/{file}.rs") };
        assert!(read(&file).contains(&format!("async fn {test}(")), "{file} has no test {test}");
    }
    for symptom in &symptoms {
        let fits = rows.iter().filter(|(begins, _)| symptom.starts_with(begins)).count();
        assert_eq!(fits, 1, "so many rows of runbook_when.rs are about {symptom:?}");
    }
    assert!(symptoms.len() > 40, "{}", symptoms.len());
}

/// Every procedure of the runbook is done by a test, which the table in a `runbook.rs` names.
#[test]
fn procedures_of_the_runbook_have_tests() {
    let runbook = read("deploy/RUNBOOK.md");
    let tests = ["tests/whole/runbook.rs", "tests/whole/runbook_tokens.rs", "tests/etcd/runbook.rs"];
    let tests: String = tests.map(read).concat();
    let procedures = runbook.split("\n## Do\n").nth(1).unwrap().split("\n## ").next().unwrap();
    let named: Vec<&str> = procedures
        .lines()
        .filter(|line| !line.is_empty())
        .map(|line| line.strip_prefix("**").and_then(|rest| rest.split_once(".**")).unwrap_or((line, "")).0)
        .collect();
    let mut rows = 0;
    for row in tests.lines().filter_map(|line| line.strip_prefix("//! | ")) {
        let Some((procedure, test)) = row.split_once(" | `") else { continue };
        let test = test.trim_end_matches("` |");
        assert!(named.contains(&procedure), "the runbook has no procedure {procedure:?}: {named:?}");
        assert!(tests.contains(&format!("async fn {test}(")), "runbook.rs has no test {test}");
        rows += 1;
    }
    for procedure in &named {
        assert!(tests.contains(&format!("//! | {procedure} | `")), "no test does {procedure:?}");
    }
    assert!(rows == named.len() && rows > 5, "{rows} of {named:?}");
}

#[test]
fn the_readmes_worker_is_the_example() {
    let example = read("business/examples/readme.rs");
    let program = &example[example.find("use broadgate_business").unwrap()..];
    assert!(read("README.md").contains(program.trim()));
}

/// The body of the README's curl line.
pub fn readme_curl_body() -> String {
    read("README.md").split("-d '").nth(1).unwrap().split('\'').next().unwrap().to_owned()
}

/// Imports go down only.
#[test]
fn imports_go_down_only() {
    for (room, forbidden) in [
        ("proto", &["broadgate_register", "broadgate_gateway", "broadgate_business"][..]),
        ("proto/port", &["broadgate_register", "broadgate_gateway", "broadgate_business"]),
        ("register/etcd", &["broadgate_register", "broadgate_gateway", "broadgate_business"]),
        ("register/src/member", &["crate::server", "broadgate_gateway", "broadgate_business"]),
        ("register", &["broadgate_gateway", "broadgate_business"]),
        ("gateway/topics", &["broadgate_register", "broadgate_gateway", "broadgate_pusher", "tokio"]),
        ("gateway/pusher", &["broadgate_register", "broadgate_gateway", "broadgate_topics", "tokio"]),
        ("gateway/socketio", &["broadgate_register", "broadgate_gateway", "broadgate_topics", "tokio"]),
        ("gateway/src", &["broadgate_business", "broadgate_register::server"]),
        ("business/src", &["broadgate_gateway", "broadgate_register::server"]),
    ] {
        visit(&Path::new(env!("CARGO_MANIFEST_DIR")).join(room), &mut |file, text| {
            for word in forbidden {
                assert!(!text.contains(word), "{} uses {word}", file.display());
            }
        });
    }
}

/// Endings of source files.
const SOURCES: [&str; 5] = ["rs", "proto", "js", "py", "php"];

fn visit(folder: &Path, check: &mut impl FnMut(&Path, &str)) {
    for entry in std::fs::read_dir(folder).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() {
            // What was installed, and what fuzzing found.
            if !["node_modules", "corpus", "target"].iter().any(|name| path.ends_with(name)) {
                visit(&path, check);
            }
        } else if path.extension().is_some_and(|ending| SOURCES.iter().any(|source| *source == ending))
            || path.ends_with("run")
        {
            check(&path, &std::fs::read_to_string(&path).unwrap());
        }
    }
}
