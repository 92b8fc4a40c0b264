//! The stored form of a sealed text. Opening and closing it is the keyring's work; the domain only carries it.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A text encrypted under one person's data key: `v1.<data key id>.<base64url(nonce, ciphertext, tag)>`.
///
/// The form carries the version and the key's id, so that keys can be rotated and destroyed without touching
/// stored data. `Debug` shows neither.
#[derive(Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Sealed(pub String);

impl fmt::Debug for Sealed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sealed(…)")
    }
}
