//! Names that sound like secrets.

use std::sync::LazyLock;

use regex::Regex;

use super::{Linter, Rule};
use crate::dockerfile::source::Span;

static SECRET: LazyLock<Regex> =
    LazyLock::new(|| word("apikey|auth|credential|credentials|key|password|pword|passwd|secret|token"));
static NO_SECRET: LazyLock<Regex> = LazyLock::new(|| word("public|file|version"));

/// A name that has one of these words between underscores.
fn word(words: &str) -> Regex {
    Regex::new(&format!("(?i)(?:_|^)(?:{words})(?:_|$)")).expect("a constant pattern")
}

/// Tells of a variable that seems to hold a secret.
pub(in crate::dockerfile) fn check_secret(
    linter: &mut Linter,
    keyword: &str,
    name: &str,
    span: Span,
    comments: &[String],
) {
    if SECRET.is_match(name) && !NO_SECRET.is_match(name) {
        let message = format!("do not use ARG or ENV instructions for sensitive data ({keyword} \"{name}\")");
        linter.report(Rule::SecretsUsedInArgOrEnv, message, span, comments);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_judged_by_their_words() {
        for name in ["api_key", "DATABASE_PASSWORD", "GITHUB_TOKEN", "secret_MESSAGE", "AUTH"] {
            assert!(SECRET.is_match(name) && !NO_SECRET.is_match(name), "{name}");
        }
        for name in ["PUBLIC_KEY", "TOKEN_FILE", "KEYBOARD", "monkey", "AUTHOR", "KEY_VERSION"] {
            assert!(!SECRET.is_match(name) || NO_SECRET.is_match(name), "{name}");
        }
    }
}
