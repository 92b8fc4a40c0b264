//! The seal itself: `v1.<key id>.<base64url(nonce, ciphertext, tag)>`, for data keys and for texts alike.

use chacha20poly1305::aead::{AeadInOut, KeyInit};
use chacha20poly1305::{Tag, XChaCha20Poly1305, XNonce};
use data_encoding::BASE64URL_NOPAD;
use zeroize::Zeroizing;

use super::{KEY_BYTES, Secret};
use crate::domain::ids::{OrganisationId, PersonKey};
use crate::ports::{Entropy, KeyringError, random};

const VERSION: &str = "v1";
const NONCE_BYTES: usize = 24;
const TAG_BYTES: usize = 16;

/// Which of the two stored forms.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// A data key, under a master key (its id has 8 hexadecimal digits).
    Wrapped,
    /// A text, under a data key (its id has 16 hexadecimal digits).
    Sealed,
}

/// Whether `id` is written as ids of the key that closes this form are: small hexadecimal digits, of the right number.
pub(super) fn is_key_id(id: &str, form: Form) -> bool {
    let digits = match form {
        Form::Wrapped => 8,
        Form::Sealed => 16,
    };
    id.len() == digits && id.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

/// What a seal is bound to: it opens only for the same.
pub(super) struct Associated(Vec<u8>);

impl Associated {
    pub(super) fn wrapped(master_id: &str, organisation: &OrganisationId, person: &PersonKey, key_id: &str) -> Self {
        Self::of(&["data key", VERSION, master_id, organisation.as_str(), &person.to_string(), key_id])
    }

    pub(super) fn sealed(key_id: &str, organisation: &OrganisationId, person: &PersonKey, field: &str) -> Self {
        Self::of(&["text", VERSION, key_id, organisation.as_str(), &person.to_string(), field])
    }

    /// Each part goes behind its length, so that no two lists of parts give the same bytes.
    fn of(parts: &[&str]) -> Self {
        let mut bytes = Vec::with_capacity(192);
        for part in parts {
            bytes.extend_from_slice(&(part.len() as u64).to_be_bytes());
            bytes.extend_from_slice(part.as_bytes());
        }
        Self(bytes)
    }
}

/// Encrypts `plain` under a fresh nonce and writes the stored form.
pub(super) fn close(
    key: &Secret,
    key_id: &str,
    associated: &Associated,
    plain: &[u8],
    entropy: &dyn Entropy,
) -> String {
    let nonce: [u8; NONCE_BYTES] = random(entropy);
    // Of the full size at once: a buffer that grows would leave the plain text behind in freed memory.
    let mut payload = Vec::with_capacity(NONCE_BYTES + plain.len() + TAG_BYTES);
    payload.extend_from_slice(&nonce);
    payload.extend_from_slice(plain);
    #[expect(clippy::expect_used, reason = "the cipher refuses only more than 256 GiB")]
    let tag = cipher(key)
        .encrypt_inout_detached(&XNonce::from(nonce), &associated.0, (&mut payload[NONCE_BYTES..]).into())
        .expect("a text in memory is short enough for the cipher");
    payload.extend_from_slice(&tag);
    format!("{VERSION}.{key_id}.{}", BASE64URL_NOPAD.encode(&payload))
}

/// Takes a stored form apart: the id of the key that closed it, and the payload's text.
pub(super) fn split(stored: &str, form: Form) -> Result<(&str, &str), KeyringError> {
    let (version, rest) = stored.split_once('.').ok_or(KeyringError::Malformed)?;
    let (key_id, payload) = rest.split_once('.').ok_or(KeyringError::Malformed)?;
    if version == VERSION && is_key_id(key_id, form) { Ok((key_id, payload)) } else { Err(KeyringError::Malformed) }
}

/// Decrypts a payload.
pub(super) fn open(key: &Secret, associated: &Associated, payload: &str) -> Result<Zeroizing<Vec<u8>>, KeyringError> {
    // The decoder is strict (no padding, no stray bits): each payload has exactly one spelling.
    let payload = BASE64URL_NOPAD.decode(payload.as_bytes()).map_err(|_| KeyringError::Malformed)?;
    let (nonce, rest) = payload.split_first_chunk::<NONCE_BYTES>().ok_or(KeyringError::Malformed)?;
    let (text, tag) = rest.split_last_chunk::<TAG_BYTES>().ok_or(KeyringError::Malformed)?;
    let mut text = Zeroizing::new(text.to_vec());
    cipher(key)
        .decrypt_inout_detached(&XNonce::from(*nonce), &associated.0, text.as_mut_slice().into(), &Tag::from(*tag))
        .map_err(|_| KeyringError::Broken)?;
    Ok(text)
}

fn cipher(key: &Secret) -> XChaCha20Poly1305 {
    let key: &[u8; KEY_BYTES] = key;
    XChaCha20Poly1305::new(key.into())
}
