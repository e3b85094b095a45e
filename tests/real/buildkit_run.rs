//! What RUN can use in a build with BuildKit on a real daemon: secrets, caches, agents, options.

use std::collections::BTreeMap;
use std::os::unix::net::UnixListener;

use bytes::Bytes;
use cooper::event::Event;
use cooper::request::{ExtraFile, SecretSource, SecretSpec, SshSpec};
use cooper::secret::Secret;

use crate::buildkit_bed::{Bed, output, unique};

fn secret(id: &str, source: SecretSource) -> SecretSpec {
    SecretSpec { id: id.into(), source }
}

#[tokio::test]
async fn secrets_reach_a_step_from_a_file_and_as_a_value() {
    let mut bed = Bed::new();
    let marker = unique();
    bed.write("token", &format!("file-{marker}"));
    let value = format!("value-{marker}");
    bed.options.secrets = vec![
        secret("file", SecretSource::File(bed.root().join("token"))),
        secret("value", SecretSource::Value(Secret::new(value.clone().into_bytes().into()))),
        secret("absent", SecretSource::Env("COOPER_TEST_NO_SUCH_VARIABLE".into())),
    ];
    let dockerfile = format!(
        "FROM BUSYBOX\nRUN --mount=type=secret,id=file --mount=type=secret,id=value --mount=type=secret,id=absent \
         : {marker} && test \"$(cat /run/secrets/file)\" = \"file-{marker}\" \
         && cat /run/secrets/value | wc -c && test ! -e /run/secrets/absent\n"
    );
    let (result, events) = bed.build(&dockerfile).await;
    result.unwrap();
    assert_eq!(output(&events).trim(), value.len().to_string());
    assert!(!format!("{events:?}").contains(&value));
}

#[tokio::test]
async fn a_required_secret_that_is_absent_is_the_error() {
    let mut bed = Bed::new();
    let dockerfile = "FROM BUSYBOX\nRUN --mount=type=secret,id=wanted,required cat /run/secrets/wanted\n";
    bed.options.secrets = vec![secret("wanted", SecretSource::Env("COOPER_TEST_NO_SUCH_VARIABLE".into()))];
    let error = bed.build(dockerfile).await.0.unwrap_err();
    assert_eq!(error.code(), "secret-unavailable");
    assert!(error.to_string().contains("COOPER_TEST_NO_SUCH_VARIABLE"), "{error}");
    bed.options.secrets.clear();
    let error = bed.build(dockerfile).await.0.unwrap_err();
    assert_eq!(error.code(), "secret-unavailable");
    assert!(error.to_string().contains("`wanted`"), "{error}");
}

#[tokio::test]
async fn a_cache_mount_lives_from_build_to_build() {
    let bed = Bed::new();
    let id = unique();
    let dockerfile = |number: u32| {
        format!(
            "FROM BUSYBOX\nRUN --mount=type=cache,id={id},target=/c echo {number} >> /c/log && tr '\\n' '+' < /c/log\n"
        )
    };
    for (number, expected) in [(1, "1+"), (2, "1+2+")] {
        let (result, events) = bed.build(&dockerfile(number)).await;
        result.unwrap();
        assert_eq!(output(&events), expected);
    }
}

#[tokio::test]
async fn an_agent_is_forwarded_for_reading_only() {
    let mut bed = Bed::new();
    let socket = bed.root().join("agent");
    let listener = UnixListener::bind(&socket).unwrap();
    // An agent without keys: it answers every request with an empty list.
    let agent = std::thread::spawn(move || {
        use std::io::{Read as _, Write as _};
        let (mut stream, _) = listener.accept().unwrap();
        let mut seen = Vec::new();
        let mut head = [0; 5];
        while stream.read_exact(&mut head).is_ok() {
            seen.push(head[4]);
            stream.write_all(&[0, 0, 0, 5, 12, 0, 0, 0, 0]).unwrap();
        }
        seen
    });
    bed.options.ssh = vec![SshSpec { id: "default".into(), paths: vec![socket] }];
    // Request 11 lists keys, request 19 removes all of them.
    let dockerfile = format!(
        "FROM PYTHON\nRUN --mount=type=ssh : {} && python3 -c 'import os, socket; s = socket.socket(socket.AF_UNIX); \
         s.connect(os.environ[\"SSH_AUTH_SOCK\"]); s.sendall(bytes([0, 0, 0, 1, 11])); print(s.recv(99).hex()); \
         s.sendall(bytes([0, 0, 0, 1, 19])); print(s.recv(99).hex())'\n",
        unique()
    );
    let (result, events) = bed.build(&dockerfile).await;
    result.unwrap();
    // An empty list from the agent; a refusal from us.
    assert_eq!(output(&events), "000000050c00000000\n0000000105\n");
    assert_eq!(agent.join().unwrap(), [11]);
}

