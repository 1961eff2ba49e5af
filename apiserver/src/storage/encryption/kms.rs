//! Envelope encryption with a key management service, version 2 of its API (KEP-3299).
//!
//! The server makes a seed, has the plugin wrap it once, and derives from it a key for every value it writes; the
//! wrapped seed is stored with each of them. So the plugin is asked when a seed is made, when one that others made is
//! read for the first time, and once a minute which of its keys is in use: a new one means a new seed.

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use bytes::Bytes;
use hyper_util::rt::TokioIo;
use keelson_proto::kms::key_management_service_client::KeyManagementServiceClient;
use keelson_proto::kms::{
    DecryptRequest, EncryptRequest, EncryptResponse, EncryptedDekSourceType, EncryptedObject, StatusRequest,
    StatusResponse,
};
use parking_lot::Mutex;
use prost::Message as _;
use ring::hkdf;
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint, Uri};

use super::Opened;
use super::ciphers::{Gcm, random};
use super::config;

/// What is wrapped today.
const SEEDS: EncryptedDekSourceType = EncryptedDekSourceType::HkdfSha256XnonceAesGcmSeed;
/// Bytes of a seed, and of what is mixed into it for each value.
const SEED: usize = 32;
/// How often a healthy plugin is asked for its key.
const ASK: Duration = Duration::from_secs(60);
/// How often one that is not.
const ASK_AGAIN: Duration = Duration::from_secs(10);
/// A seed whose key has not been confirmed for this long encrypts nothing more.
const CONFIRMED: Duration = Duration::from_secs(180);
/// Largest name of a key, and largest wrapped seed.
const NAME_MAX: usize = 1024;
/// Largest annotations, all together.
const ANNOTATIONS_MAX: usize = 32 * 1024;
/// Unwrapped seeds kept at most. There is one for every start of a server and every key of the plugin.
const KEPT: usize = 4096;

/// Where keys come from.
pub enum Source {
    /// A seed, from which keys are derived.
    Seed(hkdf::Prk),
    /// A key as it is: what earlier releases stored.
    Key(Gcm),
}

impl Source {
    /// What the plugin has unwrapped.
    ///
    /// # Errors
    /// When it has a wrong length.
    pub fn of(kind: EncryptedDekSourceType, unwrapped: &[u8]) -> Result<Self, String> {
        match kind {
            SEEDS if unwrapped.len() < SEED => Err("the seed is shorter than 32 bytes".into()),
            SEEDS => Ok(Self::Seed(hkdf::Prk::new_less_safe(hkdf::HKDF_SHA256, unwrapped))),
            EncryptedDekSourceType::AesGcmKey => Ok(Self::Key(
                Gcm::new(unwrapped).ok_or("the key has a wrong length")?,
            )),
        }
    }

    /// Puts what lies under the key `about` into the frame, encrypted.
    ///
    /// # Errors
    /// When nothing new is encrypted with such a key.
    pub fn seal(&self, mut frame: EncryptedObject, plain: &[u8], about: &[u8]) -> Result<Vec<u8>, String> {
        let Self::Seed(prk) = self else {
            return Err("the key in use is no seed".into());
        };
        let mixed: [u8; SEED] = random();
        let mut sealed = mixed.to_vec();
        sealed.extend(derived(prk, &mixed)?.seal(plain, about)?);
        frame.encrypted_data = sealed.into();
        Ok(frame.encode_to_vec())
    }

    /// Decrypts what lies under the key `about`.
    ///
    /// # Errors
    /// When it was encrypted with another key, or lay elsewhere.
    pub fn open(&self, data: &[u8], about: &[u8]) -> Result<Vec<u8>, String> {
        match self {
            Self::Key(gcm) => gcm.open(data, about),
            Self::Seed(prk) => {
                let (mixed, data) = data
                    .split_at_checked(SEED)
                    .ok_or("the stored data was shorter than the required size")?;
                derived(prk, mixed)?.open(data, about)
            }
        }
    }
}

/// A seed and how it is stored.
struct Seed {
    source: Arc<Source>,
    /// The value's frame, without the value.
    frame: EncryptedObject,
    confirmed: Mutex<Instant>,
}

/// One plugin.
pub struct Kms {
    name: String,
    client: KeyManagementServiceClient<Channel>,
    timeout: Duration,
    seed: ArcSwapOption<Seed>,
    /// Held while a seed is made: whoever comes meanwhile gets the same one.
    making: tokio::sync::Mutex<()>,
    unwrapped: Mutex<HashMap<Vec<u8>, Arc<Source>>>,
}

