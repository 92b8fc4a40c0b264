//! A keyring's text: read in one way, whatever stands around the keys, and never repeated.

use std::sync::Arc;

use crisis_relay::clock::SeededEntropy;
use crisis_relay::keyring::{LocalKeyring, MasterKeys};
use crisis_relay::ports::{Keyring as _, SealedField};

/// From this length on, a word of the input is not in a message by chance.
const TELLING_LENGTH: usize = 16;

/// Input: the text.
pub fn run(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let words = text.split(|symbol: char| symbol.is_whitespace() || ":,#=".contains(symbol));
    let telling: Vec<&str> = words.filter(|word| word.len() >= TELLING_LENGTH).collect();
    let check = |shown: &str| assert!(!telling.iter().any(|word| shown.contains(word)), "a key is shown: {shown}");
    match MasterKeys::from_text(text) {
        Err(error) => check(&format!("{error} {error:?}")),
        Ok(keys) => {
            check(&format!("{keys:?}"));
            check_ids(&keys);
            let padded = MasterKeys::from_text(&format!("# one more line\n\n  {text}\n # and one more"));
            let padded = padded.expect("comments and empty lines change nothing");
            assert_eq!(ids(&keys), ids(&padded), "comments and empty lines change a key");
            seals_hold(keys, padded);
        }
    }
}

fn ids(keys: &MasterKeys) -> Vec<String> {
    [keys.current_id(), keys.index_id()].into_iter().chain(keys.former_ids()).map(str::to_owned).collect()
}

fn check_ids(keys: &MasterKeys) {
    for id in ids(keys) {
        assert!(id.len() == 8 && id.bytes().all(|byte| byte.is_ascii_hexdigit()), "{id}");
    }
    let former: Vec<&str> = keys.former_ids().collect();
    assert!(!former.contains(&keys.current_id()), "the current key is a former one, too");
}

/// What was sealed under keys opens under the same keys read again.
fn seals_hold(before: MasterKeys, after: MasterKeys) {
    let keyring = |keys| LocalKeyring::new(keys, Arc::new(SeededEntropy::new(1)));
    let organisation = "north".parse().expect("an organisation");
    let person = "11".repeat(32).parse().expect("a person");
    let (wrapped, key) = keyring(before).new_data_key(&organisation, person, jiff::Timestamp::UNIX_EPOCH);
    let sealed = key.seal(SealedField::Message, "words");
    let opened = keyring(after).open_data_key(&wrapped).expect("the same keys open it");
    assert_eq!(opened.open(SealedField::Message, &sealed).as_deref(), Ok("words"));
}
