use std::collections::HashSet;

use data_encoding::{BASE64, BASE64URL_NOPAD};
use proptest::prelude::*;

use super::*;
use crate::clock::SeededEntropy;

// Made by the first release of this form from the key of `keyring()`.
const GOLDEN_KEY_ID: &str = "f4f8c086a3fb882b";
const GOLDEN_WRAPPED: &str =
    "v1.387fbb0c.c-YPPfX6EjxD9T19JKm_q8MZ7nC87Dy6HbvYvFx6yBkHsfmncW6ZF-r20AGg1HtOycGQt9GMLzd_aNhoxPS5AEnRC_ndoTvZ";
const GOLDEN_SEALED: &str = "v1.f4f8c086a3fb882b.PuhN18ZdyYUUE96AYvhbjVM_YKr-pC6Jzl72PXWF6_DMcbIs9__j1QiPgy9FQP0";
const GOLDEN_HASH: &str = "92d96c373f3262e0fe263b588ab69f8a94dd7afc6c6ed05ab7dc83a8af20da67";

const FIELDS: [SealedField; 9] = [
    SealedField::UserId,
    SealedField::Message,
    SealedField::Metadata,
    SealedField::Address,
    SealedField::Override,
    SealedField::Principal,
    SealedField::Note,
    SealedField::ContactName,
    SealedField::Disclosure,
];
const PURPOSES: [HashPurpose; 9] = [
    HashPurpose::Subject,
    HashPurpose::Contact,
    HashPurpose::Address,
    HashPurpose::Idempotency,
    HashPurpose::Principal,
    HashPurpose::Code,
    HashPurpose::CodeSeed,
    HashPurpose::Alarm,
    HashPurpose::Ticket,
];

fn key_text(seed: u64) -> String {
    BASE64.encode(&random::<32>(&SeededEntropy::new(seed)))
}

fn keyring_of(text: &str) -> LocalKeyring {
    LocalKeyring::new(MasterKeys::from_text(text).unwrap(), Arc::new(SeededEntropy::new(99)))
}

fn keyring() -> LocalKeyring {
    keyring_of(&key_text(1))
}

fn organisation(name: &str) -> OrganisationId {
    name.parse().unwrap()
}

fn person(byte: u8) -> PersonKey {
    PersonKey::from_bytes([byte; 32])
}

fn fresh(keyring: &LocalKeyring) -> (WrappedDataKey, Arc<dyn DataKey>) {
    keyring.new_data_key(&organisation("north"), person(1), Timestamp::UNIX_EPOCH)
}

/// What opening gave, without the key: an open key has no `Debug`.
fn refusal(keyring: &LocalKeyring, wrapped: &WrappedDataKey) -> Option<KeyringError> {
    keyring.open_data_key(wrapped).err()
}

#[test]
fn the_stored_forms_are_as_documented() {
    let keyring = keyring();
    let (wrapped, key) = fresh(&keyring);
    assert_eq!(wrapped.key_id.len(), 16);
    let parts: Vec<&str> = wrapped.wrapped.split('.').collect();
    assert_eq!(parts[..2], ["v1", keyring.masters().current_id()]);
    assert_eq!(BASE64URL_NOPAD.decode(parts[2].as_bytes()).unwrap().len(), 24 + 32 + 16);

    let Sealed(sealed) = key.seal(SealedField::Note, "fünf");
    let parts: Vec<&str> = sealed.split('.').collect();
    assert_eq!(parts[..2], ["v1", &wrapped.key_id]);
    assert_eq!(BASE64URL_NOPAD.decode(parts[2].as_bytes()).unwrap().len(), 24 + "fünf".len() + 16);
}

