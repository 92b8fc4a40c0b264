//! Identifiers. Each is parsed once, at the edge; inside, a value is valid by its type.
//!
//! Nothing in here draws randomness or reads a clock: whoever makes an id passes both in.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Why a text is not the identifier it was given as. Never repeats the text itself, which may be personal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{rule}")]
pub struct InvalidId {
    /// The rule that was broken, fit to be shown to a caller.
    pub rule: &'static str,
}

/// The time-ordered identifier of one alert (UUID version 7).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct AlertId(pub Uuid);

impl AlertId {
    /// An id made at `now` from ten random bytes.
    pub fn new(now: Timestamp, random: [u8; 10]) -> Self {
        Self(uuid_v7(now, random))
    }
}

/// The identifier of one crisis event (UUID version 7).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct EventId(pub Uuid);

impl EventId {
    /// An id made at `now` from ten random bytes.
    pub fn new(now: Timestamp, random: [u8; 10]) -> Self {
        Self(uuid_v7(now, random))
    }
}

fn uuid_v7(now: Timestamp, random: [u8; 10]) -> Uuid {
    let millis = u64::try_from(now.as_millisecond()).unwrap_or(0);
    uuid::Builder::from_unix_timestamp_millis(millis, &random).into_uuid()
}

/// The length of a UUID in its form with hyphens; every other form has another.
const HYPHENATED: usize = uuid::fmt::Hyphenated::LENGTH;

macro_rules! uuid_text {
    ($name:ident, $rule:literal) => {
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
        impl FromStr for $name {
            type Err = InvalidId;
            /// Reads the form with hyphens, and none of the others: one id, one spelling, but for its case.
            fn from_str(text: &str) -> Result<Self, InvalidId> {
                let parsed = Uuid::try_parse(text).ok().filter(|_| text.len() == HYPHENATED);
                parsed.map(Self).ok_or(InvalidId { rule: $rule })
            }
        }
    };
}
uuid_text!(AlertId, "must be a UUID");
uuid_text!(EventId, "must be a UUID");

/// Number of a delivery within its alert, from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct DeliveryNo(pub u32);

/// Number of an attempt within its delivery, from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct AttemptNo(pub u32);

impl fmt::Display for DeliveryNo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
impl fmt::Display for AttemptNo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Names one attempt among all: what a callback URL carries, so that a receipt finds its attempt
/// even if the answer to the create call was lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct AttemptRef {
    /// The alert.
    pub alert: AlertId,
    /// The delivery within the alert.
    pub delivery: DeliveryNo,
    /// The attempt within the delivery.
    pub attempt: AttemptNo,
}

macro_rules! slug {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(Arc<str>);
        impl $name {
            /// The id as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
        impl FromStr for $name {
            type Err = InvalidId;
            fn from_str(text: &str) -> Result<Self, InvalidId> {
                let fits = (1..=64).contains(&text.len())
                    && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
                if fits {
                    Ok(Self(Arc::from(text)))
                } else {
                    Err(InvalidId { rule: "must be 1 to 64 letters, digits, '-' or '_'" })
                }
            }
        }
        impl TryFrom<String> for $name {
            type Error = InvalidId;
            fn try_from(text: String) -> Result<Self, InvalidId> {
                text.parse()
            }
        }
        impl From<$name> for String {
            fn from(id: $name) -> String {
                id.0.to_string()
            }
        }
    };
}
slug!(
    /// A college: its own contacts, policies, templates, Twilio account, limits and time zone.
    OrganisationId
);
slug!(
    /// A person who can be told.
    ContactId
);
slug!(
    /// An escalation policy.
    PolicyId
);
slug!(
    /// A schedule of who is on call.
    ScheduleId
);

const CROCKFORD: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";

/// Short random code (8 characters, Crockford base 32, 40 bits) that people read out. It says nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Reference([u8; 8]);

impl Reference {
    /// A reference made from five random bytes.
    pub fn new(random: [u8; 5]) -> Self {
        let bits = random.iter().fold(0u64, |bits, byte| (bits << 8) | u64::from(*byte));
        let mut text = [b'0'; 8];
        for (place, symbol) in text.iter_mut().rev().enumerate() {
            *symbol = CROCKFORD[((bits >> (5 * place)) & 31) as usize];
        }
        Self(text)
    }

