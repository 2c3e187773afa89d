//! The definition of an enumeration of the API.

/// Defines an enumeration of strings with its schema and its conversions.
///
/// Each line has a variant and its text in JSON; after `from`, also the domain value in parentheses. Every other text is
/// read as `Other`, which is not part of the schema.
macro_rules! wire_enum {
    (
        $(#[doc = $description:literal])+
        pub enum $name:ident {
            $($(#[doc = $doc:literal])+ $variant:ident = $text:literal,)+
        }
    ) => {
        $(#[doc = $description])+
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $name {
            $($(#[doc = $doc])+ $variant,)+
            /// A value that this version does not define; only a newer server sends it.
            Other(String),
        }

        impl $name {
            /// All values that this version defines.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// Returns the text in JSON.
            pub fn as_str(&self) -> &str {
                match self {
                    $(Self::$variant => $text,)+
                    Self::Other(text) => text,
                }
            }
        }

        impl From<&str> for $name {
            fn from(text: &str) -> Self {
                match text {
                    $($text => Self::$variant,)+
                    other => Self::Other(other.to_owned()),
                }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.pad(self.as_str())
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                to.serialize_str(self.as_str())
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                let text = <String as serde::Deserialize>::deserialize(from)?;
                Ok(Self::from(text.as_str()))
            }
        }

        impl utoipa::PartialSchema for $name {
            fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::schema::Schema> {
                use utoipa::openapi::schema::{ObjectBuilder, Type};
                let description = [$($description),+].map(str::trim).join("\n");
                let object = ObjectBuilder::new().schema_type(Type::String).description(Some(description));
                object.enum_values(Some([$($text),+])).into()
            }
        }

        impl utoipa::ToSchema for $name {}
    };
    (
        $(#[doc = $description:literal])+
        pub enum $name:ident from $domain:ty {
            $($(#[doc = $doc:literal])+ $variant:ident = $text:literal ($($value:tt)+),)+
        }
    ) => {
        crate::api::wire_enum! {
            $(#[doc = $description])+
            pub enum $name {
                $($(#[doc = $doc])+ $variant = $text,)+
            }
        }

        impl $name {
            /// Returns the value of the domain; `None` for a value that this version does not define.
            pub const fn known(&self) -> Option<$domain> {
                match self {
                    $(Self::$variant => Some($($value)+),)+
                    Self::Other(_) => None,
                }
            }
        }

        impl From<$domain> for $name {
            fn from(value: $domain) -> Self {
                match value {
                    $($($value)+ => Self::$variant,)+
                }
            }
        }
    };
}

pub(super) use wire_enum;

#[cfg(test)]
mod tests {
    use crate::api::{id, operation, plan, rollout, services, site, token};

    macro_rules! assert_texts {
        ($($name:ty),+ $(,)?) => {$(
            for value in <$name>::ALL {
                let text = value.as_str();
                assert_eq!(value.known().expect("a known value").as_str(), text, "{}", stringify!($name));
                assert_eq!(<$name>::from(text), *value);
                assert_eq!(serde_json::to_value(value).expect("JSON"), text);
            }
            let newer: $name = serde_json::from_str("\"newer\"").expect("a value of a newer version");
            assert_eq!((newer.as_str(), newer.known()), ("newer", None));
            assert_eq!(serde_json::to_string(&newer).expect("JSON"), "\"newer\"");
        )+};
    }

    #[test]
    fn texts_are_those_of_the_domain_and_unknown_texts_are_kept() {
        assert_texts![
            operation::OperationKind,
            operation::OperationStatus,
            operation::StepStatus,
            rollout::RolloutStatus,
            id::ServiceName,
            services::Verdict,
            site::SiteState,
            token::Role,
        ];
        for kind in rollout::RolloutKind::ALL {
            assert_eq!(rollout::RolloutKind::from(kind.known().expect("a known value")), *kind);
        }
        for change in plan::PlannedChange::ALL {
            assert_eq!(plan::PlannedChange::from(change.known().expect("a known value")), *change);
        }
    }
}