#[test]
fn stored_forms_of_version_one_open_for_ever() {
    // Written down once: if this fails, a change made everything that is stored unreadable.
    let keyring = keyring();
    let wrapped = WrappedDataKey {
        organisation: organisation("north"),
        person: person(1),
        key_id: GOLDEN_KEY_ID.to_owned(),
        wrapped: GOLDEN_WRAPPED.to_owned(),
        created_at: Timestamp::UNIX_EPOCH,
    };
    let key = keyring.open_data_key(&wrapped).unwrap();
    assert_eq!(key.open(SealedField::UserId, &Sealed(GOLDEN_SEALED.to_owned())).unwrap(), "roll-42");
    let hash = keyring.hash(HashPurpose::Subject, &[b"north", b"roll-42"]);
    assert_eq!(data_encoding::HEXLOWER.encode(&hash), GOLDEN_HASH);
}

#[test]
fn a_text_opens_only_as_what_it_is() {
    let keyring = keyring();
    let (_, key) = fresh(&keyring);
    for sealed_as in FIELDS {
        let sealed = key.seal(sealed_as, "text");
        for opened_as in FIELDS {
            let expected = if opened_as == sealed_as { Ok("text".to_owned()) } else { Err(KeyringError::Broken) };
            assert_eq!(key.open(opened_as, &sealed), expected);
        }
    }
}

#[test]
fn a_text_opens_only_for_its_person_and_organisation() {
    let keyring = keyring();
    let secret = Secret::new([7; 32]);
    let of = |name: &str, byte| keyring.data_key(&organisation(name), person(byte), "00112233aabbccdd", secret.clone());
    let sealed = of("north", 1).seal(SealedField::Message, "text");
    assert!(of("north", 1).open(SealedField::Message, &sealed).is_ok());
    for other in [of("north", 2), of("south", 1), of("n", 1)] {
        assert_eq!(other.open(SealedField::Message, &sealed), Err(KeyringError::Broken));
    }
}

#[test]
fn a_text_does_not_open_under_another_key() {
    let keyring = keyring();
    let ((wrapped, key), (_, other)) = (fresh(&keyring), fresh(&keyring));
    let sealed = key.seal(SealedField::Message, "text");
    assert_eq!(other.open(SealedField::Message, &sealed), Err(KeyringError::UnknownKey));
    // The same id over other bytes: the seal itself must refuse.
    let forged = keyring.data_key(&wrapped.organisation, wrapped.person, &wrapped.key_id, Secret::new([7; 32]));
    assert_eq!(forged.open(SealedField::Message, &sealed), Err(KeyringError::Broken));
}

#[test]
fn a_data_key_opens_only_in_its_own_row() {
    let keyring = keyring();
    let (wrapped, key) = fresh(&keyring);
    let sealed = key.seal(SealedField::Message, "text");
    let opened = keyring.open_data_key(&wrapped).unwrap();
    assert_eq!(opened.open(SealedField::Message, &sealed).unwrap(), "text");

    let moved = [
        WrappedDataKey { organisation: organisation("south"), ..wrapped.clone() },
        WrappedDataKey { person: person(2), ..wrapped.clone() },
        WrappedDataKey { key_id: "0123456789abcdef".to_owned(), ..wrapped.clone() },
    ];
    for row in moved {
        assert_eq!(refusal(&keyring, &row), Some(KeyringError::Broken));
    }
    let later = WrappedDataKey { created_at: Timestamp::MAX, ..wrapped };
    assert_eq!(refusal(&keyring, &later), None);
}

#[test]
fn a_data_key_stays_closed_without_its_master_key() {
    let (wrapped, _) = fresh(&keyring());
    assert_eq!(refusal(&keyring_of(&key_text(2)), &wrapped), Some(KeyringError::UnknownKey));
}

