//! Dockerfiles: stages, scopes, steps and configurations.

use cooper::Error;
use cooper::dockerfile::step::{CopySource, CopyStep, RunStep};
use cooper::dockerfile::{Action, Chmod, Config, Dockerfile, Evaluated, Inputs, Origin, Start};

fn inputs() -> Inputs {
    Inputs::new("linux/amd64".parse().unwrap())
}

fn file(text: &str) -> Dockerfile {
    Dockerfile::parse("Dockerfile", text.as_bytes()).unwrap()
}

/// Evaluates the target and all that it needs; images have `FROM_BASE=base` and nothing else.
fn evaluate_with(text: &str, inputs: &Inputs) -> Result<Evaluated, Error> {
    let file = Dockerfile::parse("Dockerfile", text.as_bytes())?;
    let plan = file.plan(inputs)?;
    let image = Config { env: [("FROM_BASE", "base")].into_iter().collect(), ..Config::default() };
    let mut done: Vec<Option<Evaluated>> = vec![None; plan.nodes().len()];
    for id in plan.needed() {
        let start = match plan.nodes()[id].base {
            Origin::Scratch => Start::Empty,
            Origin::Stage(base) => Start::Stage(done[base].as_ref().unwrap()),
            Origin::Image(_) | Origin::Context(_) => Start::Image(&image),
        };
        done[id] = Some(plan.evaluate(id, start)?);
    }
    Ok(done[plan.target()].take().unwrap())
}

fn evaluate(text: &str) -> Evaluated {
    evaluate_with(text, &inputs()).unwrap_or_else(|error| panic!("{text}\n{error}"))
}

fn code(text: &str) -> &'static str {
    evaluate_with(text, &inputs()).map(|found| panic!("{text}\n{found:?}")).unwrap_err().code()
}

fn runs(stage: &Evaluated) -> Vec<&RunStep> {
    let actions = stage.steps.iter().map(|step| &step.action);
    actions.filter_map(|action| if let Action::Run(run) = action { Some(&**run) } else { None }).collect()
}

fn copies(stage: &Evaluated) -> Vec<&CopyStep> {
    let actions = stage.steps.iter().map(|step| &step.action);
    actions.filter_map(|action| if let Action::Copy(copy) = action { Some(&**copy) } else { None }).collect()
}

fn history(stage: &Evaluated) -> Vec<&str> {
    stage.steps.iter().filter_map(|step| step.history.as_deref()).collect()
}

const DIAMOND: &str = "\
FROM a AS base
FROM base AS left
FROM base AS Right
COPY --from=4 /x /x
FROM b AS unused
FROM scratch
RUN --mount=from=left,target=/l true
COPY --from=right /r /r
COPY --from=tool:1 /t /t
FROM scratch AS last
";

#[test]
fn only_what_the_target_needs_is_built_and_as_much_as_possible_at_once() {
    let text = DIAMOND.replace("COPY --from=4 /x /x\n", "");
    let file = file(&text);
    let mut inputs = inputs();
    let waves = |inputs: &Inputs| file.plan(inputs).unwrap().waves();
    assert_eq!(waves(&inputs), [[5]]);
    inputs.target = Some("4".into());
    assert_eq!(waves(&inputs), [vec![0], vec![1, 2], vec![4]]);
    inputs.target = Some("RIGHT".into());
    assert_eq!(waves(&inputs), [[0], [2]]);
    inputs.target = None;
    let plan = file.plan(&inputs).unwrap();
    let nodes = plan.nodes();
    assert_eq!(
        (nodes[0].base.clone(), nodes[3].base.clone()),
        (Origin::Image("docker.io/library/a:latest".into()), Origin::Image("docker.io/library/b:latest".into()))
    );
    assert_eq!(nodes[4].uses, [Origin::Image("docker.io/library/tool:1".into())].into());
    inputs.target = Some("rigth".into());
    let error = file.plan(&inputs).unwrap_err();
    assert_eq!((error.code(), error.hint().as_deref()), ("dockerfile-stage", Some("did you mean `right`?")));
}

