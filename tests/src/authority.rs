//! An authority of a test's own, made on the spot, whose certificates nobody else trusts.

use std::path::PathBuf;
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, KeyUsagePurpose};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::ServerConfig;

use crate::unique;

/// It and the file of its certificate, which goes with it.
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    /// PEM, as `--ca-file` takes it.
    pub file: PathBuf,
}

impl Authority {
    /// # Panics
    /// When it cannot be made.
    pub fn new() -> Self {
        let mut about = CertificateParams::default();
        about.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        about.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let key = KeyPair::generate().expect("a key");
        let issuer = CertifiedIssuer::self_signed(about, key).expect("a certificate");
        let file = std::env::temp_dir().join(unique("authority.pem"));
        std::fs::write(&file, issuer.pem()).expect("a temporary file");
        Authority { issuer, file }
    }

    /// What a server on 127.0.0.1 needs.
    pub(crate) fn server(&self) -> Arc<ServerConfig> {
        let key = KeyPair::generate().expect("a key");
        let about = CertificateParams::new(vec!["127.0.0.1".to_owned()]).expect("a name");
        let certificate = about.signed_by(&key, &self.issuer).expect("a certificate");
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("ring has the usual versions")
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], key);
        Arc::new(config.expect("the key is that of the certificate"))
    }
}

impl Default for Authority {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Authority {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.file);
    }
}
