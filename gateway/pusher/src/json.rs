//! JSON in pieces: written without a tree in between, and relayed unchanged.

use broadgate_proto::parse_error::without_value;
use serde::Deserialize;

use super::shown;

/// Reads a JSON object. Without the check of its first character an array would pass, too: serde reads
/// structs from arrays.
pub fn object<'a, T: Deserialize<'a>>(text: &'a str) -> Result<T, String> {
    if !text.trim_start_matches([' ', '\t', '\r', '\n']).starts_with('{') {
        return Err("it is not a JSON object".to_owned());
    }
    // A name of a field may be as long as the message.
    serde_json::from_str(text).map_err(|error| shown(&without_value(&error.to_string())))
}

/// JSON without the white space between its parts; everything else is unchanged.
pub fn compact(json: &str) -> String {
    let (mut inside, mut escaped) = (false, false);
    let keep = |c: &char| {
        if inside {
            inside = escaped || *c != '"';
            escaped = !escaped && *c == '\\';
            return true;
        }
        inside = *c == '"';
        !matches!(c, ' ' | '\t' | '\r' | '\n')
    };
    json.chars().filter(keep).collect()
}

/// Writes one JSON text.
pub struct Writer(Vec<u8>);

impl Writer {
    pub fn with_capacity(bytes: usize) -> Self {
        Self(Vec::with_capacity(bytes))
    }

    /// Adds a part that is already JSON on one line.
    pub fn plain(&mut self, json: &str) -> &mut Self {
        self.0.extend_from_slice(json.as_bytes());
        self
    }

    /// Adds foreign JSON. A newline can only be between its parts, and becomes a space: a frame is one line,
    /// also for clients whose messages end with a newline.
    pub fn raw(&mut self, json: &str) -> &mut Self {
        let one_line = |byte| if matches!(byte, b'\n' | b'\r') { b' ' } else { byte };
        self.0.extend(json.bytes().map(one_line));
        self
    }

    /// Adds a text as a JSON string.
    pub fn string(&mut self, text: &str) -> &mut Self {
        // Writing into memory does not fail, and a text always has a JSON string.
        let _ = serde_json::to_writer(&mut self.0, text);
        self
    }

    pub fn number(&mut self, number: u64) -> &mut Self {
        let _ = serde_json::to_writer(&mut self.0, &number);
        self
    }

    /// Adds one part for each item, with commas between them.
    pub fn list<T>(
        &mut self,
        items: impl IntoIterator<Item = T>,
        mut one: impl FnMut(&mut Self, T),
    ) -> &mut Self {
        for (at, item) in items.into_iter().enumerate() {
            if at > 0 {
                self.plain(",");
            }
            one(self, item);
        }
        self
    }

    pub fn finish(&mut self) -> String {
        // Only whole texts were added, so this is valid UTF-8.
        String::from_utf8(std::mem::take(&mut self.0)).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn white_space_goes_from_between_the_parts_only() {
        assert_eq!(compact(" { \"a b\" : [ 1 ,\n2 ] } "), r#"{"a b":[1,2]}"#);
        assert_eq!(compact(r#"{"a\" b" : "\\" , "c d" : "e" }"#), r#"{"a\" b":"\\","c d":"e"}"#);
        assert_eq!(compact(" 1.50e+3 "), "1.50e+3");
    }

    proptest! {
        #[test]
        fn compact_json_means_the_same(keys in prop::collection::vec(("\\PC{0,6}", "[ \"\\\\\n\t{}a]{0,8}"), 0..5)) {
            let value: serde_json::Value = keys.into_iter().collect();
            let pretty = serde_json::to_string_pretty(&value).unwrap();
            prop_assert_eq!(compact(&pretty), serde_json::to_string(&value).unwrap());
        }

        #[test]
        fn a_written_string_reads_back(text in "\\PC{0,20}|[\\x00-\\x1f\"\\\\\u{2028}]{0,5}") {
            let json = Writer::with_capacity(0).string(&text).finish();
            prop_assert!(!json.contains('\n'));
            prop_assert_eq!(serde_json::from_str::<String>(&json).unwrap(), text);
        }
    }

    #[test]
    fn an_array_is_no_object() {
        #[derive(Deserialize)]
        struct One {
            one: u8,
        }
        assert_eq!(object::<One>(" \n{\"one\":1}").unwrap().one, 1);
        assert!(object::<One>("[1]").is_err() && object::<One>("").is_err());
        assert_eq!(Writer::with_capacity(0).raw("[1,\r\n2]").finish(), "[1,  2]");
    }
}
