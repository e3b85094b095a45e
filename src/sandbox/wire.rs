//! Values of a job that JSON has no form for: paths that are not UTF-8, and contents of files.

/// A path as a string, or as numbers where it is none.
pub(super) mod path {
    use std::ffi::OsString;
    use std::os::unix::ffi::{OsStrExt, OsStringExt};
    use std::path::{Path, PathBuf};

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    #[derive(Deserialize)]
    #[serde(untagged)]
    pub(super) enum Form {
        Text(String),
        Bytes(Vec<u8>),
    }

    impl From<Form> for PathBuf {
        fn from(form: Form) -> Self {
            match form {
                Form::Text(text) => text.into(),
                Form::Bytes(bytes) => OsString::from_vec(bytes).into(),
            }
        }
    }

    pub(in super::super) fn serialize<S: Serializer>(path: &Path, to: S) -> Result<S::Ok, S::Error> {
        match path.to_str() {
            Some(text) => to.serialize_str(text),
            None => path.as_os_str().as_bytes().serialize(to),
        }
    }

    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<PathBuf, D::Error> {
        Form::deserialize(from).map(PathBuf::from)
    }
}

/// A path that may not be there.
pub(super) mod optional_path {
    use std::path::PathBuf;

    use serde::{Deserialize, Deserializer, Serializer};

    #[allow(clippy::ref_option, reason = "serde calls it so")]
    pub(in super::super) fn serialize<S: Serializer>(path: &Option<PathBuf>, to: S) -> Result<S::Ok, S::Error> {
        match path {
            Some(path) => super::path::serialize(path, to),
            None => to.serialize_none(),
        }
    }

    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<PathBuf>, D::Error> {
        Ok(Option::<super::path::Form>::deserialize(from)?.map(PathBuf::from))
    }
}

/// A list of paths.
pub(super) mod paths {
    use std::path::{Path, PathBuf};

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    struct One<'a>(&'a Path);

    impl Serialize for One<'_> {
        fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
            super::path::serialize(self.0, to)
        }
    }

    pub(in super::super) fn serialize<S: Serializer>(paths: &[PathBuf], to: S) -> Result<S::Ok, S::Error> {
        to.collect_seq(paths.iter().map(|path| One(path)))
    }

    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<PathBuf>, D::Error> {
        let forms = Vec::<super::path::Form>::deserialize(from)?;
        Ok(forms.into_iter().map(PathBuf::from).collect())
    }
}

/// Contents in base64.
pub(super) mod content {
    use base64::Engine as _;
    use base64::prelude::BASE64_STANDARD;
    use serde::de::Error as _;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(in super::super) fn serialize<S: Serializer>(content: &[u8], to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&BASE64_STANDARD.encode(content))
    }

    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<u8>, D::Error> {
        BASE64_STANDARD.decode(String::deserialize(from)?).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;
    use std::os::unix::ffi::OsStringExt;
    use std::path::PathBuf;

    use super::super::{Mount, Root};

    #[test]
    fn any_path_and_any_content_arrive() {
        let odd = PathBuf::from(OsString::from_vec(b"/a\xff:b,\n".to_vec()));
        let root = Root::Overlay { lowers: vec!["/l".into(), odd.clone()], upper: odd.clone(), work: "/w".into() };
        let text = serde_json::to_string(&root).unwrap();
        assert_eq!(serde_json::from_str::<Root>(&text).unwrap(), root);
        let root = Root::Directory(odd);
        assert_eq!(serde_json::from_str::<Root>(&serde_json::to_string(&root).unwrap()).unwrap(), root);
        let file =
            Mount::File { content: vec![0, 255, b'"'], target: "/run/secrets/x".into(), mode: 0o400, uid: 0, gid: 0 };
        assert_eq!(serde_json::from_str::<Mount>(&serde_json::to_string(&file).unwrap()).unwrap(), file);
    }
}
