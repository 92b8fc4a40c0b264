//! Sealed texts and wrapped keys, read back from the store: only what was sealed opens, and only as what it was.

use std::sync::Arc;

use crisis_relay::clock::SeededEntropy;
use crisis_relay::domain::sealed::Sealed;
use crisis_relay::keyring::{LocalKeyring, MasterKeys};
use crisis_relay::ports::{DataKey, Keyring as _, SealedField, WrappedDataKey};

use super::first_line;

/// What is genuine; a seed of the corpus holds both forms.
const TEXT: &str = "what the student wrote";

/// Input: a line with a wrapped data key, a line with a sealed text; what follows is sealed and opened.
pub fn run(data: &[u8]) {
    let (wrapped, rest) = first_line(data);
    let (sealed, plain) = first_line(rest);
    SEALS.with(|seals| {
        if let (Ok(wrapped), Ok(sealed)) = (std::str::from_utf8(wrapped), std::str::from_utf8(sealed)) {
            seals.check_wrapped(wrapped);
            seals.check_sealed(sealed);
        }
        if let Ok(plain) = std::str::from_utf8(plain) {
            seals.check_plain(plain);
        }
    });
}

thread_local! {
    static SEALS: Seals = Seals::new();
}

struct Seals {
    keyring: LocalKeyring,
    wrapped: WrappedDataKey,
    key: Arc<dyn DataKey>,
    sealed: Sealed,
}

impl Seals {
    fn new() -> Self {
        let masters = MasterKeys::from_text("3q2+7wABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhs=").expect("a good key");
        // The same bytes in every run, so that the corpus can hold what is genuine.
        let keyring = LocalKeyring::new(masters, Arc::new(SeededEntropy::new(5)));
        let (organisation, person) = ("north".parse().expect("an id"), "22".repeat(32).parse().expect("a hash"));
        let (wrapped, key) = keyring.new_data_key(&organisation, person, jiff::Timestamp::UNIX_EPOCH);
        let sealed = key.seal(SealedField::Message, TEXT);
        Self { keyring, wrapped, key, sealed }
    }

    fn check_wrapped(&self, text: &str) {
        let given = WrappedDataKey { wrapped: text.to_owned(), ..self.wrapped.clone() };
        let opened = self.keyring.open_data_key(&given);
        assert_eq!(opened.is_ok(), text == self.wrapped.wrapped, "{text}");
        match opened {
            Ok(key) => assert_eq!(key.open(SealedField::Message, &self.sealed).as_deref(), Ok(TEXT)),
            Err(error) => assert!(!super::repeats(&format!("{error} {error:?}")), "{error}"),
        }
        let named = WrappedDataKey { key_id: text.to_owned(), ..self.wrapped.clone() };
        assert_eq!(self.keyring.open_data_key(&named).is_ok(), text == self.wrapped.key_id, "{text}");
        assert!(self.keyring.rewrap(&given).is_err() || text == self.wrapped.wrapped);
    }

    fn check_sealed(&self, text: &str) {
        let given = Sealed(text.to_owned());
        let opened = self.key.open(SealedField::Message, &given);
        assert_eq!(opened.is_ok(), given == self.sealed, "{text}");
        for other in [SealedField::UserId, SealedField::Note, SealedField::Address] {
            assert!(self.key.open(other, &given).is_err(), "a message passes for something else: {text}");
        }
        assert_eq!(format!("{given:?}"), "Sealed(…)");
    }

    fn check_plain(&self, plain: &str) {
        let sealed = self.key.seal(SealedField::Note, plain);
        assert_eq!(self.key.open(SealedField::Note, &sealed).as_deref(), Ok(plain));
        let payload = sealed.0.rsplit('.').next().unwrap_or_default();
        assert!(plain.len() < 8 || !payload.contains(plain), "it can be read in the seal");
        // One altered symbol, anywhere.
        let at = plain.len() * 7 % sealed.0.len();
        let mut altered = sealed.0.into_bytes();
        altered[at] = if altered[at] == b'A' { b'B' } else { b'A' };
        let altered = Sealed(String::from_utf8(altered).expect("a seal is ASCII"));
        assert!(self.key.open(SealedField::Note, &altered).is_err(), "altered at {at}, and it opens");
    }
}
