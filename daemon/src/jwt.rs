//! JSON Web Tokens over rustls' own signing and verification: RS256, ES256, ES384.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, bail};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as B64;
use rustls::SignatureScheme;
use rustls::sign::SigningKey as RustlsKey;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, SubjectPublicKeyInfoDer};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use x509_parser::prelude::FromDer as _;
use x509_parser::public_key::PublicKey as Parsed;
use x509_parser::x509::SubjectPublicKeyInfo;

/// How a token is signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Algorithm {
    Rs256,
    Es256,
    Es384,
}

impl Algorithm {
    fn name(self) -> &'static str {
        match self {
            Algorithm::Rs256 => "RS256",
            Algorithm::Es256 => "ES256",
            Algorithm::Es384 => "ES384",
        }
    }

    fn scheme(self) -> SignatureScheme {
        match self {
            Algorithm::Rs256 => SignatureScheme::RSA_PKCS1_SHA256,
            Algorithm::Es256 => SignatureScheme::ECDSA_NISTP256_SHA256,
            Algorithm::Es384 => SignatureScheme::ECDSA_NISTP384_SHA384,
        }
    }

    /// Bytes of one of the two numbers of an ECDSA signature.
    fn coordinate(self) -> Option<usize> {
        match self {
            Algorithm::Rs256 => None,
            Algorithm::Es256 => Some(32),
            Algorithm::Es384 => Some(48),
        }
    }
}

/// A key tokens are verified with.
pub struct PublicKey {
    id: String,
    algorithm: Algorithm,
    /// The bits inside the SubjectPublicKeyInfo.
    bits: Vec<u8>,
    jwk: Value,
}

impl PublicKey {
    /// From DER of a SubjectPublicKeyInfo.
    fn from_spki(der: &[u8]) -> anyhow::Result<Self> {
        let (_, spki) = SubjectPublicKeyInfo::from_der(der).context("not a public key")?;
        let id = B64.encode(Sha256::digest(der));
        let bits = spki.subject_public_key.data.to_vec();
        let trimmed = |bytes: &[u8]| {
            let start = bytes.iter().position(|b| *b != 0).unwrap_or(0);
            B64.encode(&bytes[start..])
        };
        let (algorithm, mut jwk) = match spki.parsed().context("not a public key")? {
            Parsed::RSA(key) => (
                Algorithm::Rs256,
                json!({"kty": "RSA", "n": trimmed(key.modulus), "e": trimmed(key.exponent)}),
            ),
            Parsed::EC(point) => {
                let (algorithm, curve) = match point.data().len() {
                    65 => (Algorithm::Es256, "P-256"),
                    97 => (Algorithm::Es384, "P-384"),
                    _ => bail!("only the curves P-256 and P-384 are supported"),
                };
                let (x, y) = point.data()[1..].split_at(point.data().len() / 2);
                (
                    algorithm,
                    json!({"kty": "EC", "crv": curve, "x": B64.encode(x), "y": B64.encode(y)}),
                )
            }
            _ => bail!("only RSA and ECDSA keys are supported"),
        };
        jwk["use"] = "sig".into();
        jwk["kid"] = id.clone().into();
        jwk["alg"] = algorithm.name().into();
        Ok(Self {
            id,
            algorithm,
            bits,
            jwk,
        })
    }

    /// Every key in a PEM file: public keys, certificates or private keys.
    pub fn load(path: &Path) -> anyhow::Result<Vec<Self>> {
        let pem = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
        let mut keys = Vec::new();
        for spki in SubjectPublicKeyInfoDer::pem_slice_iter(&pem).flatten() {
            keys.push(Self::from_spki(&spki)?);
        }
        for certificate in CertificateDer::pem_slice_iter(&pem).flatten() {
            let (_, parsed) = x509_parser::parse_x509_certificate(&certificate)
                .with_context(|| format!("{}: not a certificate", path.display()))?;
            keys.push(Self::from_spki(parsed.public_key().raw)?);
        }
        if let Ok(key) = PrivateKeyDer::from_pem_slice(&pem) {
            keys.push(SigningKey::from_der(&key)?.public);
        }
        if keys.is_empty() {
            bail!("{} contains no key", path.display());
        }
        Ok(keys)
    }

    /// The key as `/openid/v1/jwks` shows it.
    pub fn jwk(&self) -> &Value {
        &self.jwk
    }

    /// The key's name in the header of tokens.
    pub fn id(&self) -> &str {
        &self.id
    }

    fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        let converted;
        let signature = match self.algorithm.coordinate() {
            None => signature,
            Some(size) if signature.len() == 2 * size => {
                converted = der_signature(signature);
                &converted
            }
            Some(_) => return false,
        };
        let provider = rustls::crypto::ring::default_provider();
        let scheme = self.algorithm.scheme();
        provider
            .signature_verification_algorithms
            .mapping
            .iter()
            .filter(|(mapped, _)| *mapped == scheme)
            .flat_map(|(_, algorithms)| algorithms.iter())
            .any(|algorithm| algorithm.verify_signature(&self.bits, message, signature).is_ok())
    }
}

