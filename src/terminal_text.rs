//! Text for a terminal: names, paths and messages of strangers are shown, and do nothing there. Pure.
//!
//! Everything that is printed passes here: `output::print`, `output::print_json`, the cells of tables, `say!` and
//! `Failure`. Characters that a terminal acts on (control characters, such as ESC and U+009B), that reorder
//! a line (bidirectional controls) or that are not seen (zero-width, tags, variation selectors, fillers) are
//! printed as escapes. A test holds that nothing else writes to standard output or standard error.

use std::{borrow::Cow, fmt::Write as _};

use broadgate_proto::limits::{SHOWN_CELL_CHARS_MAX, SHOWN_LINE_CHARS_MAX};

/// One text of a stranger, as a part of a line: also its line ends are escaped, and it is shortened.
pub fn one_line(text: &str) -> String {
    shortened(&escaped(text, |_| false), SHOWN_CELL_CHARS_MAX).into_owned()
}

/// The same in full, for a text whose length somebody has chosen.
pub fn whole_line(text: &str) -> String {
    escaped(text, |_| false).into_owned()
}

/// Lines that this program has composed. Texts in them that may have line ends have passed [`one_line`].
pub fn lines(text: &str) -> Cow<'_, str> {
    escaped(text, |char| char == '\n')
}

/// The same, and each line is shortened: for errors and warnings, which repeat what was typed.
pub fn short_lines(text: &str) -> String {
    let escaped = lines(text);
    let short = escaped.split('\n').map(|line| shortened(line, SHOWN_LINE_CHARS_MAX));
    short.collect::<Vec<_>>().join("\n")
}

/// One event of a log, which is one line; with colours, ESC is the log's own, which escapes that of fields.
pub(crate) fn log_line(event: &str, has_colours: bool) -> String {
    let line = event.strip_suffix('\n').unwrap_or(event);
    escaped(line, |char| has_colours && char == '\u{1b}').into_owned() + "\n"
}

/// JSON, in whose texts nothing is hidden: its syntax is ASCII, so that only texts have such characters.
pub fn json(text: &str) -> Cow<'_, str> {
    if is_harmless(text) {
        return Cow::Borrowed(text);
    }
    let mut safe = String::with_capacity(text.len() + 64);
    for char in text.chars() {
        if char == '\n' || is_seen(char) {
            safe.push(char);
        } else {
            for unit in char.encode_utf16(&mut [0; 2]) {
                let _ = write!(safe, "\\u{unit:04x}");
            }
        }
    }
    Cow::Owned(safe)
}

/// Does a terminal show this character, and nothing more? Marks that combine with a letter are shown.
pub fn is_seen(char: char) -> bool {
    if char.is_ascii() {
        return !char.is_ascii_control();
    }
    // What the standard library escapes: what is not printable, which includes bidirectional controls, private
    // and unassigned characters, and spaces of other widths. Within a text it leaves marks.
    let mut after_letter = [b'a', 0, 0, 0, 0];
    let length = 1 + char.encode_utf8(&mut after_letter[1..]).len();
    let text = str::from_utf8(&after_letter[..length]).unwrap_or_default();
    text.escape_debug().count() == 2 && !is_ignorable(char)
}

/// Printable by its category, and yet not seen (Default_Ignorable_Code_Point).
fn is_ignorable(char: char) -> bool {
    matches!(char,
        '\u{34f}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}' | '\u{180b}'..='\u{180f}' | '\u{3164}'
        | '\u{fe00}'..='\u{fe0f}' | '\u{ffa0}' | '\u{e0000}'..='\u{e0fff}')
}

/// The common case costs one pass over bytes.
fn is_harmless(text: &str) -> bool {
    text.bytes().all(|byte| byte == b'\n' || (b' '..=b'~').contains(&byte))
}

fn escaped(text: &str, is_kept: impl Fn(char) -> bool) -> Cow<'_, str> {
    if text.chars().all(|char| is_kept(char) || is_seen(char)) {
        return Cow::Borrowed(text);
    }
    let mut safe = String::with_capacity(text.len() + 64);
    for char in text.chars() {
        if is_kept(char) || is_seen(char) {
            safe.push(char);
        } else {
            match char {
                '\n' | '\r' | '\t' => safe.extend(char.escape_default()),
                char => safe.extend(char.escape_unicode()),
            }
        }
    }
    Cow::Owned(safe)
}

