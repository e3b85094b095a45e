//! Messages of failed builds, as BuildKit 0.8 (in Docker 20.10) and recent releases send them.

use bollard_buildkit_proto::google::protobuf::{Any, Timestamp};
use bollard_buildkit_proto::google::rpc;
use bollard_buildkit_proto::moby::buildkit::v1::{StatusResponse, Vertex, VertexLog};
use cooper::buildkit::dockerfile::Dockerfile;
use cooper::buildkit::failure::{Failure, explain};
use cooper::buildkit::status::Steps;
use cooper::error::Error;
use cooper::event::Events;
use prost::Message as _;
use tonic::{Code, Status};

const DOCKERFILE: &str = "\
FROM python:3.12 AS build
COPY --from=docker.io/library/tools:1 /t /t
RUN pip install -r requirements.txt
RUN pip install \\
    zenml
FROM registry.example.com:5000/team/base
COPY absent /
";

/// What is known of a failure: the message, the step that failed with its own error, and lines from typed details.
struct Case {
    message: &'static str,
    step: Option<(&'static str, &'static str)>,
    lines: Option<(u32, u32)>,
}

impl Case {
    const fn new(message: &'static str) -> Self {
        Self { message, step: None, lines: None }
    }

    const fn step(self, name: &'static str, error: &'static str) -> Self {
        Self { step: Some((name, error)), ..self }
    }

    const fn lines(self, first: u32, last: u32) -> Self {
        Self { lines: Some((first, last)), ..self }
    }

    fn status(&self) -> Status {
        let Some((first, last)) = self.lines else { return Status::unknown(self.message) };
        let source = format!(
            r#"{{"info":{{"filename":"Dockerfile"}},"ranges":[{{"start":{{"line":{first}}},"end":{{"line":{last}}}}}]}}"#
        );
        let detail = |kind: &str, json: &str| Any {
            type_url: format!("github.com/moby/buildkit/{kind}+json"),
            value: json.as_bytes().to_vec(),
        };
        let details = vec![
            detail("util/stack.Stack", "{\"frames\":[]}"),
            detail("solver/errdefs.Vertex", "{\"digest\":\"d\"}"),
            detail("solver/errdefs.Source", &source),
        ];
        let packed = rpc::Status { code: 2, message: self.message.into(), details };
        Status::with_details(Code::Unknown, self.message, packed.encode_to_vec().into())
    }

    async fn explain(&self) -> Error {
        self.explain_with([]).await
    }

    async fn explain_with(&self, trouble: impl IntoIterator<Item = Error>) -> Error {
        let mut steps = Steps::new(Events::none(), None);
        if let Some((name, error)) = self.step {
            let time = |seconds| Some(Timestamp { seconds, nanos: 0 });
            let vertex = Vertex {
                digest: "d".into(),
                name: name.into(),
                started: time(1),
                completed: time(2),
                error: error.into(),
                ..Vertex::default()
            };
            let log = VertexLog { vertex: "d".into(), stream: 2, msg: b"one\ntwo\n".to_vec(), timestamp: None };
            steps.apply(StatusResponse { vertexes: vec![vertex], logs: vec![log], ..Default::default() }).await;
        }
        explain(Failure {
            status: &self.status(),
            steps: &steps,
            dockerfile: &Dockerfile::parse("docker/Dockerfile", DOCKERFILE.as_bytes()),
            trouble: trouble.into_iter().collect(),
            no_text: Some(b"caf\xe9"),
            had_credentials: &|registry| registry == "registry.example.com:5000",
        })
    }
}

#[tokio::test]
async fn a_name_that_is_no_text_is_told() {
    let message = "rpc error: code = Internal desc = grpc: failed to unmarshal the received message: \
                   string field contains invalid UTF-8";
    let case = Case::new(message);
    let Error::ContextPath { path, .. } = case.explain().await else { panic!("{}", case.message) };
    assert_eq!(path, r"caf\xe9");
    let other = Case::new("rpc error: code = Internal desc = grpc: something else");
    assert_eq!(other.explain().await.code(), "build-failed");
}

