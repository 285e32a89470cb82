//! Whose certificates are trusted over HTTPS: a file that the user names, else the system's authorities.

use std::path::Path;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::CertificateDer;
use ureq::tls::{Certificate, RootCerts};

use crate::failure::{Cause, Failure};

/// The authorities of `file`, a PEM file, and no others; without one those of the system, which SSL_CERT_FILE and
/// SSL_CERT_DIR name as for other programs. A system that has none leaves those that came with the program.
///
/// # Errors
/// Validation, when a file cannot be read or holds no certificate.
pub fn roots(file: Option<&Path>) -> Result<RootCerts, Failure> {
    let Some(file) = file else { return of_system() };
    let unreadable = |what: String| {
        Failure::new(
            Cause::Validation,
            format!("{} is no file of certificates: {what}", file.display()),
        )
        .hint("--ca-file (MEDIA_ASSETS_CA_FILE) names a PEM file with the certificate of the authority.")
    };
    let certificates: Result<Vec<_>, _> =
        CertificateDer::pem_file_iter(file).and_then(|certificates| certificates.collect());
    let certificates = certificates.map_err(|error| unreadable(error.to_string()))?;
    if certificates.is_empty() {
        return Err(unreadable("there is none in it".to_owned()));
    }
    Ok(specific(&certificates))
}

fn of_system() -> Result<RootCerts, Failure> {
    let found = rustls_native_certs::load_native_certs();
    if !found.certs.is_empty() {
        return Ok(specific(&found.certs));
    }
    let named = ["SSL_CERT_FILE", "SSL_CERT_DIR"]
        .into_iter()
        .find(|name| std::env::var_os(name).is_some());
    match (named, found.errors.first()) {
        (Some(name), Some(error)) => Err(Failure::new(Cause::Validation, format!("{name}: {error}"))
            .hint(format!("unset {name}, or let it name certificates."))),
        _ => Ok(RootCerts::WebPki),
    }
}

fn specific(certificates: &[CertificateDer<'_>]) -> RootCerts {
    certificates
        .iter()
        .map(|certificate| Certificate::from_der(certificate).to_owned())
        .into()
}
