//! Where an image is, as `--build-context NAME=PLACE` names it.

use std::fmt;
use std::path::PathBuf;

use crate::digest::Digest;
use crate::error::{Error, Result};

/// An image in a file or a directory.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Place {
    /// What is there.
    pub scheme: Scheme,
    /// The file or the directory.
    pub path: PathBuf,
    /// Which of its images.
    pub selector: Selector,
}

/// What holds an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scheme {
    /// `oci-layout://`: a directory.
    OciLayout,
    /// `oci-archive://`: a tar archive of an OCI layout.
    OciArchive,
    /// `docker-archive://`: what `docker save` makes.
    DockerArchive,
}

/// Which image is meant where there may be several.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub enum Selector {
    /// The only one, or the one that is tagged `latest`.
    #[default]
    Any,
    /// The one of this name or tag.
    Name(String),
    /// The one of this digest: that of its manifest or index, or, in a Docker archive, that of its configuration as well.
    Digest(Digest),
}

impl Scheme {
    const ALL: [Self; 3] = [Self::OciLayout, Self::OciArchive, Self::DockerArchive];

    const fn prefix(self) -> &'static str {
        match self {
            Self::OciLayout => "oci-layout://",
            Self::OciArchive => "oci-archive://",
            Self::DockerArchive => "docker-archive://",
        }
    }

    /// Its name in messages.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::OciLayout => "OCI layout",
            Self::OciArchive => "OCI archive",
            Self::DockerArchive => "Docker archive",
        }
    }
}

impl Place {
    /// Reads `SCHEME://PATH[:NAME][@DIGEST]`; `None` where the text has no scheme of ours. As in `docker buildx`, the first
    /// colon ends the path, and a digest counts more than a name. Fails with `InvalidOption`.
    pub fn parse(text: &str) -> Result<Option<Self>> {
        let found = Scheme::ALL.into_iter().find_map(|scheme| Some((scheme, text.strip_prefix(scheme.prefix())?)));
        let Some((scheme, rest)) = found else { return Ok(None) };
        let invalid =
            |reason: &str| Error::InvalidOption { name: "build-context".into(), reason: format!("`{text}`: {reason}") };
        let (rest, digest) = match rest.rsplit_once("@sha256:") {
            Some((rest, digits)) => {
                let digest = format!("sha256:{digits}").parse();
                (rest, Some(digest.map_err(|_| invalid("after `@` stands no sha256 digest"))?))
            }
            None => (rest, None),
        };
        let (path, name) = rest.split_once(':').map_or((rest, None), |(path, name)| (path, Some(name)));
        if path.is_empty() {
            return Err(invalid("the path is missing"));
        }
        if name.is_some_and(str::is_empty) {
            return Err(invalid("after the colon stands no name"));
        }
        let selector = match (digest, name) {
            (Some(digest), _) => Selector::Digest(digest),
            (None, Some(name)) => Selector::Name(name.to_owned()),
            (None, None) => Selector::Any,
        };
        Ok(Some(Self { scheme, path: path.into(), selector }))
    }

    /// The file or the directory, in messages.
    pub(super) fn what(&self) -> String {
        format!("{} `{}`", self.scheme.name(), self.path.display())
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.scheme.prefix(), self.path.display())?;
        match &self.selector {
            Selector::Any => Ok(()),
            Selector::Name(name) => write!(f, ":{name}"),
            Selector::Digest(digest) => write!(f, "@{digest}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Place {
        Place::parse(text).unwrap().unwrap()
    }

    #[test]
    fn parts_are_found() {
        let digest = Digest::of(b"x");
        let both = format!("oci-layout://a:1@{digest}");
        let alone = format!("oci-layout:///b@home/a@{digest}");
        let name = |name: &str| Selector::Name(name.into());
        let cases = [
            ("oci-layout:///a/b", Scheme::OciLayout, "/a/b", Selector::Any),
            ("oci-layout://./b:v1", Scheme::OciLayout, "./b", name("v1")),
            (&both, Scheme::OciLayout, "a", Selector::Digest(digest)),
            (&alone, Scheme::OciLayout, "/b@home/a", Selector::Digest(digest)),
            ("oci-archive://a.tar", Scheme::OciArchive, "a.tar", Selector::Any),
            ("docker-archive://a.tar:r:5000/b:1", Scheme::DockerArchive, "a.tar", name("r:5000/b:1")),
        ];
        for (text, scheme, path, selector) in cases {
            assert_eq!(parsed(text), Place { scheme, path: path.into(), selector }, "{text}");
        }
        for text in ["oci-layout:///a/b:v1", "docker-archive://a.tar:r:5000/b:1", &alone] {
            assert_eq!(parsed(text).to_string(), text);
        }
    }

    #[test]
    fn other_texts_are_other_things() {
        for text in ["", "a", "/a", "docker-image://a", "https://a/b", "oci-layout:/a"] {
            assert_eq!(Place::parse(text).unwrap(), None, "{text}");
        }
        for text in ["oci-layout://", "oci-layout://:v1", "oci-layout://a:", "docker-archive://a@sha256:12"] {
            assert_eq!(Place::parse(text).unwrap_err().code(), "invalid-option", "{text}");
        }
    }
}
