//! Builds with BuildKit on a real daemon: what is sent, and when.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;

use cooper::buildkit::attrs::BuildkitVersion;

use crate::buildkit_bed::{Bed, output, release, unique};

#[tokio::test]
async fn a_second_build_sends_only_what_changed() {
    let bed = Bed::new();
    let tag = unique();
    for number in 0..50 {
        bed.write(&format!("src/dir{}/file{number}", number % 5), &format!("content {number} {tag}"));
    }
    bed.write("unused", "not copied, so not sent");
    let dockerfile = "FROM BUSYBOX\nCOPY src /src\nRUN cat /src/dir0/file0 && ls -R /src | wc -l\n";
    let (first, events) = bed.build(dockerfile).await;
    let first = first.unwrap();
    assert_eq!(first.sent_files, 50, "{:?}", first.steps);
    assert!(output(&events).contains(&format!("content 0 {tag}")), "{events:?}");
    assert!(first.response["containerimage.digest"].starts_with("sha256:"), "{:?}", first.response);
    assert_eq!(first.total_steps, 3);

    let (second, _) = bed.build(dockerfile).await;
    let second = second.unwrap();
    assert_eq!((second.sent_files, second.sent_bytes), (0, 0));
    // Whether the base counts as cached depends on the daemon's version and mood.
    let cached: Vec<_> = second.steps.iter().filter(|step| step.cached).map(|step| step.name.as_str()).collect();
    assert!(cached.iter().any(|name| name.starts_with("[2/3] COPY")), "{cached:?}");
    assert!(cached.iter().any(|name| name.starts_with("[3/3] RUN")), "{cached:?}");

    bed.write("src/dir3/file3", &format!("changed {tag}"));
    let (third, _) = bed.build(dockerfile).await;
    let third = third.unwrap();
    assert_eq!(third.sent_files, 1);
    assert_eq!(third.sent_bytes, format!("changed {tag}").len() as u64);
    assert_ne!(third.response["containerimage.digest"], first.response["containerimage.digest"]);
}

#[tokio::test]
async fn names_that_are_no_text_and_links_arrive_as_they_are() {
    let bed = Bed::new();
    let name = OsStr::from_bytes(b"caf\xe9");
    std::fs::write(bed.root().join(name), "bytes").unwrap();
    bed.write("\u{e4} b/file", "text");
    std::fs::hard_link(bed.root().join(name), bed.root().join("link")).unwrap();
    std::os::unix::fs::symlink("\u{e4} b", bed.root().join("sym")).unwrap();
    let dockerfile = format!(
        "FROM BUSYBOX\nCOPY . /all/\nRUN : {}; cd /all; for f in *; do printf '%s ' \"$f\"; done | od -An -tx1; \\\n\
         cat caf* sym/file; stat -c ' %h' link; readlink sym\n",
        unique()
    );
    let mut sent = b"caf\xe9".as_slice();
    if release().await >= BuildkitVersion::v0(17) {
        let error = bed.build(&dockerfile).await.0.err().unwrap();
        assert!(error.code() == "context-path" && error.to_string().contains(r"caf\xe9"), "{error:?}");
        sent = b"cafe";
        std::fs::rename(bed.root().join(name), bed.root().join(OsStr::from_bytes(sent))).unwrap();
    }
    let (result, events) = bed.build(&dockerfile).await;
    result.unwrap();
    let printed: Vec<_> = output(&events).split_whitespace().map(str::to_owned).collect();
    let names = [sent, b" link sym \xc3\xa4 b "].concat();
    let names: Vec<_> = names.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(printed[..names.len()], names);
    assert_eq!(printed[names.len()..].join(" "), "bytestext 2 \u{e4} b");
}

#[tokio::test]
async fn only_what_the_dockerfile_copies_is_sent() {
    let bed = Bed::new();
    let marker = unique();
    for path in ["app/wanted", "app/other", "data/big"] {
        bed.write(path, &format!("{path} {marker}"));
    }
    std::os::unix::fs::symlink("app", bed.root().join("current")).unwrap();
    let (result, events) = bed.build("FROM BUSYBOX\nCOPY current/wanted /w\nRUN cat /w\n").await;
    // One file of three.
    assert_eq!(result.unwrap().sent_files, 1);
    assert_eq!(output(&events), format!("app/wanted {marker}"));
}