#[test]
fn rotating_the_master_key_keeps_old_data_open_and_hashes_as_they_were() {
    let old = keyring();
    let (wrapped, key) = fresh(&old);
    let sealed = key.seal(SealedField::Message, "text");

    let (first, second) = (key_text(1), key_text(2));
    let rotated = keyring_of(&format!("current:{second},former:{first},index:{first}"));
    let opened = rotated.open_data_key(&wrapped).unwrap();
    assert_eq!(opened.open(SealedField::Message, &sealed).unwrap(), "text");
    for purpose in PURPOSES {
        assert_eq!(rotated.hash(purpose, &[b"roll-42"]), old.hash(purpose, &[b"roll-42"]));
    }

    // New keys are wrapped under the new master key alone.
    let (fresh, _) = rotated.new_data_key(&organisation("north"), person(1), Timestamp::UNIX_EPOCH);
    assert_eq!(refusal(&old, &fresh), Some(KeyringError::UnknownKey));

    // Once wrapped anew, the former key may go; the index key stays.
    let rewrapped = rotated.rewrap(&wrapped).unwrap().unwrap();
    assert_eq!(rotated.rewrap(&rewrapped).unwrap(), None);
    let retired = keyring_of(&format!("current:{second},index:{first}"));
    let opened = retired.open_data_key(&rewrapped).unwrap();
    assert_eq!(opened.open(SealedField::Message, &sealed).unwrap(), "text");
    assert_eq!(refusal(&retired, &wrapped), Some(KeyringError::UnknownKey));
    assert_eq!(retired.rewrap(&wrapped), Err(KeyringError::UnknownKey));
    assert_eq!(retired.hash(HashPurpose::Subject, &[b"x"]), old.hash(HashPurpose::Subject, &[b"x"]));
}

#[test]
fn hashes_differ_by_purpose_by_part_and_by_index_key() {
    let (keyring, other) = (keyring(), keyring_of(&key_text(2)));
    let lists: [&[&[u8]]; 7] = [&[b"ab", b"c"], &[b"a", b"bc"], &[b"abc"], &[b"abc", b""], &[b"", b"abc"], &[], &[b""]];
    let mut seen = HashSet::new();
    for purpose in PURPOSES {
        for parts in lists {
            assert!(seen.insert(keyring.hash(purpose, parts)), "{purpose:?} {parts:?}");
            assert!(seen.insert(other.hash(purpose, parts)), "{purpose:?} {parts:?}");
        }
    }
}

#[test]
fn a_hash_is_made_with_the_key_and_so_cannot_be_guessed_from_the_outside() {
    use sha2::Digest;
    let plain: [u8; 32] = Sha256::digest(b"\0\0\0\0\0\0\0\x07roll-42").into();
    assert_ne!(keyring().hash(HashPurpose::Subject, &[b"roll-42"]), plain);
}

#[test]
fn debug_shows_no_key() {
    let keyring = keyring();
    let shown = format!("{keyring:?}");
    assert!(!shown.contains(&key_text(1)));
    let key = keyring.data_key(&organisation("north"), person(1), "00112233aabbccdd", Secret::new([7; 32]));
    assert_eq!(format!("{key:?}"), "LocalDataKey(…)");
}