impl Kms {
    /// A plugin that is asked for its key from now on, for as long as anybody uses it.
    ///
    /// # Errors
    /// When the endpoint is no Unix socket.
    pub fn start(config: &config::Kms) -> Result<Arc<Self>, String> {
        let path = config
            .endpoint
            .strip_prefix("unix://")
            .ok_or_else(|| format!("{}: not a Unix socket", config.endpoint))?
            .to_owned();
        // `unix:///@name` is a name in the abstract namespace, as upstream has it.
        let path = match path.strip_prefix("/@") {
            Some(name) => format!("\0{name}"),
            None => path,
        };
        let channel = Endpoint::from_static("http://kms.invalid").connect_with_connector_lazy(
            tower::service_fn(move |_: Uri| {
                let path = path.clone();
                async move { UnixStream::connect(path).await.map(TokioIo::new) }
            }),
        );
        let kms = Arc::new(Self {
            name: config.name.clone(),
            client: KeyManagementServiceClient::new(channel),
            timeout: config.timeout().unwrap_or(Duration::from_secs(3)),
            seed: ArcSwapOption::empty(),
            making: tokio::sync::Mutex::default(),
            unwrapped: Mutex::default(),
        });
        tokio::spawn(keep_current(Arc::downgrade(&kms)));
        Ok(kms)
    }

    /// Whether the plugin works.
    ///
    /// # Errors
    /// In its own words.
    pub async fn health(&self) -> Result<(), String> {
        self.status().await.map(drop)
    }

    /// The name of the key in use.
    async fn status(&self) -> Result<String, String> {
        let mut client = self.client.clone();
        self.within(client.status(StatusRequest {}))
            .await
            .and_then(key_in_use)
    }

    async fn within<T>(
        &self,
        call: impl Future<Output = Result<tonic::Response<T>, tonic::Status>>,
    ) -> Result<T, String> {
        match tokio::time::timeout(self.timeout, call).await {
            Ok(Ok(answer)) => Ok(answer.into_inner()),
            Ok(Err(status)) => Err(format!(
                "rpc error: code = {:?} desc = {}",
                status.code(),
                status.message()
            )),
            Err(_) => Err("context deadline exceeded".into()),
        }
        .map_err(|error| format!("kms provider {}: {error}", self.name))
    }

    /// Sees to it that the seed in use was wrapped by the plugin's key in use.
    async fn refresh(&self) -> Result<(), String> {
        let _making = self.making.lock().await;
        let key = self.status().await?;
        if let Some(seed) = self.seed.load_full()
            && seed.frame.key_id == key
        {
            *seed.confirmed.lock() = Instant::now();
            return Ok(());
        }
        let seed = self.new_seed().await?;
        if seed.frame.key_id != key {
            // The plugin changed its key in between; the next round finds out.
            tracing::info!(provider = self.name, "the key changed while a seed was wrapped");
        }
        self.seed.store(Some(Arc::new(seed)));
        tracing::info!(provider = self.name, "a new seed is in use");
        Ok(())
    }

    async fn new_seed(&self) -> Result<Seed, String> {
        let seed: [u8; SEED] = random();
        let mut client = self.client.clone();
        let request = EncryptRequest {
            plaintext: Bytes::copy_from_slice(&seed),
            uid: uuid::Uuid::new_v4().to_string(),
        };
        let wrapped = self
            .within(client.encrypt(request))
            .await
            .map_err(|error| format!("failed to encrypt DEK, error: {error}"))?;
        let frame = frame_of(wrapped)?;
        let source = Arc::new(Source::of(SEEDS, &seed)?);
        self.unwrapped.lock().insert(name_of(&frame), source.clone());
        Ok(Seed {
            source,
            frame,
            confirmed: Mutex::new(Instant::now()),
        })
    }

    fn confirmed(&self) -> Option<Arc<Seed>> {
        let seed = self.seed.load_full()?;
        let fresh = seed.confirmed.lock().elapsed() < CONFIRMED;
        fresh.then_some(seed)
    }

    /// Encrypts what lies under the key `about`.
    pub async fn seal(&self, plain: &[u8], about: &[u8]) -> Result<Vec<u8>, String> {
        let seed = match self.confirmed() {
            Some(seed) => seed,
            None => {
                self.refresh().await?;
                self.confirmed().ok_or("there is no key to encrypt with")?
            }
        };
        seed.source.seal(seed.frame.clone(), plain, about)
    }

    /// Decrypts what lies under the key `about`.
    pub async fn open(&self, sealed: &[u8], about: &[u8]) -> Result<Opened, String> {
        let (frame, data) = taken_apart(sealed)?;
        let plain = self.source(&frame).await?.open(&data, about)?;
        let now = self.seed.load_full();
        let stale = now.is_some_and(|seed| {
            seed.frame.key_id != frame.key_id
                || seed.frame.encrypted_dek_source_type != frame.encrypted_dek_source_type
        });
        Ok(Opened {
            value: plain.into(),
            stale,
        })
    }

