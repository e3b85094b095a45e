//! Processes that run commands and tasks for this one.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{Errno, read};

use super::protocol::{Answer, Failure, Request, receive, send};
use super::{Finished, IdMap, Level, LevelSupport, Problem, Spec, Support, Task, TaskAnswer};
use crate::cancel::Cancel;
use crate::dockerfile::DEFAULT_PATH;
use crate::error::{Error, Result};
use crate::request::Helper;
use crate::store::Remover;

/// How often a thread that waits for a helper looks whether it is to stop: far below the 200 ms in which a build ends.
const TICK: Timespec = Timespec { tv_sec: 0, tv_nsec: 20_000_000 };
/// How long a helper may take to end what it has started, before it is ended itself. The kernel takes some milliseconds.
const PATIENCE: Duration = Duration::from_secs(2);
/// What is read of a command's output at once: as much as a pipe holds.
const CHUNK: usize = 64 << 10;
/// Idle helpers that are kept.
const MOST_IDLE: usize = 8;

/// Helpers that are started when they are needed, and end with this value. Any number of threads may use it at once; a helper
/// does one thing at a time, and is used again.
#[derive(Clone, Debug)]
pub struct Sandboxes(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    helper: Helper,
    idle: Mutex<Vec<Session>>,
}

/// Where a command wrote something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// Standard output.
    Out,
    /// Standard error.
    Err,
}

/// What becomes of a command's output.
type Output<'a> = &'a mut dyn FnMut(Stream, &[u8]);

impl Sandboxes {
    /// Helpers that are started in this way.
    pub fn new(helper: Helper) -> Self {
        Self(Arc::new(Inner { helper, idle: Mutex::new(Vec::new()) }))
    }

    /// Finds out what works on this machine, by trying; `directory` is where roots will be. Fails with `Interrupted` only, and
    /// with `Sandbox` if no helper can be started. Blocks, for some 50 ms.
    pub fn probe(&self, directory: &Path, cancel: &Cancel) -> Result<Support> {
        let found = thread::scope(|scope| {
            let tries = Level::ALL.map(|level| scope.spawn(move || self.probe_level(level, directory, cancel)));
            tries.map(|tried| tried.join().unwrap_or_else(|_| Err(Error::internal("a thread ended"))))
        });
        Ok(Support { levels: found.into_iter().collect::<Result<_>>()? })
    }

    fn probe_level(&self, level: Level, directory: &Path, cancel: &Cancel) -> Result<LevelSupport> {
        let none = |problem| LevelSupport { level, problem: Some(problem), overlay: None, own_proc: false };
        let mut session = match self.session(level, cancel)? {
            Ok(session) => session,
            Err(Failure::Level(problem)) => return Ok(none(problem)),
            Err(failure) => return Err(failure.into_error()),
        };
        let request = Request::Try { directory: directory.to_owned() };
        match session.ask(&request, &mut |_, _| {}, cancel)? {
            Answer::Tried(tried) => {
                self.give_back(session);
                Ok(LevelSupport { level, problem: None, overlay: tried.overlay, own_proc: tried.own_proc })
            }
            Answer::Failed(Failure::Level(problem)) => Ok(none(problem)),
            Answer::Failed(failure) => Ok(none(Problem { reason: failure.into_error().to_string(), advice: None })),
            _ => Err(unexpected()),
        }
    }

    /// Which ids are which at a level. Fails with `Sandbox` where the level cannot be had.
    pub fn id_map(&self, level: Level) -> Result<IdMap> {
        IdMap::of(level).map_err(|problem| Failure::Level(problem).into_error())
    }

    /// Runs a command, and comes back when nothing of it is left. A command that fails is no error: [`Finished::exit`] says so.
    /// `output` is called on this thread. Fails with `Sandbox` if the world of the command cannot be made, and with
    /// `Interrupted`, within some milliseconds. Blocks.
    pub fn run(&self, spec: &Spec, output: Output<'_>, cancel: &Cancel) -> Result<Finished> {
        let mut session = self.session(spec.level, cancel)?.map_err(Failure::into_error)?;
        match session.ask(&Request::Run(Box::new(spec.clone())), output, cancel)? {
            Answer::Finished(finished) => {
                self.give_back(session);
                Ok(finished)
            }
            Answer::Failed(failure) => Err(failure.into_error()),
            _ => Err(unexpected()),
        }
    }

    /// Does something with files as root of the ids of a level. Fails as that does, with `Sandbox`, or with `Interrupted`. Blocks.
    pub fn task(&self, level: Level, task: &Task, cancel: &Cancel) -> Result<TaskAnswer> {
        let mut session = self.session(level, cancel)?.map_err(Failure::into_error)?;
        let answer = session.ask(&Request::Task(task.clone()), &mut |_, _| {}, cancel)?;
        match answer {
            Answer::Task(answer) => {
                self.give_back(session);
                Ok(answer)
            }
            Answer::Failed(failure) => Err(failure.into_error()),
            _ => Err(unexpected()),
        }
    }

