//! Where an operator's token comes from: a file, or a program that prints it.

use std::{
    io::Read as _,
    path::Path,
    process::{Command, Stdio},
};

use broadgate_business::Secret;
use broadgate_proto::secret::TOKEN_MARK;
use broadgate_tasks::bounded_read::{self, ReadableKind};

/// More than any token has, and a line's end.
const TOKEN_TEXT_BYTES_MAX: u64 = 4096;

/// The token in a text, its first line: `token new` prints the entry for the tokens file after it.
///
/// # Errors
/// What is wrong.
pub(super) fn in_text(text: &str) -> Result<Secret, String> {
    Secret::of_token(text.lines().next().unwrap_or_default()).map_err(|error| error.to_string())
}

/// The token in a file.
///
/// # Errors
/// One sentence about what is wrong.
pub(super) fn of_file(path: &Path) -> Result<Secret, String> {
    if path.as_os_str().as_encoded_bytes().starts_with(TOKEN_MARK.as_bytes()) {
        return Err(
            "a token was given in place of a file's name: set BROADGATE_TOKEN, or name the file that has it"
                .to_owned(),
        );
    }
    let place = |error: String| format!("token file {}: {error}", path.display());
    let text = bounded_read::read_text(path, ReadableKind::Any).map_err(|error| place(error.to_string()))?;
    in_text(&text).map_err(place)
}

/// The token that a program prints, which may ask its user on the terminal.
///
/// # Errors
/// One sentence about what is wrong, without what was printed.
pub(super) fn of_command(command: &[String]) -> Result<Secret, String> {
    let (program, arguments) = command.split_first().ok_or("token_command is empty")?;
    let place = |error: String| format!("token_command {program:?}: {error}");
    let mut child = Command::new(program)
        .args(arguments)
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|error| place(format!("it does not start: {error}")))?;
    let mut text = String::new();
    let printed = child.stdout.take().map(|out| out.take(TOKEN_TEXT_BYTES_MAX).read_to_string(&mut text));
    let ended = child.wait().map_err(|error| place(error.to_string()))?;
    if !ended.success() {
        return Err(place(format!("it failed: {ended}")));
    }
    if let Some(Err(error)) = printed {
        return Err(place(error.to_string()));
    }
    in_text(&text).map_err(place)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_prints_the_token_or_is_named() {
        let run = |script: &str| of_command(&["sh", "-c", script].map(str::to_owned));
        assert!(run("echo bgt_0123456789abcdef0123456789abcdef").is_ok());
        assert!(run("printf 'bgt_0123456789abcdef0123456789abcdef\\n\\n[[tokens]]\\n'").is_ok());
        for (script, said) in [
            ("exit 3", "exit status: 3"),
            ("echo my-password-0123456789abcdef0123456789", "it is not a token"),
            ("true", "it is not a token"),
        ] {
            let error = run(script).unwrap_err();
            assert!(error.starts_with("token_command \"sh\"") && error.contains(said), "{error}");
            assert!(!error.contains("my-password"), "{error}");
        }
        let token = of_file(Path::new("bgt_0123456789abcdef0123456789abcdef")).unwrap_err();
        assert!(token.contains("BROADGATE_TOKEN") && !token.contains("0123"), "{token}");
        let nothing = of_command(&["/nonexistent/program".to_owned()]).unwrap_err();
        assert!(nothing.contains("does not start"), "{nothing}");
    }
}
