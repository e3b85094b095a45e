//! What stands between the engine and a BuildKit in tests: a network with faults, and a port with TLS.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use cooper::net::BoxedStream;
use cooper::request::{Pem, TlsSpec};
use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;

use crate::buildkit_bed::unique;

/// Where a proxy gets its bytes from.
#[derive(Clone, Debug)]
pub(crate) enum Target {
    /// A socket.
    Unix(PathBuf),
    /// `host:port`.
    Tcp(String),
    /// The BuildKit behind a Docker daemon's socket, as if it were a buildkitd: each connection asks for the upgrade first.
    Inside(PathBuf),
}

impl Target {
    async fn connect(&self) -> io::Result<BoxedStream> {
        match self {
            Self::Unix(path) => Ok(Box::new(UnixStream::connect(path).await?)),
            Self::Tcp(address) => {
                let stream = TcpStream::connect(address).await?;
                stream.set_nodelay(true)?;
                Ok(Box::new(stream))
            }
            Self::Inside(path) => {
                let mut stream = UnixStream::connect(path).await?;
                let request = "POST /grpc HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n";
                stream.write_all(request.as_bytes()).await?;
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    head.push(stream.read_u8().await?);
                }
                assert!(head.starts_with(b"HTTP/1.1 101 "), "{}", String::from_utf8_lossy(&head));
                Ok(Box::new(stream))
            }
        }
    }
}

/// What all connections of a proxy share.
#[derive(Debug)]
struct Switches {
    latency: watch::Sender<Duration>,
    frozen: watch::Sender<bool>,
    resets: watch::Sender<u64>,
    /// Bytes until a reset.
    budget: AtomicI64,
    passed: AtomicU64,
}

/// A TCP port before a BuildKit, and a network with faults in between. Dropping it ends all its connections.
pub(crate) struct Proxy {
    pub(crate) address: SocketAddr,
    switches: Arc<Switches>,
    target: Target,
    serving: Option<JoinHandle<()>>,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        if let Some(serving) = &self.serving {
            serving.abort();
        }
    }
}

impl Proxy {
    pub(crate) async fn before(target: Target) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let switches = Arc::new(Switches {
            latency: watch::Sender::new(Duration::ZERO),
            frozen: watch::Sender::new(false),
            resets: watch::Sender::new(0),
            budget: AtomicI64::new(i64::MAX),
            passed: AtomicU64::new(0),
        });
        let address = listener.local_addr().unwrap();
        let serving = tokio::spawn(serve(listener, target.clone(), Arc::clone(&switches)));
        Self { address, switches, target, serving: Some(serving) }
    }

    /// Another hand on the switches.
    pub(crate) fn control(&self) -> Control {
        Control(Arc::clone(&self.switches))
    }

    /// Ends all connections and takes no new ones.
    pub(crate) async fn refuse(&mut self) {
        if let Some(serving) = self.serving.take() {
            serving.abort();
            // It was cancelled.
            let _ = serving.await;
        }
    }

    /// Takes connections again, at the same port.
    pub(crate) async fn accept(&mut self) {
        let listener = TcpListener::bind(self.address).await.unwrap();
        self.serving = Some(tokio::spawn(serve(listener, self.target.clone(), Arc::clone(&self.switches))));
    }
}

/// The switches of a proxy.
#[derive(Clone)]
pub(crate) struct Control(Arc<Switches>);

impl Control {
    /// All that is sent arrives this much later, both ways.
    pub(crate) fn delay(&self, latency: Duration) {
        self.0.latency.send_replace(latency);
    }

    /// Nothing is forwarded any more, and nobody learns of it.
    pub(crate) fn freeze(&self) {
        self.0.frozen.send_replace(true);
    }

    /// All connections are reset, once.
    pub(crate) fn reset(&self) {
        self.0.resets.send_modify(|number| *number += 1);
    }

    /// The same, once this many more bytes went through, both ways together.
    pub(crate) fn reset_after(&self, bytes: u64) {
        self.0.budget.store(bytes.try_into().unwrap(), Ordering::SeqCst);
    }

    /// How many bytes went through so far.
    pub(crate) fn passed(&self) -> u64 {
        self.0.passed.load(Ordering::SeqCst)
    }
}

async fn serve(listener: TcpListener, target: Target, switches: Arc<Switches>) {
    // Aborts all when this is dropped.
    let mut connections = JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        while connections.try_join_next().is_some() {}
        connections.spawn(forward(stream, target.clone(), Arc::clone(&switches)));
    }
}

async fn forward(mut client: TcpStream, target: Target, switches: Arc<Switches>) {
    let mut resets = switches.resets.subscribe();
    client.set_nodelay(true).unwrap();
    // Nobody there: the client learns that by the end of the connection.
    let Ok(server) = target.connect().await else { return };
    let was_reset = {
        let (from_client, to_client) = client.split();
        let (from_server, to_server) = tokio::io::split(server);
        let both =
            async { tokio::join!(pump(from_client, to_server, &switches), pump(from_server, to_client, &switches)) };
        tokio::select! {
            _ = both => false,
            changed = resets.changed() => changed.is_ok(),
        }
    };
    if was_reset {
        rustix::net::sockopt::set_socket_linger(&client, Some(Duration::ZERO)).unwrap();
    }
}

