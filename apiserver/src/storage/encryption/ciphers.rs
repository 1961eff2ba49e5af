//! The ciphers that work with keys of their own: AES-CBC, AES-GCM and NaCl's secretbox, in the layouts upstream stores.

use aes::cipher::block_padding::Pkcs7;
use aes::cipher::{BlockDecryptMut as _, BlockEncryptMut as _, KeyIvInit as _};
use aes::{Aes128, Aes192, Aes256};
use aes_gcm::aead::generic_array::typenum::U12;
use aes_gcm::aead::{Aead as _, Payload};
use aes_gcm::{AesGcm, KeyInit as _, Nonce};
use crypto_secretbox::XSalsa20Poly1305;
use rand::RngCore as _;

/// Bytes of an AES block, and of CBC's initialisation vector.
const BLOCK: usize = 16;
/// Bytes of GCM's nonce.
const NONCE: usize = 12;
/// Bytes of secretbox's nonce.
const BOX_NONCE: usize = 24;
/// Lengths an AES key may have.
pub const AES_KEYS: &[usize] = &[16, 24, 32];
/// Length of secretbox's key.
pub const BOX_KEYS: &[usize] = &[32];

const SHORT: &str = "the stored data was shorter than the required size";

/// AES-GCM with a key of any of AES' lengths: nonce, then ciphertext and tag.
pub enum Gcm {
    /// 16 bytes.
    Aes128(Box<AesGcm<Aes128, U12>>),
    /// 24 bytes.
    Aes192(Box<AesGcm<Aes192, U12>>),
    /// 32 bytes.
    Aes256(Box<AesGcm<Aes256, U12>>),
}

impl Gcm {
    /// `None` when no AES key is that long.
    pub fn new(key: &[u8]) -> Option<Self> {
        match key.len() {
            16 => Some(Gcm::Aes128(Box::new(AesGcm::new_from_slice(key).ok()?))),
            24 => Some(Gcm::Aes192(Box::new(AesGcm::new_from_slice(key).ok()?))),
            32 => Some(Gcm::Aes256(Box::new(AesGcm::new_from_slice(key).ok()?))),
            _ => None,
        }
    }

    /// Encrypts; `about` is authenticated with it.
    pub fn seal(&self, plain: &[u8], about: &[u8]) -> Result<Vec<u8>, String> {
        let nonce: [u8; NONCE] = random();
        let payload = Payload {
            msg: plain,
            aad: about,
        };
        let nonce_ref = &Nonce::from(nonce);
        let sealed = match self {
            Gcm::Aes128(cipher) => cipher.encrypt(nonce_ref, payload),
            Gcm::Aes192(cipher) => cipher.encrypt(nonce_ref, payload),
            Gcm::Aes256(cipher) => cipher.encrypt(nonce_ref, payload),
        };
        let sealed = sealed.map_err(|_| "cipher: message too large for GCM".to_owned())?;
        Ok([nonce.as_slice(), &sealed].concat())
    }

    /// Decrypts what [`Gcm::seal`] made.
    pub fn open(&self, sealed: &[u8], about: &[u8]) -> Result<Vec<u8>, String> {
        let (nonce, sealed) = sealed.split_first_chunk::<NONCE>().ok_or(SHORT)?;
        let payload = Payload {
            msg: sealed,
            aad: about,
        };
        let nonce = &Nonce::from(*nonce);
        let plain = match self {
            Gcm::Aes128(cipher) => cipher.decrypt(nonce, payload),
            Gcm::Aes192(cipher) => cipher.decrypt(nonce, payload),
            Gcm::Aes256(cipher) => cipher.decrypt(nonce, payload),
        };
        plain.map_err(|_| "cipher: message authentication failed".to_owned())
    }
}

/// A cipher with its key.
pub enum Cipher {
    /// Not authenticated: initialisation vector, then ciphertext padded as PKCS#7 says.
    Cbc(Vec<u8>),
    /// Authenticated together with the key it is stored under.
    Gcm(Gcm),
    /// Authenticated: nonce, then the box.
    Box(Box<XSalsa20Poly1305>),
}

impl Cipher {
    /// AES-CBC; `None` when the key has a wrong length.
    pub fn cbc(key: &[u8]) -> Option<Self> {
        AES_KEYS.contains(&key.len()).then(|| Cipher::Cbc(key.to_vec()))
    }

    /// AES-GCM; `None` when the key has a wrong length.
    pub fn gcm(key: &[u8]) -> Option<Self> {
        Gcm::new(key).map(Cipher::Gcm)
    }

    /// XSalsa20 and Poly1305; `None` when the key has a wrong length.
    pub fn secretbox(key: &[u8]) -> Option<Self> {
        XSalsa20Poly1305::new_from_slice(key)
            .ok()
            .map(|cipher| Cipher::Box(Box::new(cipher)))
    }

    /// Encrypts what lies under the key `about`.
    pub fn seal(&self, plain: &[u8], about: &[u8]) -> Result<Vec<u8>, String> {
        match self {
            Cipher::Cbc(key) => {
                let iv: [u8; BLOCK] = random();
                Ok([iv.as_slice(), &cbc_seal(key, &iv, plain)?].concat())
            }
            Cipher::Gcm(gcm) => gcm.seal(plain, about),
            Cipher::Box(cipher) => {
                let nonce: [u8; BOX_NONCE] = random();
                let sealed = cipher
                    .encrypt(&crypto_secretbox::Nonce::from(nonce), plain)
                    .map_err(|_| "the message is too large for secretbox".to_owned())?;
                Ok([nonce.as_slice(), &sealed].concat())
            }
        }
    }

