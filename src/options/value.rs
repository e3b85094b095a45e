//! A value as a caller of Python or the command line wrote it, before it has a type.

use std::fmt;

use serde::de::value::{Error as ValueError, MapDeserializer, SeqDeserializer, StringDeserializer};
use serde::de::{
    DeserializeSeed, Deserializer, EnumAccess, Error as _, IntoDeserializer, MapAccess, SeqAccess, VariantAccess,
    Visitor,
};
use serde::{Deserialize, forward_to_deserialize_any};

/// Anything that Python's `None`, `bool`, `int`, `float`, `str`, `bytes`, sequences and mappings can hold.
///
/// `Debug` shows the kind only: a build argument may be a secret.
#[derive(Clone, PartialEq)]
#[allow(missing_docs, reason = "named for what they hold")]
pub enum Value {
    Null,
    Bool(bool),
    Int(i128),
    Float(f64),
    Text(String),
    Bytes(Vec<u8>),
    List(Vec<Self>),
    /// In the order in which it was written.
    Map(Vec<(String, Self)>),
}

impl Value {
    /// What a message calls a value of this kind.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Null => "None",
            Self::Bool(_) => "a boolean",
            Self::Int(_) => "an integer",
            Self::Float(_) => "a number with a fraction",
            Self::Text(_) => "text",
            Self::Bytes(_) => "bytes",
            Self::List(_) => "a list",
            Self::Map(_) => "a mapping",
        }
    }

    /// Takes the value of `key` out of a mapping.
    pub fn take(&mut self, key: &str) -> Option<Self> {
        let Self::Map(pairs) = self else { return None };
        let index = pairs.iter().position(|(name, _)| name == key)?;
        Some(pairs.remove(index).1)
    }

    /// The value of `key` in a mapping.
    pub fn get(&self, key: &str) -> Option<&Self> {
        let Self::Map(pairs) = self else { return None };
        pairs.iter().find(|(name, _)| name == key).map(|(_, value)| value)
    }
}

impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.kind())
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(AnyVisitor)
    }
}

struct AnyVisitor;

