//! Dockerfiles: recorded answers of BuildKit (see `tests/corpus/dockerfile/README.md`), errors, and properties.

use std::{env, fs};

use cooper::Error;
use cooper::dockerfile::instruction::{Command, Healthcheck, Instruction, Kind, Pairs, Transfer};
use cooper::dockerfile::{Dockerfile, Heredoc, Inputs, check};
use proptest::prelude::*;
use serde::Deserialize;

const FILES: &str = include_str!("../corpus/dockerfile/files.jsonl");

/// What BuildKit makes of a file.
#[derive(Debug, Deserialize)]
struct Recorded {
    file: String,
    error: Option<String>,
    lines: Option<(usize, usize)>,
    nodes: Option<Vec<Node>>,
    #[serde(default)]
    warns: Vec<(String, usize)>,
    #[serde(default)]
    empties: Vec<usize>,
}

/// A logical line.
#[derive(Debug, PartialEq, Deserialize)]
struct Node {
    key: String,
    lines: (usize, usize),
    args: Vec<String>,
    docs: Vec<(String, u32, bool, bool, String)>,
    comments: Vec<String>,
    text: String,
}

/// What we make of it, in the same form. `None` are arguments that are not kept as written.
fn node(instruction: &Instruction) -> (Node, bool) {
    let docs = match &instruction.kind {
        Kind::Run(run) => run.heredocs.iter().map(document).collect(),
        Kind::Copy(transfer) | Kind::Add(transfer) => transfer.inline.iter().map(document).collect(),
        _ => Vec::new(),
    };
    let args = arguments(&instruction.kind);
    let complete = args.is_some();
    let node = Node {
        key: instruction.keyword.clone(),
        lines: (instruction.span.line, instruction.span.end_line),
        args: args.unwrap_or_default(),
        docs,
        comments: instruction.comments.clone(),
        text: instruction.text.clone(),
    };
    (node, complete)
}

fn document(found: &Heredoc) -> (String, u32, bool, bool, String) {
    (found.name.clone(), found.descriptor, found.expand, found.strip_tabs, found.content.clone())
}

fn arguments(kind: &Kind) -> Option<Vec<String>> {
    Some(match kind {
        Kind::Add(transfer) | Kind::Copy(transfer) => {
            let Transfer { sources, inline, destination, .. } = transfer;
            if !inline.is_empty() {
                return None;
            }
            sources.iter().chain([destination]).cloned().collect()
        }
        Kind::Arg(arguments) => arguments
            .iter()
            .map(|argument| match &argument.default {
                Some(default) => format!("{}={default}", argument.name),
                None => argument.name.clone(),
            })
            .collect(),
        Kind::Cmd(command)
        | Kind::Entrypoint(command)
        | Kind::Healthcheck(Healthcheck { command: Some(command), .. }) => command_words(command),
        Kind::Run(run) => command_words(&run.command),
        Kind::Env(Pairs { pairs, legacy }) | Kind::Label(Pairs { pairs, legacy }) => {
            let separator = if *legacy { "" } else { "=" };
            pairs.iter().flat_map(|(name, value)| [name.clone(), value.clone(), separator.to_owned()]).collect()
        }
        Kind::From(from) => {
            let mut words = vec![from.base.clone()];
            words.extend(from.alias.iter().flat_map(|(keyword, name)| [keyword.clone(), name.clone()]));
            words
        }
        Kind::Maintainer(text) | Kind::Stopsignal(text) | Kind::User(text) | Kind::Workdir(text) => vec![text.clone()],
        Kind::Shell(words) => words.clone(),
        Kind::Healthcheck(_) | Kind::Onbuild(_) | Kind::Expose(_) | Kind::Volume(_) => return None,
    })
}

fn command_words(command: &Command) -> Vec<String> {
    match command {
        Command::Exec(words) => words.clone(),
        Command::Shell(text) if text.is_empty() => Vec::new(),
        Command::Shell(text) => vec![text.clone()],
    }
}

/// Compares all that is kept as written.
fn same(instruction: &Instruction, recorded: &Node, context: &str) {
    let (found, complete) = node(instruction);
    assert_eq!((&found.key, found.lines, &found.text), (&recorded.key, recorded.lines, &recorded.text), "{context}");
    assert_eq!(found.comments, recorded.comments, "{context}");
    if complete {
        let skipped = usize::from(matches!(instruction.kind, Kind::Healthcheck(_)));
        assert_eq!(found.args, recorded.args[skipped..], "{context}");
    }
    let has_documents = matches!(instruction.kind, Kind::Run(_) | Kind::Copy(_) | Kind::Add(_));
    // COPY finds its files by name: the last one of a name, and an empty one where a name has no here-document.
    let mut names: Vec<&String> = recorded.docs.iter().map(|document| &document.0).collect();
    names.sort();
    names.dedup();
    let by_number = found.docs.len() == recorded.docs.len() && names.len() == recorded.docs.len();
    if has_documents && (by_number || matches!(instruction.kind, Kind::Run(_))) {
        assert_eq!(found.docs, recorded.docs, "{context}");
    }
}

