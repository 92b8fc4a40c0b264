//! Small types that only a configuration has.

use std::fmt;
use std::str::FromStr;

use zeroize::Zeroizing;

use crate::domain::ids::InvalidId;

macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $word:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $name {
            $($(#[$variant_doc])* $variant),+
        }
        impl $name {
            /// Every word there is, in the order of the variants.
            pub const WORDS: &'static [&'static str] = &[$($word),+];
            /// The word, as the configuration writes it.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $word),+
                }
            }
            pub(super) fn from_word(word: &str) -> Option<Self> {
                match word {
                    $($word => Some(Self::$variant),)+
                    _ => None,
                }
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }
    };
}

words!(
    /// How much the service may assume.
    Mode {
        /// A developer's machine: without Twilio credentials the simulator is used.
        Development = "development",
        /// Real people depend on it: nothing may be missing.
        Production = "production",
    }
);
words!(
    /// What the holder of an API key may do. See the roles of the API.
    ApiRole {
        /// A backend that posts scores.
        Service = "service",
        /// A person who takes cases.
        Counsellor = "counsellor",
        /// A person who keeps contacts, policies and consent.
        Admin = "admin",
        /// A person who reads the audit.
        Auditor = "auditor",
    }
);
words!(
    /// Which engine keeps the alerts.
    StoreKind {
        /// Embedded, one instance.
        Sqlite = "sqlite",
        /// Google Cloud Firestore, any number of instances.
        Firestore = "firestore",
    }
);
words!(
    /// How log lines are written.
    LogFormat {
        /// One JSON object a line.
        Json = "json",
        /// For eyes.
        Text = "text",
        /// Text on a terminal, JSON elsewhere.
        Auto = "auto",
    }
);

/// A Twilio identifier: two capital letters (its kind) and 32 hexadecimal digits.
///
/// Source: Twilio's OpenAPI description, the `pattern` of each `sid` field.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Sid(String);

impl Sid {
    /// The identifier as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Reads an identifier of one kind, such as `AC`.
    pub(super) fn parse(text: &str, kind: &str) -> Option<Self> {
        let digits = text.strip_prefix(kind)?;
        let fits = digits.len() == 32 && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
        fits.then(|| Self(text.to_owned()))
    }
}

impl fmt::Debug for Sid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The text is ASCII: `parse` saw to it.
        write!(f, "Sid({}…{})", &self.0[..2], &self.0[self.0.len() - 4..])
    }
}
impl fmt::Display for Sid {
    /// The kind and the last four digits: enough to tell two accounts apart.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}…{}", &self.0[..2], &self.0[self.0.len() - 4..])
    }
}

/// The SHA-256 of an API key. The key itself is never stored.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct KeyHash([u8; 32]);

impl KeyHash {
    /// SHA-256 of the empty text: what a script makes of a variable that was not set.
    const OF_NOTHING: &'static [u8] = b"e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    /// The 32 bytes; compare them in constant time.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl FromStr for KeyHash {
    type Err = InvalidId;
    fn from_str(text: &str) -> Result<Self, InvalidId> {
        const RULE: InvalidId = InvalidId { rule: "must be a SHA-256 in 64 hexadecimal digits, not that of nothing" };
        let text = text.trim().to_ascii_lowercase();
        if text.as_bytes() == Self::OF_NOTHING {
            return Err(RULE);
        }
        let bytes = data_encoding::HEXLOWER.decode(text.as_bytes()).map_err(|_| RULE)?;
        bytes.try_into().map(Self).map_err(|_| RULE)
    }
}

impl fmt::Debug for KeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyHash(…)")
    }
}

/// A master key: 32 bytes that wrap every person's data key. Wiped when dropped, never shown.
#[derive(Clone)]
pub struct MasterKey(Zeroizing<[u8; 32]>);

impl MasterKey {
    /// The key itself: for the keyring only.
    pub fn expose(&self) -> &[u8; 32] {
        &self.0
    }
}

impl FromStr for MasterKey {
    type Err = InvalidId;
    /// Reads base64 (standard alphabet, padded) of 32 bytes; all zeroes is nobody's key.
    fn from_str(text: &str) -> Result<Self, InvalidId> {
        const RULE: InvalidId = InvalidId { rule: "must be base64 of 32 bytes that are not all zero" };
        let bytes = Zeroizing::new(data_encoding::BASE64.decode(text.trim().as_bytes()).map_err(|_| RULE)?);
        let key: Zeroizing<[u8; 32]> = Zeroizing::new(bytes.as_slice().try_into().map_err(|_| RULE)?);
        if key.iter().all(|byte| *byte == 0) { Err(RULE) } else { Ok(Self(key)) }
    }
}

impl fmt::Debug for MasterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MasterKey(…)")
    }
}