#[test]
fn stages_need_those_before_them_only() {
    assert_eq!(file(DIAMOND).plan(&inputs()).unwrap_err().code(), "dockerfile-stage");
    let wrong = [
        "FROM scratch AS a\nCOPY --from=a /x /x\n",
        "FROM scratch AS a\nCOPY --from=b /x /x\nFROM scratch AS b\nCOPY --from=a /x /x\n",
        "FROM scratch\nCOPY --from=7 /x /x\n",
        "FROM scratch\nCOPY --from=-1 /x /x\n",
        "FROM scratch\nCOPY --from=$X /x /x\n",
    ];
    for text in wrong {
        assert_eq!(code(text), "dockerfile-stage", "{text}");
    }
    // What is not needed may be wrong in its order.
    let later = "FROM scratch AS a\nCOPY --from=b /x /x\nFROM scratch AS b\n";
    assert!(evaluate_with(later, &inputs()).is_ok());
    let mut only_a = inputs();
    only_a.target = Some("a".into());
    assert_eq!(evaluate_with(later, &only_a).unwrap_err().code(), "dockerfile-stage");
    // The name of a base is an image's if its case is another one.
    let error = evaluate_with("FROM scratch AS build\nFROM Build\n", &inputs()).unwrap_err();
    assert_eq!((error.code(), error.hint().as_deref()), ("dockerfile-value", Some("did you mean `build`?")));
}

#[test]
fn contexts_replace_stages_and_images() {
    let mut inputs = inputs();
    inputs.contexts = ["build", "python:3.12", "tool", "scratch"].map(str::to_owned).into();
    let text = "FROM x AS build\nFROM docker.io/library/python:3.12\nCOPY --from=tool /a /a\nCOPY --from=build /a /a\nFROM scratch\n";
    let file = file(text);
    let plan = file.plan(&inputs).unwrap();
    let bases: Vec<&Origin> = plan.nodes().iter().map(|node| &node.base).collect();
    let context = |name: &str| Origin::Context(name.to_owned());
    assert_eq!(bases, [&context("build"), &context("python:3.12"), &Origin::Scratch]);
    assert_eq!((&plan.nodes()[1].uses, &plan.nodes()[1].needs), (&[context("tool")].into(), &[0].into()));
}

#[test]
fn arguments_have_scopes() {
    let text = "\
ARG VERSION=1
ARG FULL=v$VERSION UNUSED
FROM base:$FULL AS a
ARG VERSION
ARG HERE=${VERSION}-$FULL
ENV KEPT=$HERE
RUN a
FROM a
ARG FULL
RUN b
";
    let stage = evaluate(text);
    let run = runs(&stage)[0];
    let found: Vec<(&str, &str)> = run.env.iter().filter(|(name, _)| *name != "PATH").collect();
    let expected = [("FROM_BASE", "base"), ("VERSION", "1"), ("HERE", "1-"), ("KEPT", "1-"), ("FULL", "v1")];
    assert_eq!(found, expected);
    assert_eq!(history(&stage), ["ARG FULL=v1", "RUN |3 VERSION=1 HERE=1- FULL=v1 /bin/sh -c b # buildkit"]);
    assert_eq!(stage.config.env.names().collect::<Vec<_>>(), ["FROM_BASE", "PATH", "KEPT"]);

    let mut given = inputs();
    given.build_args = [("VERSION", "2"), ("HTTP_PROXY", "p")].map(|(a, b)| (a.to_owned(), b.to_owned())).into();
    let stage = evaluate_with(text, &given).unwrap();
    let run = runs(&stage)[0];
    assert_eq!((run.env.get("HERE"), run.env.get("FULL")), (Some("2-"), Some("v2")));
    assert_eq!((run.env.get("HTTP_PROXY"), run.proxies.get("HTTP_PROXY")), (None, Some("p")));
}

#[test]
fn an_image_s_variable_is_stronger_in_the_next_stage() {
    let text = "FROM scratch AS a\nENV X=env\nARG X=arg\nRUN 1\nFROM a\nRUN 2\n";
    let mut inputs = inputs();
    inputs.target = Some("a".into());
    assert_eq!(runs(&evaluate_with(text, &inputs).unwrap())[0].env.get("X"), Some("arg"));
    assert_eq!(runs(&evaluate(text))[0].env.get("X"), Some("env"));
}

