//! Errors of parsers without the values that they quote: what stands in the wrong place may be a secret, and errors
//! are logged, remembered and answered. Pure.

/// How a message begins that quotes a value, and what follows the value.
const QUOTING: [(&str, &str); 4] = [
    ("invalid type: ", ", expected "),
    ("invalid value: ", ", expected "),
    ("unknown variant ", ", expected "),
    ("unrecognized enum value ", " at line "),
];

/// The message with the kind of value that was found in place of the value itself, as in
/// `invalid type: string, expected u64 at line 1 column 12`. Names of fields stay.
#[must_use]
pub fn without_value(message: &str) -> String {
    for (lead, follows) in QUOTING {
        let Some((before, rest)) = message.split_once(lead) else { continue };
        // A quoted text may hold these words as well: what follows it stands last.
        let (value, after) = rest.rfind(follows).map_or((rest, ""), |at| rest.split_at(at));
        let kind = value.split(['"', '`', '\'']).next().unwrap_or_default().trim_end();
        return format!("{}{after}", format!("{before}{lead}{kind}").trim_end());
    }
    message.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_left_out_and_fields_and_types_stay() {
        for (message, shown) in [
            (
                "invalid type: string \"hush\", expected u64 at line 1 column 12",
                "invalid type: string, expected u64 at line 1 column 12",
            ),
            (
                "invalid type: string \"a, expected hush\", expected a map",
                "invalid type: string, expected a map",
            ),
            ("invalid value: integer `5`, expected a bool", "invalid value: integer, expected a bool"),
            ("invalid type: map, expected a string", "invalid type: map, expected a string"),
            ("unknown variant `hush`, expected `a` or `b`", "unknown variant, expected `a` or `b`"),
            (
                "unrecognized enum value 'hush' at line 2 column 3",
                "unrecognized enum value at line 2 column 3",
            ),
            ("x: unrecognized enum value 'hush'", "x: unrecognized enum value"),
            ("unknown field `sercet`, expected `secret`", "unknown field `sercet`, expected `secret`"),
            ("EOF while parsing a list at line 1 column 1", "EOF while parsing a list at line 1 column 1"),
        ] {
            assert_eq!(without_value(message), shown);
        }
    }
}
