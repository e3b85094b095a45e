//! Random trees and ignore files, compared with what Moby's own code makes of them: recorded answers, and a live program.
//!
//! A case is a line: the ignore file, the answer, and the entries of the tree, all escaped as
//! `tests/corpus/ignore/README.md` says. A program that knows Moby's answers gets the lines without the answer on its
//! standard input, and writes one answer a line.

use std::fs::{self, File};
use std::io::{Read as _, Seek as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::context_ignore::unescape;
use crate::context_oracle::{found, make};
use crate::context_support::tempdir_in_memory;
use crate::oracle::random::{Language, Tape, ignore_file, tree};
use crate::oracle::{Node, Tree, patterns, walk};

const RECORDED: &[u8] = include_bytes!("../corpus/ignore/random.txt.zst");

/// One case.
struct Case {
    ignore: Vec<u8>,
    tree: Tree,
}

impl Case {
    /// Makes a random one.
    fn random(seed: u64) -> Self {
        let mut bytes = Vec::new();
        for block in 0..12_u64 {
            bytes.extend(hash(&[seed.to_be_bytes(), block.to_be_bytes()].concat()));
        }
        let mut tape = Tape(&bytes);
        let tree = tree(&mut tape);
        let language = if seed.is_multiple_of(2) { Language::Moby } else { Language::Documented };
        Self { ignore: ignore_file(&mut tape, &tree, language), tree }
    }

    fn read(ignore: &str, entries: &[&str]) -> Self {
        let mut tree = Tree::new();
        for entry in entries {
            let (name, node) = match entry.as_bytes().last() {
                Some(b'/') => (&entry[..entry.len() - 1], Node::Dir),
                Some(b'>') => (&entry[..entry.len() - 1], Node::Link),
                _ => (*entry, Node::File),
            };
            tree.insert(unescape(name).split(|byte| *byte == b'/').map(<[u8]>::to_vec).collect(), node);
        }
        Self { ignore: unescape(ignore), tree }
    }

    /// The case with an answer, if there is one.
    fn write(&self, answer: Option<&str>) -> String {
        let mut words = vec![escape(&self.ignore)];
        words.extend(answer.map(str::to_owned));
        for (path, node) in &self.tree {
            let kind = match node {
                Node::Dir => "/",
                Node::Link => ">",
                Node::File => "",
            };
            words.push(escape(&path.join(&b'/')) + kind);
        }
        words.join(" ")
    }

    /// What `cooper` says, as Moby's answer would say it.
    fn answer(&self) -> String {
        let (dir, scratch) = (tempdir_in_memory(), tempdir_in_memory());
        make(dir.path(), &self.tree);
        found(dir.path(), &self.ignore, &scratch.path().join("ignore"))
            .map_or_else(|| "error".to_owned(), |paths| self.number(&paths))
    }

    /// A set of paths as a hexadecimal number: bit *n* is entry *n*.
    fn number(&self, paths: &[Vec<u8>]) -> String {
        let bits: Vec<u8> = self.tree.keys().map(|path| u8::from(paths.contains(&path.join(&b'/')))).collect();
        let digits = bits.chunks(4).map(|four| four.iter().rev().fold(0, |digit, bit| digit * 2 + u32::from(*bit)));
        let text: String = digits.map(|digit| char::from_digit(digit, 16).unwrap()).collect();
        let text: String = text.chars().rev().collect();
        let text = text.trim_start_matches('0');
        if text.is_empty() { "0".to_owned() } else { text.to_owned() }
    }
}

fn hash(bytes: &[u8]) -> Vec<u8> {
    cooper::digest::Digest::of(bytes).as_bytes().to_vec()
}

fn escape(bytes: &[u8]) -> String {
    let escaped = |byte: &u8| match byte {
        b'\\' => "\\\\".to_owned(),
        b'\n' => "\\n".to_owned(),
        b'!'..=b'~' if *byte != b'>' => char::from(*byte).to_string(),
        _ => format!("\\x{byte:02x}"),
    };
    bytes.iter().map(escaped).collect()
}

/// Runs `check` for every number below `count`, on all processors.
fn on_all_processors(count: usize, check: impl Fn(usize) + Sync) {
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                let numbers = std::iter::repeat_with(|| next.fetch_add(1, Ordering::Relaxed));
                numbers.take_while(|number| *number < count).for_each(&check);
            });
        }
    });
}

/// Names of any bytes and of either case need a Linux file system.
#[cfg(target_os = "linux")]
#[test]
fn recorded_walks_of_random_trees_are_repeated() {
    let mut text = String::new();
    zstd::stream::read::Decoder::new(RECORDED).unwrap().read_to_string(&mut text).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    assert!(lines.len() >= 10_000, "{}", lines.len());
    on_all_processors(lines.len(), |index| {
        let words: Vec<&str> = lines[index].split(' ').collect();
        let case = Case::read(words[0], &words[2..]);
        assert_eq!(case.answer(), words[1], "{}", lines[index]);
    });
}

