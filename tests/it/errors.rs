//! Every error code can happen: each variant of `Error` is made somewhere outside of `src/error.rs` and the test code.

use std::fs;

use cooper::Error;

use crate::sources::{root, rust_files};

/// `StepFailed` of `step-failed`.
fn variant(code: &str) -> String {
    code.split('-').map(|word| word[..1].to_uppercase() + &word[1..]).collect()
}

#[test]
fn every_error_is_raised_somewhere() {
    let code: String = rust_files(&root())
        .iter()
        // The boundary makes a sample of every error for its own tests.
        .filter(|file| !file.ends_with("error.rs") && !file.ends_with("samples.rs"))
        .map(|file| fs::read_to_string(file).unwrap())
        .map(|text| text.split("#[cfg(test)]").next().unwrap_or_default().to_owned())
        .collect();
    let never: Vec<&&str> = Error::CODES
        .iter()
        .filter(|code_name| {
            let name = variant(code_name);
            let helper = **code_name == "internal" && code.contains("Error::internal(");
            !helper && !code.contains(&format!("Error::{name}"))
        })
        .collect();
    assert!(never.is_empty(), "these errors cannot happen: raise them or take them out: {never:?}");
    assert!(Error::CODES.len() > 30);
}
