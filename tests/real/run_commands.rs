//! Commands of RUN, and the layers of what they change.

use cooper::error::Error;
use cooper::request::{SecretSource, SecretSpec};

use crate::run_bed::{LEVELS, RunBed, last_layer, printed};

#[tokio::test]
async fn what_a_command_changes_is_a_layer() {
    for level in LEVELS {
        let bed = RunBed::new(
            level,
            "COPY a b /d/\nRUN echo new > /d/n && rm /d/a && chmod 600 /d/b && ln -s n /d/l && mkdir -p /x/y\n",
            &[("a", "1"), ("b", "2")],
        );
        let done = bed.build().await;
        let layer = last_layer(&done);
        let found: Vec<(&str, &str)> = layer.iter().map(|(path, said)| (path.as_str(), said.trim_end())).collect();
        let expected = [
            ("d/", "0755 0:0"),
            ("d/.wh.a", "0000 0:0"),
            ("d/b", "0600 0:0 2"),
            ("d/l -> n", "0777 0:0"),
            ("d/n", "0644 0:0 new"),
            ("x/", "0755 0:0"),
            ("x/y/", "0755 0:0"),
        ];
        assert_eq!(found, expected, "{level}");
        let again = bed.build().await;
        assert_eq!(again.outcome.totals.cached_steps, again.outcome.totals.total_steps, "{level}");
        assert_eq!(again.image.manifest, done.image.manifest, "{level}");
    }
}

#[tokio::test]
async fn commands_follow_each_other() {
    for level in LEVELS {
        let bed = RunBed::new(
            level,
            "RUN mkdir /d && echo 1 > /d/a && echo 1 > /d/b\nRUN rm -r /d && mkdir /d && echo 2 > /d/c\n\
             RUN cat /d/* > /all && ls /d >> /all\nRUN true\nRUN cat /all && rm /all\n",
            &[],
        );
        let (done, events) = bed.try_with(|_| {}).await;
        let done = done.unwrap_or_else(|error| panic!("{level}: {error:?}"));
        assert!(printed(&events).contains("2\nc\n"), "{level}: {}", printed(&events));
        let layers = &done.image.layers;
        assert_eq!(layers[layers.len() - 2], [""; 0], "{level}: nothing was changed");
        assert!(last_layer(&done).keys().any(|path| path == ".wh.all"), "{level}: {:?}", last_layer(&done));
    }
}

#[tokio::test]
async fn owners_are_those_that_were_meant() {
    for level in LEVELS {
        let bed = RunBed::new(
            level,
            "RUN mkdir -p /home/me && chown me:extra /home/me\nUSER me\nWORKDIR /home/me\n\
             RUN echo \"$(id -u) $(id -g) $(id -G) $HOME $PWD\" && echo x > mine && ln -s mine link\n",
            &[],
        );
        let (done, events) = bed.try_with(|_| {}).await;
        let done = done.unwrap_or_else(|error| panic!("{level}: {error:?}"));
        // Where there is one id, there is one group.
        let groups = if level == "single" { "1000" } else { "1000 1001" };
        let expected = format!("1000 1000 {groups} /home/me /home/me\n");
        assert!(printed(&events).contains(&expected), "{level}: {}", printed(&events));
        let layer = last_layer(&done);
        assert_eq!(layer["home/me/mine"].trim_end(), "0644 1000:1000 x", "{level}");
        assert_eq!(layer["home/me/link -> mine"], "0777 1000:1000", "{level}");
        assert_eq!(layer["home/me/"], "0755 1000:1001", "{level}");
    }
}

#[tokio::test]
async fn a_command_that_fails_says_how() {
    for level in LEVELS {
        let bed = RunBed::new(level, "RUN echo before\nRUN for i in 1 2 3; do echo line $i; done; exit 7\n", &[]);
        let (error, events) = bed.fail_with(|_| {}).await;
        let Error::StepFailed(failed) = &error else { panic!("{level}: {error:?}") };
        assert_eq!(failed.exit_code, Some(7), "{level}");
        assert_eq!(failed.tail, ["line 1", "line 2", "line 3"], "{level}");
        assert_eq!(failed.location.as_ref().unwrap().line, 6, "{level}");
        assert!(failed.message.contains("did not complete successfully: exit code: 7"), "{}", failed.message);
        assert!(printed(&events).contains("line 2\n"));
        let bed = RunBed::new(level, "USER nobody\nRUN true\n", &[]);
        let (error, _) = bed.fail_with(|_| {}).await;
        assert!(
            error.to_string().contains("unable to find user nobody: no matching entries in passwd file"),
            "{error}"
        );
    }
}

#[tokio::test]
async fn secrets_are_nowhere_but_in_the_command() {
    for level in LEVELS {
        let bed = RunBed::new(
            level,
            "RUN --mount=type=secret,id=t,env=T --mount=type=secret,id=t,mode=0440,uid=1000 \
             test \"$(echo $T | wc -c)\" = 13 && test \"$(cat /run/secrets/t)\" = \"$T\" && \
             stat -c '%a' /run/secrets/t && echo \"the value is $T\" && echo ok > /done\n\
             RUN --mount=type=secret,id=none test ! -e /run/secrets/none && test ! -e /run/secrets/t\n",
            &[],
        );
        let secret = |value: &str| SecretSpec {
            id: "t".into(),
            source: SecretSource::Value(cooper::secret::Secret::new(value.as_bytes().to_vec().into())),
        };
        let (done, events) = bed.try_with(|request| request.options.secrets = vec![secret("s3cr3t-value")]).await;
        let done = done.unwrap_or_else(|error| panic!("{level}: {error:?}"));
        let said = format!("{events:?}");
        assert!(said.contains("the value is ***") && !said.contains("s3cr3t-value"), "{level}: {said}");
        assert!(!format!("{:?}", done.image).contains("s3cr3t"), "{level}");
        // Another value is no reason to run it again.
        let again = bed.build_with(|request| request.options.secrets = vec![secret("another")]).await;
        assert_eq!(again.outcome.totals.cached_steps, again.outcome.totals.total_steps, "{level}");
        let bed = RunBed::new(level, "RUN --mount=type=secret,id=t,required true\n", &[]);
        assert_eq!(bed.fail_with(|_| {}).await.0.code(), "secret-unavailable", "{level}");
    }
}

#[tokio::test]
async fn a_command_ends_with_the_build() {
    use std::time::{Duration, Instant};
    for level in LEVELS {
        let bed = RunBed::new(level, "RUN echo started; sleep 1000 & sleep 1000\n", &[]);
        let cancel = cooper::cancel::Cancel::new();
        let (stop, mut ended) = (cancel.clone(), Instant::now());
        let watch = |event: &cooper::event::Event| {
            if matches!(event, cooper::event::Event::StepLog { text, .. } if text.contains("started")) {
                ended = Instant::now();
                stop.cancel();
            }
        };
        let error = bed.interrupted(cancel.clone(), watch).await;
        assert_eq!(error.code(), "interrupted", "{level}");
        assert!(ended.elapsed() < Duration::from_millis(200), "{level}: {:?}", ended.elapsed());
    }
}
