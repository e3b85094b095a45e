//! Random trees and ignore files, made of a tape of bytes: what makes the bytes (a property test, a fuzzer, a seed) is what
//! shrinks and mutates the cases.

use super::{Node, Tree};

/// How much of the language the patterns use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Language {
    /// What is documented, and so known to the oracle.
    Documented,
    /// All that Moby makes something of, errors too.
    Moby,
}

/// A tape of choices. At its end, the first of everything is chosen.
pub(crate) struct Tape<'a>(pub(crate) &'a [u8]);

impl Tape<'_> {
    fn below(&mut self, count: usize) -> usize {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        usize::from(*first) % count
    }

    fn pick<'a, T: ?Sized>(&mut self, from: &[&'a T]) -> &'a T {
        from[self.below(from.len())]
    }

    /// True in one of so many cases.
    fn one_in(&mut self, count: usize) -> bool {
        self.below(count) == count - 1
    }
}

/// Names, the plain ones more often: every other choice is among the first ten.
const NAMES: &[&[u8]] = &[
    b"a",
    b"b",
    b"ab",
    b"c",
    b"x.py",
    b"abc",
    b"node_modules",
    b".env",
    b"y.py",
    b"A",
    b"a b",
    b"#c",
    b"!d",
    b"a-b",
    b"d+(1)$",
    b"[x]",
    b"*",
    b"?",
    b"a\\b",
    b" lead",
    b"trail ",
    b"a|b",
    b"aa",
    b"a{2}",
    b"^a",
    b"..a",
    b"\xc3\xa9",
    b"e\xcc\x81",
    b"\xe3\x81\x82",
    b"\xff",
    b"\xe9a",
    b"a\nb",
    b"a\rb",
    b"\xef\xbb\xbfx",
    b"~~&&",
    b"5",
    b"_",
];
const PLAIN: usize = 10;