/// The rules that BuildKit's parser judges; the others need a plan.
const PARSER_RULES: [&str; 3] = ["StageNameCasing", "FromAsCasing", "MaintainerDeprecated"];

#[test]
fn files_are_read_as_buildkit_reads_them() {
    let more = env::var("COOPER_DOCKERFILE_CORPUS").map(|folder| format!("{folder}/files.jsonl"));
    let more = more.map(|path| fs::read_to_string(path).unwrap()).unwrap_or_default();
    let (mut read, mut refused) = (0, 0);
    for line in FILES.lines().chain(more.lines()) {
        let recorded: Recorded = serde_json::from_str(line).unwrap();
        let found = Dockerfile::parse("Dockerfile", recorded.file.as_bytes());
        let context = format!("{}\n{recorded:?}", recorded.file);
        match (&found, &recorded.error) {
            (Ok(file), None) => {
                read += 1;
                let nodes = recorded.nodes.as_deref().unwrap();
                assert_eq!(file.instructions().count(), nodes.len(), "{context}");
                file.instructions().zip(nodes).for_each(|(found, recorded)| same(found, recorded, &context));
                compare_findings(&recorded, &context);
            }
            (Err(error), Some(_)) => {
                refused += 1;
                let place = error.location().unwrap();
                if let Some((first, last)) = recorded.lines {
                    let inside = (first.max(1)..=last.max(first + 1)).contains(&place.line);
                    assert!(inside, "{} is not in {first}..={last}: {error}\n{context}", place.line);
                }
            }
            _ => panic!("{context}\n{:?}", found.map(|file| file.instructions().count())),
        }
    }
    assert!(read > 100 && refused > 100, "{read} read, {refused} refused");
}

fn compare_findings(recorded: &Recorded, context: &str) {
    if recorded.file.contains("check") {
        return;
    }
    let report = check("Dockerfile", recorded.file.as_bytes(), &inputs(), None);
    let lines_of = |wanted: &[&str]| -> Vec<(String, usize)> {
        let findings = report.findings.iter().map(|found| (found.rule.name(), found.location.line));
        findings.filter(|(name, _)| wanted.contains(&name.as_str())).collect()
    };
    let sorted = |mut list: Vec<(String, usize)>| {
        list.sort();
        list
    };
    assert_eq!(sorted(lines_of(&PARSER_RULES)), sorted(recorded.warns.clone()), "{context}");
    let empties: Vec<usize> = lines_of(&["NoEmptyContinuation"]).into_iter().map(|(_, line)| line).collect();
    assert_eq!(empties, recorded.empties, "{context}");
}

fn inputs() -> Inputs {
    Inputs::new("linux/amd64".parse().unwrap())
}

fn refused(text: &str) -> Error {
    Dockerfile::parse("Dockerfile", text.as_bytes()).map(|file| panic!("{:?}", file.stages())).unwrap_err()
}

#[test]
fn errors_point_at_the_mistake_and_say_what_was_meant() {
    let error = refused("FROM x\n\nRUNN pip install \\\n  -r requirements.txt\n");
    assert_eq!(error.code(), "dockerfile-syntax");
    assert_eq!(error.to_string(), "unknown instruction `RUNN`");
    assert_eq!(error.hint().as_deref(), Some("did you mean `RUN`?"));
    let frame = " --> Dockerfile:3:1\n3 | RUNN pip install \\\n  | ^^^^\n";
    assert_eq!(error.location().unwrap().frame(), frame);

    let error = refused("FROM x\nRUN a && \\\n  b\nCOPY --chmond=755 a b\n");
    assert_eq!(error.hint().as_deref(), Some("did you mean `--chmod`?"));
    let place = error.location().unwrap();
    assert_eq!((place.line, place.column, place.width), (4, 6, 8));

    let error = refused("RUN x\nFROM x\n");
    assert_eq!((error.to_string().contains("before the first FROM"), error.location().unwrap().line), (true, 1));
}

