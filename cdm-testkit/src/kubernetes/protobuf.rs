//! The one message that kubectl sends only as protobuf: the access review.

use serde_json::{Value, json};

use super::kinds::ACCESS_REVIEW;
use super::object::Object;

/// Prefix of every encoded object.
const MAGIC: &[u8] = b"k8s\0";
/// Fields of the resource attributes, in the order of their numbers from 1.
const ATTRIBUTES: [&str; 7] = ["namespace", "verb", "group", "version", "resource", "subresource", "name"];

/// Decodes an access review; `None` if the body is not one.
pub(super) fn access_review(body: &[u8]) -> Option<Value> {
    let envelope = body.strip_prefix(MAGIC)?;
    let kind = field(field(envelope, 1)?, 2)?;
    if kind != ACCESS_REVIEW.kind.as_bytes() {
        return None;
    }
    let spec = field(field(envelope, 2)?, 2)?;
    let attributes = field(spec, 1).unwrap_or_default();
    let mut review = json!({
        "apiVersion": ACCESS_REVIEW.api_version(), "kind": ACCESS_REVIEW.kind, "metadata": {}, "spec": {},
    });
    for (number, name) in (1..).zip(ATTRIBUTES) {
        if let Some(value) = field(attributes, number).filter(|value| !value.is_empty()) {
            review.put(&format!("/spec/resourceAttributes/{name}"), String::from_utf8_lossy(value).as_ref());
        }
    }
    Some(review)
}

/// Returns the length-delimited field with this number.
fn field(mut message: &[u8], wanted: u64) -> Option<&[u8]> {
    while !message.is_empty() {
        let tag = varint(&mut message)?;
        match tag & 7 {
            0 => drop(varint(&mut message)?),
            1 => message = message.get(8..)?,
            2 => {
                let length = usize::try_from(varint(&mut message)?).ok()?;
                let (value, rest) = message.split_at_checked(length)?;
                if tag >> 3 == wanted {
                    return Some(value);
                }
                message = rest;
            }
            5 => message = message.get(4..)?,
            _ => return None,
        }
    }
    None
}

fn varint(message: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = message.split_first()?;
        *message = rest;
        number |= u64::from(byte & 127) << shift;
        if byte & 128 == 0 {
            return Some(number);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(fields: &[(u8, &[u8])]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (number, value) in fields {
            bytes.extend([number << 3 | 2, u8::try_from(value.len()).expect("a short field")]);
            bytes.extend_from_slice(value);
        }
        bytes
    }

    #[test]
    fn an_access_review_is_decoded() {
        let attributes = message(&[(1, b"cdm"), (2, b"get"), (5, b"pods"), (6, b"log")]);
        let kind = message(&[(1, b"authorization.k8s.io/v1"), (2, b"SelfSubjectAccessReview")]);
        let raw = message(&[(1, b""), (2, &message(&[(1, &attributes)]))]);
        let body = [MAGIC, &message(&[(1, &kind), (2, &raw)])].concat();
        let want = json!({"namespace": "cdm", "verb": "get", "resource": "pods", "subresource": "log"});
        assert_eq!(access_review(&body).expect("a review")["spec"]["resourceAttributes"], want);
        for end in 0..body.len() {
            // A truncated body is not a review, and does not panic.
            let _: Option<Value> = access_review(&body[..end]);
        }
        assert_eq!(access_review(b"{}"), None);
    }
}
