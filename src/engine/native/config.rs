//! An image's configuration and the part of it that a Dockerfile reads and writes.

use std::time::Duration;

use crate::dockerfile::instruction::{Command, Healthcheck};
use crate::dockerfile::{Config, Evaluated};
use crate::oci::{ContainerConfig, Health, ImageConfig};

/// What a stage that builds on an image begins with.
pub(super) fn of_image(image: &ImageConfig) -> Config {
    let config = &image.config;
    Config {
        env: config.env.iter().map(|pair| pair.split_once('=').unwrap_or((pair, ""))).collect(),
        cmd: config.cmd.clone(),
        entrypoint: config.entrypoint.clone(),
        labels: config.labels.clone(),
        exposed_ports: config.exposed_ports.clone(),
        volumes: config.volumes.clone(),
        working_dir: config.working_dir.clone(),
        user: config.user.clone(),
        stop_signal: config.stop_signal.clone(),
        shell: config.shell.clone(),
        healthcheck: config.healthcheck.as_ref().and_then(healthcheck),
        onbuild: config.on_build.clone(),
        author: image.author.clone(),
    }
}

/// What a stage made of it. `base` is the configuration that the stage began with, in an image's words.
pub(super) fn to_image(base: &ImageConfig, evaluated: &Evaluated) -> ImageConfig {
    let config = &evaluated.config;
    let kept = base.config.healthcheck.as_ref().filter(|kept| healthcheck(kept) == config.healthcheck);
    let health = kept.cloned().or_else(|| config.healthcheck.as_ref().map(health));
    // Docker's own mark that a command needs no more escaping; BuildKit sets it on every platform.
    let has_cmd = evaluated.steps.iter().any(|step| is(&step.text, "CMD")) && config.cmd.is_some();
    ImageConfig {
        author: config.author.clone(),
        config: ContainerConfig {
            user: config.user.clone(),
            exposed_ports: config.exposed_ports.clone(),
            env: config.env.iter().map(|(name, value)| format!("{name}={value}")).collect(),
            entrypoint: config.entrypoint.clone(),
            cmd: config.cmd.clone(),
            volumes: config.volumes.clone(),
            working_dir: config.working_dir.clone(),
            labels: config.labels.clone(),
            stop_signal: config.stop_signal.clone(),
            args_escaped: base.config.args_escaped || has_cmd,
            healthcheck: health,
            on_build: config.onbuild.clone(),
            shell: config.shell.clone(),
        },
        ..base.clone()
    }
}

fn is(text: &str, keyword: &str) -> bool {
    text.split_whitespace().next().is_some_and(|word| word.eq_ignore_ascii_case(keyword))
}

/// `None` where the image has settings for a test that it does not have.
fn healthcheck(health: &Health) -> Option<Healthcheck> {
    let (kind, rest) = health.test.split_first()?;
    let command = match kind.as_str() {
        "NONE" => None,
        "CMD-SHELL" => Some(Command::Shell(rest.join(" "))),
        "CMD" => Some(Command::Exec(rest.to_vec())),
        _ => return None,
    };
    let time = |nanoseconds: i64| u64::try_from(nanoseconds).ok().filter(|time| *time > 0).map(Duration::from_nanos);
    Some(Healthcheck {
        command,
        interval: time(health.interval),
        timeout: time(health.timeout),
        start_period: time(health.start_period),
        start_interval: time(health.start_interval),
        retries: u32::try_from(health.retries).unwrap_or_default(),
    })
}

fn health(check: &Healthcheck) -> Health {
    let test = match &check.command {
        None => vec!["NONE".to_owned()],
        Some(Command::Shell(text)) => vec!["CMD-SHELL".to_owned(), text.clone()],
        Some(Command::Exec(words)) => [&["CMD".to_owned()], words.as_slice()].concat(),
    };
    let time = |time: Option<Duration>| time.map_or(0, |time| i64::try_from(time.as_nanos()).unwrap_or(i64::MAX));
    Health {
        test,
        interval: time(check.interval),
        timeout: time(check.timeout),
        start_period: time(check.start_period),
        start_interval: time(check.start_interval),
        retries: check.retries.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dockerfile::{Dockerfile, Inputs, Start};

    fn build(base: &ImageConfig, text: &str) -> ImageConfig {
        let file = Dockerfile::parse("Dockerfile", format!("FROM base\n{text}\n").as_bytes()).unwrap();
        let inputs = Inputs::new("linux/amd64".parse().unwrap());
        let plan = file.plan(&inputs).unwrap();
        let evaluated = plan.evaluate(0, Start::Image(&of_image(base))).unwrap();
        to_image(base, &evaluated)
    }

    #[test]
    fn what_no_instruction_touches_stays() {
        let text = r#"{"architecture":"amd64","os":"linux","author":"a","os.version":"1","config":{"User":"u",
            "ExposedPorts":{"80/tcp":{}},"Env":["PATH=/bin","A=b=c"],"Entrypoint":["e"],"Cmd":["c"],"Volumes":{"/v":{}},
            "WorkingDir":"/w","Labels":{"l":"1"},"StopSignal":"SIGINT","ArgsEscaped":true,
            "Healthcheck":{"Test":["CMD","x"],"Interval":5,"Retries":3},"Shell":["sh"]},
            "rootfs":{"type":"layers","diff_ids":[]}}"#;
        let base = ImageConfig::parse(text.as_bytes()).unwrap();
        assert_eq!(build(&base, ""), base);
        let changed = build(&base, "ENV A=1\nUSER v\nHEALTHCHECK NONE\nCMD d");
        assert_eq!(changed.config.env, ["PATH=/bin", "A=1"]);
        assert_eq!(changed.config.user, "v");
        assert_eq!(changed.config.healthcheck.unwrap().test, ["NONE"]);
        assert_eq!(changed.config.cmd.unwrap(), ["sh", "d"]);
        assert_eq!(changed.os_version.unwrap(), "1");
    }

    #[test]
    fn settings_of_a_health_check_without_a_test_stay() {
        let text = r#"{"architecture":"amd64","os":"linux","config":{"Healthcheck":{"Interval":5}}}"#;
        let base = ImageConfig::parse(text.as_bytes()).unwrap();
        assert_eq!(build(&base, "").config.healthcheck, base.config.healthcheck);
        let set = build(&base, "HEALTHCHECK --interval=2s --retries=4 CMD a b");
        let health = set.config.healthcheck.unwrap();
        assert_eq!(
            (health.test.join(" "), health.interval, health.retries),
            ("CMD-SHELL a b".into(), 2_000_000_000, 4)
        );
        assert!(!set.config.args_escaped);
        assert!(build(&base, "CMD x").config.args_escaped);
    }
}
