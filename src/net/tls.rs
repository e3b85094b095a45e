//! TLS for clients: whom to trust and what to show.

use std::borrow::Cow;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::slice;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};

use crate::environment::Environment;
use crate::request::{Pem, TlsSpec};

/// Where distributions keep the certificates that they trust, most common first.
const SYSTEM_BUNDLES: &[&str] = &[
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// What a TLS client trusts and shows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsFiles {
    /// Trust only certificates signed by these; `None` trusts the system's authorities.
    pub ca: Option<Pem>,
    /// Our certificate chain.
    pub cert: Option<Pem>,
    /// Our key.
    pub key: Option<Pem>,
    /// Do not check the server's certificate.
    pub skip_verify: bool,
    /// The name that the server's certificate has, where it is not the address's.
    pub server_name: Option<String>,
}

impl TlsFiles {
    /// What a request says.
    pub fn of(spec: &TlsSpec) -> Self {
        Self {
            ca: spec.ca_cert.clone(),
            cert: spec.client_cert.clone(),
            key: spec.client_key.clone(),
            skip_verify: spec.skip_verify,
            server_name: spec.server_name.clone(),
        }
    }

    /// The files as rustls wants them. The error is a sentence that names the file.
    pub fn client_config(&self, environment: &Environment) -> Result<Arc<ClientConfig>, String> {
        self.client_config_with(environment, &[])
    }

    /// The same, and the authorities in these files are trusted besides.
    pub fn client_config_with(
        &self,
        environment: &Environment,
        besides: &[PathBuf],
    ) -> Result<Arc<ClientConfig>, String> {
        let provider = Arc::new(ring::default_provider());
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?;
        let builder = if self.skip_verify {
            builder.dangerous().with_custom_certificate_verifier(Arc::new(TrustAnything(provider)))
        } else {
            let roots = match &self.ca {
                Some(pem) => roots_of(slice::from_ref(pem)),
                None => system_roots(environment),
            };
            let roots = match (roots, besides) {
                (roots, []) => roots?,
                // A machine without a bundle may still trust the registries that it has certificates of.
                (Err(_), besides) => roots_of_files(besides)?,
                (Ok(mut roots), besides) => {
                    roots.roots.extend(roots_of_files(besides)?.roots);
                    roots
                }
            };
            builder.with_root_certificates(roots)
        };
        let config = match (&self.cert, &self.key) {
            (Some(cert), Some(key)) => builder
                .with_client_auth_cert(certificates(cert)?, private_key(key)?)
                .map_err(|error| format!("{} and {}: {error}", name(cert), name(key)))?,
            (None, None) => builder.with_no_client_auth(),
            (Some(cert), None) => return Err(format!("{} has no key beside it", name(cert))),
            (None, Some(key)) => return Err(format!("{} has no certificate beside it", name(key))),
        };
        Ok(Arc::new(config))
    }
}

/// Whether an I/O error is one of TLS: a certificate that is not trusted, an alert from the other side.
pub fn is_tls_error(error: &io::Error) -> bool {
    error.get_ref().is_some_and(|inner| inner.downcast_ref::<rustls::Error>().is_some())
}

/// What a person calls it: a file by its path.
fn name(pem: &Pem) -> String {
    match pem {
        Pem::File(path) => path.display().to_string(),
        Pem::Text(_) => "the given PEM text".to_owned(),
    }
}

fn read(pem: &Pem) -> io::Result<Cow<'_, [u8]>> {
    match pem {
        Pem::File(path) => fs::read(path).map(Cow::Owned),
        Pem::Text(text) => Ok(Cow::Borrowed(text.expose().as_bytes())),
    }
}

fn certificates(source: &Pem) -> Result<Vec<CertificateDer<'static>>, String> {
    let describe = |reason: String| format!("cannot read certificates from {}: {reason}", name(source));
    let pem = read(source).map_err(|error| describe(error.to_string()))?;
    let found: Vec<_> =
        CertificateDer::pem_slice_iter(&pem).collect::<Result<_, _>>().map_err(|error| describe(error.to_string()))?;
    if found.is_empty() { Err(describe("it holds none".into())) } else { Ok(found) }
}

fn private_key(source: &Pem) -> Result<PrivateKeyDer<'static>, String> {
    let pem = read(source).map_err(|error| format!("cannot read the key {}: {error}", name(source)))?;
    // The parser's error is left out: it must never quote a key.
    PrivateKeyDer::from_pem_slice(&pem).map_err(|_| format!("{} holds no private key in PEM form", name(source)))
}

fn roots_of_files(files: &[PathBuf]) -> Result<RootCertStore, String> {
    roots_of(&files.iter().cloned().map(Pem::File).collect::<Vec<_>>())
}

fn roots_of(sources: &[Pem]) -> Result<RootCertStore, String> {
    let mut store = RootCertStore::empty();
    for source in sources {
        // System bundles hold certificates that webpki cannot parse; these are skipped, as everywhere.
        store.add_parsable_certificates(certificates(source)?);
    }
    if store.is_empty() { Err("none of the trusted certificates can be used".into()) } else { Ok(store) }
}

/// `SSL_CERT_FILE` and `SSL_CERT_DIR` as OpenSSL and Go read them, else the distribution's bundle.
fn system_roots(environment: &Environment) -> Result<RootCertStore, String> {
    let mut files: Vec<PathBuf> = environment.path("SSL_CERT_FILE").map(Path::to_owned).into_iter().collect();
    if let Some(folder) = environment.path("SSL_CERT_DIR") {
        let entries = fs::read_dir(folder).map_err(|error| format!("cannot read {}: {error}", folder.display()))?;
        let pem = |path: &PathBuf| path.extension().is_some_and(|e| e == "pem" || e == "crt");
        files.extend(entries.flatten().map(|entry| entry.path()).filter(pem));
    }
    if files.is_empty() {
        files.extend(SYSTEM_BUNDLES.iter().map(|path| environment.well_known(path)).find(|path| path.is_file()));
    }
    if files.is_empty() {
        return Err(
            "this machine has no bundle of trusted certificates; install `ca-certificates`, or set SSL_CERT_FILE"
                .to_owned(),
        );
    }
    roots_of_files(&files)
}

/// A verifier that checks signatures but no names and no authorities: what "skip verify" asks for.
#[derive(Debug)]
struct TrustAnything(Arc<CryptoProvider>);

impl ServerCertVerifier for TrustAnything {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_no_certificate_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("ca.pem");
        fs::write(&file, "nothing").unwrap();
        let environment = Environment::with(folder.path(), [("A", "b")]);
        let files = TlsFiles { ca: Some(Pem::File(file)), ..TlsFiles::default() };
        let error = files.client_config(&environment).unwrap_err();
        assert!(error.contains("ca.pem: it holds none"), "{error}");
        let error = TlsFiles::default().client_config(&environment).unwrap_err();
        assert!(error.contains("SSL_CERT_FILE"), "{error}");
    }

    #[test]
    fn a_certificate_needs_its_key() {
        let environment = Environment::with("/", [("A", "b")]);
        let files = TlsFiles { cert: Some(Pem::File("/x/cert.pem".into())), skip_verify: true, ..TlsFiles::default() };
        assert!(files.client_config(&environment).unwrap_err().contains("no key"));
    }
}
