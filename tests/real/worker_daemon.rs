//! Workers that a test may kill.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use crate::docker_bed::setting;
use crate::worker_bed::Backend;

/// A BuildKit that was started for one test. Dropping it ends it, and all that it started.
pub(crate) struct Throwaway {
    pub(crate) backend: Backend,
    process: Pid,
    starter: Child,
}

impl Throwaway {
    /// One more Docker daemon.
    pub(crate) fn docker() -> Self {
        Self::start(&setting("COOPER_TEST_DOCKERD_START"))
    }

    /// A buildkitd, where a variable tells the command that starts one.
    pub(crate) fn buildkitd() -> Option<Self> {
        let Ok(command) = std::env::var("COOPER_TEST_BUILDKITD_START") else {
            println!("skipped: COOPER_TEST_BUILDKITD_START starts no buildkitd");
            return None;
        };
        Some(Self::start(&command))
    }

    /// The command says first where it is and which process, as JSON, and ends what it started when its input does.
    fn start(command: &str) -> Self {
        let mut shell = Command::new("sh");
        shell.args(["-c", &format!("exec {command}")]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut starter = shell.spawn().unwrap();
        let mut line = String::new();
        BufReader::new(starter.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let said: serde_json::Value =
            serde_json::from_str(&line).unwrap_or_else(|error| panic!("`{command}` says {line:?}: {error}"));
        let endpoint = said["endpoint"].as_str().unwrap();
        let backend = match endpoint.strip_prefix("docker+unix://") {
            Some(socket) => Backend::docker(socket.as_ref()),
            None => Backend::buildkitd_at(endpoint),
        };
        let process = i32::try_from(said["pid"].as_i64().unwrap()).ok().and_then(Pid::from_raw).unwrap();
        Self { backend, process, starter }
    }

    /// Something that kills it, whenever that is called.
    pub(crate) fn killer(&self, signal: Signal) -> impl FnOnce() + Send + use<> {
        let process = self.process;
        // It may have been killed before.
        move || {
            let _ = kill_process(process, signal);
        }
    }
}

impl Drop for Throwaway {
    fn drop(&mut self) {
        drop(self.starter.stdin.take());
        let ended = self.starter.wait().unwrap();
        assert!(ended.success() || std::thread::panicking(), "what was started could not be removed");
    }
}
