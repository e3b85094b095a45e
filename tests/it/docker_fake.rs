//! A daemon that lies: it answers what a test tells it to, and stops where a test wants it to.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use cooper::cancel::Cancel;
use cooper::engine::Engine;
use cooper::engine::docker::DockerEngine;
use cooper::environment::Environment;
use cooper::error::{Error, Result};
use cooper::event::{Event, Events};
use cooper::outcome::Outcome;
use cooper::registry::credentials::Anonymous;
use cooper::request::{
    BuildOptions, BuildRequest, BuilderChoice, ContextSpec, DockerfileSpec, EngineSpec, ExtraFile, Job,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};

/// What the daemon does with a request.
#[derive(Clone, Debug)]
pub(crate) enum Answer {
    /// A whole response.
    Json(u16, String),
    /// The head of a response, these pieces, each in a packet of its own, and then the end.
    Pieces(Vec<String>, End),
    /// These bytes, whatever they are, and a close.
    Raw(&'static str),
    /// Nothing, for ever.
    Silence,
    /// Nothing, for ever; not even the body of the request is read.
    Deaf,
}

/// How a response ends.
#[derive(Clone, Copy, Debug)]
pub(crate) enum End {
    /// As HTTP says.
    Proper,
    /// In the middle.
    Cut,
    /// Not at all.
    Never,
}

type Log = Arc<Mutex<Vec<String>>>;
type Script = Arc<dyn Fn(&str, &str) -> Option<Answer> + Send + Sync>;

/// A daemon on a socket of its own.
pub(crate) struct Fake {
    folder: tempfile::TempDir,
    seen: Log,
    /// Requests whose connection the client closed before they were answered in full.
    dropped: Log,
    server: tokio::task::JoinHandle<()>,
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Fake {
    /// Starts a daemon. `script` gets the method and the path without the version; `None` answers as a good daemon would.
    pub(crate) fn start(script: impl Fn(&str, &str) -> Option<Answer> + Send + Sync + 'static) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(folder.path().join("docker.sock")).unwrap();
        let (seen, dropped) = (Log::default(), Log::default());
        let script: Script = Arc::new(script);
        let (log, lost) = (Arc::clone(&seen), Arc::clone(&dropped));
        let server = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, Arc::clone(&script), Arc::clone(&log), Arc::clone(&lost)));
            }
        });
        Self { folder, seen, dropped, server }
    }

    pub(crate) fn endpoint(&self) -> String {
        format!("unix://{}", self.folder.path().join("docker.sock").display())
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// `METHOD path` of all requests so far.
    pub(crate) fn seen(&self) -> Vec<String> {
        self.seen.lock().unwrap().clone()
    }

    /// Waits until the client has hung up on a request for this path.
    pub(crate) async fn hung_up_on(&self, path: &str) {
        let deadline = tokio::time::Instant::now() + Duration::from_secs(5);
        while !self.dropped.lock().unwrap().iter().any(|seen| seen.contains(path)) {
            assert!(tokio::time::Instant::now() < deadline, "the connection for {path} stays open");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// An engine for this daemon, with an environment of its own.
    pub(crate) fn engine(&self) -> DockerEngine {
        let spec =
            EngineSpec { endpoints: vec![self.endpoint()], builder: BuilderChoice::Classic, ..EngineSpec::default() };
        DockerEngine::new(spec, self.environment())
    }

    /// An environment whose Docker config is in the daemon's folder.
    pub(crate) fn environment(&self) -> Environment {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let path = std::env::join_paths([self.folder.path().into()].into_iter().chain(std::env::split_paths(&path)));
        Environment::with(
            self.folder.path(),
            [("DOCKER_CONFIG", self.folder.path().as_os_str()), ("PATH", path.unwrap().as_os_str())],
        )
    }

    /// Builds with this daemon; gives the events too.
    pub(crate) async fn build(&self, request: &BuildRequest) -> (Result<Outcome>, Vec<Event>) {
        build_with(&self.engine(), request, Cancel::new()).await
    }
}

/// Builds, and collects the events.
pub(crate) async fn build_with(
    engine: &DockerEngine,
    request: &BuildRequest,
    cancel: Cancel,
) -> (Result<Outcome>, Vec<Event>) {
    let (events, mut receiver) = Events::channel();
    let job = Job { events, cancel, credentials: Arc::new(Anonymous) };
    let collector = tokio::spawn(async move {
        let mut seen = Vec::new();
        while let Some(event) = receiver.recv().await {
            seen.push(event);
        }
        seen
    });
    let result = tokio::time::timeout(Duration::from_secs(20), engine.build(request, &job)).await;
    drop(job);
    (result.expect("the build did not end"), collector.await.unwrap())
}

/// A request with a Dockerfile in memory.
pub(crate) fn request(tags: &[&str]) -> BuildRequest {
    let content = "FROM scratch\nCOPY . /\nRUN x\n".into();
    let dockerfile = ExtraFile { path: "Dockerfile".into(), content, mode: 0o644 };
    BuildRequest {
        context: ContextSpec { extra_files: vec![dockerfile], ..ContextSpec::default() },
        dockerfile: DockerfileSpec::default(),
        tags: tags.iter().map(|tag| tag.parse().unwrap()).collect(),
        options: BuildOptions::default(),
        push: false,
        outputs: Vec::new(),
        engine: EngineSpec::default(),
    }
}

/// The error of a build that must fail.
pub(crate) fn error((result, events): (Result<Outcome>, Vec<Event>)) -> Error {
    match result {
        Ok(outcome) => panic!("it was built: {outcome:?} {events:?}"),
        Err(error) => error,
    }
}

pub(crate) const IMAGE: &str = "sha256:1111111111111111111111111111111111111111111111111111111111111111";
pub(crate) const DIGEST: &str = "sha256:2222222222222222222222222222222222222222222222222222222222222222";

/// The stream of a build that goes well.
pub(crate) fn good_build() -> String {
    format!(
        "{{\"stream\":\"Step 1/2 : FROM scratch\"}}\r\n{{\"stream\":\"\\n\"}}{{\"stream\":\" ---\\u003e \\n\"}}\n\
         {{\"stream\":\"Step 2/2 : RUN x\\n\"}} {{\"stream\":\"hello\\n\"}}{{\"aux\":{{\"ID\":\"{IMAGE}\"}}}}"
    )
}

/// The stream of a push that goes well.
pub(crate) fn good_push() -> String {
    format!(
        "{{\"status\":\"Pushing\",\"progressDetail\":{{\"current\":5,\"total\":10}},\"id\":\"l1\"}}\n\
         {{\"status\":\"Pushed\",\"progressDetail\":{{}},\"id\":\"l1\"}}\n\
         {{\"progressDetail\":{{}},\"aux\":{{\"Tag\":\"1\",\"Digest\":\"{DIGEST}\",\"Size\":1}}}}"
    )
}

fn good_answer(method: &str, path: &str) -> Answer {
    let route = path.split('?').next().unwrap_or_default();
    match (method, route) {
        (_, "/_ping") => Answer::Json(200, "OK".into()),
        (_, "/version") => {
            Answer::Json(200, r#"{"Version":"20.10.24","ApiVersion":"1.41","Os":"linux","Arch":"amd64"}"#.into())
        }
        ("POST", "/build") => Answer::Pieces(vec![good_build()], End::Proper),
        ("POST", route) if route.ends_with("/push") => Answer::Pieces(vec![good_push()], End::Proper),
        ("POST", route) if route.ends_with("/tag") => Answer::Json(201, String::new()),
        ("DELETE", _) => Answer::Json(200, "[]".into()),
        ("GET", _) => Answer::Json(404, r#"{"message":"No such image"}"#.into()),
        _ => Answer::Json(404, r#"{"message":"page not found"}"#.into()),
    }
}

async fn serve(mut stream: UnixStream, script: Script, seen: Log, dropped: Log) -> Option<()> {
    loop {
        let head = read_head(&mut stream).await?;
        let mut words = head.split_whitespace();
        let (method, path) = (words.next()?.to_owned(), words.next()?.to_owned());
        let path = match path.strip_prefix("/v1.") {
            Some(rest) => rest[rest.find('/')?..].to_owned(),
            None => path,
        };
        let line = format!("{method} {path}");
        seen.lock().unwrap().push(line.clone());
        let answer = script(&method, &path).unwrap_or_else(|| good_answer(&method, &path));
        let has_body = head.to_lowercase().contains("transfer-encoding: chunked");
        if has_body && !matches!(answer, Answer::Deaf) && read_chunks(&mut stream).await.is_none() {
            dropped.lock().unwrap().push(line);
            return None;
        }
        match answer {
            Answer::Json(status, body) => {
                let length = body.len();
                let head = format!(
                    "HTTP/1.1 {status} X\r\nApi-Version: 1.41\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n"
                );
                stream.write_all(format!("{head}{body}").as_bytes()).await.ok()?;
            }
            Answer::Pieces(pieces, end) => {
                stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").await.ok()?;
                for piece in pieces.iter().filter(|piece| !piece.is_empty()) {
                    stream.write_all(format!("{:x}\r\n{piece}\r\n", piece.len()).as_bytes()).await.ok()?;
                    stream.flush().await.ok()?;
                    tokio::task::yield_now().await;
                }
                match end {
                    End::Proper => stream.write_all(b"0\r\n\r\n").await.ok()?,
                    End::Cut => return None,
                    End::Never => return wait_for_close(stream, line, &dropped).await,
                }
            }
            Answer::Raw(bytes) => {
                stream.write_all(bytes.as_bytes()).await.ok()?;
                return None;
            }
            Answer::Silence => return wait_for_close(stream, line, &dropped).await,
            Answer::Deaf => {
                // A half-read request: only polling tells of a close.
                loop {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                    if stream.write_all(b"").await.is_err() || is_closed(&stream) {
                        dropped.lock().unwrap().push(line);
                        return None;
                    }
                }
            }
        }
    }
}

/// A peer that has gone makes the socket writable with an error, and its end readable behind the unread bytes.
fn is_closed(stream: &UnixStream) -> bool {
    stream
        .try_write(b"HTTP/1.1 100 Continue\r\n\r\n")
        .is_err_and(|error| error.kind() != std::io::ErrorKind::WouldBlock)
}

async fn wait_for_close(mut stream: UnixStream, line: String, dropped: &Mutex<Vec<String>>) -> Option<()> {
    let mut rest = [0; 1024];
    while stream.read(&mut rest).await.is_ok_and(|read| read > 0) {}
    dropped.lock().unwrap().push(line);
    None
}

async fn read_head(stream: &mut UnixStream) -> Option<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    Some(String::from_utf8_lossy(&head).into_owned())
}

async fn read_chunks(stream: &mut UnixStream) -> Option<()> {
    loop {
        let mut line = Vec::new();
        while !line.ends_with(b"\r\n") {
            line.push(stream.read_u8().await.ok()?);
        }
        let size = usize::from_str_radix(String::from_utf8_lossy(&line).trim(), 16).ok()?;
        let mut chunk = vec![0; size + 2];
        stream.read_exact(&mut chunk).await.ok()?;
        if size == 0 {
            return Some(());
        }
    }
}
