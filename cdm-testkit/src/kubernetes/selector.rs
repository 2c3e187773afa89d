//! Parsing and evaluation of label and field selectors.

use serde_json::Value;

use super::kinds::Kind;
use super::object::Object;
use super::status_error::StatusError;

/// Selects objects by labels and fields.
#[derive(Clone, Debug, Default)]
pub(super) struct Selector {
    labels: Vec<Requirement>,
    /// Field path, comparison and value.
    fields: Vec<(String, Comparison, String)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Comparison {
    Equal,
    NotEqual,
}

#[derive(Clone, Debug)]
enum Requirement {
    Exists(String),
    Absent(String),
    In(String, Vec<String>),
    NotIn(String, Vec<String>),
}

impl Selector {
    pub(super) fn parse(kind: &Kind, labels: &str, fields: &str) -> Result<Self, StatusError> {
        let invalid = |part: &str| StatusError::bad_request(format!("unable to parse requirement: {part:?}"));
        let labels = split(labels)
            .into_iter()
            .map(|part| requirement(part).ok_or_else(|| invalid(part)))
            .collect::<Result<_, _>>()?;
        let fields = fields.split(',').filter(|part| !part.is_empty());
        let fields = fields.map(|part| field(kind, part)).collect::<Result<_, _>>()?;
        Ok(Self { labels, fields })
    }

    /// Parses the label selector of a controller.
    pub(super) fn of_spec(selector: &Value) -> Self {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let equal = selector.entries("/matchLabels");
        let mut labels: Vec<_> =
            equal.map(|(key, value)| Requirement::In(key.to_owned(), vec![text(value)])).collect();
        for one in selector.list("/matchExpressions") {
            let key = one.text("/key").to_owned();
            let values = one.list("/values").iter().map(text).collect();
            labels.push(match one.text("/operator") {
                "In" => Requirement::In(key, values),
                "NotIn" => Requirement::NotIn(key, values),
                "Exists" => Requirement::Exists(key),
                _ => Requirement::Absent(key),
            });
        }
        Self { labels, fields: Vec::new() }
    }

    pub(super) fn matches(&self, object: &Value) -> bool {
        let labels = object.pointer("/metadata/labels");
        let label = |key: &str| labels.and_then(|labels| labels.get(key)).and_then(Value::as_str);
        let labels_match = self.labels.iter().all(|requirement| match requirement {
            Requirement::Exists(key) => label(key).is_some(),
            Requirement::Absent(key) => label(key).is_none(),
            Requirement::In(key, values) => {
                label(key).is_some_and(|value| values.iter().any(|one| one == value))
            }
            Requirement::NotIn(key, values) => {
                label(key).is_none_or(|value| values.iter().all(|one| one != value))
            }
        });
        labels_match
            && self.fields.iter().all(|(path, comparison, value)| {
                (object.text(path) == value) == (*comparison == Comparison::Equal)
            })
    }
}

/// Splits a text at the commas outside parentheses.
fn split(text: &str) -> Vec<&str> {
    let (mut parts, mut depth, mut from) = (Vec::new(), 0usize, 0);
    for (at, letter) in text.char_indices() {
        match letter {
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            ',' if depth == 0 => {
                parts.push(&text[from..at]);
                from = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[from..]);
    parts.into_iter().map(str::trim).filter(|part| !part.is_empty()).collect()
}

fn requirement(part: &str) -> Option<Requirement> {
    let set = |list: &str| {
        let list = list.trim().strip_prefix('(')?.strip_suffix(')')?;
        Some(list.split(',').map(|one| one.trim().to_owned()).collect::<Vec<_>>())
    };
    let key = |text: &str| {
        let text = text.trim();
        let valid = !text.is_empty()
            && text.chars().all(|letter| letter.is_ascii_alphanumeric() || "-_./".contains(letter));
        valid.then(|| text.to_owned())
    };
    if let Some((left, right)) = part.split_once(" notin ") {
        return Some(Requirement::NotIn(key(left)?, set(right)?));
    }
    if let Some((left, right)) = part.split_once(" in ") {
        return Some(Requirement::In(key(left)?, set(right)?));
    }
    if let Some((left, right)) = part.split_once("!=") {
        return Some(Requirement::NotIn(key(left)?, vec![right.trim().to_owned()]));
    }
    if let Some((left, right)) = part.split_once("==").or_else(|| part.split_once('=')) {
        return Some(Requirement::In(key(left)?, vec![right.trim().to_owned()]));
    }
    match part.strip_prefix('!') {
        Some(rest) => Some(Requirement::Absent(key(rest)?)),
        None => Some(Requirement::Exists(key(part)?)),
    }
}

fn field(kind: &Kind, part: &str) -> Result<(String, Comparison, String), StatusError> {
    let (path, comparison, value) = if let Some((path, value)) = part.split_once("!=") {
        (path, Comparison::NotEqual, value)
    } else {
        let parted = part.split_once("==").or_else(|| part.split_once('='));
        let invalid = || StatusError::bad_request(format!("invalid field selector {part:?}"));
        parted.map(|(path, value)| (path, Comparison::Equal, value)).ok_or_else(invalid)?
    };
    let known = match (path, kind.plural) {
        ("metadata.name" | "metadata.namespace", _) => true,
        ("status.phase" | "spec.nodeName", "pods") | ("type", "secrets") => true,
        (path, "events") => path.starts_with("involvedObject.") || path == "reason" || path == "type",
        _ => false,
    };
    if !known {
        return Err(StatusError::bad_request(format!("field label not supported: {path}")));
    }
    Ok((format!("/{}", path.replace('.', "/")), comparison, value.to_owned()))
}
