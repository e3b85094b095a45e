//! What RUN mounts.

use cooper::request::SshSpec;

use crate::run_bed::{LEVELS, RunBed, last_layer, printed};

/// Builds at each level; what was printed, and the names in the last layer.
async fn each(dockerfile: &str, files: &[(&str, &str)], check: impl Fn(&str, &str, Vec<String>)) {
    for level in LEVELS {
        // Where nothing can be mounted, nothing is read-only: there are copies.
        let dockerfile = if level == "chroot" { dockerfile.replace("! touch", "touch") } else { dockerfile.to_owned() };
        let bed = RunBed::new(level, &dockerfile, files);
        let (done, events) = bed.try_with(|_| {}).await;
        let done = done.unwrap_or_else(|error| panic!("{level}: {error:?}\n{}", printed(&events)));
        check(level, &printed(&events), last_layer(&done).into_keys().collect());
    }
}

#[tokio::test]
async fn a_context_is_seen_without_what_is_excluded_and_owned_by_root() {
    let files =
        [("src/a", "one"), ("src/d/b", "two"), ("src/out", "x"), ("other", "y"), (".dockerignore", "src/out\n")];
    let dockerfile = "RUN --mount=target=/m,source=src ls -R /m && stat -c '%u:%g' /m/a /m && cat /m/d/b && \
        ! touch /m/a 2>/dev/null && echo 1 > /done\n\
        RUN --mount=target=/m,source=src,rw echo changed > /m/a && rm -r /m/d && ls /m && test ! -e /m/out\n\
        RUN --mount=target=/f,source=src/a cat /f && test ! -e /m && rm /done\n";
    each(dockerfile, &files, |level, printed, names| {
        assert!(printed.contains("0:0\n0:0\ntwo"), "{level}: {printed}");
        assert!(printed.contains("one"), "{level}: {printed}");
        assert_eq!(names, [".wh.done"], "{level}");
    })
    .await;
}

#[tokio::test]
async fn stages_are_seen_as_they_are() {
    let dockerfile = "FROM base AS one\nRUN mkdir -p /d/e && echo a > /d/a && echo b > /d/e/b\n\
        RUN rm /d/a && echo c > /d/c && chmod 700 /d\nFROM base\n\
        RUN --mount=from=one,target=/m ls /m/d && stat -c '%a' /m/d\n\
        RUN --mount=from=one,source=/d,target=/m ls /m && cat /m/e/b && ! touch /m/x 2>/dev/null && stat -c '%a' /m\n\
        RUN --mount=from=one,source=/d/c,target=/c,rw cat /c && echo x > /c\n\
        RUN --mount=from=one,source=/d,target=/m,rw echo new > /m/c && rm -r /m/e && ls /m > /seen\n";
    each(dockerfile, &[], |level, printed, names| {
        assert!(printed.contains("c\ne\n700\n"), "{level}: {printed}");
        assert!(printed.contains("c\ne\nb\n700\n"), "{level}: {printed}");
        assert_eq!(names, ["seen"], "{level}");
    })
    .await;
}

#[tokio::test]
async fn what_is_not_there_is_told_with_what_was_meant() {
    let bed = RunBed::new("root", "RUN --mount=target=/m,source=scr ls\n", &[("src/a", "1")]);
    let (error, _) = bed.fail_with(|_| {}).await;
    assert_eq!(error.code(), "copy-failed");
    assert!(error.hint().unwrap().contains("src"), "{:?}", error.hint());
    assert_eq!(error.location().unwrap().line, 5);
}

#[tokio::test]
async fn only_what_is_mounted_counts() {
    let bed = RunBed::new("root", "RUN --mount=target=/m,source=src cp -r /m /copy\n", &[("src/a", "1"), ("b", "1")]);
    bed.build().await;
    bed.bed.write("b", "2");
    let again = bed.build().await;
    assert_eq!(again.outcome.totals.cached_steps, again.outcome.totals.total_steps);
    bed.bed.write("src/a", "2");
    let (done, events) = bed.try_with(|_| {}).await;
    assert!(done.is_ok());
    let said = "not in the cache: what is mounted at /m has changed: 1 file changed: a";
    assert!(printed(&events).contains(said), "{}", printed(&events));
}

#[tokio::test]
async fn caches_stay_and_are_in_no_layer() {
    let dockerfile = "ARG N\nRUN --mount=type=cache,target=/cache echo x$N >> /cache/log && cat /cache/log\n\
        RUN --mount=type=cache,id=/cache,target=/other,sharing=locked cat /other/log\n\
        RUN --mount=type=cache,target=/mine,uid=1000,gid=1000,mode=0750 stat -c '%a %u:%g' /mine && echo $N > /n\n";
    for level in LEVELS {
        let bed = RunBed::new(level, dockerfile, &[]);
        let with = |number: &'static str| {
            move |request: &mut cooper::request::BuildRequest| {
                request.options.build_args.insert("N".into(), Some(number.into()));
            }
        };
        bed.build_with(with("1")).await;
        let (done, events) = bed.try_with(with("2")).await;
        let done = done.unwrap_or_else(|error| panic!("{level}: {error:?}"));
        let said = printed(&events);
        assert_eq!(said.matches("x1\nx2\n").count(), 2, "{level}: {said}");
        assert!(said.contains("750 1000:1000\n"), "{level}: {said}");
        assert_eq!(last_layer(&done).keys().collect::<Vec<_>>(), ["n"], "{level}");
        let store = cooper::store::Store::open(&bed.bed.store().join("store")).unwrap();
        let usage = store.usage(&cooper::cancel::Cancel::new()).unwrap();
        let caches = usage.kinds.get("caches").unwrap_or_else(|| panic!("{level}: {usage:?}"));
        assert_eq!(caches.count, 2, "{level}: {usage:?}");
        assert_eq!(caches.bytes, 6, "{level}: {usage:?}");
        let all = cooper::store::Policy { keep_bytes: Some(0), older_than: None };
        store.prune(&all, &cooper::cancel::Cancel::new()).unwrap();
        assert!(!store.usage(&cooper::cancel::Cancel::new()).unwrap().kinds.contains_key("caches"), "{level}");
    }
}

