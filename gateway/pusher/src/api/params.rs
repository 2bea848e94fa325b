//! The parameters in a request's query.

use broadgate_proto::limits::{API_PARAMETERS_MAX, API_QUERY_BYTES_MAX};

use super::ApiRefusal;

/// A query's parameters, decoded, in order of appearance, with their names in lowercase.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Params(Vec<(String, String)>);

impl Params {
    /// Parses the text after the `?`, which may be empty.
    pub fn parse(query: &str) -> Self {
        let decode = |text: &str| String::from_utf8_lossy(&percent_decode(text, true)).into_owned();
        let pair = |part: &str| {
            let (name, value) = part.split_once('=').unwrap_or((part, ""));
            (decode(name).to_ascii_lowercase(), decode(value))
        };
        Self(query.split('&').filter(|part| !part.is_empty()).map(pair).collect())
    }

    /// The same for unauthenticated callers, whose signature cannot be checked before.
    pub fn parse_bounded(query: &str) -> Result<Self, ApiRefusal> {
        if query.len() > API_QUERY_BYTES_MAX {
            return Err(ApiRefusal::bad(format!("The query is longer than {API_QUERY_BYTES_MAX} bytes.")));
        }
        let separators = query.bytes().filter(|&byte| byte == b'&').count();
        if separators >= API_PARAMETERS_MAX {
            return Err(ApiRefusal::bad(format!("The query has more than {API_PARAMETERS_MAX} parameters.")));
        }
        Ok(Self::parse(query))
    }

    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// The first value with this name.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.iter().find(|&(other, _)| other == name).map(|(_, value)| value)
    }

    /// All values with this name, written once or as `name[]=…` or `name[0]=…`.
    pub fn list(&self, name: &str) -> Vec<&str> {
        self.iter()
            .filter(|&(other, _)| array(other).unwrap_or(other) == name)
            .map(|(_, value)| value)
            .collect()
    }
}

/// The name of the array that a parameter is part of: `info[0]` to `info`.
pub(super) fn array(name: &str) -> Option<&str> {
    let (array, index) = name.split_once('[')?;
    index.ends_with(']').then_some(array)
}

/// Decodes a percent-encoded text. Invalid codes are kept as they are.
pub fn percent_decode(text: &str, plus_is_space: bool) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        let code = (byte == b'%').then(|| Some((hex(*after.first()?)?, hex(*after.get(1)?)?)));
        if let Some(Some((high, low))) = code {
            bytes.push(high << 4 | low);
            rest = &after[2..];
        } else if byte == b'+' && plus_is_space {
            bytes.push(b' ');
        } else {
            bytes.push(byte);
        }
    }
    bytes
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_query_is_decoded() {
        let params = Params::parse("Info=a%2Cb&x=1+2%2b&flag&&=v&x=3&bad=%zz%4");
        let all: Vec<_> = params.iter().collect();
        let expected =
            [("info", "a,b"), ("x", "1 2+"), ("flag", ""), ("", "v"), ("x", "3"), ("bad", "%zz%4")];
        assert_eq!(all, expected);
        assert_eq!((params.get("x"), params.get("y")), (Some("1 2+"), None));
        assert_eq!(Params::parse(""), Params::default());
        assert_eq!(Params::parse("a=%ff").get("a"), Some("\u{fffd}"));
    }

    #[test]
    fn a_query_of_a_stranger_has_bounds() {
        let query = |count: usize| vec!["a=b"; count].join("&");
        assert!(Params::parse_bounded(&query(API_PARAMETERS_MAX)).is_ok());
        assert_eq!(Params::parse_bounded(&query(API_PARAMETERS_MAX + 1)).unwrap_err().status, 400);
        assert!(Params::parse_bounded(&"&".repeat(API_PARAMETERS_MAX)).is_err());
        assert!(Params::parse_bounded(&"x".repeat(API_QUERY_BYTES_MAX)).is_ok());
        assert!(Params::parse_bounded(&"x".repeat(API_QUERY_BYTES_MAX + 1)).is_err());
    }

    #[test]
    fn lists_are_written_in_three_ways() {
        for query in ["c=a&c=b", "c[]=a&c[]=b", "c%5B0%5D=a&d=x&c%5B1%5D=b", "c=a&c[x]=b"] {
            assert_eq!(Params::parse(query).list("c"), ["a", "b"], "{query}");
        }
        assert_eq!((array("c[]"), array("c"), array("c[")), (Some("c"), None, None));
    }

    proptest! {
        #[test]
        fn no_query_panics(query in "[%0-9a-fA-F&=+\\[\\]é]{0,40}") {
            let _ = Params::parse(&query);
        }
    }
}