    /// The code as text.
    pub fn as_str(&self) -> &str {
        // Every byte comes from the ASCII alphabet above.
        std::str::from_utf8(&self.0).unwrap_or("00000000")
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// As long as a code can be as somebody types it: its characters, and a dash for each.
const REFERENCE_TYPED_MAX: usize = 16;

impl FromStr for Reference {
    type Err = InvalidId;
    /// Reads a code as people type it: any case, `I` and `L` as 1, `O` as 0, up to eight dashes ignored.
    fn from_str(text: &str) -> Result<Self, InvalidId> {
        const RULE: InvalidId = InvalidId { rule: "must be a reference of 8 characters (Crockford base 32)" };
        if text.len() > REFERENCE_TYPED_MAX {
            return Err(RULE);
        }
        let mut code = [0u8; 8];
        let mut length = 0;
        for byte in text.bytes().filter(|b| *b != b'-') {
            let symbol = match byte.to_ascii_uppercase() {
                b'I' | b'L' => b'1',
                b'O' => b'0',
                other => other,
            };
            if length == 8 || !CROCKFORD.contains(&symbol) {
                return Err(RULE);
            }
            code[length] = symbol;
            length += 1;
        }
        if length == 8 { Ok(Self(code)) } else { Err(RULE) }
    }
}
impl TryFrom<String> for Reference {
    type Error = InvalidId;
    fn try_from(text: String) -> Result<Self, InvalidId> {
        text.parse()
    }
}
impl From<Reference> for String {
    fn from(reference: Reference) -> String {
        reference.as_str().to_owned()
    }
}

macro_rules! keyed_hash {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name([u8; 32]);
        impl $name {
            /// Wraps the 32 bytes of a keyed hash (HMAC-SHA-256).
            pub const fn from_bytes(bytes: [u8; 32]) -> Self {
                Self(bytes)
            }
            /// The bytes of the hash.
            pub const fn as_bytes(&self) -> &[u8; 32] {
                &self.0
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(concat!(stringify!($name), "(…)"))
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&data_encoding::HEXLOWER.encode(&self.0))
            }
        }
        impl FromStr for $name {
            type Err = InvalidId;
            fn from_str(text: &str) -> Result<Self, InvalidId> {
                const RULE: InvalidId = InvalidId { rule: "must be 64 hexadecimal digits" };
                let bytes = data_encoding::HEXLOWER.decode(text.as_bytes()).map_err(|_| RULE)?;
                bytes.try_into().map(Self).map_err(|_| RULE)
            }
        }
        impl TryFrom<String> for $name {
            type Error = InvalidId;
            fn try_from(text: String) -> Result<Self, InvalidId> {
                text.parse()
            }
        }
        impl From<$name> for String {
            fn from(key: $name) -> String {
                key.to_string()
            }
        }
    };
}
keyed_hash!(
    /// The student, as the service knows them inside: a keyed hash of organisation and user id.
    SubjectKey
);
keyed_hash!(
    /// Any person with a data key of their own (student or contact), as a keyed hash.
    PersonKey
);
keyed_hash!(
    /// A phone number, as a keyed hash of its E.164 form.
    AddressKey
);
keyed_hash!(
    /// An idempotency key, hashed with organisation and caller: the raw key may carry a name.
    IdempotencyKey
);
keyed_hash!(
    /// A person or machine that acts, as a keyed hash of its principal name.
    PrincipalKey
);
keyed_hash!(
    /// A one-time code, as a keyed hash: six digits would be guessed from any other.
    CodeHash
);

/// What a one-time code is reckoned from, together with a key that only the service has. It is no secret: without the key
/// nobody gets from it to the code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct CodeSeed([u8; 16]);

impl CodeSeed {
    /// Wraps random bytes.
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }
    /// The bytes.
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}
impl fmt::Display for CodeSeed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&data_encoding::HEXLOWER.encode(&self.0))
    }
}
impl FromStr for CodeSeed {
    type Err = InvalidId;
    fn from_str(text: &str) -> Result<Self, InvalidId> {
        const RULE: InvalidId = InvalidId { rule: "must be 32 hexadecimal digits" };
        let bytes = data_encoding::HEXLOWER.decode(text.as_bytes()).map_err(|_| RULE)?;
        bytes.try_into().map(Self).map_err(|_| RULE)
    }
}

impl From<SubjectKey> for PersonKey {
    fn from(subject: SubjectKey) -> Self {
        Self(subject.0)
    }
}

/// Twilio's identifier of a message (`SM` or `MM` and 32 hexadecimal digits).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ProviderId(Arc<str>);

impl ProviderId {
    /// The SID as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}
impl fmt::Display for ProviderId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
impl FromStr for ProviderId {
    type Err = InvalidId;
    fn from_str(text: &str) -> Result<Self, InvalidId> {
        let fits = text.len() == 34
            && text.as_bytes()[..2].iter().all(u8::is_ascii_uppercase)
            && text.as_bytes()[2..].iter().all(u8::is_ascii_hexdigit);
        if fits {
            Ok(Self(Arc::from(text)))
        } else {
            Err(InvalidId { rule: "must be two capital letters and 32 hexadecimal digits" })
        }
    }
}
impl TryFrom<String> for ProviderId {
    type Error = InvalidId;
    fn try_from(text: String) -> Result<Self, InvalidId> {
        text.parse()
    }
}
impl From<ProviderId> for String {
    fn from(id: ProviderId) -> String {
        id.0.to_string()
    }
}
