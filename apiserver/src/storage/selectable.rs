//! What selectors look at in one object, in as little memory as it takes: there is one for every object.

use crate::registry::selected::Selected;

/// Labels and selectable fields of an object.
#[derive(Debug, Clone, Default)]
pub struct Selectable {
    /// Key and value of each label, then the values of the fields.
    text: Box<str>,
    /// Where each of them ends.
    ends: Box<[u32]>,
    /// Names of the fields.
    fields: &'static [&'static str],
}

impl Selectable {
    /// What was found in an object whose kind has these fields. One that was not found is empty.
    pub fn new(found: &Selected, fields: &'static [&'static str]) -> Self {
        let labels = found.labels.iter().flat_map(|(key, value)| [key.as_str(), value]);
        let values = fields.iter().map(|name| {
            let field = found.fields.iter().find(|(field, _)| field == name);
            field.map_or("", |(_, value)| value)
        });
        let (mut text, mut ends) = (String::new(), Vec::new());
        for part in labels.chain(values) {
            text.push_str(part);
            // An object has far less text.
            ends.push(u32::try_from(text.len()).unwrap_or(u32::MAX));
        }
        Self {
            text: text.into(),
            ends: ends.into(),
            fields,
        }
    }

    fn part(&self, index: usize) -> &str {
        let place = |index: usize| self.ends.get(index).map(|end| *end as usize);
        let start = index.checked_sub(1).map_or(Some(0), place);
        let part = start.zip(place(index));
        part.and_then(|(start, end)| self.text.get(start..end))
            .unwrap_or_default()
    }

    /// Entries of `ends` that are of labels.
    fn of_labels(&self) -> usize {
        self.ends.len().saturating_sub(self.fields.len())
    }

    /// Every label: key and value.
    pub fn labels(&self) -> impl Iterator<Item = (&str, &str)> {
        let keys = (0..self.of_labels()).step_by(2);
        keys.map(|key| (self.part(key), self.part(key + 1)))
    }

    /// Value of a label.
    pub fn label(&self, key: &str) -> Option<&str> {
        self.labels().find(|(k, _)| *k == key).map(|(_, value)| value)
    }

    /// Value of a field, empty when it has none.
    pub fn field(&self, name: &str) -> &str {
        let index = self.fields.iter().position(|field| *field == name);
        index.map_or("", |index| self.part(self.of_labels() + index))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_and_fields_are_found_again() {
        let found = Selected {
            labels: [("a", ""), ("b", "c")]
                .map(|(k, v)| (k.to_owned(), v.to_owned()))
                .into(),
            fields: vec![("type", "Opaque".to_owned()), ("phase", String::new())],
        };
        let selectable = Selectable::new(&found, &["phase", "type", "other"]);
        assert_eq!(selectable.labels().collect::<Vec<_>>(), [("a", ""), ("b", "c")]);
        assert_eq!((selectable.label("a"), selectable.label("c")), (Some(""), None));
        let fields = ["phase", "type", "other", "unknown"].map(|name| selectable.field(name));
        assert_eq!(fields, ["", "Opaque", "", ""]);

        let nothing = Selectable::default();
        assert_eq!((nothing.labels().count(), nothing.label("a")), (0, None));
        assert_eq!(nothing.field("type"), "");
    }
}
