//! A byte stream to a daemon behind SSH: the `ssh` program runs `docker system dial-stdio`, or `buildctl dial-stdio`, over
//! there, as the Docker CLI and buildctl do, so that the user's keys, agent, jump hosts and `~/.ssh/config` hold.

use std::time::Duration;

use super::program::Program;

/// Where to go by SSH.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SshTarget {
    /// Login name; `ssh` decides where `None`.
    pub user: Option<String>,
    /// A host, or an alias of the user's SSH configuration.
    pub host: String,
    /// Port; `ssh` decides where `None`.
    pub port: Option<u16>,
    /// The daemon's socket over there; its CLI's default where `None`.
    pub socket: Option<String>,
}

/// What connects to the daemon over there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Behind {
    /// `docker system dial-stdio`.
    Docker,
    /// `buildctl dial-stdio`.
    Buildkitd,
}

impl SshTarget {
    /// How `ssh` is called. Nothing here can be a secret: SSH URLs with a password are refused before.
    pub fn program(&self, behind: Behind, timeout: Duration) -> Program {
        let mut arguments = vec!["-o".to_owned(), format!("ConnectTimeout={}", timeout.as_secs().max(1))];
        // A question for a password would wait unseen behind the progress display.
        arguments.extend(["-o".to_owned(), "BatchMode=yes".to_owned(), "-T".to_owned()]);
        if let Some(user) = &self.user {
            arguments.extend(["-l".to_owned(), user.clone()]);
        }
        if let Some(port) = self.port {
            arguments.extend(["-p".to_owned(), port.to_string()]);
        }
        arguments.extend(["--".to_owned(), self.host.clone()]);
        let (command, option, rest): (_, _, &[&str]) = match behind {
            Behind::Docker => ("docker", "--host", &["system", "dial-stdio"]),
            Behind::Buildkitd => ("buildctl", "--addr", &["dial-stdio"]),
        };
        arguments.push(command.to_owned());
        if let Some(socket) = &self.socket {
            // The remote shell splits words; a quoted path keeps its spaces.
            arguments.extend([option.to_owned(), format!("'unix://{}'", socket.replace('\'', r"'\''"))]);
        }
        arguments.extend(rest.iter().map(|word| (*word).to_owned()));
        Program { name: "ssh".into(), arguments }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_follow_the_docker_cli_and_buildctl() {
        let target = SshTarget {
            user: Some("me".into()),
            host: "box".into(),
            port: Some(2222),
            socket: Some("/run/my docker.sock".into()),
        };
        let arguments = |behind| target.program(behind, Duration::from_secs(7)).arguments.join(" ");
        assert_eq!(
            arguments(Behind::Docker),
            "-o ConnectTimeout=7 -o BatchMode=yes -T -l me -p 2222 -- box docker --host 'unix:///run/my docker.sock' system dial-stdio"
        );
        assert!(
            arguments(Behind::Buildkitd).ends_with("-- box buildctl --addr 'unix:///run/my docker.sock' dial-stdio")
        );
    }
}