/// A folder of the corpus: a tree, an ignore file, and what is left of the tree, or `error`.
struct Folder {
    path: PathBuf,
    case: Case,
    entries: Vec<String>,
}

fn folders() -> Vec<Folder> {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus/ignore");
    let children = fs::read_dir(corpus).unwrap().map(|child| child.unwrap().path());
    let mut paths: Vec<PathBuf> = children.filter(|path| path.is_dir()).collect();
    paths.sort();
    let read = |path: PathBuf| {
        let tree = fs::read_to_string(path.join("tree")).unwrap();
        let entries: Vec<&str> = tree.lines().collect();
        let case = Case { ignore: fs::read(path.join("ignore")).unwrap(), ..Case::read("", &entries) };
        let written = case.write(None);
        let entries: Vec<String> = written.split(' ').skip(1).map(str::to_owned).collect();
        Folder { path, case, entries }
    };
    paths.into_iter().map(read).collect()
}

impl Folder {
    /// The tree, escaped and in order.
    fn tree(&self) -> String {
        self.entries.iter().flat_map(|entry| [entry, "\n"]).collect()
    }

    /// An answer as `expected` has it.
    fn expected(&self, answer: &str) -> String {
        if answer == "error" {
            return "error\n".to_owned();
        }
        let answer = u64::from_str_radix(answer, 16).unwrap();
        let kept = self.entries.iter().enumerate().filter(|(index, _)| answer >> index & 1 == 1);
        kept.flat_map(|(_, entry)| [entry, "\n"]).collect()
    }
}

#[cfg(target_os = "linux")]
#[test]
fn folders_of_the_corpus_have_what_is_expected() {
    let folders = folders();
    assert!(folders.len() > 50, "{}", folders.len());
    for folder in folders {
        let read = |name| fs::read_to_string(folder.path.join(name)).unwrap();
        assert_eq!(read("tree"), folder.tree(), "{}", folder.path.display());
        let expected = read("expected");
        assert_eq!(folder.expected(&folder.case.answer()), expected, "{}", folder.path.display());
    }
}

/// Asks the program that `COOPER_MOBY` names.
fn ask(cases: &[&Case]) -> Vec<String> {
    let program = std::env::var("COOPER_MOBY").expect("COOPER_MOBY names a program that answers");
    let mut questions = tempfile::tempfile().unwrap();
    for case in cases {
        writeln!(questions, "{}", case.write(None)).unwrap();
    }
    questions.rewind().unwrap();
    let output = Command::new(program).stdin(questions).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let answers: Vec<String> = String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect();
    assert_eq!(answers.len(), cases.len());
    answers
}

/// Writes the expectations of all folders, and their trees in order.
#[test]
#[ignore = "needs a program with Moby's code in it; see tests/corpus/ignore/README.md"]
fn record_folders() {
    let folders = folders();
    let cases: Vec<&Case> = folders.iter().map(|folder| &folder.case).collect();
    for (folder, answer) in folders.iter().zip(ask(&cases)) {
        fs::write(folder.path.join("tree"), folder.tree()).unwrap();
        fs::write(folder.path.join("expected"), folder.expected(&answer)).unwrap();
    }
}

/// Asks about random trees, and writes the cases to `COOPER_MOBY_RECORD`, if that is set.
#[test]
#[ignore = "needs a program with Moby's code in it; see tests/corpus/ignore/README.md"]
fn live_answers_to_random_trees_are_repeated() {
    let variable = |name: &str| std::env::var(name).ok();
    let number = |name: &str, default| variable(name).map_or(default, |text| text.parse().unwrap());
    let (count, seed): (u64, u64) = (number("COOPER_MOBY_CASES", 20_000), number("COOPER_MOBY_SEED", 0));
    let cases: Vec<Case> = (seed..seed + count).map(Case::random).collect();
    let answers = ask(&cases.iter().collect::<Vec<_>>());
    let different = AtomicUsize::new(0);
    on_all_processors(cases.len(), |index| {
        let (case, expected) = (&cases[index], &answers[index]);
        let mut answers = vec![("cooper", case.answer())];
        if let Ok(rules) = patterns(&case.ignore)
            && !(seed + index as u64).is_multiple_of(2)
        {
            answers.push(("the oracle", case.number(&walk(&rules, &case.tree))));
        }
        for (who, answer) in answers {
            if answer != *expected {
                different.fetch_add(1, Ordering::Relaxed);
                eprintln!("{who} says {answer}: {}", case.write(Some(expected)));
            }
        }
    });
    if let Some(path) = variable("COOPER_MOBY_RECORD") {
        let mut file = zstd::stream::Encoder::new(File::create(path).unwrap(), 19).unwrap();
        for (case, answer) in cases.iter().zip(&answers) {
            writeln!(file, "{}", case.write(Some(answer))).unwrap();
        }
        file.finish().unwrap();
    }
    let refused = answers.iter().filter(|answer| *answer == "error").count();
    eprintln!("{count} trees, {refused} ignore files refused by both, {different:?} differences");
    assert_eq!(different.into_inner(), 0);
}
