//! TLS as libpq's sslmode asks for it.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::WebPkiServerVerifier;
use rustls::crypto::{ring, verify_tls12_signature, verify_tls13_signature, CryptoProvider};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::failure::{Cause, Failure};

/// libpq's sslmode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SslMode {
    Disable,
    Allow,
    Prefer,
    Require,
    VerifyCa,
    VerifyFull,
}

impl SslMode {
    pub const HINT: &'static str = "It is disable, allow, prefer, require, verify-ca or verify-full.";

    pub fn parse(name: &str) -> Option<Self> {
        Some(match name {
            "disable" => SslMode::Disable,
            "allow" => SslMode::Allow,
            "prefer" => SslMode::Prefer,
            "require" => SslMode::Require,
            "verify-ca" => SslMode::VerifyCa,
            "verify-full" => SslMode::VerifyFull,
            _ => return None,
        })
    }
}

/// Takes the TLS options out of a connection string, since the client library knows fewer of them than libpq.
pub fn take_options(text: &str) -> (String, BTreeMap<String, String>) {
    let mut taken = BTreeMap::new();
    let ours = |name: &str| matches!(name, "sslmode" | "sslrootcert");
    if text.starts_with("postgres://") || text.starts_with("postgresql://") {
        let Some((base, query)) = text.split_once('?') else {
            return (text.to_owned(), taken);
        };
        let kept: Vec<&str> = query
            .split('&')
            .filter(|pair| match pair.split_once('=') {
                Some((name, value)) if ours(name) => {
                    taken.insert(name.to_owned(), percent_decoded(value));
                    false
                }
                _ => true,
            })
            .collect();
        let query = if kept.is_empty() {
            String::new()
        } else {
            format!("?{}", kept.join("&"))
        };
        return (format!("{base}{query}"), taken);
    }
    let kept: Vec<&str> = text
        .split(' ')
        .filter(|pair| match pair.split_once('=') {
            Some((name, value)) if ours(name) => {
                taken.insert(name.to_owned(), value.trim_matches('\'').to_owned());
                false
            }
            _ => true,
        })
        .collect();
    (kept.join(" "), taken)
}

fn percent_decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let decoded = (first == b'%')
            .then(|| u8::from_str_radix(std::str::from_utf8(after.get(..2)?).ok()?, 16).ok())
            .flatten();
        bytes.push(decoded.unwrap_or(first));
        rest = if decoded.is_some() { &after[2..] } else { after };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// What opens TLS sessions for `mode`. `root_certificates` is a PEM file; without one it is ~/.postgresql/root.crt. Where
/// that file is, `require` checks the certificate too, as with libpq.
pub fn connector(mode: SslMode, root_certificates: Option<&str>) -> Result<MakeRustlsConnect, Failure> {
    let provider = Arc::new(ring::default_provider());
    let default = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".postgresql/root.crt"));
    let file = root_certificates
        .map(PathBuf::from)
        .or_else(default)
        .filter(|file| file.is_file());
    let checks = match mode {
        SslMode::VerifyCa | SslMode::VerifyFull => true,
        SslMode::Require => file.is_some(),
        _ => false,
    };
    let refused = |what: String| {
        Failure::new(Cause::Validation, what)
            .hint("Set PGSSLROOTCERT to a PEM file, or sslmode=require to encrypt without checking whom to.")
    };
    let verifier: Option<Arc<WebPkiServerVerifier>> = if checks {
        let file =
            file.ok_or_else(|| refused("there is no file of root certificates to check the server with".into()))?;
        let mut roots = RootCertStore::empty();
        let unreadable =
            |error: &dyn std::fmt::Display| refused(format!("{} is no file of certificates: {error}", file.display()));
        for certificate in CertificateDer::pem_file_iter(&file).map_err(|error| unreadable(&error))? {
            roots
                .add(certificate.map_err(|error| unreadable(&error))?)
                .map_err(|error| unreadable(&error))?;
        }
        let built = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider)).build();
        Some(built.map_err(|error| unreadable(&error))?)
    } else {
        None
    };
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| refused(error.to_string()))?;
    let config = match (verifier, mode) {
        (Some(verifier), SslMode::VerifyFull) => builder.with_webpki_verifier(verifier),
        (inner, _) => builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(AnyName { inner, provider })),
    };
    Ok(MakeRustlsConnect::new(config.with_no_client_auth()))
}

/// Takes a certificate for any host name, and, without `inner`, from anybody.
#[derive(Debug)]
struct AnyName {
    inner: Option<Arc<WebPkiServerVerifier>>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for AnyName {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let Some(inner) = &self.inner else {
            return Ok(ServerCertVerified::assertion());
        };
        match inner.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now) {
            // The chain is checked before the name.
            Err(Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) => Ok(ServerCertVerified::assertion()),
            result => result,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(
            message,
            certificate,
            signature,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(
            message,
            certificate,
            signature,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::take_options;

    #[test]
    fn options_of_tls_are_taken_out_of_both_forms() {
        let (text, taken) =
            take_options("postgresql://u@h/d?sslmode=verify-full&connect_timeout=3&sslrootcert=%2Fx%20y");
        assert_eq!(text, "postgresql://u@h/d?connect_timeout=3");
        assert_eq!(
            (taken["sslmode"].as_str(), taken["sslrootcert"].as_str()),
            ("verify-full", "/x y")
        );
        let (text, taken) = take_options("host=h sslmode=verify-ca user=u");
        assert_eq!(
            (text.as_str(), taken["sslmode"].as_str()),
            ("host=h user=u", "verify-ca")
        );
        assert_eq!(take_options("postgresql://h/d?sslmode=require").0, "postgresql://h/d");
    }
}
