//! What it means that a connection ended where one side speaks TLS and the other does not, or not with us.

/// A sentence for the reason of a broken connection, where it is one of TLS. `shown` says that the client has a certificate.
///
/// A server of TLS 1.3 that wants another certificate says so only after our own handshake is done.
pub(super) fn explain(reason: &str, shown: bool) -> Option<&'static str> {
    const WANTED: &str = "it wants a client certificate, and was shown none: give one, and its key";
    let by_server = [
        ("alert: CertificateRequired", WANTED),
        ("alert: UnknownCA", "it does not trust who signed the client certificate"),
        ("alert: CertificateExpired", "the client certificate has expired"),
        ("alert: CertificateRevoked", "the client certificate has been revoked"),
        // Go before 1.22 calls all of them bad, and a missing one too where the version is TLS 1.2.
        ("alert: BadCertificate", if shown { "it does not accept the client certificate" } else { WANTED }),
        ("alert: HandshakeFailure", if shown { "it does not accept the client certificate" } else { WANTED }),
        ("fatal alert", "it refused the TLS connection"),
    ];
    let by_client = [
        ("certificate: UnknownIssuer", "its certificate is signed by nobody who is trusted here: give its authority's"),
        ("certificate: BadSignature", "its certificate is signed by nobody who is trusted here: give its authority's"),
        ("certificate: NotValidForName", "its certificate is for another name: give the name that it has"),
        (
            "certificate: certificate not valid for name",
            "its certificate is for another name: give the name that it has",
        ),
        ("certificate: Expired", "its certificate has expired"),
        ("certificate: certificate expired", "its certificate has expired"),
        ("InvalidContentType", "it does not speak TLS: leave the certificates out"),
        // What is no HTTP, to a client that looks for HTTP/1 or HTTP/2.
        ("invalid HTTP version parsed", PLAIN),
        (SPEAKS_TLS, PLAIN),
        // Go's web servers, and so Docker's daemon, have an answer for that.
        ("HTTP request to an HTTPS server", PLAIN),
    ];
    by_server.into_iter().chain(by_client).find_map(|(sign, told)| reason.contains(sign).then_some(told))
}

const PLAIN: &str = "it speaks TLS, and was spoken to without: give its authority's certificate";
/// What [`crate::buildkit`] says of an answer that is TLS.
const SPEAKS_TLS: &str = "the answer is TLS";
/// And of none.
const SILENT: &str = "ended the connection without an answer";

/// What may be the reason for a connection that ended without one. Go's servers say nothing to whoever does not speak TLS.
pub(super) fn guess(reason: &str, secure: bool, shown: bool) -> Option<&'static str> {
    match (reason.contains(SILENT), secure, shown) {
        (true, false, _) => Some("if it speaks TLS, give its authority's certificate"),
        (true, true, false) => Some("it may want a client certificate"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bad_certificate_may_be_a_missing_one() {
        let reason = "received fatal alert: BadCertificate";
        assert!(explain(reason, true).unwrap().contains("does not accept"));
        assert!(explain(reason, false).unwrap().contains("wants a client certificate"));
        assert_eq!(explain("Connection refused (os error 111)", true), None);
        let silent = format!("it {SILENT}");
        assert!(guess(&silent, false, false).unwrap().contains("authority"));
        assert_eq!((guess(&silent, true, true), guess("Connection refused", false, false)), (None, None));
    }
}