#[tokio::test]
async fn a_key_file_signs_for_a_step_and_stays_here() {
    let mut bed = Bed::new();
    let keys = tempfile::tempdir().unwrap();
    let key = keys.path().join("id_ed25519");
    let made =
        std::process::Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(&key).status();
    assert!(made.unwrap().success());
    bed.options.ssh = vec![SshSpec { id: "git".into(), paths: vec![key.clone()] }];
    // Request 11 lists keys: the answer holds the public part.
    let dockerfile = format!(
        "FROM PYTHON\nRUN --mount=type=ssh,id=git : {} && python3 -c 'import base64, os, socket; \
         s = socket.socket(socket.AF_UNIX); s.connect(os.environ[\"SSH_AUTH_SOCK\"]); \
         s.sendall(bytes([0, 0, 0, 1, 11])); answer = s.recv(999); print(answer[4:9].hex()); \
         print(base64.b64encode(answer[13:13 + 51]).decode())'\n",
        unique()
    );
    let (result, events) = bed.build(&dockerfile).await;
    result.unwrap();
    let public = std::fs::read_to_string(key.with_extension("pub")).unwrap();
    let public = public.split(' ').nth(1).unwrap();
    // Twelve: a list, of one key.
    assert_eq!(output(&events), format!("0c00000001\n{public}\n"));
}

#[tokio::test]
async fn options_reach_the_steps() {
    let mut bed = Bed::new();
    let marker = unique();
    bed.options.build_args = BTreeMap::from([("MARKER".into(), Some(marker.clone()))]);
    bed.options.add_hosts = BTreeMap::from([("somewhere".into(), "192.0.2.7".into())]);
    bed.options.network = Some("none".into());
    bed.options.target = Some("wanted".into());
    let dockerfile = "FROM BUSYBOX AS wanted\nARG MARKER\n\
                      RUN echo $MARKER; grep somewhere /etc/hosts; ls /sys/class/net\nFROM wanted\nRUN false\n";
    let (result, events) = bed.build(dockerfile).await;
    result.unwrap();
    let words: Vec<_> = output(&events).split_whitespace().map(str::to_owned).collect();
    assert_eq!(words, [marker.as_str(), "192.0.2.7", "somewhere", "lo"]);
}

#[tokio::test]
async fn extra_files_are_in_the_image_and_a_changed_one_is_noticed() {
    let mut bed = Bed::new();
    let marker = unique();
    let extra = |text: String| ExtraFile { path: "made/up.sh".into(), content: Bytes::from(text), mode: 0o755 };
    bed.write(".dockerignore", "made\n");
    for number in 1..=2 {
        bed.extra_files = vec![extra(format!("echo {number} {marker}\n"))];
        let (result, events) =
            bed.build("FROM BUSYBOX\nCOPY . /x/\nRUN sh /x/made/up.sh; stat -c %a /x/made/up.sh\n").await;
        assert!(result.unwrap().sent_files > 0);
        assert_eq!(output(&events), format!("{number} {marker}\n755\n"));
    }
}

#[tokio::test]
async fn what_this_buildkit_would_ignore_is_refused() {
    let mut bed = Bed::new();
    bed.options.shm_size = Some(1 << 20);
    assert_eq!(bed.build("FROM BUSYBOX\n").await.0.unwrap_err().code(), "unsupported");
    bed.options.shm_size = None;
    bed.options.source_date_epoch = Some(1);
    let (result, events) = bed.build("FROM BUSYBOX\n").await;
    result.unwrap();
    assert!(events.iter().any(|event| matches!(event, Event::Warning { code, .. } if code == "option-ignored")));
}
