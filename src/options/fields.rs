//! Values that are a line of fields: `type=registry,ref=a/b`, `id=token,src=FILE`.

use super::read::invalid;
use crate::error::Result;

/// One field: `key=value`, or a value alone. The key is in lower case.
pub(super) struct Field {
    pub(super) key: Option<String>,
    pub(super) value: String,
}

/// The fields of one line of CSV, as the Docker CLI reads it; quotes hold commas together. Fails with `InvalidOption` where a
/// quotation mark is not closed. No error quotes the text.
pub(super) fn fields(option: &str, text: &str) -> Result<Vec<Field>> {
    let mut fields = vec![String::new()];
    let mut quoted = false;
    for c in text.chars() {
        match c {
            '"' => quoted = !quoted,
            ',' if !quoted => fields.push(String::new()),
            c => fields.last_mut().expect("never empty").push(c),
        }
    }
    if quoted {
        return invalid(option, "a quotation mark is not closed");
    }
    let split = |field: String| match field.split_once('=') {
        Some((key, value)) => Field { key: Some(key.trim().to_ascii_lowercase()), value: value.to_owned() },
        None => Field { key: None, value: field },
    };
    Ok(fields.into_iter().map(split).collect())
}