/// Copies one way until the end, and passes that on. An error of one side is the end of the other.
async fn pump(mut from: impl AsyncRead + Unpin, to: impl AsyncWrite + Unpin, switches: &Switches) {
    // What is on its way; many small packets are few bytes.
    let (sender, receiver) = mpsc::channel(4096);
    let read = async move {
        let mut frozen = switches.frozen.subscribe();
        let mut buffer = vec![0; 64 << 10];
        while let Ok(length) = from.read(&mut buffer).await {
            frozen.wait_for(|frozen| !frozen).await.unwrap();
            if length == 0 {
                break;
            }
            let due = Instant::now() + *switches.latency.borrow();
            if sender.send((due, buffer[..length].to_vec())).await.is_err() {
                break;
            }
        }
    };
    tokio::join!(read, write(to, receiver, switches));
}

async fn write(mut to: impl AsyncWrite + Unpin, mut receiver: mpsc::Receiver<(Instant, Vec<u8>)>, switches: &Switches) {
    let mut frozen = switches.frozen.subscribe();
    while let Some((due, bytes)) = receiver.recv().await {
        tokio::time::sleep_until(due).await;
        frozen.wait_for(|frozen| !frozen).await.unwrap();
        let length = bytes.len() as u64;
        let before = switches.budget.fetch_sub(length.try_into().unwrap(), Ordering::SeqCst);
        if before <= length.try_into().unwrap() {
            switches.budget.store(i64::MAX, Ordering::SeqCst);
            switches.resets.send_modify(|number| *number += 1);
            // The reset ends this.
            std::future::pending::<()>().await;
        }
        if to.write_all(&bytes).await.is_err() {
            return;
        }
        switches.passed.fetch_add(length, Ordering::SeqCst);
    }
    // The other side may have gone already.
    let _ = to.shutdown().await;
}

/// A port that speaks TLS and wants a client certificate, before a BuildKit.
pub(crate) struct Bridge {
    pub(crate) address: SocketAddr,
    serving: JoinHandle<()>,
}

impl Drop for Bridge {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl Bridge {
    pub(crate) async fn before(target: Target, authority: &Authority) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let acceptor = authority.acceptor();
        let serving = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (acceptor, target) = (acceptor.clone(), target.clone());
                while connections.try_join_next().is_some() {}
                connections.spawn(async move {
                    // Whoever is refused has been told so by TLS.
                    let Ok(mut client) = acceptor.accept(stream).await else { return };
                    let mut server = target.connect().await.unwrap();
                    // Either side may go whenever it likes.
                    let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
                });
            }
        });
        Self { address, serving }
    }
}

/// An authority that signed a server's certificate and a client's.
pub(crate) struct Authority {
    folder: PathBuf,
    _made: Option<tempfile::TempDir>,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("server.ext"), "subjectAltName=IP:127.0.0.1\n").unwrap();
        std::fs::write(folder.path().join("client.ext"), "extendedKeyUsage=clientAuth\n").unwrap();
        let key = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";
        let name = unique();
        let authority = "-addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign";
        openssl(
            folder.path(),
            &format!("req -x509 {key} -days 2 -subj /CN={name} {authority} -keyout ca.key -out ca.crt"),
        );
        for name in ["server", "client"] {
            openssl(folder.path(), &format!("req {key} -subj /CN={name} -keyout {name}.key -out {name}.csr"));
            let signed = "-CA ca.crt -CAkey ca.key -CAcreateserial -days 2";
            openssl(folder.path(), &format!("x509 -req -in {name}.csr {signed} -extfile {name}.ext -out {name}.crt"));
        }
        Self { folder: folder.path().to_owned(), _made: Some(folder) }
    }

    /// One whose files are there already: `ca.crt`, `client.crt`, `client.key`.
    pub(crate) fn of(folder: &Path) -> Self {
        Self { folder: folder.to_owned(), _made: None }
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// What a client needs that trusts this authority, and shows its certificate.
    pub(crate) fn client(&self) -> TlsSpec {
        let file = |name: &str| Some(Pem::File(self.file(name)));
        TlsSpec {
            ca_cert: file("ca.crt"),
            client_cert: file("client.crt"),
            client_key: file("client.key"),
            ..TlsSpec::default()
        }
    }

    fn acceptor(&self) -> TlsAcceptor {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(self.file("ca.crt")).unwrap()).unwrap();
        let verifier =
            WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider)).build().unwrap();
        let chain = vec![CertificateDer::from_pem_file(self.file("server.crt")).unwrap()];
        let key = PrivateKeyDer::from_pem_file(self.file("server.key")).unwrap();
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_client_cert_verifier(verifier)
            .with_single_cert(chain, key)
            .unwrap();
        TlsAcceptor::from(Arc::new(config))
    }
}

fn openssl(folder: &Path, arguments: &str) {
    let made = Command::new("openssl").args(arguments.split(' ')).current_dir(folder).stderr(Stdio::null()).status();
    assert!(made.unwrap().success(), "openssl {arguments}");
}
