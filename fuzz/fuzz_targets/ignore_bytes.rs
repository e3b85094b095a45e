//! Any bytes as an ignore file, any bytes as a path: an answer or an error, and the two ways to ask agree where they must.

#![no_main]

use cooper::context::ignore::Matcher;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|given: (&[u8], &[u8])| {
    let (file, path) = given;
    let Ok(matcher) = Matcher::parse(".dockerignore", file) else { return };
    let alone = matcher.matches(path, None);
    let with_parents = matcher.matches_or_parent(path);
    // A path without a directory has no parents to differ by; a malformed pattern shows in both or later.
    if !path.contains(&b'/')
        && let (Ok(alone), Ok(with_parents)) = (alone, with_parents)
    {
        assert_eq!(alone.matched, with_parents);
        assert_eq!(alone.matched, alone.by.is_some());
    }
    let _ = matcher.may_skip(path);
});
