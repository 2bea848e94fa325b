//! What a caller says of itself beside what it shows, in headers of its calls. Nothing of it is proved, and it allows
//! nothing: operators read it in the audit.

use data_encoding::HEXUPPER_PERMISSIVE;

use crate::limits::NOTE_BYTES_MAX;

/// The header in which a program of people says which one it is: one of [`PROGRAMS`].
pub const HOW_HEADER: &str = "broadgate-how";

/// The header with a note on an order, for the audit: text whose bytes beyond printable ASCII, and %, are encoded as
/// %XX.
pub const NOTE_HEADER: &str = "broadgate-note";

/// What [`HOW_HEADER`] may say; anything else counts as not said.
pub const PROGRAMS: [&str; 3] = [CLI, DASHBOARD, COMPLETION];
/// The command line.
pub const CLI: &str = "cli";
/// A dashboard, on an operator's machine or at a gateway.
pub const DASHBOARD: &str = "dashboard";

/// A shell that completes a name on the command line.
pub const COMPLETION: &str = "completion";

/// An unusable note.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NoteError {
    /// Too long.
    #[error("the note has {0} bytes: at most {NOTE_BYTES_MAX} are written down")]
    Long(usize),
    /// It would break a line.
    #[error("the note holds a control character: it is one line of text")]
    Control,
    /// Not text.
    #[error("the note is not UTF-8")]
    Encoding,
}

/// Which program a caller says it is.
#[must_use]
pub fn program(said: &str) -> Option<&'static str> {
    PROGRAMS.into_iter().find(|program| *program == said)
}

/// Can this be a note?
///
/// # Errors
/// If not, why.
pub fn check_note(note: &str) -> Result<(), NoteError> {
    if note.len() > NOTE_BYTES_MAX {
        return Err(NoteError::Long(note.len()));
    }
    if note.chars().any(char::is_control) { Err(NoteError::Control) } else { Ok(()) }
}

/// A note as its header has it.
#[must_use]
pub fn note_header(note: &str) -> String {
    note.bytes().fold(String::with_capacity(note.len()), |text, byte| match byte {
        b' '..=b'~' if byte != b'%' => text + char::from(byte).encode_utf8(&mut [0; 4]),
        _ => text + &format!("%{byte:02X}"),
    })
}

/// The note in a header; none if it is empty. A % that begins no %XX stands for itself, so that one may write a note
/// by hand.
///
/// # Errors
/// If it is none, why.
pub fn note_of_header(header: &[u8]) -> Result<Option<String>, NoteError> {
    let mut bytes = Vec::with_capacity(header.len().min(NOTE_BYTES_MAX));
    let mut rest = header;
    while let Some((first, after)) = rest.split_first() {
        let code = after.split_at_checked(2).filter(|_| *first == b'%');
        let decoded = code.and_then(|(code, after)| Some((HEXUPPER_PERMISSIVE.decode(code).ok()?, after)));
        match decoded {
            Some((decoded, after)) => {
                bytes.extend(decoded);
                rest = after;
            }
            None => {
                bytes.push(*first);
                rest = after;
            }
        }
        if bytes.len() > NOTE_BYTES_MAX {
            return Err(NoteError::Long(header.len()));
        }
    }
    let note = String::from_utf8(bytes).map_err(|_| NoteError::Encoding)?;
    check_note(&note)?;
    Ok(Some(note).filter(|note| !note.is_empty()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notes_arrive_as_they_were_written() {
        for note in ["#4711", "100 % sure, 50%25 of it", "für Anna \u{2192} \u{1f600}", "a\u{85}x"] {
            let header = note_header(note);
            assert!(header.bytes().all(|byte| (b' '..=b'~').contains(&byte)), "{header}");
            let is_note = check_note(note).is_ok();
            assert_eq!(note_of_header(header.as_bytes()).ok().flatten().as_deref(), is_note.then_some(note));
        }
        assert_eq!(note_of_header(b"100% by hand, %4"), Ok(Some("100% by hand, %4".to_owned())));
        assert_eq!(note_of_header("f\u{fc}r".as_bytes()), Ok(Some("f\u{fc}r".to_owned())));
        assert_eq!(note_of_header(b""), Ok(None));
    }

    #[test]
    fn a_note_is_one_bounded_line_of_text() {
        for (header, wrong) in [
            (b"a%0Ab".to_vec(), NoteError::Control),
            (b"a%1b[31m".to_vec(), NoteError::Control),
            (b"a%7F".to_vec(), NoteError::Control),
            (b"%FF".to_vec(), NoteError::Encoding),
            (vec![b'x'; NOTE_BYTES_MAX + 1], NoteError::Long(NOTE_BYTES_MAX + 1)),
        ] {
            assert_eq!(note_of_header(&header), Err(wrong));
        }
        assert!(check_note(&"x".repeat(NOTE_BYTES_MAX)).is_ok());
        assert_eq!(check_note("a\nb"), Err(NoteError::Control));
        assert_eq!((program("cli"), program("Cli"), program("secret")), (Some("cli"), None, None));
    }
}