#[test]
fn platforms_are_arguments_and_may_be_chosen() {
    let mut inputs = inputs();
    inputs.target_platform = Some("linux/arm64".parse().unwrap());
    let text = "\
FROM --platform=$BUILDPLATFORM a AS tools
FROM --platform=windows/amd64 w AS other
FROM scratch
ARG TARGETARCH BUILDARCH TARGETVARIANT TARGETSTAGE
RUN $TARGETARCH
";
    let file = file(text);
    let plan = file.plan(&inputs).unwrap();
    let platforms: Vec<String> =
        plan.nodes().iter().map(|node| node.platform.as_ref().map(ToString::to_string).unwrap_or_default()).collect();
    assert_eq!(platforms, ["linux/amd64", "windows/amd64", ""]);
    let stage = plan.evaluate(2, Start::Empty).unwrap();
    assert_eq!(stage.platform.to_string(), "linux/arm64");
    let env = &runs(&stage)[0].env;
    assert_eq!(
        (env.get("TARGETARCH"), env.get("BUILDARCH"), env.get("TARGETVARIANT")),
        (Some("arm64"), Some("amd64"), Some(""))
    );
    assert_eq!(env.get("TARGETSTAGE"), Some("default"));
    for text in ["FROM --platform=$NOPE x\n", "FROM --platform=amd65 x\n", "FROM $NOPE\n", "FROM UPPER\n"] {
        assert_eq!(code(text), "dockerfile-value", "{text}");
    }
}

#[test]
fn triggers_come_first_and_may_need_stages() {
    let text = "\
FROM scratch AS base
ONBUILD RUN --network=none from-stage
ONBUILD COPY <<EOF /x
$KEPT
EOF
FROM scratch AS tool
FROM base
ENV KEPT=1
RUN own
FROM next AS last
RUN own
";
    let file = file(text);
    let mut inputs = inputs();
    inputs.target = Some("2".into());
    let stage = evaluate_with(text, &inputs).unwrap();
    let texts: Vec<(bool, &str, usize)> =
        stage.steps.iter().map(|step| (step.from_base, step.text.as_str(), step.span.line)).collect();
    let expected = [
        (true, "RUN --network=none from-stage", 7),
        (true, "COPY <<EOF /x", 7),
        (false, "ENV KEPT=1", 8),
        (false, "RUN own", 9),
    ];
    assert_eq!(texts, expected);
    assert!(stage.config.onbuild.is_empty());
    assert_eq!(copies(&stage)[0].sources, [CopySource::Inline { name: "EOF".into(), content: "\n".into() }]);

    inputs.target = None;
    let mut plan = file.plan(&inputs).unwrap();
    assert_eq!(plan.needed(), [3].into());
    plan.bring_triggers(3, &["COPY --from=tool /t /t".into(), "LABEL a=b".into()]).unwrap();
    assert_eq!(plan.waves(), [vec![1], vec![3]]);
    let evaluated = plan.evaluate(3, Start::Image(&Config::default())).unwrap();
    assert_eq!(copies(&evaluated)[0].origin, Some(Origin::Stage(1)));
    for trigger in ["FROM x", "RUN a\nRUN b", "NOPE", "COPY --from=last /a /a"] {
        let error = file.plan(&inputs).unwrap().bring_triggers(3, &[trigger.into()]).unwrap_err();
        assert_eq!(error.location().unwrap().line, 10, "{trigger}: {error}");
    }
}