    /// A helper at a level.
    fn session(&self, level: Level, cancel: &Cancel) -> Result<std::result::Result<Session, Failure>> {
        let known = {
            let mut idle = self.idle();
            idle.iter().position(|session| session.level == level).map(|at| idle.swap_remove(at))
        };
        match known {
            Some(session) => Ok(Ok(session)),
            None => Session::start(&self.0.helper, level, cancel),
        }
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, Vec<Session>> {
        self.0.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn give_back(&self, session: Session) {
        let mut idle = self.idle();
        if idle.len() < MOST_IDLE {
            idle.push(session);
        }
    }
}

/// Removes what belongs to subordinate ids, or to nobody who may look into it from outside.
impl Remover for Sandboxes {
    fn remove(&self, directories: &[PathBuf]) {
        let task = Task::Remove { paths: directories.to_vec() };
        // What is left is tried again the next time.
        let _ = [Level::Subordinate, Level::Single]
            .into_iter()
            .find(|level| self.task(*level, &task, &Cancel::new()).is_ok());
    }
}

fn unexpected() -> Error {
    Error::internal("a helper answered something else than it was asked for")
}

fn failed(action: &str, error: &io::Error) -> Error {
    Error::Sandbox { action: action.to_owned(), reason: error.to_string() }
}

/// A helper.
#[derive(Debug)]
struct Session {
    level: Level,
    child: Child,
    /// It ends when this is closed.
    control: Option<UnixStream>,
    outputs: [OwnedFd; 2],
}

impl Session {
    fn start(helper: &Helper, level: Level, cancel: &Cancel) -> Result<std::result::Result<Self, Failure>> {
        let action = "start the process that runs commands";
        let start = || {
            let (ours, theirs) = UnixStream::pair()?;
            let mut command = Command::new(&helper.program);
            // What is in this process's environment is none of the command's business, and it is told nothing by arguments.
            command.args(&helper.arguments).env_clear().env("PATH", DEFAULT_PATH).current_dir("/");
            command.stdin(OwnedFd::from(theirs)).stdout(Stdio::piped()).stderr(Stdio::piped());
            // Ctrl-C goes to the build, which ends it.
            command.process_group(0);
            let mut child = command.spawn()?;
            let missing = || io::Error::other("it has no output");
            let out = OwnedFd::from(child.stdout.take().ok_or_else(missing)?);
            let err = OwnedFd::from(child.stderr.take().ok_or_else(missing)?);
            for pipe in [&out, &err] {
                rustix::io::ioctl_fionbio(pipe, true)?;
            }
            Ok(Self { level, child, control: Some(ours), outputs: [out, err] })
        };
        let mut session = start().map_err(|error: io::Error| failed(action, &error))?;
        let mut said = Vec::new();
        match session.ask(&Request::Start(level), &mut |_, text| said.extend_from_slice(text), cancel) {
            Ok(Answer::Ready) => Ok(Ok(session)),
            Ok(Answer::Failed(failure)) => Ok(Err(failure)),
            Ok(_) => Err(unexpected()),
            Err(Error::Sandbox { reason, .. }) => {
                let said = String::from_utf8_lossy(&said).trim().to_owned();
                let reason = if said.is_empty() { reason } else { format!("{reason}: {said}") };
                Err(Error::Sandbox { action: action.into(), reason })
            }
            Err(error) => Err(error),
        }
    }

    /// Asks for something, and waits for the answer. What is printed meanwhile goes to `output`. After an error, this is of no
    /// use any more.
    fn ask(&mut self, request: &Request, output: Output<'_>, cancel: &Cancel) -> Result<Answer> {
        let action = "run a command";
        let Some(control) = self.control.take() else { return Err(Error::internal("this helper has ended")) };
        // From here on, it ends with an error.
        send(&control, request).map_err(|error| failed(action, &error))?;
        let mut open = [true, true];
        loop {
            cancel.check()?;
            let mut fds = vec![PollFd::new(&control, PollFlags::IN)];
            let pipes = self.outputs.iter().zip(open).filter(|(_, open)| *open);
            fds.extend(pipes.map(|(pipe, _)| PollFd::new(pipe, PollFlags::IN)));
            match poll(&mut fds, Some(&TICK)) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(failed(action, &error.into())),
            }
            let answered = !fds[0].revents().is_empty();
            self.read_outputs(output, &mut open, cancel)?;
            if answered {
                break;
            }
        }
        let answer = receive::<Answer>(&control).map_err(|error| failed(action, &error))?;
        let mut all = [true, true];
        self.read_outputs(output, &mut all, cancel)?;
        let Some(answer) = answer else { return Err(failed(action, &io::Error::other("its process was ended"))) };
        self.control = Some(control);
        Ok(answer)
    }

    /// Reads what there is.
    fn read_outputs(&self, output: Output<'_>, open: &mut [bool; 2], cancel: &Cancel) -> Result<()> {
        let mut chunk = vec![0; CHUNK];
        for ((pipe, stream), open) in self.outputs.iter().zip([Stream::Out, Stream::Err]).zip(open) {
            while *open {
                cancel.check()?;
                match read(pipe, &mut chunk) {
                    Ok(0) => *open = false,
                    Ok(count) => {
                        output(stream, &chunk[..count]);
                        if count < chunk.len() {
                            break;
                        }
                    }
                    Err(Errno::AGAIN) => break,
                    Err(Errno::INTR) => {}
                    Err(error) => return Err(failed("read what a command prints", &error.into())),
                }
            }
        }
        Ok(())
    }
}

impl Drop for Session {
    /// Nothing that it has started is left afterwards.
    fn drop(&mut self) {
        drop(self.control.take());
        let until = Instant::now() + PATIENCE;
        while Instant::now() < until {
            match self.child.try_wait() {
                Ok(None) => thread::sleep(Duration::from_millis(1)),
                _ => return,
            }
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
