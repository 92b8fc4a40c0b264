//! What holds for every roster, whatever is done to it.

use std::collections::BTreeSet;
use std::time::Duration;

use crisis_relay::domain::audit::{Actor, AuditEntry, verify_chain};
use crisis_relay::domain::contact::{Channel, Contact, ContactMethod, ContactRole, Directory};
use crisis_relay::domain::ids::{AddressKey, CodeHash, ContactId, PersonKey};
use crisis_relay::domain::roster::{
    ACTIVE_MAX, CODE_LASTS, CODE_TRIES, Change, ContactDetails, MethodDetails, Number, OptOutBy, Outcome, Rejection,
    Roster, Situation, Standing,
};
use crisis_relay::domain::sealed::Sealed;
use jiff::Timestamp;
use proptest::prelude::*;

use crate::cases;

/// Few people and few numbers, so that they get into each other's way.
const PEOPLE: u8 = 4;
const NUMBERS: u8 = 5;
/// The number that messages are sent from, and the one of the configuration's person.
const SENDER: u8 = 0;
const CONFIGURED: u8 = 1;

#[derive(Debug, Clone)]
enum Step {
    Add(u8, Details),
    Replace(u8, u64, Details),
    Remove(u8, u64),
    Reveal(u8),
    SendCode(u8, Channel, u8),
    NotSent(u8, Channel, u8),
    Confirm(u8, Channel, u8),
    OptOut(Channel, u8),
    OptIn(Channel, u8),
    Pass(u32),
    SetBack(u32),
}

#[derive(Debug, Clone)]
struct Details {
    methods: Vec<(Channel, Option<u8>)>,
    active: bool,
    renamed: bool,
}

fn channel() -> impl Strategy<Value = Channel> {
    prop_oneof![Just(Channel::Whatsapp), Just(Channel::Sms), Just(Channel::Voice)]
}

fn details() -> impl Strategy<Value = Details> {
    let methods = proptest::collection::vec((channel(), proptest::option::weighted(0.8, 0..NUMBERS)), 0..3);
    (methods, proptest::bool::weighted(0.8), any::<bool>()).prop_map(|(methods, active, renamed)| Details {
        methods,
        active,
        renamed,
    })
}

fn step() -> impl Strategy<Value = Step> {
    let person = || 0..PEOPLE;
    // Versions behind the last one are made of it: see `Play::version`.
    prop_oneof![
        4 => (person(), details()).prop_map(|(who, details)| Step::Add(who, details)),
        4 => (person(), 0..3_u64, details()).prop_map(|(who, behind, details)| Step::Replace(who, behind, details)),
        1 => (person(), 0..2_u64).prop_map(|(who, behind)| Step::Remove(who, behind)),
        1 => person().prop_map(Step::Reveal),
        8 => (person(), channel(), 0..3_u8).prop_map(|(who, channel, code)| Step::SendCode(who, channel, code)),
        1 => (person(), channel(), 0..3_u8).prop_map(|(who, channel, code)| Step::NotSent(who, channel, code)),
        10 => (person(), channel(), 0..3_u8).prop_map(|(who, channel, code)| Step::Confirm(who, channel, code)),
        2 => (channel(), 0..NUMBERS).prop_map(|(channel, number)| Step::OptOut(channel, number)),
        2 => (channel(), 0..NUMBERS).prop_map(|(channel, number)| Step::OptIn(channel, number)),
        6 => (1..1200_u32).prop_map(Step::Pass),
        1 => (1..7200_u32).prop_map(Step::SetBack),
    ]
}

fn address(number: u8) -> AddressKey {
    AddressKey::from_bytes([number; 32])
}

fn code(number: u8) -> CodeHash {
    CodeHash::from_bytes([number; 32])
}

fn id(who: u8) -> ContactId {
    format!("c-{who}").parse().unwrap()
}

fn configured() -> Directory {
    let method =
        ContactMethod { channel: Channel::Sms, address: Sealed("s".to_owned()), address_key: address(CONFIGURED) };
    Directory::new(vec![Contact {
        id: "counsellor".parse().unwrap(),
        organisation: "north".parse().unwrap(),
        person: PersonKey::from_bytes([9; 32]),
        role: ContactRole::Counsellor,
        language: "en".parse().unwrap(),
        methods: vec![method],
    }])
}