#[tokio::test]
async fn a_failing_command_is_found_with_and_without_details() {
    let old = "executor failed running [/bin/sh -c pip install     zenml]: exit code: 2";
    let new = "process \"/bin/sh -c pip install     zenml\" did not complete successfully: exit code: 2";
    let name = "[build 4/4] RUN pip install     zenml";
    let cases = [
        Case::new(old).step(name, old),
        Case::new(new).step(name, new).lines(4, 5),
        // Details win over a name that cannot be found.
        Case::new(new).step("[build 4/4] RUN something else", new).lines(4, 5),
    ];
    for case in cases {
        let Error::StepFailed(step) = case.explain().await else { panic!("{}", case.message) };
        assert_eq!(step.instruction, "RUN pip install zenml");
        assert_eq!((step.exit_code, step.tail), (Some(2), vec!["one".to_owned(), "two".to_owned()]));
        let location = step.location.unwrap();
        assert_eq!((location.file.as_str(), location.line, location.end_line), ("docker/Dockerfile", 4, 5));
    }
}

#[tokio::test]
async fn a_step_that_is_not_in_our_dockerfile_is_told_by_its_name() {
    let text = "process \"/bin/sh -c x\" did not complete successfully: exit code: 137";
    // ONBUILD of a base image adds steps.
    let error = Case::new(text).step("[stage-1 2/9] RUN x", text).explain().await;
    let Error::StepFailed(step) = error else { panic!("{error:?}") };
    assert_eq!((step.instruction.as_str(), step.exit_code, step.location), ("RUN x", Some(137), None));
}

#[tokio::test]
async fn syntax_errors_have_a_line() {
    let cases = [
        "failed to solve with frontend dockerfile.v0: failed to create LLB definition: dockerfile parse error line 3: unknown instruction: RNU",
        "dockerfile parse error on line 3: unknown instruction: RNU (did you mean RUN?)",
    ];
    for message in cases {
        let error = Case::new(message).explain().await;
        assert_eq!(
            (error.code(), error.to_string().as_str()),
            ("dockerfile", "unknown instruction: RNU (did you mean RUN?)")
        );
        let location = error.location().unwrap();
        assert_eq!((location.line, location.width), (3, 3));
    }
    let told = Case::new("failed to process \"${x\": syntax error: missing '}'").lines(7, 7).explain().await;
    assert_eq!((told.code(), told.location().unwrap().line), ("dockerfile", 7));
}

#[tokio::test]
async fn base_images_that_are_not_there_point_to_their_from() {
    let hub = "docker.io/library/python:3.12";
    let denied = "python:3.12: failed to resolve source metadata for docker.io/library/python:3.12: pull access denied, repository does not exist or may require authorization: server message: insufficient_scope: authorization failed";
    let metadata = "[internal] load metadata for docker.io/library/python:3.12";
    let cases = [
        Case::new("docker.io/library/python:3.12: not found")
            .step(metadata, "docker.io/library/python:3.12: not found"),
        Case::new(denied).step(metadata, denied),
        Case::new(denied).lines(1, 1),
        Case::new(
            "python:3.12: failed to resolve source metadata for docker.io/library/python:3.12: no match for platform in manifest: not found",
        ),
    ];
    for case in cases {
        let error = case.explain().await;
        let Error::BaseMissing { reference, location, .. } = &error else { panic!("{hub} {error:?}") };
        assert_eq!((reference.as_str(), location.as_ref().unwrap().line), ("python:3.12", 1));
    }
    let copied = Case::new("failed to load cache key: docker.io/library/tools:1: not found")
        .step("FROM docker.io/library/tools:1", "docker.io/library/tools:1: not found");
    assert_eq!(copied.explain().await.location().unwrap().line, 2);
}

