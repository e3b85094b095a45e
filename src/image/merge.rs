//! Putting an image into the list of a layout that has others.
//!
//! The list is changed as a JSON value: members that we do not know stay as they are.

use serde_json::{Map, Value, json};

use super::{IMAGE_NAME, INDEX_FILE, REF_NAME, invalid};
use crate::error::{Error, Result};
use crate::oci::{Descriptor, media};

/// The members of an `index.json`, or of a new one; what it lacks is filled in. Fails with `ImageInvalid`.
pub(super) fn read(what: &str, bytes: Option<&[u8]>) -> Result<Map<String, Value>> {
    let wrong = |reason: String| invalid(what, format!("`{INDEX_FILE}` {reason}"));
    // An empty file is no list, as for BuildKit.
    let value = match bytes {
        None | Some([]) => json!({}),
        Some(bytes) => serde_json::from_slice(bytes).map_err(|error| wrong(format!("is no JSON: {error}")))?,
    };
    let Value::Object(mut index) = value else { return Err(wrong("is no JSON object".into())) };
    let missing = |index: &Map<String, Value>, name: &str| index.get(name).is_none_or(Value::is_null);
    if missing(&index, "schemaVersion") {
        index.insert("schemaVersion".into(), json!(2));
    }
    if missing(&index, "mediaType") {
        index.insert("mediaType".into(), json!(media::OCI_INDEX));
    }
    if missing(&index, "manifests") {
        index.insert("manifests".into(), json!([]));
    }
    if !index["manifests"].is_array() {
        return Err(wrong("has no list of manifests".into()));
    }
    Ok(index)
}

/// Puts entries in. One that has the same names goes, as in BuildKit's `ociindex`; so does one that has only the same tag, as
/// skopeo writes it, and a nameless one of the same image.
pub(super) fn put(index: &mut Map<String, Value>, entries: &[Descriptor]) -> Result<()> {
    let manifests = index.get_mut("manifests").and_then(Value::as_array_mut);
    let manifests = manifests.ok_or_else(|| Error::internal("an index without a list"))?;
    for entry in entries {
        manifests.retain(|other| !is_replaced(other, entry));
        manifests.push(serde_json::to_value(entry).map_err(|error| Error::internal(error.to_string()))?);
    }
    Ok(())
}

fn is_replaced(other: &Value, entry: &Descriptor) -> bool {
    let theirs = |name: &str| other.get("annotations").and_then(|all| all.get(name)).and_then(Value::as_str);
    let ours = |name: &str| entry.annotations.get(name).map(String::as_str);
    if theirs(REF_NAME) != ours(REF_NAME) {
        return false;
    }
    match theirs(IMAGE_NAME) {
        Some(name) => ours(IMAGE_NAME) == Some(name),
        None if ours(REF_NAME).is_some() => true,
        None => other.get("digest").and_then(Value::as_str) == Some(&entry.digest.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(content: &str, names: &[(&str, &str)]) -> Descriptor {
        let mut entry = Descriptor::of(media::OCI_MANIFEST, content.as_bytes());
        entry.annotations.extend(names.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        entry
    }

    fn digests(index: &Map<String, Value>) -> Vec<String> {
        let manifests = index["manifests"].as_array().unwrap();
        manifests.iter().map(|entry| entry["digest"].as_str().unwrap().to_owned()).collect()
    }

    #[test]
    fn the_same_name_is_replaced_and_others_stay() {
        let a = |content| entry(content, &[(IMAGE_NAME, "docker.io/library/a:1"), (REF_NAME, "1")]);
        let b = entry("b", &[(IMAGE_NAME, "docker.io/library/b:1"), (REF_NAME, "1")]);
        let tag = entry("tag", &[(REF_NAME, "2")]);
        let nameless = entry("nameless", &[]);
        let mut index = read("x", None).unwrap();
        put(&mut index, &[a("old"), b.clone(), tag.clone(), nameless.clone()]).unwrap();
        put(&mut index, &[a("new")]).unwrap();
        let digest = |entry: &Descriptor| entry.digest.to_string();
        assert_eq!(digests(&index), [digest(&b), digest(&tag), digest(&nameless), digest(&a("new"))]);
        put(&mut index, &[nameless.clone(), entry("c", &[(IMAGE_NAME, "x/c:2"), (REF_NAME, "2")])]).unwrap();
        let c = entry("c", &[]);
        assert_eq!(digests(&index), [digest(&b), digest(&a("new")), digest(&nameless), digest(&c)]);
    }

    #[test]
    fn what_is_not_ours_stays() {
        let text =
            r#"{"schemaVersion":2,"annotations":{"a":"b"},"manifests":[{"digest":"sha512:1","data":"x"}],"z":[1]}"#;
        let mut index = read("x", Some(text.as_bytes())).unwrap();
        put(&mut index, &[entry("a", &[])]).unwrap();
        assert_eq!(index["annotations"], json!({"a": "b"}));
        assert_eq!(index["manifests"][0], json!({"digest": "sha512:1", "data": "x"}));
        assert_eq!(index["z"], json!([1]));
        for bad in ["[]", "{", r#"{"manifests": 1}"#] {
            assert_eq!(read("x", Some(bad.as_bytes())).unwrap_err().code(), "image-invalid", "{bad}");
        }
    }
}