/// A roster, what was done to it, and what is known of it besides.
struct Play {
    roster: Roster,
    now: Timestamp,
    chain: Vec<AuditEntry>,
    configured: Directory,
    /// Numbers for which a right code came, and which have stayed with the person since.
    proven: BTreeSet<(ContactId, Channel, AddressKey)>,
    /// Wrong tries since the last code, by method.
    wrong: std::collections::BTreeMap<(ContactId, Channel), u32>,
    sent: Vec<(Timestamp, Channel, AddressKey)>,
}

impl Play {
    fn new() -> Self {
        Self {
            roster: Roster::empty("north".parse().unwrap()),
            now: "2026-11-20T08:35:00Z".parse().unwrap(),
            chain: Vec::new(),
            configured: configured(),
            proven: BTreeSet::new(),
            wrong: std::collections::BTreeMap::new(),
            sent: Vec::new(),
        }
    }

    fn version(&self, who: u8, behind: u64) -> u64 {
        self.roster.contact(&id(who)).map_or(1, |contact| contact.version).saturating_sub(behind)
    }

    fn details(&self, of: &Details) -> ContactDetails {
        let number = |number: u8| Number { address: Sealed(format!("sealed-{number}")), address_key: address(number) };
        let methods = of.methods.iter();
        ContactDetails {
            name: of.renamed.then(|| Sealed("name".to_owned())),
            role: ContactRole::Lead,
            language: "en".parse().unwrap(),
            time_zone: "Asia/Kolkata".parse().unwrap(),
            methods: methods.map(|(channel, of)| MethodDetails { channel: *channel, number: of.map(number) }).collect(),
            active: of.active,
        }
    }

    fn change(&mut self, step: &Step) -> Option<Change> {
        Some(match step {
            Step::Add(who, of) => Change::AddContact {
                id: id(*who),
                person: PersonKey::from_bytes([*who; 32]),
                details: self.details(of),
            },
            Step::Replace(who, behind, of) => Change::ReplaceContact {
                id: id(*who),
                from_version: self.version(*who, *behind),
                details: self.details(of),
            },
            Step::Remove(who, behind) => {
                Change::RemoveContact { id: id(*who), from_version: self.version(*who, *behind) }
            }
            Step::Reveal(who) => Change::RevealContact { id: id(*who) },
            Step::SendCode(who, channel, number) => {
                Change::SendCode { id: id(*who), channel: *channel, hash: code(*number) }
            }
            Step::NotSent(who, channel, number) => {
                Change::CodeNotSent { id: id(*who), channel: *channel, hash: code(*number), fault: Some(21610) }
            }
            Step::Confirm(who, channel, number) => {
                Change::ConfirmCode { id: id(*who), channel: *channel, hash: code(*number) }
            }
            Step::OptOut(channel, number) => {
                Change::OptOut { channel: *channel, address: address(*number), by: OptOutBy::Reply }
            }
            Step::OptIn(channel, number) => Change::OptIn { channel: *channel, address: address(*number) },
            Step::Pass(seconds) => {
                self.now += Duration::from_secs((*seconds).into());
                return None;
            }
            Step::SetBack(seconds) => {
                self.now -= Duration::from_secs((*seconds).into());
                return None;
            }
        })
    }

    fn play(&mut self, step: &Step) -> Result<(), TestCaseError> {
        let Some(change) = self.change(step) else { return Ok(()) };
        let before = self.roster.clone();
        let actor = Actor::Machine { key: "admin".to_owned() };
        let senders = [(Channel::Whatsapp, address(SENDER)), (Channel::Sms, address(SENDER))];
        let cx = Situation { now: self.now, actor: &actor, configured: &self.configured, senders: &senders };
        let made = before.clone().on(change.clone(), &cx);
        let again = before.clone().on(change, &cx);
        prop_assert_eq!(made.as_ref().ok().map(|made| &made.roster), again.as_ref().ok().map(|made| &made.roster));
        let transition = match made {
            Ok(transition) => transition,
            Err(rejection) => return self.judge_rejection(step, &rejection),
        };
        let changed = !transition.audit.is_empty();
        prop_assert_eq!(transition.roster.version, before.version + u64::from(changed));
        if !changed {
            let settled = Roster { codes_sent: before.codes_sent.clone(), ..transition.roster.clone() };
            prop_assert_eq!(settled, before, "a change without an entry");
            return Ok(());
        }
        self.chain.extend(transition.audit);
        self.roster = transition.roster;
        self.follow(step, &before, transition.outcome)?;
        self.holds()
    }

    fn judge_rejection(&self, step: &Step, rejection: &Rejection) -> Result<(), TestCaseError> {
        if let (Step::Replace(who, 0, _), Rejection::Outdated) = (step, rejection) {
            return Err(TestCaseError::fail(format!("the newest version of {who} is outdated")));
        }
        Ok(())
    }

