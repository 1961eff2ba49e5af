//! An issuer of ID tokens: discovery, keys, and tokens signed with them.

use std::sync::{Arc, Mutex};

use anyhow::{Context, Result, anyhow};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as B64;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use serde_json::{Value, json};

use crate::servers::{Handler, https};
use keelson_tests::authority::Authority;

struct Key {
    id: String,
    pair: EcdsaKeyPair,
}

impl Key {
    fn new(id: &str) -> Result<Self> {
        let random = SystemRandom::new();
        let algorithm = &ECDSA_P256_SHA256_FIXED_SIGNING;
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(algorithm, &random).map_err(|e| anyhow!("{e}"))?;
        let pair =
            EcdsaKeyPair::from_pkcs8(algorithm, pkcs8.as_ref(), &random).map_err(|e| anyhow!("{e}"))?;
        Ok(Self { id: id.into(), pair })
    }

    fn jwk(&self) -> Value {
        let (x, y) = self.pair.public_key().as_ref()[1..].split_at(32);
        json!({"kty": "EC", "crv": "P-256", "use": "sig", "alg": "ES256", "kid": self.id,
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
        let key = Arc::new(Mutex::new(Key::new("one")?));
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
    pub fn rotate(&self, id: &str) -> Result<()> {
        *self.key.lock().map_err(|_| anyhow!("poisoned"))? = Key::new(id)?;
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
        let header = json!({"alg": "ES256", "kid": key.id});
        let message = format!(
            "{}.{}",
            B64.encode(header.to_string()),
            B64.encode(all.to_string())
        );
        let signature = key
            .pair
            .sign(&SystemRandom::new(), message.as_bytes())
            .map_err(|e| anyhow!("{e}"))?;
        Ok(format!("{message}.{}", B64.encode(signature)))
    }
}
