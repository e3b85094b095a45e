//! Values that must not be seen.

use std::fmt;

use serde::{Deserialize, Deserializer};

/// A value that `Debug` and `Display` never show.
///
/// There is no `Serialize`: a secret cannot leave by way of an event, an outcome or an error.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Secret<T>(T);

impl<T> Secret<T> {
    /// Wraps a value.
    pub const fn new(value: T) -> Self {
        Self(value)
    }

    /// The value. Every call of this is a place to look at in a review.
    pub const fn expose(&self) -> &T {
        &self.0
    }
}

impl<T> fmt::Debug for Secret<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(***)")
    }
}

impl<T> fmt::Display for Secret<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Secret<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // The inner error could quote the value ("invalid type: string \"hunter2\""), so it is replaced.
        T::deserialize(deserializer).map(Self).map_err(|_| serde::de::Error::custom("a secret has the wrong type"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neither_format_shows_the_value() {
        let secret = Secret::new("hunter2");
        assert_eq!(format!("{secret:?} {secret}"), "Secret(***) ***");
        assert_eq!(*secret.expose(), "hunter2");
    }

    #[test]
    fn a_value_of_the_wrong_type_is_not_quoted() {
        let error = serde_json::from_str::<Secret<u32>>("\"hunter2\"").unwrap_err().to_string();
        assert!(!error.contains("hunter2"), "{error}");
    }
}
