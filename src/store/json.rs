//! The stored form of the domain's values, which every store shares: one JSON text, written and read alike.

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::ports::StoreError;

/// Writes a value.
pub(super) fn write<T: Serialize>(value: &T) -> Result<String, StoreError> {
    serde_json::to_string(value).map_err(|_| StoreError::Corrupt { what: "a value cannot be written".to_owned() })
}

/// Reads a value. The error tells nothing of the text, which must not reach a log.
pub(super) fn read<T: DeserializeOwned>(text: &str) -> Result<T, StoreError> {
    serde_json::from_str(text).map_err(|_| StoreError::Corrupt { what: "JSON not in the expected form".to_owned() })
}