    /// Decrypts what lies under the key `about`.
    pub fn open(&self, sealed: &[u8], about: &[u8]) -> Result<Vec<u8>, String> {
        match self {
            Cipher::Cbc(key) => {
                let (iv, sealed) = sealed.split_at_checked(BLOCK).ok_or(SHORT)?;
                if !sealed.len().is_multiple_of(BLOCK) {
                    return Err("the stored data is not a multiple of the block size".into());
                }
                cbc_open(key, iv, sealed)
            }
            Cipher::Gcm(gcm) => gcm.open(sealed, about),
            Cipher::Box(cipher) => {
                let (nonce, sealed) = sealed.split_first_chunk::<BOX_NONCE>().ok_or(SHORT)?;
                cipher
                    .decrypt(&crypto_secretbox::Nonce::from(*nonce), sealed)
                    .map_err(|_| "the stored data was encrypted with another key".to_owned())
            }
        }
    }
}

fn cbc_seal(key: &[u8], iv: &[u8], plain: &[u8]) -> Result<Vec<u8>, String> {
    let wrong = |_| "the key has a wrong length".to_owned();
    Ok(match key.len() {
        16 => cbc::Encryptor::<Aes128>::new_from_slices(key, iv)
            .map_err(wrong)?
            .encrypt_padded_vec_mut::<Pkcs7>(plain),
        24 => cbc::Encryptor::<Aes192>::new_from_slices(key, iv)
            .map_err(wrong)?
            .encrypt_padded_vec_mut::<Pkcs7>(plain),
        _ => cbc::Encryptor::<Aes256>::new_from_slices(key, iv)
            .map_err(wrong)?
            .encrypt_padded_vec_mut::<Pkcs7>(plain),
    })
}

fn cbc_open(key: &[u8], iv: &[u8], sealed: &[u8]) -> Result<Vec<u8>, String> {
    let wrong = |_| "the key has a wrong length".to_owned();
    let opened = match key.len() {
        16 => cbc::Decryptor::<Aes128>::new_from_slices(key, iv)
            .map_err(wrong)?
            .decrypt_padded_vec_mut::<Pkcs7>(sealed),
        24 => cbc::Decryptor::<Aes192>::new_from_slices(key, iv)
            .map_err(wrong)?
            .decrypt_padded_vec_mut::<Pkcs7>(sealed),
        _ => cbc::Decryptor::<Aes256>::new_from_slices(key, iv)
            .map_err(wrong)?
            .decrypt_padded_vec_mut::<Pkcs7>(sealed),
    };
    opened.map_err(|_| "invalid padding on input".to_owned())
}

/// Random bytes from the operating system's generator, stretched.
pub fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    rand::rng().fill_bytes(&mut bytes);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_cipher_brings_back_what_it_was_given() {
        let key = [7; 32];
        let ciphers = AES_KEYS
            .iter()
            .flat_map(|size| [Cipher::cbc(&key[..*size]), Cipher::gcm(&key[..*size])])
            .chain([Cipher::secretbox(&key)]);
        for cipher in ciphers {
            let cipher = cipher.expect("a cipher");
            for plain in ["", "x", "exactly 16 bytes", "some more than one block of it"] {
                let sealed = cipher.seal(plain.as_bytes(), b"/registry/a").expect("sealed");
                assert_ne!(
                    sealed,
                    cipher.seal(plain.as_bytes(), b"/registry/a").expect("sealed")
                );
                assert_eq!(
                    cipher.open(&sealed, b"/registry/a").expect("opened"),
                    plain.as_bytes()
                );
                for end in 0..sealed.len() {
                    // Whatever is cut off, nothing may break.
                    let _ = cipher.open(&sealed[..end], b"/registry/a");
                }
            }
        }
        assert!(Cipher::cbc(&key[..17]).is_none() && Cipher::gcm(&key[..8]).is_none());
        assert!(Cipher::secretbox(&key[..16]).is_none());
    }

    #[test]
    fn what_is_authenticated_cannot_be_moved_or_changed() {
        let gcm = Cipher::gcm(&[1; 32]).expect("a cipher");
        let sealed = gcm.seal(b"secret", b"/registry/secrets/a").expect("sealed");
        assert!(gcm.open(&sealed, b"/registry/secrets/b").is_err());
        let other = Cipher::gcm(&[2; 32]).expect("a cipher");
        assert!(other.open(&sealed, b"/registry/secrets/a").is_err());
        let boxed = Cipher::secretbox(&[1; 32]).expect("a cipher");
        let mut sealed = boxed.seal(b"secret", b"").expect("sealed");
        sealed[BOX_NONCE] ^= 1;
        assert!(boxed.open(&sealed, b"").is_err());
    }

    /// NIST SP 800-38A, F.2.5: the layout is the standard's, so that values stored by others can be read.
    #[test]
    fn cbc_is_the_standard_s() {
        let hex = |text: &str| -> Vec<u8> {
            (0..text.len())
                .step_by(2)
                .map(|at| u8::from_str_radix(&text[at..at + 2], 16).expect("hex"))
                .collect()
        };
        let key = hex("603deb1015ca71be2b73aef0857d77811f352c073b6108d72d9810a30914dff4");
        let iv = hex("000102030405060708090a0b0c0d0e0f");
        let plain = hex("6bc1bee22e409f96e93d7e117393172a");
        let sealed = cbc_seal(&key, &iv, &plain).expect("sealed");
        assert_eq!(sealed[..16], hex("f58c4c04d6e5f1ba779eabfb5f7bfbd6"));
    }
}
