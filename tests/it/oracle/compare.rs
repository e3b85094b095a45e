//! The matcher and the rules, side by side on one tape: for a property test and for a fuzzer.

use cooper::context::ignore::{MatchInfo, Matcher};

use super::random::{Language, Tape, ignore_file, tree};
use super::{excluded, excluded_by_itself, patterns};

/// What a walk to a path says of it.
fn excluded_on_the_way(matcher: &Matcher, path: &[Vec<u8>]) -> bool {
    let mut info: Option<MatchInfo> = None;
    let mut excluded = false;
    for length in 1..=path.len() {
        let found = matcher.matches(&path[..length].join(&b'/'), info.as_ref()).unwrap();
        (excluded, info) = (found.matched, Some(found.info));
    }
    excluded
}

/// Panics where the matcher says something else than the rules, of any path of the tree that the tape stands for.
pub(crate) fn matcher(tape: &[u8]) {
    let mut tape = Tape(tape);
    let tree = tree(&mut tape);
    let ignore = ignore_file(&mut tape, &tree, Language::Documented);
    let Ok(rules) = patterns(&ignore) else {
        assert!(Matcher::parse("", &ignore).is_err(), "{}", ignore.escape_ascii());
        return;
    };
    let matcher = Matcher::parse("", &ignore).unwrap();
    let texts = rules.iter().map(|rule| [if rule.exception { &b"!"[..] } else { b"" }, &rule.text].concat());
    assert!(texts.eq(matcher.patterns().map(|(text, _)| text)), "{}", ignore.escape_ascii());
    for path in tree.keys() {
        let joined = path.join(&b'/');
        let told = || format!("{} and {}", ignore.escape_ascii(), joined.escape_ascii());
        assert_eq!(excluded_on_the_way(&matcher, path), excluded(&rules, path), "{}", told());
        assert_eq!(matcher.matches_or_parent(&joined).unwrap(), excluded_by_itself(&rules, path), "{}", told());
    }
}
