//! Whoever alters an alert's audit is found out.

use crisis_relay::domain::audit::{AuditEntry, AuditHash, verify_chain};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;

use crate::cases;
use crate::driver::Driver;
use crate::steps::step;
use crate::world::{Granted, any_score, world};

/// One way to alter a chain.
#[derive(Debug, Clone)]
enum Tampering {
    /// Another character in a text.
    Text(Index, char),
    /// Another hash.
    Hash(Index),
    /// Another number in the column beside the text.
    Number(Index),
    /// Another time in the column beside the text.
    Time(Index),
    /// Two entries change places.
    Swap(Index),
    /// An entry goes.
    Remove,
    /// An entry comes twice.
    Repeat,
    /// The end goes.
    Cut,
    /// All goes.
    Empty,
    /// The entry is made anew over another text, as somebody would who knows how, and all hashes after it likewise.
    Rewrite,
}

fn tampering() -> impl Strategy<Value = Tampering> {
    prop_oneof![
        (any::<Index>(), prop::char::range('!', '~')).prop_map(|(place, letter)| Tampering::Text(place, letter)),
        any::<Index>().prop_map(Tampering::Hash),
        any::<Index>().prop_map(Tampering::Number),
        any::<Index>().prop_map(Tampering::Time),
        any::<Index>().prop_map(Tampering::Swap),
        Just(Tampering::Remove),
        Just(Tampering::Repeat),
        Just(Tampering::Cut),
        Just(Tampering::Empty),
        Just(Tampering::Rewrite),
    ]
}

impl Tampering {
    /// The chain, altered at `place`.
    fn of(&self, chain: &[AuditEntry], place: usize) -> Vec<AuditEntry> {
        let mut altered = chain.to_vec();
        let entry = &mut altered[place];
        match self {
            Self::Text(index, letter) => {
                let at = index.index(entry.canonical.len());
                entry.canonical = entry
                    .canonical
                    .char_indices()
                    .map(|(place, known)| if place == at { *letter } else { known })
                    .collect();
            }
            Self::Hash(index) => {
                let mut bytes = *entry.hash.as_bytes();
                bytes[index.index(32)] ^= 1;
                entry.hash = AuditHash::from_bytes(bytes);
            }
            Self::Number(index) => entry.seq += 1 + index.index(3) as u64,
            Self::Time(index) => entry.at += jiff::SignedDuration::from_millis(1 + index.index(1000) as i64),
            Self::Swap(index) => {
                let other = index.index(chain.len());
                altered.swap(place, other);
            }
            Self::Remove => drop(altered.remove(place)),
            Self::Repeat => altered.insert(place, chain[place].clone()),
            Self::Cut => altered.truncate(place),
            Self::Empty => altered.clear(),
            Self::Rewrite => {
                entry.canonical = entry.canonical.replace("actor", "author");
                let mut before = place.checked_sub(1).map_or(AuditHash::GENESIS, |before| altered[before].hash);
                for entry in &mut altered[place..] {
                    before = hash_after(before, &entry.canonical);
                    entry.hash = before;
                }
            }
        }
        altered
    }
}

/// As the audit's module says: `SHA-256(previous hash, canonical entry)`.
fn hash_after(before: AuditHash, canonical: &str) -> AuditHash {
    use sha2::{Digest, Sha256};
    let mut hasher = Sha256::new();
    hasher.update(before.as_bytes());
    hasher.update(canonical.as_bytes());
    AuditHash::from_bytes(hasher.finalize().into())
}

proptest! {
    #![proptest_config(cases(60))]

    #[test]
    fn tampering_with_a_chain_is_found(
        world in world(),
        score in any_score(),
        steps in vec(step(), 1..40),
        attempts in vec((any::<Index>(), tampering()), 24),
    ) {
        let (mut driver, _) = Driver::open(&world, score, Granted::Override, true)?;
        for step in &steps {
            step.happen(&mut driver)?;
        }
        let (chain, head) = (driver.chain, driver.alert.audit_head);
        prop_assert_eq!(verify_chain(&chain, Some(head)), Ok(head));
        for (place, tampering) in attempts {
            let place = place.index(chain.len());
            let altered = tampering.of(&chain, place);
            if altered != chain {
                let found = verify_chain(&altered, Some(head));
                prop_assert!(found.is_err(), "{:?} at {} was not found", tampering, place);
            }
        }
    }
}
