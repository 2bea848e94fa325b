//! Names of values that an enum in JSON does not have: which, in which field, and what can stand there.
//!
//! The parser names the value alone. By reflection, so that it holds for every call and every nested field.

use broadgate_proto::limits::APP_SECRET_BYTES_MIN;
use prost_reflect::{EnumDescriptor, FieldDescriptor, Kind, MessageDescriptor};
use serde_json::Value;

/// Longer than any name of the contract.
const NAME_BYTES_MAX: usize = 64;

/// A sentence about the first such name in a message; none if every name is known.
pub(super) fn find(value: &Value, message: &MessageDescriptor) -> Option<String> {
    in_message(value, message, "")
}

fn in_message(value: &Value, message: &MessageDescriptor, path: &str) -> Option<String> {
    value.as_object()?.iter().find_map(|(name, value)| {
        let field = message.get_field_by_name(name).or_else(|| message.get_field_by_json_name(name))?;
        let path = if path.is_empty() { field.name().to_owned() } else { format!("{path}.{}", field.name()) };
        in_field(value, &field, &path)
    })
}

fn in_field(value: &Value, field: &FieldDescriptor, path: &str) -> Option<String> {
    if field.is_map() {
        let kind = field.kind();
        let of_value = kind.as_message()?.map_entry_value_field();
        // The keys are the caller's.
        return value.as_object()?.values().find_map(|value| in_one(value, &of_value, path));
    }
    match value {
        Value::Array(items) if field.is_list() => {
            let mut items = items.iter().enumerate();
            items.find_map(|(index, item)| in_one(item, field, &format!("{path}[{index}]")))
        }
        _ => in_one(value, field, path),
    }
}

fn in_one(value: &Value, field: &FieldDescriptor, path: &str) -> Option<String> {
    match field.kind() {
        Kind::Message(message) => in_message(value, &message, path),
        Kind::Enum(known) => {
            let name = value.as_str()?;
            known.get_value_by_name(name).is_none().then(|| sentence(name, &known, path))
        }
        _ => None,
    }
}

fn sentence(name: &str, known: &EnumDescriptor, path: &str) -> String {
    let known: Vec<String> = known
        .values()
        .filter(|value| !value.name().ends_with("_UNSPECIFIED"))
        .map(|value| value.name().to_owned())
        .collect();
    let shown = if is_harmless(name) { format!(" {name:?}") } else { String::new() };
    format!("invalid {path}{shown}: expected {}", known.join(", "))
}

/// What stands in the wrong place may be a secret, and errors are logged: only what is too short for one is shown, or
/// looks like a name of the contract.
fn is_harmless(name: &str) -> bool {
    let is_name = |letter: u8| letter.is_ascii_uppercase() || letter == b'_';
    let is_plain = |letter: u8| letter.is_ascii_alphanumeric() || b"_-. ".contains(&letter);
    (name.len() < APP_SECRET_BYTES_MIN && name.bytes().all(is_plain))
        || (name.len() <= NAME_BYTES_MAX && name.bytes().all(is_name))
}

#[cfg(test)]
mod tests {
    use broadgate_proto::DESCRIPTORS;
    use prost_reflect::DescriptorPool;
    use serde_json::json;

    use super::*;

    fn found(message: &str, value: Value) -> Option<String> {
        let pool = DescriptorPool::decode(DESCRIPTORS).unwrap();
        find(&value, &pool.get_message_by_name(&format!("broadgate.v1.{message}")).unwrap())
    }

    #[test]
    fn value_field_and_what_is_expected_are_named() {
        for (by, shown) in [
            ("TOP_BY_APP", " \"TOP_BY_APP\""),
            ("apps", " \"apps\""),
            ("", " \"\""),
            // As long as a secret, or with what a terminal or a log would act on.
            ("hush-hush-hush-hush", ""),
            ("a\u{1b}[2J", ""),
        ] {
            let sentence =
                found("TopRequest", json!({"app": "a", "by": by, "sort": "TOP_SORT_OUT"})).unwrap();
            assert!(sentence.starts_with(&format!("invalid by{shown}: expected TOP_BY_")), "{sentence}");
            assert!(sentence.contains("TOP_BY_APPS") && !sentence.contains("UNSPECIFIED"), "{sentence}");
        }
        assert_eq!(found("TopRequest", json!({"by": "TOP_BY_APPS", "sort": 7, "app": "TOP_BY_APP"})), None);
        assert_eq!(found("TopRequest", json!([])), None);
    }

    #[test]
    fn nested_fields_lists_and_maps_are_looked_into() {
        let list = found("ListClientsRequest", json!({"fields": ["CLIENT_FIELD_UID", "uid"]})).unwrap();
        assert!(list.starts_with("invalid fields[1] \"uid\": expected CLIENT_FIELD_"), "{list}");
        let nested = found("Command", json!({"listClients": {"fields": ["uid"]}})).unwrap();
        assert!(nested.starts_with("invalid list_clients.fields[0] \"uid\": "), "{nested}");
    }
}
