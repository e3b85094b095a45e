//! What registries say when they refuse (distribution spec, "Error Codes").

use serde::Deserialize;
use serde_json::Value;

/// Error bodies are a few hundred bytes; what is longer is a page for a browser.
pub(super) const MAX_BODY: usize = 64 << 10;
/// How much of it is shown.
const MAX_SHOWN: usize = 500;

#[derive(Deserialize)]
struct Errors {
    errors: Vec<Entry>,
}

#[derive(Deserialize)]
struct Entry {
    #[serde(default)]
    code: Value,
    #[serde(default)]
    message: Value,
    #[serde(default)]
    detail: Value,
}

/// The body of a refusal as one short line; empty if it says nothing to people.
pub(super) fn words(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(body);
    let said = match serde_json::from_slice::<Errors>(body) {
        Ok(Errors { errors }) => errors.iter().map(line).filter(|line| !line.is_empty()).collect::<Vec<_>>().join("; "),
        Err(_) if text.trim_start().starts_with('<') => String::new(),
        Err(_) => text.into_owned(),
    };
    shown(&said)
}

/// Whether a refusal of a manifest says that the registry lacks something that the manifest names.
pub(super) fn lacks_blob(body: &[u8]) -> bool {
    let lacks = |entry: &Entry| matches!(entry.code.as_str(), Some("MANIFEST_BLOB_UNKNOWN" | "BLOB_UNKNOWN"));
    serde_json::from_slice::<Errors>(body).is_ok_and(|said| said.errors.iter().any(lacks))
}

fn line(entry: &Entry) -> String {
    let code = entry.code.as_str().unwrap_or_default();
    let message = entry.message.as_str().unwrap_or_default();
    let detail = match &entry.detail {
        // Details may be structures: a digest, the classes of an access. Only a sentence is of use to people.
        Value::String(detail) if detail != message => detail.as_str(),
        _ => "",
    };
    [code, message, detail].into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(": ")
}

/// Without control characters, which a terminal would obey, and not too long.
pub(super) fn shown(text: &str) -> String {
    let plain: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let plain = plain.split_whitespace().collect::<Vec<_>>().join(" ");
    match plain.char_indices().nth(MAX_SHOWN) {
        Some((end, _)) => format!("{}...", &plain[..end]),
        None => plain,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_registries() {
        let body =
            br#"{"errors":[{"code":"DENIED","message":"no \u001b[31mway","detail":null},{"code":"X","detail":"why"}]}"#;
        assert_eq!(words(body), "DENIED: no [31mway; X: why");
        assert_eq!(words(b"<html>502</html>"), "");
        assert_eq!(words(b"upstream\n failed\x07"), "upstream failed");
        assert_eq!(words(&[b'x'; 2000]).len(), MAX_SHOWN + 3);
        assert_eq!(words(br#"{"errors":[{"code":1}]}"#), "");
    }

    #[test]
    fn a_blob_that_is_lacking_is_one_of_many_reasons() {
        assert!(lacks_blob(br#"{"errors":[{"code":"DIGEST_INVALID"},{"code":"MANIFEST_BLOB_UNKNOWN","detail":"x"}]}"#));
        assert!(!lacks_blob(br#"{"errors":[{"code":"MANIFEST_INVALID"}]}"#));
        assert!(!lacks_blob(b"MANIFEST_BLOB_UNKNOWN"));
    }
}
