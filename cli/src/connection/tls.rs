//! TLS as libpq's sslmode asks for it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{verify_server_name, WebPkiServerVerifier};
use rustls::crypto::{ring, verify_tls12_signature, verify_tls13_signature, CryptoProvider};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
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

/// Files of certificates, in PEM; where one is not named, the one below ~/.postgresql counts if it is there.
#[derive(Debug, Default)]
pub struct Files {
    pub roots: Option<String>,
    /// Whom the server is told that this client is.
    pub certificate: Option<String>,
    pub key: Option<String>,
}

fn refused(what: String) -> Failure {
    Failure::new(Cause::Validation, what)
        .hint("Set PGSSLROOTCERT to a PEM file, or sslmode=require to encrypt without checking whom to.")
}

fn unreadable(file: &Path, error: &dyn std::fmt::Display) -> Failure {
    refused(format!("{} is no file of certificates: {error}", file.display()))
}

/// The file as it was named, else the one called `usual`; `None` where there is none.
fn file(named: Option<&String>, usual: &str) -> Option<PathBuf> {
    let usual = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".postgresql").join(usual));
    named.map(PathBuf::from).or_else(usual).filter(|file| file.is_file())
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, Failure> {
    let certificates = CertificateDer::pem_file_iter(file).map_err(|error| unreadable(file, &error))?;
    certificates
        .map(|certificate| certificate.map_err(|error| unreadable(file, &error)))
        .collect()
}

/// What opens TLS sessions for `mode`. Where there is a file of roots, `require` checks the certificate too, as with
/// libpq.
pub fn connector(mode: SslMode, files: &Files) -> Result<MakeRustlsConnect, Failure> {
    let provider = Arc::new(ring::default_provider());
    let roots = file(files.roots.as_ref(), "root.crt");
    let checks = match mode {
        SslMode::VerifyCa | SslMode::VerifyFull => true,
        SslMode::Require => roots.is_some(),
        _ => false,
    };
    let verifier = if checks {
        let file =
            roots.ok_or_else(|| refused("there is no file of root certificates to check the server with".into()))?;
        Some(Trusted::read(&file, &provider)?)
    } else {
        None
    };
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| refused(error.to_string()))?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AsLibpq {
            trusted: verifier,
            checks_name: mode == SslMode::VerifyFull,
            provider,
        }));
    let own = file(files.certificate.as_ref(), "postgresql.crt").zip(file(files.key.as_ref(), "postgresql.key"));
    let config = match own {
        None => builder.with_no_client_auth(),
        Some((certificate, key)) => {
            let pem = PrivateKeyDer::from_pem_file(&key).map_err(|error| unreadable(&key, &error))?;
            builder
                .with_client_auth_cert(certificates(&certificate)?, pem)
                .map_err(|error| unreadable(&certificate, &error))?
        }
    };
    Ok(MakeRustlsConnect::new(config))
}

/// What a server's certificate has to come from.
#[derive(Debug)]
struct Trusted {
    chains: Arc<WebPkiServerVerifier>,
    roots: Vec<CertificateDer<'static>>,
}

impl Trusted {
    fn read(file: &Path, provider: &Arc<CryptoProvider>) -> Result<Self, Failure> {
        let roots = certificates(file)?;
        let mut store = RootCertStore::empty();
        for root in &roots {
            store.add(root.clone()).map_err(|error| unreadable(file, &error))?;
        }
        let built = WebPkiServerVerifier::builder_with_provider(Arc::new(store), Arc::clone(provider)).build();
        Ok(Trusted {
            chains: built.map_err(|error| unreadable(file, &error))?,
            roots,
        })
    }
}

/// Checks what the sslmode asks for: nothing, who signed the certificate, or that and the name in it.
#[derive(Debug)]
struct AsLibpq {
    trusted: Option<Trusted>,
    checks_name: bool,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for AsLibpq {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let Some(trusted) = &self.trusted else {
            return Ok(ServerCertVerified::assertion());
        };
        let chain = trusted
            .chains
            .verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now);
        let chain = match chain {
            // The chain is checked before the name.
            Err(Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) if !self.checks_name => Ok(ServerCertVerified::assertion()),
            chain => chain,
        };
        match chain {
            // A server that signed its own certificate has one that could sign others, which this check refuses. Who put
            // that very certificate among the roots trusts it.
            Err(Error::InvalidCertificate(CertificateError::Other(_))) if trusted.roots.contains(end_entity) => {
                if self.checks_name {
                    verify_server_name(&ParsedCertificate::try_from(end_entity)?, server_name)?;
                }
                Ok(ServerCertVerified::assertion())
            }
            chain => chain,
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
