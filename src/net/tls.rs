//! TLS for clients: whom to trust and what to show.

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
    pub ca: Option<PathBuf>,
    /// Our certificate chain.
    pub cert: Option<PathBuf>,
    /// Our key.
    pub key: Option<PathBuf>,
    /// Do not check the server's certificate.
    pub skip_verify: bool,
}

impl TlsFiles {
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
                Some(path) => roots_of(slice::from_ref(path)),
                None => system_roots(environment),
            };
            let roots = match (roots, besides) {
                (roots, []) => roots?,
                // A machine without a bundle may still trust the registries that it has certificates of.
                (Err(_), besides) => roots_of(besides)?,
                (Ok(mut roots), besides) => {
                    roots.roots.extend(roots_of(besides)?.roots);
                    roots
                }
            };
            builder.with_root_certificates(roots)
        };
        let config = match (&self.cert, &self.key) {
            (Some(cert), Some(key)) => builder
                .with_client_auth_cert(certificates(cert)?, private_key(key)?)
                .map_err(|error| format!("{} and {}: {error}", cert.display(), key.display()))?,
            (None, None) => builder.with_no_client_auth(),
            (Some(cert), None) => return Err(format!("{} has no key beside it", cert.display())),
            (None, Some(key)) => return Err(format!("{} has no certificate beside it", key.display())),
        };
        Ok(Arc::new(config))
    }
}

/// Whether an I/O error is one of TLS: a certificate that is not trusted, an alert from the other side.
pub fn is_tls_error(error: &io::Error) -> bool {
    error.get_ref().is_some_and(|inner| inner.downcast_ref::<rustls::Error>().is_some())
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let describe = |reason: String| format!("cannot read certificates from {}: {reason}", path.display());
    let pem = fs::read(path).map_err(|error| describe(error.to_string()))?;
    let found: Vec<_> =
        CertificateDer::pem_slice_iter(&pem).collect::<Result<_, _>>().map_err(|error| describe(error.to_string()))?;
    if found.is_empty() { Err(describe("it holds none".into())) } else { Ok(found) }
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, String> {
    let pem = fs::read(path).map_err(|error| format!("cannot read the key {}: {error}", path.display()))?;
    // The parser's error is left out: it must never quote a key.
    PrivateKeyDer::from_pem_slice(&pem).map_err(|_| format!("{} holds no private key in PEM form", path.display()))
}

fn roots_of(files: &[PathBuf]) -> Result<RootCertStore, String> {
    let mut store = RootCertStore::empty();
    for file in files {
        // System bundles hold certificates that webpki cannot parse; these are skipped, as everywhere.
        store.add_parsable_certificates(certificates(file)?);
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
    roots_of(&files)
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
        let files = TlsFiles { ca: Some(file), ..TlsFiles::default() };
        let error = files.client_config(&environment).unwrap_err();
        assert!(error.contains("ca.pem: it holds none"), "{error}");
        let error = TlsFiles::default().client_config(&environment).unwrap_err();
        assert!(error.contains("SSL_CERT_FILE"), "{error}");
    }

    #[test]
    fn a_certificate_needs_its_key() {
        let environment = Environment::with("/", [("A", "b")]);
        let files = TlsFiles { cert: Some("/x/cert.pem".into()), skip_verify: true, ..TlsFiles::default() };
        assert!(files.client_config(&environment).unwrap_err().contains("no key"));
    }
}