#[tokio::test]
async fn registries_that_refuse_or_do_not_answer_are_named() {
    let metadata = "[internal] load metadata for registry.example.com:5000/team/base:latest";
    let unauthorized = "failed to authorize: failed to fetch oauth token: unexpected status from GET request to https://auth.example.com/token: 401 Unauthorized";
    let error = Case::new(unauthorized).step(metadata, unauthorized).explain().await;
    let Error::RegistryDenied { registry, reference, had_credentials, .. } = &error else { panic!("{error:?}") };
    assert_eq!(
        (registry.as_str(), reference.as_str()),
        ("registry.example.com:5000", "registry.example.com:5000/team/base:latest")
    );
    assert!(had_credentials);
    for reason in [
        "failed to do request: Head \"https://registry.example.com:5000/v2/\": dial tcp: lookup registry.example.com: no such host",
        "failed to do request: Head \"https://registry.example.com:5000/v2/\": x509: certificate signed by unknown authority",
        "failed to do request: Head \"https://registry.example.com:5000/v2/\": http: server gave HTTP response to HTTPS client",
        "unexpected status from HEAD request to https://registry.example.com:5000/v2/: 503 Service Unavailable",
    ] {
        let error = Case::new(reason).step(metadata, reason).explain().await;
        assert!(
            matches!(&error, Error::RegistryUnreachable { registry, .. } if registry == "registry.example.com:5000"),
            "{error:?}"
        );
    }
}

#[tokio::test]
async fn a_missing_source_is_explained() {
    let new = "failed to compute cache key: failed to calculate checksum of ref 3ab::xyz: \"/absent\": not found";
    for case in [
        Case::new("failed to compute cache key: \"/absent\" not found: not found")
            .step("[stage-1 2/2] COPY absent /", "\"/absent\" not found: not found"),
        Case::new(new).step("[stage-1 2/2] COPY absent /", new).lines(7, 7),
    ] {
        let Error::StepFailed(step) = case.explain().await else { panic!("{}", case.message) };
        assert!(step.message.starts_with("`/absent` is not in the build context"), "{}", step.message);
        assert_eq!(step.location.unwrap().line, 7);
    }
}

#[tokio::test]
async fn space_secrets_agents_and_targets_have_their_own_errors() {
    let cases = [
        ("failed to copy files: copy file range failed: no space left on device", "no-space"),
        ("secret token not found: not found", "secret-unavailable"),
        ("failed to solve: secret token: not found", "secret-unavailable"),
        ("no SSH key \"\" forwarded from the client", "ssh-unavailable"),
        ("unset ssh forward key default", "ssh-unavailable"),
        ("target stage \"nope\" could not be found", "invalid-option"),
        ("the Dockerfile cannot be empty", "dockerfile"),
        ("something nobody has seen before", "build-failed"),
    ];
    for (message, code) in cases {
        assert_eq!(Case::new(message).explain().await.code(), code, "{message}");
    }
}

#[tokio::test]
async fn our_own_errors_win_only_where_they_are_the_cause() {
    let changed = || Error::ContextChanged { path: "x".into(), expected: 1, found: "2".into() };
    let error = Case::new("error from sender: `x` changed").explain_with([changed()]).await;
    assert_eq!(error.code(), "context-changed");
    // The step can do without the secret, and failed for another reason.
    let absent = || Error::SecretUnavailable { id: "token".into(), reason: "the variable is not set".into() };
    let error = Case::new("error from sender: `x` changed").explain_with([absent(), changed()]).await;
    assert_eq!(error.code(), "context-changed", "what came before it is none");
    let text = "process \"x\" did not complete successfully: exit code: 1";
    let error =
        Case::new(text).step("[build 3/4] RUN pip install -r requirements.txt", text).explain_with([absent()]).await;
    assert_eq!(error.code(), "step-failed");
    let error = Case::new("secret token: not found").explain_with([absent()]).await;
    assert!(error.to_string().contains("the variable is not set"), "{error}");
}
