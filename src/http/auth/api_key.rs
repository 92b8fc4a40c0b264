//! API keys: long random texts that machines show, of which the service keeps only hashes.

use std::fmt;

use data_encoding::{BASE32_NOPAD, HEXLOWER};
use jiff::Timestamp;
use sha2::{Digest, Sha256};
use subtle::{Choice, ConditionallySelectable, ConstantTimeEq};
use zeroize::{Zeroize, Zeroizing};

use super::{AuthError, Principal, PrincipalKind, Role};
use crate::domain::ids::{InvalidId, OrganisationId};
use crate::ports::{self, Entropy};

/// Shortest key text that is looked up, in bytes.
const KEY_LENGTH_MIN: usize = 16;

/// Most keys that are held: every look-up walks all of them.
const KEYS_MAX: usize = 1_000;

/// The SHA-256 of a whole key text.
///
/// A plain, fast hash is right here and would be wrong for passwords: a key that [`generate`] makes has 256 random bits,
/// so there is nothing to guess that slowness could guard, and every request pays for the hash.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct ApiKeyHash([u8; 32]);

impl ApiKeyHash {
    /// A hash that was parsed elsewhere.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The hash of a key text.
    pub fn of(key: &str) -> Self {
        Self(Sha256::digest(key.as_bytes()).into())
    }
}

impl fmt::Debug for ApiKeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ApiKeyHash(…)")
    }
}

impl fmt::Display for ApiKeyHash {
    /// 64 lower-case hexadecimal digits, as configuration has it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&HEXLOWER.encode(&self.0))
    }
}

impl std::str::FromStr for ApiKeyHash {
    type Err = InvalidId;
    fn from_str(text: &str) -> Result<Self, InvalidId> {
        const RULE: InvalidId = InvalidId { rule: "must be 64 hexadecimal digits (the SHA-256 of the key)" };
        let bytes = HEXLOWER.decode(text.to_ascii_lowercase().as_bytes()).map_err(|_| RULE)?;
        bytes.try_into().map(Self).map_err(|_| RULE)
    }
}

/// One key as it is stored.
#[derive(Debug, Clone)]
pub struct ApiKeyRecord {
    /// Names the key in logs and the audit; says nothing. Two records may share an id while a key is being replaced.
    pub id: String,
    /// The college whose things the key opens.
    pub organisation: OrganisationId,
    /// What its holder may do.
    pub role: Role,
    /// The hash of the key text.
    pub hash: ApiKeyHash,
    /// From when on the key is refused.
    pub expires_at: Option<Timestamp>,
}

/// Why keys cannot be used as configured.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidApiKeys {
    /// One key text under two records: whose it is would be a matter of order.
    #[error("the API keys {first} and {second} are the same key")]
    SameKey {
        /// The id of one.
        first: String,
        /// The id of the other.
        second: String,
    },
    /// One id for two colleges: the audit could not tell them apart.
    #[error("the API key id {0} is used by two organisations")]
    SharedId(String),
    /// More than the service walks through on each request.
    #[error("more than {KEYS_MAX} API keys")]
    TooMany,
}

/// All keys that are known.
#[derive(Debug, Default)]
pub struct ApiKeys {
    records: Vec<ApiKeyRecord>,
}

impl ApiKeys {
    /// Takes the keys.
    ///
    /// # Errors
    /// Keys that contradict each other.
    pub fn new(records: Vec<ApiKeyRecord>) -> Result<Self, InvalidApiKeys> {
        if records.len() > KEYS_MAX {
            return Err(InvalidApiKeys::TooMany);
        }
        for (at, record) in records.iter().enumerate() {
            for earlier in &records[..at] {
                if earlier.hash == record.hash {
                    return Err(InvalidApiKeys::SameKey { first: earlier.id.clone(), second: record.id.clone() });
                }
                if earlier.id == record.id && earlier.organisation != record.organisation {
                    return Err(InvalidApiKeys::SharedId(record.id.clone()));
                }
            }
        }
        Ok(Self { records })
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// Whose key `text` is.
    ///
    /// Every record is compared, in constant time and without an early end: how long it takes says neither whether a
    /// key is known nor how much of it was right. The id within the text plays no part in the search.
    pub(super) fn find(&self, text: &str, now: Timestamp) -> Result<Principal, AuthError> {
        let shown = ApiKeyHash::of(text);
        let mut place = 0u32;
        let mut found = Choice::from(0);
        for (at, record) in (0u32..).zip(&self.records) {
            let same = record.hash.0.ct_eq(&shown.0);
            place.conditional_assign(&at, same);
            found |= same;
        }
        let long_enough = text.len() >= KEY_LENGTH_MIN;
        let record = self.records.get(place as usize).filter(|_| bool::from(found) && long_enough);
        let record = record.ok_or(AuthError::Invalid)?;
        if record.expires_at.is_some_and(|end| now >= end) {
            return Err(AuthError::Expired);
        }
        Ok(Principal {
            id: record.id.clone(),
            organisation: record.organisation.clone(),
            roles: vec![record.role],
            kind: PrincipalKind::Machine,
        })
    }
}

/// A fresh key: the text, to be shown once to who will use it, and the hash, to be stored.
pub struct NewApiKey {
    /// `crk_<id>_<secret>`; wiped from memory when dropped.
    pub plain: Zeroizing<String>,
    /// What configuration gets.
    pub hash: ApiKeyHash,
}

impl fmt::Debug for NewApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NewApiKey(…)")
    }
}