#[test]
fn instructions_make_a_configuration() {
    let text = "\
FROM x
ENV A=1 B=\"2 3\"
ENV C $A $B
LABEL l=\"$A\" 'm n'=o
WORKDIR /w
WORKDIR $A/./x
USER u:$A
EXPOSE 80 $A-2/UDP 127.0.0.1:9:90
VOLUME [\"/v\", \"$A\"]
VOLUME /p /q
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=90s --retries=2 CMD curl x
CMD [\"base\"]
SHELL [\"/bin/bash\", \"-c\"]
ENTRYPOINT run
MAINTAINER me
ONBUILD RUN x
";
    let stage = evaluate(text);
    let config = &stage.config;
    let env = |name: &str| config.env.get(name);
    assert_eq!((env("B"), env("C"), env("FROM_BASE")), (Some("2 3"), Some("1 2 3"), Some("base")));
    assert_eq!(config.labels, [("l", "1"), ("m n", "o")].map(|(a, b)| (a.into(), b.into())).into());
    assert_eq!((config.working_dir.as_str(), config.user.as_str()), ("/w/1/x", "u:1"));
    let ports: Vec<&str> = config.exposed_ports.iter().map(String::as_str).collect();
    assert_eq!(ports, ["1/udp", "2/udp", "80/tcp", "90/tcp"]);
    assert_eq!(config.volumes, ["/v", "1", "/p", "/q"].map(str::to_owned).into());
    assert_eq!(evaluate("FROM scratch\n").config.working_dir, "/");
    assert_eq!(config.cmd.as_deref(), Some(&["base".to_owned()][..]));
    assert_eq!(config.entrypoint.as_ref().unwrap().join(" "), "/bin/bash -c run");
    assert_eq!((config.author.as_deref(), config.onbuild.len()), (Some("me"), 1));
    let expected = [
        "ENV A=1 B=2 3",
        "ENV C=1 2 3",
        "LABEL l=1 m n=o",
        "WORKDIR /w",
        "WORKDIR /w/1/x",
        "USER u:1",
        "EXPOSE [1/udp 2/udp 90/tcp 80/tcp]",
        "VOLUME [/v 1]",
        "VOLUME [/p /q]",
        "STOPSIGNAL SIGTERM",
        "HEALTHCHECK {Test:[CMD-SHELL curl x] Interval:1m30s Timeout:0s StartPeriod:0s StartInterval:0s Retries:2}",
        "CMD [\"base\"]",
        "SHELL [/bin/bash -c]",
        "ENTRYPOINT [\"/bin/bash\" \"-c\" \"run\"]",
        "MAINTAINER me",
    ];
    assert_eq!(history(&stage), expected);
    // ENTRYPOINT forgets the base's CMD, not the stage's own.
    let base = "FROM scratch AS a\nCMD [\"a\"]\nFROM a\nENTRYPOINT [\"e\"]\n";
    assert_eq!(evaluate(base).config.cmd, None);
}

#[test]
fn commands_run_in_their_surroundings() {
    let text = "\
FROM x
WORKDIR /w
USER me
RUN --mount=type=cache,target=c,id=i --mount=type=secret,id=a/b --mount=type=secret,id=e,env=E --mount=type=ssh \\
    --mount=from=tool:1,source=/s,target=/t --mount=type=tmpfs,target=/m,size=1k --network=host --security=insecure a $X
RUN [\"b\", \"$X\"]
RUN <<EOF
one
two
EOF
RUN <<-EOF
\t#!/usr/bin/env python
\tprint(1)
EOF
RUN cat <<A <<B > f
1
A
2
B
";
    let stage = evaluate(text);
    let runs = runs(&stage);
    let first = runs[0];
    assert_eq!(
        (first.command.join(" ").as_str(), first.user.as_str(), first.working_dir.as_str()),
        ("/bin/sh -c a $X", "me", "/w")
    );
    let paths: Vec<Option<&str>> = first.mounts.iter().map(|mount| mount.path.as_deref()).collect();
    assert_eq!(paths, [Some("/w/c"), Some("/run/secrets/b"), None, None, Some("/t"), Some("/m")]);
    assert_eq!(first.mounts[4].origin, Some(Origin::Image("docker.io/library/tool:1".into())));
    assert_eq!(runs[1].command, ["b", "$X"]);
    assert_eq!(runs[2].command[2], "one\ntwo\n");
    let script = runs[3].script.as_ref().unwrap();
    assert_eq!(
        (runs[3].command[2].as_str(), script.content.as_str()),
        ("/dev/pipes/EOF", "#!/usr/bin/env python\nprint(1)\n")
    );
    assert_eq!(runs[4].command[2], "cat <<A <<B > f\n1\nA\n2\nB");
    let wrong = [
        "RUN --mount=type=tmpfs,target=/ x",
        "RUN --mount=type=cache x",
        "RUN --mount=type=$NOPE,target=/x y",
        "RUN --mount=type=cach,target=/x y",
    ];
    for line in wrong {
        assert_eq!(code(&format!("FROM x\n{line}\n")), "dockerfile-value", "{line}");
    }
}

#[test]
fn files_come_from_many_places() {
    let text = "\
FROM x
WORKDIR /w
ARG D=dir
COPY --chown=a:b --chmod=u+x --link --exclude=*.pyc a* ./$D/ sub/
COPY --parents /a/./b/c.py ../x* /d
COPY <<EOF <<'RAW' /e/
$D \"q\"
EOF
$D
RAW
ADD --checksum=sha256:0123456789012345678901234567890123456789012345678901234567890123 https://x/y%20z.tar?q .
ADD --keep-git-dir https://x/y.git#v1:sub /git
ADD --unpack=false a.tar b.tar /
";
    let stage = evaluate(text);
    let copies = copies(&stage);
    let path = |path: &str, pattern: Option<&str>, required| CopySource::Path {
        path: path.into(),
        pattern: pattern.map(str::to_owned),
        required,
    };
    assert_eq!(copies[0].sources, [path("/a*", None, false), path("/dir", None, true)]);
    assert_eq!((copies[0].destination.as_str(), copies[0].into_directory, copies[0].link), ("/w/sub", true, true));
    assert_eq!(copies[0].chmod.as_ref().unwrap().apply(0o644, false), 0o744);
    assert_eq!(copies[1].sources, [path("/a", Some("b/c.py"), true), path("/", Some("x*"), false)]);
    let contents: Vec<&str> = copies[2]
        .sources
        .iter()
        .map(
            |source| {
                if let CopySource::Inline { content, .. } = source { content.as_str() } else { panic!("{source:?}") }
            },
        )
        .collect();
    assert_eq!(contents, ["dir \"q\"\n", "$D\n"]);
    assert!(
        matches!(&copies[3].sources[0], CopySource::Url { file_name, unpack: false, .. } if file_name == "y z.tar")
    );
    assert_eq!((copies[3].destination.as_str(), copies[3].into_directory), ("/w", true));
    assert!(matches!(&copies[4].sources[0], CopySource::Git(git) if git.keep_git_dir == Some(true)
        && git.subdirectory.as_deref() == Some("sub")));
    assert_eq!((copies[4].unpack, copies[5].unpack, copies[0].unpack), (true, false, false));
    assert_eq!(history(&stage)[2], "COPY --chown=a:b --chmod=u+x a* ./dir/ sub/ # buildkit");
    assert_eq!(Some(Chmod::Octal(0o755)), self::copies(&evaluate("FROM x\nCOPY --chmod=755 a b\n"))[0].chmod);
}

#[test]
fn values_are_checked_when_they_are_known() {
    let wrong = [
        "COPY https://x/y /z",
        "COPY https://x/y.git /z",
        "COPY --parents ./ /x",
        "COPY --parents ./x/./ /x",
        "COPY --chmod=999 a b",
        "COPY --chmod=u+y a b",
        "ADD --checksum=sha256:0 https://x/y z",
        "ADD --checksum=sha256:0 a z",
        "ADD --checksum=sha256:0 https://x/y https://x/z z",
        "ADD --keep-git-dir=false https://x/y.git?keep-git-dir=true z",
        "ADD https://x/y.git?what=1 z",
        "EXPOSE 70000",
        "EXPOSE $NOPE/x",
        "STOPSIGNAL SIGNOPE",
        "VOLUME $NOPE",
    ];
    for line in wrong {
        assert_eq!(code(&format!("FROM x\n{line}\n")), "dockerfile-value", "{line}");
    }
    for line in ["ENV a='", "ENV a=${b?}", "WORKDIR ${a", "LABEL a=${a%\\x}", "ARG a=${b:?say so}", "USER ${}"] {
        assert_eq!(code(&format!("FROM x\n{line}\n")), "dockerfile-variable", "{line}");
    }
    // An argument that is given needs no default, so that a mistake in it does not count.
    let mut given = inputs();
    given.build_args = [("a".to_owned(), "1".to_owned())].into();
    assert!(evaluate_with("FROM x\nARG a=${b:?say so}\n", &given).is_ok());
}