impl<'de> Visitor<'de> for AnyVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("None, a boolean, a number, text, bytes, a list or a mapping")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Int(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Int(value.into()))
    }

    fn visit_i128<E>(self, value: i128) -> Result<Value, E> {
        Ok(Value::Int(value))
    }

    fn visit_u128<E: serde::de::Error>(self, value: u128) -> Result<Value, E> {
        i128::try_from(value).map(Value::Int).map_err(|_| E::custom("the integer is too large"))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Value::Float(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::Text(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::Text(value))
    }

    fn visit_bytes<E>(self, value: &[u8]) -> Result<Value, E> {
        Ok(Value::Bytes(value.to_vec()))
    }

    fn visit_byte_buf<E>(self, value: Vec<u8>) -> Result<Value, E> {
        Ok(Value::Bytes(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<Value, A::Error> {
        let mut items = Vec::with_capacity(sequence.size_hint().unwrap_or(0).min(1024));
        while let Some(item) = sequence.next_element()? {
            items.push(item);
        }
        Ok(Value::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut pairs: Vec<(String, Value)> = Vec::new();
        while let Some(key) = map.next_key::<Value>()? {
            let Value::Text(key) = key else {
                return Err(A::Error::custom(format_args!("a key is {}, not text", key.kind())));
            };
            let value = map.next_value()?;
            pairs.push((key, value));
        }
        Ok(Value::Map(pairs))
    }
}

/// Typed data out of a value; as strict as JSON, except that bytes may be given as text.
impl<'de> Deserializer<'de> for Value {
    type Error = ValueError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ValueError> {
        match self {
            Self::Null => visitor.visit_unit(),
            Self::Bool(value) => visitor.visit_bool(value),
            Self::Int(value) => match (u64::try_from(value), i64::try_from(value)) {
                (Ok(value), _) => visitor.visit_u64(value),
                (_, Ok(value)) => visitor.visit_i64(value),
                _ => visitor.visit_i128(value),
            },
            Self::Float(value) => visitor.visit_f64(value),
            Self::Text(value) => visitor.visit_string(value),
            Self::Bytes(value) => visitor.visit_byte_buf(value),
            Self::List(items) => {
                let mut sequence = SeqDeserializer::new(items.into_iter());
                let result = visitor.visit_seq(&mut sequence)?;
                sequence.end()?;
                Ok(result)
            }
            Self::Map(pairs) => {
                let mut map = MapDeserializer::new(pairs.into_iter());
                let result = visitor.visit_map(&mut map)?;
                map.end()?;
                Ok(result)
            }
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ValueError> {
        if self == Self::Null { visitor.visit_none() } else { visitor.visit_some(self) }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, ValueError> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, ValueError> {
        match self {
            Self::Text(name) => visitor.visit_enum(name.into_deserializer()),
            Self::Map(mut pairs) if pairs.len() == 1 => visitor.visit_enum(Variant(pairs.remove(0))),
            other => Err(ValueError::custom(format_args!("{} names no variant", other.kind()))),
        }
    }

    // Serde would also take a list, with the fields in the order of their declaration.
    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, ValueError> {
        match self {
            Self::Map(_) => self.deserialize_any(visitor),
            other => Err(ValueError::custom(format_args!("it is {}; a mapping is wanted", other.kind()))),
        }
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct seq tuple
        tuple_struct map identifier ignored_any
    }
}

impl IntoDeserializer<'_> for Value {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}

/// `{"name": content}` of an enum.
struct Variant((String, Value));

impl<'de> EnumAccess<'de> for Variant {
    type Error = ValueError;
    type Variant = Value;

    fn variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<(S::Value, Value), ValueError> {
        let (name, content) = self.0;
        let name: StringDeserializer<ValueError> = name.into_deserializer();
        Ok((seed.deserialize(name)?, content))
    }
}

impl<'de> VariantAccess<'de> for Value {
    type Error = ValueError;

    fn unit_variant(self) -> Result<(), ValueError> {
        Err(ValueError::custom("this variant has no content"))
    }

    fn newtype_variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<S::Value, ValueError> {
        seed.deserialize(self)
    }

    fn tuple_variant<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value, ValueError> {
        self.deserialize_any(visitor)
    }

    fn struct_variant<V: Visitor<'de>>(self, _: &'static [&'static str], visitor: V) -> Result<V::Value, ValueError> {
        self.deserialize_any(visitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::{BuildRequest, DockerfileSpec, SecretSource, SecretSpec};

    fn text(value: &str) -> Value {
        Value::Text(value.into())
    }

    fn map<const N: usize>(pairs: [(&str, Value); N]) -> Value {
        Value::Map(pairs.into_iter().map(|(key, value)| (key.to_owned(), value)).collect())
    }

    fn file(content: Value) -> Value {
        let file = map([("path", text("a")), ("content", content), ("mode", Value::Int(0o755))]);
        map([("context", map([("extra_files", Value::List(vec![file]))]))])
    }

    #[test]
    fn content_may_be_bytes_or_text() {
        for content in [Value::Bytes(vec![b'h', b'i']), text("hi")] {
            let request = BuildRequest::deserialize(file(content)).unwrap();
            assert_eq!(&request.context.extra_files[0].content[..], b"hi");
            assert_eq!(request.context.extra_files[0].mode, 0o755);
        }
        assert!(BuildRequest::deserialize(file(Value::Int(1))).is_err());
    }

    #[test]
    fn a_list_is_no_mapping() {
        let error = BuildRequest::deserialize(map([("context", Value::List(vec![]))])).unwrap_err();
        assert!(error.to_string().contains("mapping"), "{error}");
    }

    #[test]
    fn enums_and_options_are_read() {
        let request = BuildRequest::deserialize(map([
            ("context", map([("root", Value::Null)])),
            ("dockerfile", map([("in_context", text("x/Dockerfile"))])),
            ("engine", map([("kind", text("docker"))])),
        ]))
        .unwrap();
        assert!(matches!(request.dockerfile, DockerfileSpec::InContext(path) if path == "x/Dockerfile"));
        assert_eq!(request.context.root, None);
    }

    #[test]
    fn a_truthy_text_is_no_boolean() {
        let error = BuildRequest::deserialize(map([("context", map([])), ("push", text("false"))])).unwrap_err();
        assert!(error.to_string().contains("boolean"), "{error}");
    }

    #[test]
    fn a_secret_may_be_text_or_bytes_and_is_not_shown() {
        for value in [Value::Bytes(b"hunter2".to_vec()), text("hunter2")] {
            let spec = map([("id", text("a")), ("source", map([("value", value.clone())]))]);
            let spec = SecretSpec::deserialize(spec).unwrap();
            let SecretSource::Value(secret) = &spec.source else { panic!("{spec:?}") };
            assert_eq!(secret.expose().as_slice(), b"hunter2");
            assert!(!format!("{value:?} {spec:?}").contains("hunter2"));
        }
    }
}