/// Without its middle: at the end of a sentence stands what to do.
fn shortened(text: &str, chars_max: usize) -> Cow<'_, str> {
    let count = if text.len() > chars_max { text.chars().count() } else { 0 };
    if count <= chars_max {
        return Cow::Borrowed(text);
    }
    let (first, last) = (chars_max * 2 / 3, chars_max / 3);
    let at = |index: usize| text.char_indices().nth(index).map_or(text.len(), |(at, _)| at);
    let left_out = count - first - last;
    Cow::Owned(format!(
        "{}… ({left_out} characters left out) …{}",
        &text[..at(first)],
        &text[at(count - last)..]
    ))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    /// Everything that acts, reorders or hides.
    const HIDDEN: [char; 30] = [
        '\u{0}',
        '\u{7}',
        '\u{8}',
        '\t',
        '\r',
        '\u{1b}',
        '\u{7f}',
        '\u{80}',
        '\u{85}',
        '\u{9b}',
        '\u{9d}',
        '\u{ad}',
        '\u{34f}',
        '\u{61c}',
        '\u{115f}',
        '\u{200b}',
        '\u{200d}',
        '\u{200e}',
        '\u{200f}',
        '\u{2028}',
        '\u{202a}',
        '\u{202e}',
        '\u{2060}',
        '\u{2066}',
        '\u{2069}',
        '\u{3164}',
        '\u{fe0f}',
        '\u{feff}',
        '\u{e0041}',
        '\u{f0000}',
    ];

    #[test]
    fn nothing_acts_on_a_terminal_or_hides_there() {
        for char in HIDDEN {
            let text = format!("a{char}b");
            for shown in [one_line(&text), whole_line(&text), lines(&text).into_owned(), short_lines(&text)] {
                assert!(
                    !shown.contains(char) && shown.starts_with("a\\") && shown.ends_with('b'),
                    "{shown:?}"
                );
            }
            let value = serde_json::json!({ "text": text.clone(), (char.to_string()): [text] });
            let printed = format!("{value:#}");
            let safe = json(&printed);
            assert!(!safe.contains(char), "{char:?} in {safe:?}");
            assert_eq!(serde_json::from_str::<serde_json::Value>(&safe).unwrap(), value);
        }
        assert_eq!(one_line("one\ntwo"), "one\\ntwo");
        assert_eq!(lines("one\ntwo\u{1b}"), "one\ntwo\\u{1b}");
    }

    #[test]
    fn what_people_write_is_shown_as_it_is() {
        for text in ["it's \"ä\" \\ ☕ 😀", "हिन्दी", "ไทย", "Ελληνικά", "עברית", "中文", "e\u{301}"]
        {
            assert_eq!(one_line(text), text);
            assert_eq!((&*lines(text), &*json(text)), (text, text));
        }
    }

    #[test]
    fn long_texts_lose_their_middle() {
        let sentence = format!("no app {:?}: add it", "é".repeat(10_000));
        let shown = short_lines(&format!("{sentence}\n{sentence}"));
        assert!(shown.starts_with("no app \"é") && shown.ends_with("é\": add it"), "{shown}");
        let widest = shown.lines().map(|line| line.chars().count()).max().unwrap();
        assert!(widest < SHOWN_LINE_CHARS_MAX + 40 && shown.contains(" characters left out) …é"), "{shown}");
        let exact = "x".repeat(SHOWN_CELL_CHARS_MAX);
        assert_eq!(one_line(&exact), exact);
        assert_eq!(whole_line(&exact.repeat(9)), exact.repeat(9));
        assert!(one_line(&(exact + "x")).contains("(2 characters left out)"));
    }

    /// What writes elsewhere writes no text of strangers.
    const OTHER_WRITERS: [&str; 8] = [
        // What passes here is written there.
        "lib.rs",
        "output.rs",
        // A question, whose texts have passed here.
        "operate/confirm.rs",
        // Whether it is a terminal.
        "up/welcome.rs",
        "operate/target.rs",
        "operate/top/mod.rs",
        // A screen, whose texts have passed here.
        "operate/top/terminal.rs",
        // Logs, which escape in their format.
        "telemetry.rs",
    ];

    #[test]
    fn only_these_write_to_the_terminal() {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
        let names =
            |text: &str, word: &str| text.match_indices(word).any(|(at, _)| !text[..at].ends_with('_'));
        let mut found = Vec::new();
        let mut folders = vec![source.clone()];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(&folder).unwrap() {
                let path = entry.unwrap().path();
                let name = path.strip_prefix(&source).unwrap().to_str().unwrap().to_owned();
                if path.is_dir() {
                    // The load generator writes figures.
                    folders.extend((name != "bench").then_some(path));
                    continue;
                }
                let text = std::fs::read_to_string(&path).unwrap();
                let words = ["stdout()", "stderr()", "io::stdout", "io::stderr", "println!(", "print!("];
                if name != "terminal_text.rs" && words.iter().any(|word| names(&text, word)) {
                    found.push(name);
                }
            }
        }
        found.sort();
        let mut known = OTHER_WRITERS.to_vec();
        known.sort_unstable();
        assert_eq!(found, known);
    }
}