proptest! {
    #[test]
    fn what_is_sealed_opens_again(text in "\\PC*", field in proptest::sample::select(&FIELDS[..])) {
        let keyring = keyring();
        let (wrapped, key) = fresh(&keyring);
        let sealed = key.seal(field, &text);
        prop_assert_eq!(key.open(field, &sealed), Ok(text.clone()));
        let reopened = keyring.open_data_key(&wrapped).unwrap();
        prop_assert_eq!(reopened.open(field, &sealed), Ok(text));
    }

    #[test]
    fn equal_texts_are_sealed_differently(text in "\\PC{0,40}") {
        let (_, key) = fresh(&keyring());
        prop_assert_ne!(key.seal(SealedField::Note, &text), key.seal(SealedField::Note, &text));
    }

    #[test]
    fn the_plain_text_never_appears_in_the_stored_form(text in "[a-zA-Z0-9 +]{12,80}") {
        let (_, key) = fresh(&keyring());
        let Sealed(stored) = key.seal(SealedField::Message, &text);
        prop_assert!(!stored.contains(&text));
        let payload = BASE64URL_NOPAD.decode(stored.rsplit('.').next().unwrap().as_bytes()).unwrap();
        prop_assert!(!payload.windows(text.len()).any(|window| window == text.as_bytes()));
    }

    #[test]
    fn one_altered_byte_keeps_a_text_closed(
        text in "\\PC{0,40}", at in any::<proptest::sample::Index>(), symbol in "[a-zA-Z0-9_.-]",
    ) {
        let (_, key) = fresh(&keyring());
        let sealed = key.seal(SealedField::Message, &text);
        let mut altered: Vec<char> = sealed.0.chars().collect();
        let place = at.index(altered.len());
        altered[place] = symbol.chars().next().unwrap();
        let altered = Sealed(altered.into_iter().collect());
        prop_assume!(altered != sealed);
        prop_assert!(key.open(SealedField::Message, &altered).is_err());
    }

    #[test]
    fn one_altered_byte_keeps_a_data_key_closed(at in any::<proptest::sample::Index>(), symbol in "[a-zA-Z0-9_.-]") {
        let keyring = keyring();
        let (wrapped, _) = fresh(&keyring);
        let mut altered: Vec<char> = wrapped.wrapped.chars().collect();
        let place = at.index(altered.len());
        altered[place] = symbol.chars().next().unwrap();
        let altered = WrappedDataKey { wrapped: altered.into_iter().collect(), ..wrapped.clone() };
        prop_assume!(altered != wrapped);
        prop_assert!(keyring.open_data_key(&altered).is_err());
    }

    #[test]
    fn a_form_that_was_cut_short_is_an_error_and_no_panic(cut in any::<proptest::sample::Index>()) {
        let keyring = keyring();
        let (wrapped, key) = fresh(&keyring);
        let Sealed(whole) = key.seal(SealedField::Message, "some text");
        let cut_text = Sealed(whole[..cut.index(whole.len())].to_owned());
        prop_assert!(key.open(SealedField::Message, &cut_text).is_err());
        let cut_key = wrapped.wrapped[..cut.index(wrapped.wrapped.len())].to_owned();
        let cut_key = WrappedDataKey { wrapped: cut_key, ..wrapped };
        prop_assert!(refusal(&keyring, &cut_key).is_some());
    }

    #[test]
    fn garbage_is_an_error_and_no_panic(text in ".*", payload in "[a-zA-Z0-9_-]{0,120}", key_id in ".{0,20}") {
        let keyring = keyring();
        let (wrapped, key) = fresh(&keyring);
        let forms = [text, format!("v1.{}.{payload}", wrapped.key_id), format!("v2.{}.{payload}", wrapped.key_id)];
        for form in forms {
            prop_assert!(key.open(SealedField::Message, &Sealed(form.clone())).is_err());
            let garbled = WrappedDataKey { wrapped: form, ..wrapped.clone() };
            prop_assert!(refusal(&keyring, &garbled).is_some());
        }
        let master = keyring.masters().current_id().to_owned();
        let garbled = WrappedDataKey { wrapped: format!("v1.{master}.{payload}"), ..wrapped.clone() };
        prop_assert!(keyring.open_data_key(&garbled).is_err());
        prop_assume!(key_id != wrapped.key_id);
        let garbled = WrappedDataKey { key_id, ..wrapped };
        prop_assert!(refusal(&keyring, &garbled).is_some());
    }

    #[test]
    fn different_lists_of_parts_give_different_hashes(
        one in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..4), 0..4),
        two in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..4), 0..4),
    ) {
        let keyring = keyring();
        let hash = |parts: &[Vec<u8>]| {
            let parts: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
            keyring.hash(HashPurpose::Subject, &parts)
        };
        prop_assert_eq!(hash(&one) == hash(&two), one == two);
    }
}
