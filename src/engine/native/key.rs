//! Keys of the cache: digests over parts of which each is framed, so that no two lists of parts look the same.

use sha2::{Digest as _, Sha256};

use crate::digest::Digest;

/// Changes whenever the same key would stand for another result.
const VERSION: &str = "cooper step 1";

/// A key that is being made.
pub(super) struct Key(Sha256);

impl Key {
    /// The key of a kind of thing.
    pub(super) fn new(kind: &str) -> Self {
        Self(Sha256::new()).text(VERSION).text(kind)
    }

    /// Adds bytes.
    pub(super) fn bytes(mut self, bytes: &[u8]) -> Self {
        self.0.update((bytes.len() as u64).to_le_bytes());
        self.0.update(bytes);
        self
    }

    /// Adds a text.
    pub(super) fn text(self, text: &str) -> Self {
        self.bytes(text.as_bytes())
    }

    /// Adds a digest.
    pub(super) fn digest(self, digest: &Digest) -> Self {
        self.bytes(digest.as_bytes())
    }

    /// Adds whatever serde knows, by its JSON: names and order of fields count.
    pub(super) fn value(self, value: &impl serde::Serialize) -> Self {
        // Steps have nothing that JSON lacks; if they had, they would have no common key.
        let bytes = serde_json::to_vec(value).unwrap_or_default();
        self.bytes(&bytes)
    }

    /// The key.
    pub(super) fn finish(self) -> Digest {
        Digest::from_bytes(self.0.finalize().into())
    }
}

#[cfg(test)]
mod tests {
    use super::Key;

    #[test]
    fn parts_are_framed() {
        let key = |parts: &[&str]| parts.iter().fold(Key::new("x"), |key, part| key.text(part)).finish();
        let list = |parts: &[&str]| Key::new("x").value(&parts).finish();
        let all = [
            key(&[]),
            key(&[""]),
            key(&["ab"]),
            key(&["a", "b"]),
            key(&["", "ab"]),
            key(&["ab", ""]),
            list(&["ab"]),
            list(&["a", "b"]),
            Key::new("xa").text("b").finish(),
        ];
        for (number, one) in all.iter().enumerate() {
            assert!(all[number + 1..].iter().all(|other| other != one), "{number}");
        }
        assert_eq!(key(&["a", "b"]), key(&["a", "b"]));
    }
}
