//! A JSON object whose fields are taken one by one, so that those nobody has asked for are known at the end.

use serde_json::{Map, Value};

/// An object, and where it stands in its file: "" or `databaseConfig.redis`.
pub(super) struct Fields {
    place: String,
    map: Map<String, Value>,
}

impl Fields {
    pub(super) fn of(place: &str, value: Value) -> Result<Self, String> {
        match value {
            Value::Object(map) => Ok(Self { place: place.to_owned(), map }),
            _ => Err(expected(place, "an object")),
        }
    }

    /// Where a field stands.
    pub(super) fn at(&self, name: &str) -> String {
        if self.place.is_empty() { name.to_owned() } else { format!("{}.{name}", self.place) }
    }

    /// What is there; null is nothing.
    pub(super) fn take(&mut self, name: &str) -> Option<Value> {
        self.map.remove(name).filter(|value| !value.is_null())
    }

    /// A text that is not empty. A number counts as its digits: ports are written either way.
    pub(super) fn text(&mut self, name: &str) -> Result<Option<String>, String> {
        match self.take(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text).filter(|text| !text.is_empty())),
            Some(Value::Number(number)) => Ok(Some(number.to_string())),
            Some(_) => Err(expected(&self.at(name), "a text")),
        }
    }

    /// One text or a list of texts.
    pub(super) fn texts(&mut self, name: &str) -> Result<Vec<String>, String> {
        let place = self.at(name);
        let wrong = || expected(&place, "a text or a list of texts");
        match self.map.remove(name) {
            None | Some(Value::Null) => Ok(Vec::new()),
            Some(Value::String(text)) => Ok(vec![text]),
            Some(Value::Array(items)) => items
                .into_iter()
                .map(|item| match item {
                    Value::String(text) => Ok(text),
                    _ => Err(wrong()),
                })
                .collect(),
            Some(_) => Err(wrong()),
        }
    }

    pub(super) fn flag(&mut self, name: &str) -> Result<Option<bool>, String> {
        match self.take(name) {
            None => Ok(None),
            Some(Value::Bool(flag)) => Ok(Some(flag)),
            // Of values from .env files.
            Some(Value::String(text)) if text == "true" || text == "false" => Ok(Some(text == "true")),
            Some(_) => Err(expected(&self.at(name), "true or false")),
        }
    }

    pub(super) fn object(&mut self, name: &str) -> Result<Option<Self>, String> {
        let place = self.at(name);
        self.take(name).map(|value| Self::of(&place, value)).transpose()
    }

    pub(super) fn objects(&mut self, name: &str) -> Result<Vec<Self>, String> {
        let place = self.at(name);
        match self.take(name) {
            None => Ok(Vec::new()),
            Some(Value::Array(items)) => {
                let item = |(index, item)| Self::of(&format!("{place}[{index}]"), item);
                items.into_iter().enumerate().map(item).collect()
            }
            Some(_) => Err(expected(&place, "a list of objects")),
        }
    }

    /// The names of what nobody has taken.
    pub(super) fn rest(&self) -> Vec<String> {
        self.map.keys().map(|name| self.at(name)).collect()
    }

    /// Whether nobody has taken this.
    pub(super) fn has(&self, name: &str) -> bool {
        self.map.get(name).is_some_and(|value| !value.is_null())
    }
}

fn expected(place: &str, what: &str) -> String {
    if place.is_empty() { format!("expected {what}") } else { format!("{place}: expected {what}") }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_field_is_what_it_should_be_or_named() {
        let value = json!({"port": 6001, "host": null, "dev": "true", "deep": {"list": ["a", 1]}, "more": 1});
        let mut fields = Fields::of("", value).unwrap();
        assert_eq!(fields.text("port"), Ok(Some("6001".to_owned())));
        assert_eq!((fields.text("host"), fields.flag("dev")), (Ok(None), Ok(Some(true))));
        let mut deep = fields.object("deep").unwrap().unwrap();
        assert_eq!(deep.texts("list").unwrap_err(), "deep.list: expected a text or a list of texts");
        assert!(fields.has("more") && !fields.has("host"));
        assert_eq!(fields.rest(), ["more"]);
        assert_eq!(fields.objects("more").err().unwrap(), "more: expected a list of objects");
        assert_eq!(Fields::of("", json!([])).err().unwrap(), "expected an object");
    }
}
