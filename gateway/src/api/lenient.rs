//! JSON as PHP and databases write it: integer ids, `[]` for an empty object, and objects for lists with holes.
//!
//! `json_encode` makes a number of a user id that came from a database, an array of every empty map, and an
//! object of a list of which `array_unique` or `array_filter` has left `{"0": …, "2": …}`.
//! By reflection, so that it holds for every call and every nested field.

use prost_reflect::{FieldDescriptor, Kind, MessageDescriptor};
use serde_json::{Map, Value};

/// The field that holds a JSON object as text.
const JSON_TEXT: &str = "json";

/// Rewrites integers into decimal text where text is asked for, and empty arrays into empty objects
/// where an object is asked for. Returns false if there was nothing to rewrite.
pub(super) fn adapt(value: &mut Value, message: &MessageDescriptor) -> bool {
    let mut changed = empty_object(value);
    let Value::Object(fields) = value else { return changed };
    for (name, value) in fields {
        let field = message.get_field_by_name(name).or_else(|| message.get_field_by_json_name(name));
        if let Some(field) = field {
            changed |= adapt_field(value, &field);
        }
    }
    changed
}

fn adapt_field(value: &mut Value, field: &FieldDescriptor) -> bool {
    if field.is_map() {
        let changed = empty_object(value);
        let kind = field.kind();
        let Some(entry) = kind.as_message() else { return changed };
        let of_value = entry.map_entry_value_field();
        let Value::Object(entries) = value else { return changed };
        return entries.values_mut().fold(changed, |changed, value| changed | adapt_field(value, &of_value));
    }
    let was_holey = field.is_list() && fill_holes(value);
    match value {
        Value::Array(items) if field.is_list() => {
            items.iter_mut().fold(was_holey, |changed, item| changed | adapt_one(item, field))
        }
        _ if field.is_list() => false,
        _ => adapt_one(value, field),
    }
}

fn adapt_one(value: &mut Value, field: &FieldDescriptor) -> bool {
    match field.kind() {
        Kind::Message(message) => adapt(value, &message),
        Kind::String => {
            let text = match value {
                Value::Number(number) if number.is_i64() || number.is_u64() => number.to_string(),
                Value::Array(items) if items.is_empty() && field.name() == JSON_TEXT => "{}".to_owned(),
                Value::Object(_) if field.name() == JSON_TEXT => value.to_string(),
                _ => return false,
            };
            *value = Value::String(text);
            true
        }
        _ => false,
    }
}

/// Turns an object whose keys are a list's indexes into a list.
fn fill_holes(value: &mut Value) -> bool {
    let Value::Object(items) = value else { return false };
    let Ok(mut indexes) = items.keys().map(|key| key.parse::<u32>()).collect::<Result<Vec<_>, _>>() else {
        return false;
    };
    indexes.sort_unstable();
    let list = indexes.iter().filter_map(|index| items.remove(&index.to_string())).collect();
    *value = Value::Array(list);
    true
}

fn empty_object(value: &mut Value) -> bool {
    let empty = matches!(value, Value::Array(items) if items.is_empty());
    if empty {
        *value = Value::Object(Map::new());
    }
    empty
}

#[cfg(test)]
mod tests {
    use broadgate_proto::DESCRIPTORS;
    use prost_reflect::DescriptorPool;
    use serde_json::json;

    use super::*;

    fn adapted(message: &str, mut value: Value) -> (Value, bool) {
        let pool = DescriptorPool::decode(DESCRIPTORS).unwrap();
        let message = pool.get_message_by_name(&format!("broadgate.v1.{message}")).unwrap();
        let changed = adapt(&mut value, &message);
        (value, changed)
    }

    #[test]
    fn integers_become_text_where_text_is_asked_for() {
        let given = json!({"to": {"uids": [7, "8", -1, u64::MAX], "except": {"groups": [12]}}, "text": "x"});
        let wanted = json!({
            "to": {"uids": ["7", "8", "-1", "18446744073709551615"], "except": {"groups": ["12"]}},
            "text": "x",
        });
        assert_eq!(adapted("SendRequest", given), (wanted, true));
        let given = json!({"clients": [], "groups": [1], "member": {"user_id": 7}});
        let wanted = json!({"clients": [], "groups": ["1"], "member": {"user_id": "7"}});
        assert_eq!(adapted("JoinGroupsRequest", given), (wanted, true));
        assert_eq!(
            adapted("RosterRequest", json!({"group": 3, "limit": 5})).0,
            json!({"group": "3", "limit": 5})
        );
        let by_json_name = adapted("BindRequest", json!({"clientId": 3, "uid": 9, "exclusive": true}));
        assert_eq!(by_json_name.0, json!({"clientId": "3", "uid": "9", "exclusive": true}));
    }

    #[test]
    fn empty_arrays_become_empty_objects_where_objects_are_asked_for() {
        assert_eq!(adapted("CountRequest", json!([])), (json!({}), true));
        let given = json!({"to": {"all": true, "except": []}, "text": "x"});
        assert_eq!(adapted("SendRequest", given).0, json!({"to": {"all": true, "except": {}}, "text": "x"}));
        assert_eq!(adapted("SetSessionRequest", json!({"json": []})).0, json!({"json": "{}"}));
        let given = json!({"json": {"cart": [1]}});
        assert_eq!(adapted("MergeSessionRequest", given).0, json!({"json": "{\"cart\":[1]}"}));
        assert_eq!(adapted("OnlineReply", json!({"clients": []})).0, json!({"clients": {}}));
    }

    #[test]
    fn a_list_with_holes_is_a_list() {
        let given = json!({"to": {"uids": {"10": 8, "2": "7"}, "groups": {}}, "text": "x"});
        let wanted = json!({"to": {"uids": ["7", "8"], "groups": []}, "text": "x"});
        assert_eq!(adapted("SendRequest", given), (wanted, true));
        let named = json!({"to": {"uids": {"ann": 7}}});
        assert_eq!(adapted("SendRequest", named.clone()), (named, false));
    }

    #[test]
    fn what_is_right_or_wrong_otherwise_stays() {
        for value in [
            json!({"to": {"uids": ["7"], "all": true}, "text": "x"}),
            json!({"to": {"uids": [7.5, true, null, [], {}]}}),
            json!({"to": {"uids": 7, "except": [1]}, "unknown": 7, "code": 7}),
            json!(7),
            json!([1]),
        ] {
            assert_eq!(adapted("SendRequest", value.clone()), (value, false));
        }
    }
}