/// Makes a key: `crk_<id>_<52 characters of base 32>`, 256 random bits. The prefix lets scanners find keys that
/// were leaked into a repository or a log.
///
/// # Errors
/// An id that is not 1 to 32 lower-case letters, digits or `-`.
pub fn generate(id: &str, entropy: &dyn Entropy) -> Result<NewApiKey, InvalidId> {
    let fits = (1..=32).contains(&id.len())
        && id.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
    if !fits {
        return Err(InvalidId { rule: "must be 1 to 32 lower-case letters, digits or '-'" });
    }
    let mut secret = ports::random::<32>(entropy);
    let mut text = BASE32_NOPAD.encode(&secret);
    secret.zeroize();
    text.make_ascii_lowercase();
    let plain = Zeroizing::new(format!("crk_{id}_{text}"));
    text.zeroize();
    let hash = ApiKeyHash::of(&plain);
    Ok(NewApiKey { plain, hash })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SeededEntropy;

    fn record(id: &str, key: &str) -> ApiKeyRecord {
        ApiKeyRecord {
            id: id.to_owned(),
            organisation: "north".parse().unwrap(),
            role: Role::Service,
            hash: ApiKeyHash::of(key),
            expires_at: None,
        }
    }

    const NOW: Timestamp = Timestamp::UNIX_EPOCH;

    #[test]
    fn a_fresh_key_opens_and_has_256_random_bits() {
        let entropy = SeededEntropy::new(7);
        let new = generate("chat-backend", &entropy).unwrap();
        let secret = new.plain.strip_prefix("crk_chat-backend_").unwrap();
        assert_eq!(BASE32_NOPAD.decode(secret.to_ascii_uppercase().as_bytes()).unwrap().len(), 32);
        assert_ne!(generate("chat-backend", &entropy).unwrap().plain, new.plain);

        let keys = ApiKeys::new(vec![ApiKeyRecord { hash: new.hash, ..record("chat-backend", "") }]).unwrap();
        assert_eq!(keys.find(&new.plain, NOW).unwrap().id, "chat-backend");
        assert_eq!(format!("{new:?}{keys:?}").matches(secret).count(), 0);
    }

    #[test]
    fn a_key_id_that_would_blur_the_form_is_refused() {
        for id in ["", "a_b", "A", "ü", &"x".repeat(33)] {
            assert!(generate(id, &SeededEntropy::new(1)).is_err(), "{id}");
        }
    }

    #[test]
    fn the_right_record_is_found_wherever_it_stands() {
        let texts: Vec<String> = (0..20).map(|n| format!("a demo key, number {n:02}")).collect();
        let keys = ApiKeys::new(texts.iter().map(|text| record(text, text)).collect()).unwrap();
        for text in &texts {
            assert_eq!(&keys.find(text, NOW).unwrap().id, text);
        }
        assert_eq!(keys.find("a demo key, number 20", NOW), Err(AuthError::Invalid));
        assert_eq!(ApiKeys::default().find("a demo key, number 00", NOW), Err(AuthError::Invalid));
    }

    #[test]
    fn a_short_text_is_no_key_even_if_configured() {
        let keys = ApiKeys::new(vec![record("short", "fifteen letters")]).unwrap();
        assert_eq!(keys.find("fifteen letters", NOW), Err(AuthError::Invalid));
    }

    #[test]
    fn a_key_ends_at_its_time() {
        let end = Timestamp::from_second(1_000).unwrap();
        let keys = ApiKeys::new(vec![ApiKeyRecord { expires_at: Some(end), ..record("old", "a key of some length") }])
            .unwrap();
        assert!(keys.find("a key of some length", Timestamp::from_second(999).unwrap()).is_ok());
        assert_eq!(keys.find("a key of some length", end), Err(AuthError::Expired));
    }

    #[test]
    fn keys_that_contradict_each_other_are_refused() {
        let same = ApiKeys::new(vec![record("a", "one and the same"), record("b", "one and the same")]);
        assert_eq!(same.unwrap_err(), InvalidApiKeys::SameKey { first: "a".into(), second: "b".into() });
        let elsewhere = ApiKeyRecord { organisation: "south".parse().unwrap(), ..record("a", "another key here") };
        let shared = ApiKeys::new(vec![record("a", "one key or other"), elsewhere]);
        assert_eq!(shared.unwrap_err(), InvalidApiKeys::SharedId("a".into()));
        assert!(ApiKeys::new(vec![record("a", "the old key text"), record("a", "the new key text")]).is_ok());
    }

    #[test]
    fn a_hash_reads_back_what_it_prints() {
        let hash = ApiKeyHash::of("x");
        assert_eq!(hash.to_string().parse::<ApiKeyHash>().unwrap(), hash);
        assert_eq!(hash.to_string().to_uppercase().parse::<ApiKeyHash>().unwrap(), hash);
        assert!("abc".parse::<ApiKeyHash>().is_err());
    }
}