#[tokio::test]
async fn the_rest_of_the_world_is_as_it_was_asked_for() {
    let dockerfile = "RUN --mount=type=tmpfs,target=/t,size=1m echo x > /t/x && ! dd if=/dev/zero of=/t/y bs=1M count=2 2>/dev/null\n\
        RUN --network=none ! ping -c 1 -W 1 192.0.2.1 2>/dev/null && grep two /etc/hosts && ulimit -n\n\
        RUN <<EOF\n#!/bin/cat\nread by cat\nEOF\n";
    for level in LEVELS {
        let dockerfile = if level == "chroot" {
            // A directory of the machine stands for memory, and the network is the machine's.
            let none = RunBed::new(level, "RUN --network=none true\n", &[]);
            assert_eq!(none.fail_with(|_| {}).await.0.code(), "step-unsupported");
            let network = "--network=none ! ping -c 1 -W 1 192.0.2.1 2>/dev/null && ";
            dockerfile.replace("! dd", "dd").replace(network, "")
        } else {
            dockerfile.to_owned()
        };
        let bed = RunBed::new(level, &dockerfile, &[]);
        let change = |request: &mut cooper::request::BuildRequest| {
            request.options.add_hosts.insert("two".into(), "192.0.2.2".into());
            request.options.ulimits = vec!["nofile=99:100".into()];
        };
        let (done, events) = bed.try_with(change).await;
        let done = done.unwrap_or_else(|error| panic!("{level}: {error:?}"));
        let said = printed(&events);
        assert!(said.contains("192.0.2.2\ttwo\n99\n"), "{level}: {said}");
        assert!(said.contains("read by cat\n"), "{level}: {said}");
        assert!(last_layer(&done).is_empty(), "{level}");
    }
}

#[tokio::test]
async fn an_agent_is_there_for_the_one_command() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("agent");
    let _listening = std::os::unix::net::UnixListener::bind(&path).unwrap();
    let dockerfile = "RUN --mount=type=ssh test -S $SSH_AUTH_SOCK && echo $SSH_AUTH_SOCK && stat -c '%a' $SSH_AUTH_SOCK\n\
        RUN --mount=type=ssh,id=other test -n \"$SSH_AUTH_SOCK\" && test ! -e $SSH_AUTH_SOCK\n\
        RUN test -z \"$SSH_AUTH_SOCK\" && test ! -e /run/buildkit\n";
    for level in LEVELS {
        let bed = RunBed::new(level, dockerfile, &[]);
        let spec = SshSpec { id: "default".into(), paths: vec![path.clone()] };
        let (done, events) = bed.try_with(|request| request.options.ssh = vec![spec]).await;
        let done = done.unwrap_or_else(|error| panic!("{level}: {error:?}\n{}", printed(&events)));
        assert!(printed(&events).contains("/run/buildkit/ssh_agent.0\n600\n"), "{level}: {}", printed(&events));
        assert!(last_layer(&done).is_empty(), "{level}: {:?}", last_layer(&done));
        let bed = RunBed::new(level, "RUN --mount=type=ssh,required true\n", &[]);
        assert_eq!(bed.fail_with(|_| {}).await.0.code(), "ssh-unavailable", "{level}");
    }
}

#[tokio::test]
async fn caches_travel_with_the_registry_cache() {
    use cooper::request::{BuildRequest, CacheMode, CacheSpec, RegistryCache};
    let dockerfile = "RUN --mount=type=cache,target=/cache,mode=0700 echo here >> /cache/log && chmod 600 /cache/log\nARG N\n\
        RUN --mount=type=cache,target=/cache,mode=0700 echo $N; cat /cache/log && stat -c '%a' /cache /cache/log\n";
    let name = crate::docker_bed::fresh("caches");
    let cache = RegistryCache { mode: Some(CacheMode::Max), ..RegistryCache::at(name.parse().unwrap()) };
    let mounts = RegistryCache { attributes: [("mounts".to_owned(), "true".to_owned())].into(), ..cache.clone() };
    let export = |request: &mut BuildRequest| request.options.cache_to = vec![CacheSpec::Registry(mounts)];
    RunBed::new("root", dockerfile, &[]).build_with(export).await;
    for level in LEVELS {
        // Another store, and another form of it.
        let bed = RunBed::new(level, dockerfile, &[]);
        let (done, events) = bed
            .try_with(|request| {
                request.options.cache_from = vec![CacheSpec::Registry(cache.clone())];
                request.options.build_args.insert("N".into(), Some(level.into()));
            })
            .await;
        done.unwrap_or_else(|error| panic!("{level}: {error:?}"));
        let said = printed(&events);
        assert!(said.contains(&format!("{level}\nhere\n700\n600\n")), "{level}: {said}");
    }
}