#[test]
fn other_frontends_are_refused_with_a_reason() {
    let error = refused("# syntax=example/mockerfile:1\nthis is no Dockerfile\n");
    assert_eq!(error.code(), "dockerfile-frontend");
    assert!(error.to_string().contains("example/mockerfile:1"), "{error}");
    assert_eq!(error.location().unwrap().column, 10);
    assert!(error.hint().is_some());
    assert!(Dockerfile::parse("Dockerfile", b"# syntax=docker/dockerfile:1.7\nFROM x\n").is_ok());
}

/// Pieces of which random Dockerfiles are made: most lines are right.
fn some_line() -> impl Strategy<Value = String> {
    let word = "[a-z$\"'{}:/=\\\\<é -]{0,12}";
    let name = "[a-z][a-z0-9]{0,5}";
    prop_oneof![
        word.prop_map(|text| format!("RUN {text}\n")),
        word.prop_map(|text| format!("CMD {text}\n")),
        (word, "[a-z/]{1,6}").prop_map(|(text, to)| format!("COPY --chown={text}x --exclude=\"{to} *\" {to} /{to}\n")),
        (name, word).prop_map(|(name, text)| format!("ENV {name}={text}\n")),
        (name, word).prop_map(|(name, text)| format!("ENV {name} x{text}\n")),
        (name, word).prop_map(|(name, text)| format!("ARG {name}={text}\n")),
        (name, word).prop_map(|(name, text)| format!("RUN <<{name} cat\n{text}\n{name}\n")),
        (name, word).prop_map(|(name, text)| format!("COPY <<-'{name}' a /b\n\t{text}\n{name}\n")),
        (name, word).prop_map(|(name, text)| format!("ONBUILD RUN --mount=type=cache,target=/{name} {text}x\n")),
        (1u32..99, word).prop_map(|(n, text)| format!("HEALTHCHECK --interval={n}s --retries={n} CMD x{text}\n")),
        word.prop_map(|text| format!(
            "RUN --mount=target=/x,from={text}x --network=none --device=a=b,required {text}\n"
        )),
        proptest::collection::vec("[a-z\"\\\\ ]{1,5}", 1..3)
            .prop_map(|words| format!("ENTRYPOINT {}\n", serde_json::to_string(&words).unwrap())),
        word.prop_map(|text| format!("VOLUME /x{text}\nEXPOSE 80 90/udp\nUSER x{text}\nWORKDIR y{text}\n")),
        Just("FROM --platform=$BUILDPLATFORM x AS Stage\nLABEL a=b c=\"d e\"\nSHELL [\"a\"]\n".to_owned()),
        Just("ADD --checksum=x --unpack=false --keep-git-dir a b\nSTOPSIGNAL 9\nMAINTAINER me\n".to_owned()),
    ]
}

proptest! {
    #[test]
    fn bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = check("Dockerfile", &bytes, &inputs(), None);
    }

    #[test]
    fn texts_never_panic_and_places_are_inside(text in "(FROM |RUN |COPY |ENV |ARG |<<|EOF|[\\\\ \n\"'${}:#=a-c]){0,60}") {
        let lines = text.lines().count().max(1);
        let report = check("Dockerfile", text.as_bytes(), &inputs(), None);
        let places = report.findings.iter().map(|found| &found.location).chain(report.error.iter().filter_map(Error::location));
        for place in places {
            prop_assert!((1..=lines).contains(&place.line) && place.end_line <= lines, "{place:?}");
        }
        if let Ok(file) = Dockerfile::parse("Dockerfile", text.as_bytes()) {
            let mut last = 0;
            for instruction in file.instructions() {
                prop_assert!(last < instruction.span.line && instruction.span.line <= instruction.span.end_line);
                last = instruction.span.end_line;
            }
            prop_assert!(last <= lines);
        }
    }

    #[test]
    fn a_printed_instruction_is_read_as_the_same(lines in proptest::collection::vec(some_line(), 1..4)) {
        let text = format!("FROM x\n{}", lines.concat());
        let Ok(file) = Dockerfile::parse("Dockerfile", text.as_bytes()) else { return Ok(()) };
        let printed: Vec<String> = file.instructions().map(|instruction| instruction.kind.to_string()).collect();
        // Nothing on one line reads as a text that ends in a backslash: there the line would go on.
        prop_assume!(!printed.iter().any(|line| line.ends_with('\\')));
        let printed = printed.join("\n");
        let again = Dockerfile::parse("Dockerfile", printed.as_bytes());
        prop_assert!(again.is_ok(), "{printed}\n{:?}", again.err());
        let kinds = |file: &Dockerfile| file.instructions().map(|found| found.kind.clone()).collect::<Vec<_>>();
        prop_assert_eq!(kinds(&file), kinds(&again.unwrap()), "{}", printed);
    }
}
