//! A duplicate field in a JSON object is an error: which of the two is meant is unknown, and parsers differ
//! in which they use. A message to `{"groups": ["a"]}` must not become one to all.

use std::{collections::HashSet, fmt};

use prost_reflect::MessageDescriptor;
use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};

/// Checks the JSON of a message.
pub(super) fn check(body: &[u8], message: &MessageDescriptor) -> Result<(), serde_json::Error> {
    let mut json = serde_json::Deserializer::from_slice(body);
    UniqueFields(Some(message.clone())).deserialize(&mut json)
}

/// Any JSON in which no object has a field twice. A message's field has two names; what is in maps, and in
/// text fields, has one.
struct UniqueFields(Option<MessageDescriptor>);

#[derive(PartialEq, Eq, Hash)]
enum FieldKey {
    Field(u32),
    Name(String),
}

impl<'de> DeserializeSeed<'de> for UniqueFields {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for UniqueFields {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let mut seen = HashSet::new();
        while let Some(name) = map.next_key::<String>()? {
            let field = self.0.as_ref().and_then(|message| {
                message.get_field_by_name(&name).or_else(|| message.get_field_by_json_name(&name))
            });
            let key = field
                .as_ref()
                .map_or_else(|| FieldKey::Name(name.clone()), |field| FieldKey::Field(field.number()));
            if !seen.insert(key) {
                let shown: String = name.chars().take(80).collect();
                return Err(A::Error::custom(format!("the field {shown:?} occurs twice")));
            }
            let within =
                field.filter(|field| !field.is_map()).and_then(|field| field.kind().as_message().cloned());
            map.next_value_seed(UniqueFields(within))?;
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        while list.next_element_seed(UniqueFields(self.0.clone()))?.is_some() {}
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use broadgate_proto::DESCRIPTORS;
    use prost_reflect::DescriptorPool;

    #[test]
    fn field_that_stands_twice_is_refused_wherever_it_is() {
        let pool = DescriptorPool::decode(DESCRIPTORS).unwrap();
        let check = |message: &str, body: &str| {
            let message = pool.get_message_by_name(&format!("broadgate.v1.{message}")).unwrap();
            super::check(body.as_bytes(), &message).map_err(|error| error.to_string())
        };
        for (message, body, field) in [
            ("SendRequest", r#"{"to":{"all":true},"to":{"groups":["x"]},"text":"q"}"#, "to"),
            ("SendRequest", r#"{"to":{"groups":["x"],"groups":["y"]},"text":"q"}"#, "groups"),
            ("SendRequest", r#"{"to":{"except":{"uids":["1"],"uids":[]}},"text":"q"}"#, "uids"),
            ("BindRequest", r#"{"client_id":"a","clientId":"b"}"#, "clientId"),
            ("MergeSessionRequest", r#"{"json":{"a":1,"a":2}}"#, "a"),
            ("SendRequest", r#"{"x":1,"x":2}"#, "x"),
        ] {
            let error = check(message, body).unwrap_err();
            assert!(error.contains(&format!("the field {field:?} occurs twice")), "{body}: {error}");
        }
        for (message, body) in [
            ("SendRequest", r#"{"to":{"groups":["x","x"],"except":{"groups":["x"]}},"text":"q"}"#),
            ("SendRequest", r#"[1,-1,1.5,null,true,"x",{"a":{"a":{}}}]"#),
            // Names in maps are names.
            ("SendRequest", r#"{"a_b":1,"aB":2}"#),
        ] {
            assert_eq!(check(message, body), Ok(()), "{body}");
        }
    }
}