/// A key tokens are signed with.
pub struct SigningKey {
    key: Arc<dyn RustlsKey>,
    /// What verifies its signatures.
    pub public: PublicKey,
}

impl SigningKey {
    /// From a PEM file.
    pub fn load(path: &Path) -> anyhow::Result<Self> {
        let key = PrivateKeyDer::from_pem_file(path)
            .with_context(|| format!("cannot read a private key from {}", path.display()))?;
        Self::from_der(&key).with_context(|| path.display().to_string())
    }

    fn from_der(key: &PrivateKeyDer<'_>) -> anyhow::Result<Self> {
        let key = rustls::crypto::ring::sign::any_supported_type(key).context("not a private key")?;
        let spki = key.public_key().context("the private key has no public part")?;
        let public = PublicKey::from_spki(&spki)?;
        Ok(Self { key, public })
    }

    /// A signed token.
    pub fn sign(&self, claims: &Value) -> anyhow::Result<String> {
        let algorithm = self.public.algorithm;
        let header = json!({"alg": algorithm.name(), "kid": self.public.id});
        let message = format!(
            "{}.{}",
            B64.encode(header.to_string()),
            B64.encode(claims.to_string())
        );
        let signer = self
            .key
            .choose_scheme(&[algorithm.scheme()])
            .context("the key cannot sign tokens")?;
        let mut signature = signer.sign(message.as_bytes()).context("signing failed")?;
        if let Some(size) = algorithm.coordinate() {
            signature = fixed_signature(&signature, size).context("signing failed")?;
        }
        Ok(format!("{message}.{}", B64.encode(signature)))
    }
}

#[derive(Deserialize)]
struct Header {
    #[serde(default)]
    alg: String,
    #[serde(default)]
    kid: String,
}

/// The claims of a token, if one of the keys signed it. Claims are not judged.
pub fn verify<C: DeserializeOwned>(token: &str, keys: &[PublicKey]) -> Result<C, String> {
    let (message, signature) = token.rsplit_once('.').ok_or("not a token")?;
    let (header, claims) = message.split_once('.').ok_or("not a token")?;
    let decode = |part: &str| B64.decode(part).map_err(|_| "not a token".to_owned());
    let header: Header = serde_json::from_slice(&decode(header)?).map_err(|_| "not a token")?;
    let signature = decode(signature)?;
    let known = keys
        .iter()
        .filter(|key| key.algorithm.name() == header.alg && (header.kid.is_empty() || header.kid == key.id))
        .any(|key| key.verifies(message.as_bytes(), &signature));
    if !known {
        return Err("no key verifies the signature".into());
    }
    serde_json::from_slice(&decode(claims)?).map_err(|e| format!("the claims cannot be read: {e}"))
}

/// Two numbers side by side (RFC 7518) as an ASN.1 sequence, which is what certificates use.
fn der_signature(fixed: &[u8]) -> Vec<u8> {
    let (r, s) = fixed.split_at(fixed.len() / 2);
    let mut body = der_integer(r);
    body.extend(der_integer(s));
    // At most 2 * (48 + 3) bytes: a length below 128 is one byte.
    let mut out = vec![0x30, u8::try_from(body.len()).unwrap_or_default()];
    out.extend(body);
    out
}

fn der_integer(number: &[u8]) -> Vec<u8> {
    let start = number.iter().position(|b| *b != 0).unwrap_or(number.len() - 1);
    let digits = &number[start..];
    let pad = usize::from(digits[0] & 0x80 != 0);
    let mut out = vec![0x02, u8::try_from(digits.len() + pad).unwrap_or_default()];
    out.resize(2 + pad, 0);
    out.extend_from_slice(digits);
    out
}

fn fixed_signature(der: &[u8], size: usize) -> Option<Vec<u8>> {
    let mut rest = der.strip_prefix(&[0x30])?.get(1..)?;
    let mut out = Vec::with_capacity(2 * size);
    for _ in 0..2 {
        let length = usize::from(*rest.strip_prefix(&[0x02])?.first()?);
        let digits = rest.get(2..2 + length)?;
        rest = &rest[2 + length..];
        let digits = &digits[digits.len().saturating_sub(size)..];
        out.resize(out.len() + size - digits.len(), 0);
        out.extend_from_slice(digits);
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signatures_change_form_and_back() {
        let mut fixed = vec![0u8; 64];
        fixed[1] = 0x7f;
        fixed[32] = 0x80;
        fixed[63] = 1;
        assert_eq!(fixed_signature(&der_signature(&fixed), 32), Some(fixed));
    }
}
