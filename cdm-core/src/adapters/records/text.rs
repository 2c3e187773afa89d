//! Values that are stored as one string or one number.

use std::fmt::Display;

use serde::{Deserialize, Deserializer, Serializer};
use serde_with::{DeserializeAs, SerializeAs};

use crate::domain::webhook::Topic;
use crate::domain::{
    Color, OperationId, PasswordHash, RecoveryHash, Role, Template, Timestamp, TokenHash, WorkerId,
};

/// Stores a value as the string that it is printed and parsed as.
pub(super) struct Text;

/// A type that can be stored as [`Text`].
trait AsText: Sized {
    fn text(&self) -> String;
    fn of(text: &str) -> Option<Self>;
}

macro_rules! as_text {
    ($($type:ty: $print:expr, $parse:expr;)*) => {
        $(
            impl AsText for $type {
                fn text(&self) -> String {
                    let print: fn(&Self) -> String = $print;
                    print(self)
                }

                fn of(text: &str) -> Option<Self> {
                    let parse: fn(&str) -> Option<Self> = $parse;
                    parse(text)
                }
            }

            impl SerializeAs<$type> for Text {
                fn serialize_as<S: Serializer>(value: &$type, to: S) -> Result<S::Ok, S::Error> {
                    to.serialize_str(&value.text())
                }
            }

            impl<'de> DeserializeAs<'de, $type> for Text {
                fn deserialize_as<D: Deserializer<'de>>(from: D) -> Result<$type, D::Error> {
                    let text = String::deserialize(from)?;
                    let invalid = || serde::de::Error::custom(format!("`{text}` is not a valid {}", stringify!($type)));
                    <$type as AsText>::of(&text).ok_or_else(invalid)
                }
            }
        )*
    };
}

as_text! {
    Color: printed, |text| Self::parse(text).ok();
    Role: printed, |text| Self::parse(text).ok();
    OperationId: printed, Self::parse;
    Topic: printed, |text| Self::parse(text).ok();
    WorkerId: printed, |text| Some(Self::new(text));
    Template: |template| template.as_str().to_owned(), |text| Some(Self::new(text));
    PasswordHash: |hash| hash.as_str().to_owned(), |text| Some(Self::new(text.to_owned()));
    TokenHash: |hash| hex::encode(hash.0), |text| bytes(text).map(Self);
    RecoveryHash: |hash| hex::encode(hash.0), |text| bytes(text).map(Self);
}

fn printed(value: &impl Display) -> String {
    value.to_string()
}

fn bytes<const N: usize>(text: &str) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    hex::decode_to_slice(text, &mut bytes).ok()?;
    Some(bytes)
}

/// Stores a time in milliseconds since 1970-01-01T00:00:00Z.
pub(super) struct Millis;

impl SerializeAs<Timestamp> for Millis {
    fn serialize_as<S: Serializer>(value: &Timestamp, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_u64(value.millis())
    }
}

impl<'de> DeserializeAs<'de, Timestamp> for Millis {
    fn deserialize_as<D: Deserializer<'de>>(from: D) -> Result<Timestamp, D::Error> {
        u64::deserialize(from).map(Timestamp::from_millis)
    }
}
