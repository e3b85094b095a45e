//! What is attached to an image: annotations, attestations; and what a build may do for it.

use std::collections::{BTreeMap, BTreeSet};

use super::fields::{Field, fields};
use super::read::{Given, invalid};
use crate::error::Result;

/// What an annotation may be written to (docs.docker.com, "Annotations").
const PLACES: &[&str] = &["manifest", "index", "manifest-descriptor", "index-descriptor"];
/// The attestations that BuildKit makes.
const ATTESTATIONS: &[&str] = &["provenance", "sbom"];
/// What a build may be allowed (`docker buildx build --allow`).
const ENTITLEMENTS: &[&str] = &["network.host", "security.insecure", "device"];

impl Given {
    /// `KEY=VALUE`, `manifest,index:KEY=VALUE`, `manifest[linux/amd64]:KEY=VALUE`, as the attributes of BuildKit's exporters.
    pub(super) fn annotations(self) -> Result<BTreeMap<String, String>> {
        let name = self.name.clone();
        let mut attributes = BTreeMap::new();
        for (text, value) in self.named_texts()? {
            let (places, key) = match text.split_once(':') {
                Some((places, key)) if is_place(places) => (places, key),
                _ => ("manifest", text.as_str()),
            };
            if key.is_empty() {
                return invalid(&name, "an annotation has no key; write it as `KEY=VALUE`");
            }
            for place in places.split(',') {
                attributes.insert(format!("annotation-{place}.{key}"), value.clone());
            }
        }
        Ok(attributes)
    }

    /// `type=provenance,mode=max`, one or several.
    pub(super) fn attestations(self) -> Result<BTreeMap<String, Option<String>>> {
        let name = self.name.clone();
        let mut found = BTreeMap::new();
        for text in self.texts()? {
            let (mut kind, mut enabled, mut rest) = (None, true, Vec::new());
            for Field { key, value } in fields(&name, &text)? {
                match key.as_deref() {
                    Some("type") => kind = Some(value),
                    Some("disabled") => enabled = value == "false",
                    Some(key) => rest.push(format!("{key}={value}")),
                    None => return invalid(&name, "write it as `type=provenance,mode=max`"),
                }
            }
            let known = kind.filter(|kind| ATTESTATIONS.contains(&kind.as_str()));
            let Some(kind) = known else {
                return invalid(&name, format!("`type=` is one of {}", ATTESTATIONS.join(", ")));
            };
            if found.insert(kind, enabled.then(|| rest.join(","))).is_some() {
                return invalid(&name, "a type is given twice");
            }
        }
        Ok(found)
    }

    /// `true`, `false`, or the parameters of the attestation: `mode=max`.
    pub(super) fn attestation(self, kind: &str) -> Result<BTreeMap<String, Option<String>>> {
        let name = self.name.clone();
        let text = Self { name: name.clone(), value: self.value.clone() }.flag();
        let parameters = match text {
            Ok(true) => Some(String::new()),
            Ok(false) => None,
            Err(_) => match self.text()? {
                text if text.contains('=') => Some(text),
                _ => return invalid(&name, "it is true, false, or parameters such as `mode=max`"),
            },
        };
        Ok(BTreeMap::from([(kind.to_owned(), parameters)]))
    }

    /// Names of rights.
    pub(super) fn entitlements(self) -> Result<BTreeSet<String>> {
        let name = self.name.clone();
        let rights: BTreeSet<String> = self.names()?.into_iter().collect();
        let known = |right: &str| ENTITLEMENTS.contains(&right.split_once('=').map_or(right, |(right, _)| right));
        match rights.iter().find(|right| !known(right)) {
            Some(right) => {
                invalid(&name, format!("there is no right `{right}`; there are {}", ENTITLEMENTS.join(", ")))
            }
            None => Ok(rights),
        }
    }
}

/// `manifest,index[linux/arm64]`, and not a part of a key that has a colon in it.
fn is_place(text: &str) -> bool {
    text.split(',').all(|place| {
        let place = place.split_once('[').map_or(place, |(place, _)| place);
        PLACES.contains(&place)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::{Value, normalize};

    fn options(json: &str) -> Result<crate::request::BuildOptions> {
        normalize(serde_json::from_str::<Value>(json).unwrap())
    }

    #[test]
    fn annotations_become_attributes_of_exporters() {
        let read = |json: &str| options(json).unwrap().annotations;
        let expected = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
            pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
        };
        assert_eq!(read(r#"{"annotation": "a=b=c"}"#), expected(&[("annotation-manifest.a", "b=c")]));
        assert_eq!(
            read(r#"{"annotations": {"index,manifest[linux/arm64]:org.a:b": "x"}}"#),
            expected(&[("annotation-index.org.a:b", "x"), ("annotation-manifest[linux/arm64].org.a:b", "x")])
        );
        assert_eq!(read(r#"{"annotation": ["org:b=x"]}"#), expected(&[("annotation-manifest.org:b", "x")]));
        assert_eq!(options(r#"{"annotation": "index:=x"}"#).unwrap_err().code(), "invalid-option");
    }

    #[test]
    fn attestations_are_made_only_where_asked_for() {
        let read = |json: &str| options(json).unwrap().attestations.into_iter().collect::<Vec<_>>();
        let pair = |kind: &str, parameters: &str| (kind.to_owned(), parameters.to_owned());
        assert_eq!(read(r#"{"provenance": false, "sbom": "false"}"#), []);
        assert_eq!(read(r#"{"provenance": true}"#), [pair("provenance", "")]);
        assert_eq!(
            read(r#"{"provenance": "mode=max", "attest": "type=sbom,generator=a/b"}"#),
            [pair("provenance", "mode=max"), pair("sbom", "generator=a/b")]
        );
        assert_eq!(read(r#"{"attest": ["type=provenance,disabled=true"]}"#), []);
        for json in [r#"{"provenance": "max"}"#, r#"{"attest": "type=x"}"#, r#"{"attest": "provenance"}"#] {
            assert_eq!(options(json).unwrap_err().code(), "invalid-option", "{json}");
        }
    }

    #[test]
    fn rights_have_names() {
        let rights = options(r#"{"allow": "network.host,device=vendor.com/x"}"#).unwrap().entitlements;
        assert_eq!(rights.into_iter().collect::<Vec<_>>(), ["device=vendor.com/x", "network.host"]);
        assert!(options(r#"{"allow": "root"}"#).is_err());
    }
}
