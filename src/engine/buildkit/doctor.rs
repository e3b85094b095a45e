//! What the workers are, and what to do about those that do not serve.

use std::sync::Arc;

use futures_util::future::join_all;

use super::worker::{Ready, Worker};
use super::{BuildKitEngine, info};
use crate::daemon::Attempt;
use crate::engine::doctor::{Report, Status, gibibytes, look_at_registry};
use crate::environment::Environment;
use crate::error::{Error, Result};
use crate::reference::Reference;
use crate::request::{EngineSpec, Job};

/// Looks at every worker and, if one is named, at a registry. Fails only with `Interrupted`: everything else is a finding.
pub async fn examine(
    spec: &EngineSpec,
    registry: Option<&Reference>,
    environment: Environment,
    job: &Job,
) -> Result<Report> {
    let engine = BuildKitEngine::new(spec.clone(), environment.clone());
    let environment = Arc::new(environment);
    let mut report = Report::default();
    job.cancel
        .guard(async {
            match engine.workers() {
                Err(error) => report.add_error("worker", &error),
                Ok(workers) => look_at_workers(&workers, &mut report).await,
            }
            if let Some(reference) = registry {
                let note = Some("; the worker pushes, and may see another network");
                look_at_registry(reference, job, &environment, note, &mut report).await?;
            }
            Ok(())
        })
        .await?;
    Ok(report)
}

async fn look_at_workers(workers: &[Worker], report: &mut Report) {
    let answers = join_all(workers.iter().map(Worker::connect)).await;
    let serving = answers.iter().filter(|answer| answer.is_ok()).count();
    for (worker, answer) in workers.iter().zip(&answers) {
        let error = answer.as_ref().err().map(ToString::to_string);
        report.attempts.push(Attempt { endpoint: worker.text.clone(), source: "worker".into(), error });
        match answer {
            Ok(ready) => {
                report.engine.get_or_insert_with(|| info(ready));
                describe(ready, report).await;
            }
            // A pool builds as long as one of it does.
            Err(error) if serving > 0 => {
                report.add("worker", Status::Warn, error.to_string(), error.hint().as_deref());
            }
            Err(error) => report.add_error("worker", error),
        }
    }
}

async fn describe(ready: &Ready, report: &mut Report) {
    let inside = match &ready.daemon {
        Some(daemon) => format!("BuildKit inside {}", daemon.product().name()),
        None => "BuildKit".to_owned(),
    };
    let running = match ready.about.running {
        Some(1) => ", 1 build running".to_owned(),
        Some(running) => format!(", {running} builds running"),
        None => String::new(),
    };
    let text = format!("{inside} {} at {}{running}", ready.version_text(), ready.text);
    report.add("worker", Status::Ok, text, None);
    for worker in &ready.about.workers {
        let platforms: Vec<String> = worker.platforms.iter().map(ToString::to_string).collect();
        let on = if worker.host.is_empty() { String::new() } else { format!(" on {}", worker.host) };
        let how =
            [&worker.executor, &worker.snapshotter].map(String::as_str).into_iter().filter(|word| !word.is_empty());
        let how = how.collect::<Vec<_>>().join(", ");
        report.add("platforms", Status::Ok, format!("{} ({how}){on}", platforms.join(", ")), None);
    }
    if ready.about.workers.is_empty() {
        let advice = "look at its log: a buildkitd without a worker builds nothing";
        report.add("platforms", Status::Fail, format!("{} has no worker", ready.text), Some(advice));
    }
    match ready.connection.cache_usage().await {
        Ok(usage) => {
            let text = format!(
                "{:.1} GiB in {} records, {:.1} GiB of it can be removed",
                gibibytes(usage.bytes),
                usage.records,
                gibibytes(usage.reclaimable)
            );
            report.add("cache", Status::Ok, text, None);
        }
        Err(Error::DaemonProtocol { reason, .. }) => report.add("cache", Status::Warn, reason, None),
        Err(error) => report.add_error("cache", &error),
    }
}
