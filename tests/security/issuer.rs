//! An issuer of ID tokens: discovery, keys, and tokens signed with them.

use std::sync::{Arc, Mutex};

use anyhow::{Context, Result, anyhow};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as B64;
use p521::ecdsa::signature::Signer as _;
use ring::rand::{SecureRandom as _, SystemRandom};
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use serde_json::{Value, json};

use crate::servers::{Handler, https};
use keelson_tests::authority::Authority;

/// On which curve an issuer's key is.
#[derive(Debug, Clone, Copy)]
pub enum Curve {
    P256,
    P521,
}

enum Pair {
    P256(EcdsaKeyPair),
    P521(p521::ecdsa::SigningKey),
}

impl Pair {
    fn new(curve: Curve) -> Result<Self> {
        let random = SystemRandom::new();
        Ok(match curve {
            Curve::P256 => {
                let algorithm = &ECDSA_P256_SHA256_FIXED_SIGNING;
                let made = EcdsaKeyPair::generate_pkcs8(algorithm, &random)
                    .and_then(|pkcs8| Ok(EcdsaKeyPair::from_pkcs8(algorithm, pkcs8.as_ref(), &random)?));
                Self::P256(made.map_err(|e| anyhow!("{e}"))?)
            }
            Curve::P521 => {
                // 66 bytes hold 521 bits; without the first ones they are fewer than the curve's order.
                let mut secret = [0; 66];
                random.fill(&mut secret[2..]).map_err(|e| anyhow!("{e}"))?;
                Self::P521(p521::ecdsa::SigningKey::from_slice(&secret).map_err(|e| anyhow!("{e}"))?)
            }
        })
    }

    /// As header and key name it: the algorithm and the curve.
    fn names(&self) -> (&'static str, &'static str) {
        match self {
            Self::P256(_) => ("ES256", "P-256"),
            Self::P521(_) => ("ES512", "P-521"),
        }
    }

    /// The point that everybody may know, uncompressed.
    fn public(&self) -> Vec<u8> {
        match self {
            Self::P256(pair) => pair.public_key().as_ref().to_vec(),
            Self::P521(key) => {
                let public = p521::ecdsa::VerifyingKey::from(key);
                public.to_encoded_point(false).as_bytes().to_vec()
            }
        }
    }

    fn sign(&self, message: &[u8]) -> Result<Vec<u8>> {
        Ok(match self {
            Self::P256(pair) => {
                let signed = pair.sign(&SystemRandom::new(), message);
                signed.map_err(|e| anyhow!("{e}"))?.as_ref().to_vec()
            }
            Self::P521(key) => {
                let signature: p521::ecdsa::Signature = key.sign(message);
                signature.to_bytes().to_vec()
            }
        })
    }
}

struct Key {
    id: String,
    pair: Pair,
}

impl Key {
    fn new(id: &str, curve: Curve) -> Result<Self> {
        let pair = Pair::new(curve)?;
        Ok(Self { id: id.into(), pair })
    }

    fn jwk(&self) -> Value {
        let (algorithm, curve) = self.pair.names();
        let point = self.pair.public();
        let (x, y) = point[1..].split_at(point.len() / 2);
        json!({"kty": "EC", "crv": curve, "use": "sig", "alg": algorithm, "kid": self.id,
               "x": B64.encode(x), "y": B64.encode(y)})
    }
}

/// An issuer.
pub struct Issuer {
    /// What tokens are from.
    pub url: String,
    key: Arc<Mutex<Key>>,
    /// What is answered at `/groups`.
    groups: Arc<Mutex<String>>,
}

impl Issuer {
    /// Serves on a free port with a certificate of the authority.
    pub fn start(authority: &Authority) -> Result<Self> {
        let (certificate, private) = authority.issue("issuer", &[])?;
        let key = Arc::new(Mutex::new(Key::new("one", Curve::P256)?));
        let url = Arc::new(Mutex::new(String::new()));
        let groups = Arc::<Mutex<String>>::default();
        let (known, at, told) = (key.clone(), url.clone(), groups.clone());
        let handler: Handler = Arc::new(move |path, _| {
            let url = at.lock().ok()?.clone();
            match path {
                "/.well-known/openid-configuration" => {
                    Some(json!({"issuer": url, "jwks_uri": format!("{url}/keys")}).to_string())
                }
                "/keys" => Some(json!({"keys": [known.lock().ok()?.jwk()]}).to_string()),
                "/groups" => Some(told.lock().ok()?.clone()),
                _ => None,
            }
        });
        let port = https(&certificate, &private, handler)?;
        let own = format!("https://127.0.0.1:{port}");
        own.clone_into(&mut *url.lock().map_err(|_| anyhow!("poisoned"))?);
        Ok(Self {
            url: own,
            key,
            groups,
        })
    }

    /// Signs with another key from now on; the former one is forgotten.
    pub fn rotate(&self, id: &str, curve: Curve) -> Result<()> {
        *self.key.lock().map_err(|_| anyhow!("poisoned"))? = Key::new(id, curve)?;
        Ok(())
    }

    /// Answers with this token at `/groups`.
    pub fn tell_groups(&self, token: String) -> Result<()> {
        *self.groups.lock().map_err(|_| anyhow!("poisoned"))? = token;
        Ok(())
    }

    /// A token with these claims beside the issuer, the audience `api` and an end in ten minutes.
    pub fn token(&self, claims: Value) -> Result<String> {
        let now = jiff::Timestamp::now().as_second();
        let mut all = json!({"iss": self.url, "aud": "api", "iat": now, "exp": now + 600});
        for (key, value) in claims.as_object().context("claims")? {
            all[key] = value.clone();
        }
        let key = self.key.lock().map_err(|_| anyhow!("poisoned"))?;
        let (algorithm, _) = key.pair.names();
        let header = json!({"alg": algorithm, "kid": key.id});
        let message = format!(
            "{}.{}",
            B64.encode(header.to_string()),
            B64.encode(all.to_string())
        );
        let signature = key.pair.sign(message.as_bytes())?;
        Ok(format!("{message}.{}", B64.encode(signature)))
    }
}