    /// What a wrapped seed unwraps to.
    async fn source(&self, frame: &EncryptedObject) -> Result<Arc<Source>, String> {
        let name = name_of(frame);
        if let Some(known) = self.unwrapped.lock().get(&name) {
            return Ok(known.clone());
        }
        let mut client = self.client.clone();
        let request = DecryptRequest {
            ciphertext: frame.encrypted_dek_source.clone(),
            uid: uuid::Uuid::new_v4().to_string(),
            key_id: frame.key_id.clone(),
            annotations: frame.annotations.clone(),
        };
        let answer = self
            .within(client.decrypt(request))
            .await
            .map_err(|error| format!("failed to decrypt DEK, error: {error}"))?;
        let source = Arc::new(Source::of(frame.encrypted_dek_source_type(), &answer.plaintext)?);
        let mut unwrapped = self.unwrapped.lock();
        if unwrapped.len() >= KEPT {
            unwrapped.clear();
        }
        unwrapped.insert(name, source.clone());
        Ok(source)
    }
}

async fn keep_current(kms: Weak<Kms>) {
    loop {
        let Some(current) = kms.upgrade() else { return };
        let wait = match current.refresh().await {
            Ok(()) => ASK,
            Err(error) => {
                tracing::warn!(error, "the key management service cannot be used");
                ASK_AGAIN
            }
        };
        drop(current);
        tokio::time::sleep(wait).await;
    }
}

/// The name of the key that a healthy plugin uses.
///
/// # Errors
/// When it is not healthy, or speaks of something else.
pub fn key_in_use(answer: StatusResponse) -> Result<String, String> {
    if answer.healthz != "ok" {
        return Err(format!("got unexpected healthz status: {}", answer.healthz));
    }
    if !matches!(answer.version.as_str(), "v2" | "v2beta1") {
        return Err(format!("expected KMSv2 API version v2, got {}", answer.version));
    }
    if answer.key_id.is_empty() || answer.key_id.len() > NAME_MAX {
        return Err("expected a keyID of 1 to 1024 bytes in the status".into());
    }
    Ok(answer.key_id)
}

/// The frame of values under a seed that the plugin has wrapped.
///
/// # Errors
/// When it is nothing to be stored.
pub fn frame_of(wrapped: EncryptResponse) -> Result<EncryptedObject, String> {
    let frame = EncryptedObject {
        encrypted_data: Bytes::new(),
        key_id: wrapped.key_id,
        encrypted_dek_source: wrapped.ciphertext,
        annotations: wrapped.annotations,
        encrypted_dek_source_type: SEEDS as i32,
    };
    check(&frame)?;
    Ok(frame)
}

/// A stored value's frame, and the value in it.
///
/// # Errors
/// When it is none, or one that would not have been stored.
pub fn taken_apart(sealed: &[u8]) -> Result<(EncryptedObject, Bytes), String> {
    let mut frame = EncryptedObject::decode(sealed).map_err(|error| error.to_string())?;
    let data = std::mem::take(&mut frame.encrypted_data);
    if data.is_empty() {
        return Err("encrypted data is empty".into());
    }
    check(&frame)?;
    Ok((frame, data))
}

/// Refuses what upstream refuses to store.
fn check(frame: &EncryptedObject) -> Result<(), String> {
    if EncryptedDekSourceType::try_from(frame.encrypted_dek_source_type).is_err() {
        return Err(format!(
            "unknown encryptedDEKSourceType: {}",
            frame.encrypted_dek_source_type
        ));
    }
    let size = frame.encrypted_dek_source.len();
    if size == 0 {
        return Err("failed to validate encrypted DEK source: encrypted DEK source is empty".into());
    }
    if size > NAME_MAX {
        return Err(format!(
            "failed to validate encrypted DEK source: encrypted DEK source is {size} bytes, which exceeds the max size \
             of {NAME_MAX}"
        ));
    }
    if frame.key_id.is_empty() || frame.key_id.len() > NAME_MAX {
        return Err("failed to validate key id: it is empty or longer than 1024 bytes".into());
    }
    let annotations: usize = frame.annotations.iter().map(|(k, v)| k.len() + v.len()).sum();
    if annotations > ANNOTATIONS_MAX {
        return Err(format!(
            "failed to validate annotations: total size of annotations is {annotations}, which exceeds the max size of \
             {ANNOTATIONS_MAX}"
        ));
    }
    Ok(())
}

/// Everything about a wrapped seed that says which one it is.
fn name_of(frame: &EncryptedObject) -> Vec<u8> {
    let mut name = frame.encrypted_dek_source_type.to_be_bytes().to_vec();
    let mut part = |bytes: &[u8]| {
        name.extend((bytes.len() as u64).to_be_bytes());
        name.extend(bytes);
    };
    part(&frame.encrypted_dek_source);
    part(frame.key_id.as_bytes());
    let mut annotations: Vec<_> = frame.annotations.iter().collect();
    annotations.sort();
    for (key, value) in annotations {
        part(key.as_bytes());
        part(value);
    }
    name
}

fn derived(prk: &hkdf::Prk, mixed: &[u8]) -> Result<Gcm, String> {
    let mut key = [0; SEED];
    prk.expand(&[mixed], hkdf::HKDF_SHA256)
        .and_then(|out| out.fill(&mut key))
        .map_err(|_| "no key can be derived".to_owned())?;
    Gcm::new(&key).ok_or_else(|| "no key can be derived".to_owned())
}
