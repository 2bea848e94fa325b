//! The `traceparent` of a caller (W3C Trace Context): which trace a command belongs to. Pure.

use std::fmt;

use http::HeaderMap;

/// The header, and gRPC's metadata.
const TRACEPARENT_HEADER: &str = "traceparent";

/// The length of version 00, which later versions begin with.
const TEXT_BYTES: usize = 55;

/// As far as every version has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TraceParent {
    version: u8,
    trace: u128,
    parent: u64,
    flags: u8,
}

impl TraceParent {
    /// Of a request, if it has a well-formed one.
    pub(crate) fn of(headers: &HeaderMap) -> Option<Self> {
        Self::parse(headers.get(TRACEPARENT_HEADER)?.as_bytes())
    }

    /// None if it is not well-formed: then, as the standard says, there is none.
    pub(crate) fn parse(text: &[u8]) -> Option<Self> {
        let (known, more) = text.split_at_checked(TEXT_BYTES)?;
        let known = std::str::from_utf8(known).ok()?;
        let mut parts = known.split('-');
        let version = u8::try_from(hex(parts.next()?, 2)?).ok()?;
        let trace = hex(parts.next()?, 32)?;
        let parent = u64::try_from(hex(parts.next()?, 16)?).ok()?;
        let flags = u8::try_from(hex(parts.next()?, 2)?).ok()?;
        let ends = match version {
            0 => more.is_empty(),
            u8::MAX => false,
            _ => more.first().is_none_or(|next| *next == b'-'),
        };
        (parts.next().is_none() && ends && trace != 0 && parent != 0).then_some(Self {
            version,
            trace,
            parent,
            flags,
        })
    }

    /// Whether the caller records this trace.
    pub(crate) const fn is_sampled(self) -> bool {
        self.flags & 1 == 1
    }
}

/// So many digits in lower case.
fn hex(text: &str, digits: usize) -> Option<u128> {
    let fits = text.len() == digits && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    fits.then(|| u128::from_str_radix(text, 16).ok())?
}

impl fmt::Display for TraceParent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { version, trace, parent, flags } = self;
        write!(f, "{version:02x}-{trace:032x}-{parent:016x}-{flags:02x}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn a_well_formed_one_is_kept_as_it_is() {
        for text in [GOOD, "00-00000000000000000000000000000001-0000000000000001-00"] {
            let parsed = TraceParent::parse(text.as_bytes()).unwrap();
            assert_eq!((parsed.to_string(), parsed.is_sampled()), (text.to_owned(), text.ends_with('1')));
        }
        // Of a later version, what this one knows.
        let later = GOOD.replacen("00", "cc", 1);
        for more in ["", "-", "-what-comes-then"] {
            let parsed = TraceParent::parse(format!("{later}{more}").as_bytes()).unwrap();
            assert_eq!(parsed.to_string(), later);
        }
    }

    #[test]
    fn anything_else_is_none() {
        let zeros = |from: usize, to: usize| {
            let mut text = GOOD.to_owned();
            text.replace_range(from..to, &"0".repeat(to - from));
            text
        };
        for wrong in [
            String::new(),
            GOOD[..54].to_owned(),
            format!("{GOOD}-"),
            format!("{GOOD}0"),
            GOOD.replacen("00", "ff", 1),
            format!("{}x", GOOD.replacen("00", "cc", 1)),
            GOOD.to_uppercase(),
            GOOD.replace('-', "_"),
            GOOD.replacen("4b", "+b", 1),
            GOOD.replacen("4bf9", "4-f9", 1),
            zeros(3, 35),
            zeros(36, 52),
            "\u{e9}".repeat(40),
        ] {
            assert_eq!(TraceParent::parse(wrong.as_bytes()), None, "{wrong:?}");
        }
    }
}
