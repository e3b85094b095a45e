//! The typed details that BuildKit attaches to an error, where the daemon passes them on (Docker 20.10 does not).

use bollard_buildkit_proto::google::rpc;
use prost::Message as _;
use serde::Deserialize;
use tonic::Status;

/// What the details say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Details {
    /// First and last line in the Dockerfile.
    pub(super) lines: Option<(usize, usize)>,
    /// Digest of the vertex that failed.
    pub(super) vertex: Option<String>,
}

/// `errdefs.Source`, as Go's `encoding/json` writes it.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Source {
    ranges: Vec<Range>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Range {
    start: Position,
    end: Position,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Position {
    line: usize,
}

/// `errdefs.Vertex`.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Vertex {
    digest: String,
}

/// Reads the details; what cannot be read is left out, for the message says the essentials.
pub(super) fn read(status: &Status) -> Details {
    let mut details = Details::default();
    let Ok(packed) = rpc::Status::decode(status.details()) else { return details };
    for detail in packed.details {
        // BuildKit packs JSON, under the name of a Go type.
        let kind = detail.type_url.trim_end_matches("+json");
        if kind.ends_with("errdefs.Source") {
            let source: Source = serde_json::from_slice(&detail.value).unwrap_or_default();
            let first = source.ranges.iter().map(|range| range.start.line).filter(|line| *line > 0).min();
            let last = source.ranges.iter().map(|range| range.end.line.max(range.start.line)).max();
            // The innermost source comes first.
            details.lines = details.lines.or(first.zip(last));
        } else if kind.ends_with("errdefs.Vertex") {
            let vertex: Vertex = serde_json::from_slice(&detail.value).unwrap_or_default();
            details.vertex = details.vertex.or((!vertex.digest.is_empty()).then_some(vertex.digest));
        }
    }
    details
}

#[cfg(test)]
pub(super) mod tests {
    use bollard_buildkit_proto::google::protobuf::Any;
    use tonic::Code;

    use super::*;

    /// A status as a recent BuildKit sends it.
    pub(in crate::buildkit) fn with_details(message: &str, details: &[(&str, &str)]) -> Status {
        let any = |(kind, json): &(&str, &str)| Any {
            type_url: format!("github.com/moby/buildkit/solver/{kind}+json"),
            value: json.as_bytes().to_vec(),
        };
        let packed = rpc::Status { code: 2, message: message.into(), details: details.iter().map(any).collect() };
        Status::with_details(Code::Unknown, message, packed.encode_to_vec().into())
    }

    #[test]
    fn lines_and_vertex_are_read() {
        let source = r#"{"info":{"filename":"Dockerfile","data":"RlJPTSB4Cg=="},"ranges":[{"start":{"line":3},"end":{"line":5}}]}"#;
        let status = with_details(
            "x",
            &[
                ("errdefs.Vertex", r#"{"digest":"sha256:1"}"#),
                ("errdefs.Source", source),
                ("stack.Stack", "not what it seems"),
            ],
        );
        assert_eq!(read(&status), Details { lines: Some((3, 5)), vertex: Some("sha256:1".into()) });
        assert_eq!(read(&Status::unknown("x")), Details::default());
    }
}