    /// What a step says about the tries and the proofs.
    fn follow(&mut self, step: &Step, before: &Roster, outcome: Outcome) -> Result<(), TestCaseError> {
        match (step, outcome) {
            (Step::SendCode(who, channel, _), _) => {
                let key = before.contact(&id(*who)).and_then(|who| who.method(*channel)).unwrap().address_key;
                self.wrong.insert((id(*who), *channel), 0);
                self.sent.push((self.now, *channel, key));
            }
            (Step::Confirm(who, channel, said), Outcome::Confirmed) => {
                let method = before.contact(&id(*who)).and_then(|who| who.method(*channel)).unwrap();
                let pending = method.code.as_ref().expect("what was confirmed was sent");
                prop_assert!(pending.hash == code(*said), "a wrong code was taken for the right one");
                prop_assert!(self.now.duration_since(pending.sent_at).unsigned_abs() < CODE_LASTS);
                self.proven.insert((id(*who), *channel, method.address_key));
            }
            (Step::Confirm(who, channel, _), Outcome::WrongCode { tries_left }) => {
                let wrong = self.wrong.entry((id(*who), *channel)).or_default();
                *wrong += 1;
                prop_assert_eq!(*wrong + tries_left, CODE_TRIES, "tries are counted");
            }
            _ => {}
        }
        let has = |(who, channel, key): &(ContactId, Channel, AddressKey)| {
            self.roster
                .contact(who)
                .and_then(|who| who.method(*channel))
                .is_some_and(|method| method.address_key == *key)
        };
        self.proven.retain(has);
        Ok(())
    }

    fn holds(&self) -> Result<(), TestCaseError> {
        let roster = &self.roster;
        verify_chain(&self.chain, Some(roster.audit_head)).map_err(|fault| TestCaseError::fail(fault.to_string()))?;
        let stored: Roster = serde_json::from_str(&serde_json::to_string(roster).unwrap()).unwrap();
        prop_assert_eq!(&stored, roster, "it is read back as another");
        let (mut numbers, mut ids) = (BTreeSet::new(), BTreeSet::new());
        for contact in &roster.contacts {
            prop_assert!(ids.insert(&contact.id), "an id is given twice");
            for method in &contact.methods {
                prop_assert!(numbers.insert((method.channel, method.address_key)), "a number is two people's");
                prop_assert!(!(method.channel != Channel::Voice && method.address_key == address(SENDER)));
                prop_assert!(self.configured.contact_at(method.channel, method.address_key).is_none());
                let proof = (contact.id.clone(), method.channel, method.address_key);
                if let Standing::Verified { .. } = method.standing {
                    prop_assert!(self.proven.contains(&proof), "{proof:?} passes for verified, and no code came back");
                }
                prop_assert!(method.code.as_ref().is_none_or(|code| code.tries_left > 0));
            }
        }
        prop_assert!(roster.contacts.iter().filter(|contact| contact.active).count() <= ACTIVE_MAX);
        for person in roster.directory(&self.configured).people() {
            let Some(contact) = roster.contact(&person.id) else { continue };
            prop_assert!(contact.active && !person.methods.is_empty());
            for method in &person.methods {
                let standing = contact.method(method.channel).map(|method| method.standing.is_usable());
                prop_assert_eq!(standing, Some(true));
            }
        }
        self.codes_are_bounded()
    }

    /// As long as the clock is not set back, the limits hold for every hour.
    fn codes_are_bounded(&self) -> Result<(), TestCaseError> {
        let Some(&(at, channel, key)) = self.sent.last() else { return Ok(()) };
        if !self.sent.is_sorted_by_key(|(at, ..)| *at) {
            return Ok(());
        }
        let hour = Duration::from_secs(3600);
        let ago = |(then, ..): &&(Timestamp, Channel, AddressKey)| at.duration_since(*then).unsigned_abs();
        let same = self.sent.iter().filter(|(_, of, to)| (*of, *to) == (channel, key));
        prop_assert!(same.clone().filter(|sent| ago(sent) < hour).count() <= 5, "one phone rings all the time");
        prop_assert!(same.filter(|sent| ago(sent) < Duration::from_secs(60)).count() <= 1);
        Ok(())
    }
}

proptest! {
    #![proptest_config(cases(256))]

    #[test]
    fn a_roster_keeps_its_rules_whatever_is_done_to_it(steps in proptest::collection::vec(step(), 1..120)) {
        let mut play = Play::new();
        for step in &steps {
            play.play(step)?;
        }
    }
}