fn name(tape: &mut Tape<'_>) -> &'static [u8] {
    if tape.below(3) < 2 { tape.pick(&NAMES[..PLAIN]) } else { tape.pick(NAMES) }
}

/// A tree of up to 24 paths and the directories on the way to them.
pub(crate) fn tree(tape: &mut Tape<'_>) -> Tree {
    let mut tree = Tree::new();
    for _ in 0..=tape.below(24) {
        let mut path: Vec<Vec<u8>> = Vec::new();
        // Most paths go on from one that is there already, so that directories have several entries.
        if !tree.is_empty() && tape.below(3) < 2 {
            let at = tape.below(tree.len());
            path.clone_from(tree.keys().nth(at).unwrap());
            path.truncate(1 + tape.below(4));
        }
        for _ in 0..=tape.below(3) {
            path.push(name(tape).to_vec());
        }
        path.truncate(6);
        let node = [Node::File, Node::File, Node::File, Node::Dir, Node::Link][tape.below(5)];
        let leaf_above = (1..path.len()).any(|length| tree.get(&path[..length]).is_some_and(|node| *node != Node::Dir));
        if leaf_above || tree.contains_key(&path) {
            continue;
        }
        for length in 1..path.len() {
            tree.insert(path[..length].to_vec(), Node::Dir);
        }
        tree.insert(path, node);
    }
    tree
}

/// An ignore file of up to eight lines for a tree.
pub(crate) fn ignore_file(tape: &mut Tape<'_>, tree: &Tree, language: Language) -> Vec<u8> {
    let mut file = Vec::new();
    if tape.one_in(16) {
        file.extend_from_slice("\u{feff}".as_bytes());
    }
    for _ in 0..=tape.below(8) {
        line(tape, tree, language, &mut file);
        file.extend_from_slice(tape.pick(&["\n", "\n", "\n", "\r\n"]).as_bytes());
    }
    if tape.one_in(8) {
        file.pop();
    }
    file
}

fn line(tape: &mut Tape<'_>, tree: &Tree, language: Language, file: &mut Vec<u8>) {
    if tape.one_in(16) {
        let odd: &[u8] = tape.pick(&[&b""[..], b"  ", b"# a", b"#", b" # a", b"\t#c", b".", b"/", b"./", b"\xc2\xa0"]);
        return file.extend_from_slice(odd);
    }
    if tape.one_in(8) {
        file.extend_from_slice(tape.pick(&[&b" "[..], b"\t ", b"\xe3\x80\x80"]));
    }
    if tape.below(5) < 2 {
        file.extend_from_slice(tape.pick(&["!", "!", "!", "! ", "!\t"]).as_bytes());
    }
    if tape.one_in(6) {
        file.extend_from_slice(tape.pick(&["/", "./", "//", "b/../", ".//"]).as_bytes());
    }
    pattern(tape, tree, language, file);
    if tape.one_in(6) {
        file.extend_from_slice(tape.pick(&["/", "/.", " ", "\t", "/x/..", " \r"]).as_bytes());
    }
}

/// A pattern: most of them are a path of the tree with some of its parts made into something else.
fn pattern(tape: &mut Tape<'_>, tree: &Tree, language: Language, file: &mut Vec<u8>) {
    let mut parts: Vec<Vec<u8>> = Vec::new();
    if !tree.is_empty() && tape.below(4) < 3 {
        let at = tape.below(tree.len());
        parts.clone_from(tree.keys().nth(at).unwrap());
        let from = if tape.one_in(4) { tape.below(parts.len()) } else { 0 };
        parts.drain(..from);
        parts.truncate(1 + tape.below(parts.len()));
    } else {
        for _ in 0..=tape.below(2) {
            parts.push(name(tape).to_vec());
        }
    }
    for part in &mut parts {
        *part = rewritten(tape, part, language);
    }
    if tape.one_in(5) {
        parts.insert(tape.below(parts.len() + 1), b"**".to_vec());
    }
    if language == Language::Moby && tape.one_in(12) {
        let odd = [
            "[",
            "\\",
            "]",
            "[a-",
            "{2}",
            "|",
            "^",
            "\\d",
            "[[:alpha:]]",
            "[b-a]",
            "..",
            "\\Q",
            "[]a]",
            "\\x41",
            "{,2}",
        ];
        parts.push(tape.pick(&odd).as_bytes().to_vec());
    }
    let glue = if tape.one_in(16) { &b""[..] } else { b"/" };
    file.extend_from_slice(&parts.join(glue));
}

/// A name as a part of a pattern.
fn rewritten(tape: &mut Tape<'_>, name: &[u8], language: Language) -> Vec<u8> {
    match tape.below(12) {
        0 => b"*".to_vec(),
        1 => b"**".to_vec(),
        // `**` within a name.
        2 => [b"**", &literal(&name[name.len() / 2..], language)[..]].concat(),
        3 => [&literal(&name[..name.len() / 2], language)[..], b"*"].concat(),
        4 => [b"*", &literal(&name[name.len() / 2..], language)[..]].concat(),
        5 => [b"?", &literal(&name[1..], language)[..]].concat(),
        6 => {
            let class = tape.pick(&["[a-c]", "[^a]", "[!a]", "[abx.]", "[^a-c]", "[\\]a\\-]", "[a\u{e9}]", "[#-.]"]);
            [class.as_bytes(), &literal(&name[1..], language)[..]].concat()
        }
        7 => name.iter().flat_map(|byte| escaped(*byte, true)).collect(),
        _ => literal(name, language),
    }
}

/// A name that means itself. Moby's language has it as it is, special characters and all.
fn literal(name: &[u8], language: Language) -> Vec<u8> {
    match language {
        Language::Moby => name.to_vec(),
        Language::Documented => name.iter().flat_map(|byte| escaped(*byte, false)).collect(),
    }
}

/// One byte of a name. Escaping everything is only done to punctuation, since a letter may get another meaning by it.
fn escaped(byte: u8, all: bool) -> Vec<u8> {
    match byte {
        b'*' | b'?' | b'[' | b']' | b'\\' => vec![b'\\', byte],
        // What an ignore file cannot say, what Go's regular expressions would take for something else, and the first byte
        // of a byte order mark: before a pattern that has wildcards, it is dropped.
        b'\n' | b'\r' | b'|' | b'{' | b'}' | b'^' | 0xef => b"?".to_vec(),
        _ if all && byte.is_ascii_punctuation() => vec![b'\\', byte],
        _ => vec![byte],
    }
}
