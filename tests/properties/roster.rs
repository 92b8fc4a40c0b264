//! What holds for every roster, whatever is done to it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use crisis_relay::domain::audit::{Actor, AuditEntry, verify_chain};
use crisis_relay::domain::contact::{Channel, Contact, ContactMethod, ContactRole, Directory};
use crisis_relay::domain::ids::{AddressKey, CodeHash, ContactId, PersonKey, PolicyId, ScheduleId};
use crisis_relay::domain::message::UrgencyBand;
use crisis_relay::domain::policy::{Policy, Step as Rung, Target};
use crisis_relay::domain::roster::{
    ACTIVE_MAX, CODE_LASTS, CODE_TRIES, Change, ContactDetails, MethodDetails, Number, OptOutBy, Outcome, Rejection,
    Roster, RosterPolicy, Situation, Standing,
};
use crisis_relay::domain::schedule::{Schedule, Shift};
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
    SavePolicy(u8, u8, Vec<UrgencyBand>, Option<u32>),
    RemovePolicy(u8, u32),
    SaveSchedule(u8, u8, Option<u32>),
    RemoveSchedule(u8, u32),
    Pass(u32),
    SetBack(u32),
}

/// How many policies and schedules there are, so that they get into each other's way.
const RUNGS: u8 = 3;

fn policy_id(which: u8) -> PolicyId {
    format!("policy-{which}").parse().unwrap()
}

fn schedule_id(which: u8) -> ScheduleId {
    format!("schedule-{which}").parse().unwrap()
}

/// A ladder for a person, a role or a schedule; at last the configuration's person is told, or one of the roster.
fn ladder(which: u8, target: u8) -> Policy {
    let channels = vec![Channel::Whatsapp, Channel::Sms, Channel::Voice];
    let first = match target % 3 {
        0 => Target::Contact(id(target % PEOPLE)),
        1 => Target::Role(ContactRole::Lead),
        _ => Target::Schedule(schedule_id(target % RUNGS)),
    };
    let last = if target < 6 { "counsellor".parse().unwrap() } else { id(target % PEOPLE) };
    Policy {
        id: policy_id(which),
        version: 1,
        steps: vec![Rung { after: Duration::ZERO, targets: vec![first], channels: channels.clone() }],
        rounds: 1,
        repeat_every: Duration::from_secs(60 + u64::from(target)),
        last_responder: Target::Contact(last),
        last_responder_channels: channels,
        last_responder_every: Duration::from_secs(60),
        further_rounds_with_last: false,
        fall_over_after: Duration::from_secs(30),
        act_within: Duration::from_secs(900),
        check_in_within: Duration::from_secs(300),
        resolve_by_reply: false,
        emergency_contact_after: None,
        respond_within: Duration::from_secs(300),
    }
}

fn week_of(which: u8, person: u8) -> Schedule {
    let (from, until) = ("monday 00:00".parse().unwrap(), "monday 00:00".parse().unwrap());
    let people = vec![if person < PEOPLE { id(person) } else { "counsellor".parse().unwrap() }];
    Schedule {
        id: schedule_id(which),
        version: 1,
        time_zone: "Asia/Kolkata".parse().unwrap(),
        shifts: vec![Shift { from, until, people }],
        overrides: Vec::new(),
        absences: Vec::new(),
    }
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

fn bands() -> impl Strategy<Value = Vec<UrgencyBand>> {
    proptest::sample::subsequence(UrgencyBand::ALL.to_vec(), 0..=3)
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
        4 => (0..RUNGS, 0..9_u8, bands(), proptest::option::weighted(0.6, 0..2_u32))
            .prop_map(|(which, target, bands, behind)| Step::SavePolicy(which, target, bands, behind)),
        1 => (0..RUNGS, 0..2_u32).prop_map(|(which, behind)| Step::RemovePolicy(which, behind)),
        4 => (0..RUNGS, 0..=PEOPLE, proptest::option::weighted(0.6, 0..2_u32))
            .prop_map(|(which, person, behind)| Step::SaveSchedule(which, person, behind)),
        1 => (0..RUNGS, 0..2_u32).prop_map(|(which, behind)| Step::RemoveSchedule(which, behind)),
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
    /// Numbers whose phones said STOP while somebody had them, and have not said START since.
    stopped: BTreeSet<(Channel, AddressKey)>,
    /// Every policy and schedule that was ever kept, by what `If-Match` tells it by.
    kept: BTreeSet<(String, u32)>,
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
            stopped: BTreeSet::new(),
            kept: BTreeSet::new(),
        }
    }

    fn version(&self, who: u8, behind: u64) -> u64 {
        self.roster.contact(&id(who)).map_or(1, |contact| contact.version).saturating_sub(behind)
    }

    fn policy_version(&self, which: u8) -> u32 {
        self.roster.policy(&policy_id(which)).map_or(1, |known| known.policy.version)
    }

    fn schedule_version(&self, which: u8) -> u32 {
        self.roster.schedule(&schedule_id(which)).map_or(1, |known| known.version)
    }

    /// Policies, schedules and people fit each other; only a number that has to be verified may stand between them.
    fn ladders_hold(&self) -> Result<(), TestCaseError> {
        let roster = &self.roster;
        let mut bands = BTreeSet::new();
        for known in &roster.policies {
            prop_assert!(known.bands.iter().all(|band| bands.insert(*band)), "a band has two policies");
            let found = roster.findings(&known.policy, known.is_active(), &self.configured, self.now);
            let only_reach = found.faults.iter().all(|finding| finding.what.is_of_reach());
            // Whoever was never told anything may leave a draft's schedule behind, but nothing that is not there.
            prop_assert!(only_reach, "{:?}", found.faults);
            let newest = self.chain.iter().rev().find_map(|entry| {
                let said: serde_json::Value = serde_json::from_str(&entry.canonical).unwrap();
                let is_it = said["deed"] == "policy_saved" && said["policy"]["id"] == known.policy.id.as_str();
                is_it.then(|| serde_json::from_value::<Policy>(said["policy"].clone()).unwrap())
            });
            prop_assert_eq!(newest.as_ref(), Some(known.policy.as_ref()), "its version stands in the audit");
        }
        let known = roster.known(&self.configured);
        for schedule in &roster.schedules {
            prop_assert!(schedule.names().into_iter().all(|person| known.contains(person)), "nobody of that name");
        }
        Ok(())
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
            Step::SavePolicy(which, target, bands, behind) => Change::SavePolicy {
                from_version: behind.map(|behind| self.policy_version(*which).saturating_sub(behind)),
                policy: RosterPolicy { policy: Arc::new(ladder(*which, *target)), bands: bands.clone() },
            },
            Step::RemovePolicy(which, behind) => Change::RemovePolicy {
                id: policy_id(*which),
                from_version: self.policy_version(*which).saturating_sub(*behind),
            },
            Step::SaveSchedule(which, person, behind) => Change::SaveSchedule {
                from_version: behind.map(|behind| self.schedule_version(*which).saturating_sub(behind)),
                schedule: week_of(*which, *person),
            },
            Step::RemoveSchedule(which, behind) => Change::RemoveSchedule {
                id: schedule_id(*which),
                from_version: self.schedule_version(*which).saturating_sub(*behind),
            },
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
                prop_assert!(!self.stopped.contains(&(*channel, key)), "a code goes to a phone that said STOP");
                self.wrong.insert((id(*who), *channel), 0);
                self.sent.push((self.now, *channel, key));
            }
            (Step::Confirm(who, channel, said), Outcome::Confirmed) => {
                let method = before.contact(&id(*who)).and_then(|who| who.method(*channel)).unwrap();
                let pending = method.code.as_ref().unwrap();
                prop_assert!(pending.hash == code(*said), "a wrong code was taken for the right one");
                prop_assert!(self.now.duration_since(pending.sent_at).unsigned_abs() < CODE_LASTS);
                self.proven.insert((id(*who), *channel, method.address_key));
            }
            (Step::Confirm(who, channel, _), Outcome::WrongCode { tries_left }) => {
                let wrong = self.wrong.entry((id(*who), *channel)).or_default();
                *wrong += 1;
                prop_assert_eq!(*wrong + tries_left, CODE_TRIES, "tries are counted");
            }
            (Step::OptOut(channel, number), _) => {
                self.stopped.insert((*channel, address(*number)));
            }
            (Step::OptIn(channel, number), _) => {
                self.stopped.remove(&(*channel, address(*number)));
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
        self.versions_tell_apart(before)
    }

    /// Whoever names an id and a version means one thing for good, also where it was removed and added again.
    fn versions_tell_apart(&mut self, before: &Roster) -> Result<(), TestCaseError> {
        let policies = self.roster.policies.iter().map(|known| {
            (format!("policy/{}", known.policy.id), known.policy.version, before.policies.contains(known))
        });
        let schedules = self
            .roster
            .schedules
            .iter()
            .map(|known| (format!("schedule/{}", known.id), known.version, before.schedules.contains(known)));
        for (id, version, was_there) in policies.chain(schedules).collect::<Vec<_>>() {
            let is_new = self.kept.insert((id.clone(), version));
            prop_assert!(was_there || is_new, "{id} has the version {version} a second time");
        }
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
                let stopped = self.stopped.contains(&(method.channel, method.address_key));
                let opted_out = matches!(method.standing, Standing::OptedOut { .. });
                prop_assert_eq!(stopped, opted_out, "STOP counts until START, whoever has the number");
                prop_assert!(method.code.as_ref().is_none_or(|code| code.tries_left > 0));
            }
        }
        let kept: BTreeSet<_> = roster.opted_out.iter().map(|known| (known.channel, known.address)).collect();
        let of_nobody: BTreeSet<_> = self.stopped.difference(&numbers).copied().collect();
        prop_assert_eq!(kept.len(), roster.opted_out.len(), "a number is kept twice");
        prop_assert_eq!(kept, of_nobody);
        prop_assert!(roster.contacts.iter().filter(|contact| contact.active).count() <= ACTIVE_MAX);
        for person in roster.directory(&self.configured).people() {
            let Some(contact) = roster.contact(&person.id) else { continue };
            prop_assert!(contact.active && !person.methods.is_empty());
            for method in &person.methods {
                let standing = contact.method(method.channel).map(|method| method.standing.is_usable());
                prop_assert_eq!(standing, Some(true));
            }
        }
        self.ladders_hold()?;
        self.codes_are_bounded()
    }

    /// As long as the clock is not set back, the limits hold for every hour.
    fn codes_are_bounded(&self) -> Result<(), TestCaseError> {
        let Some(&(at, _, key)) = self.sent.last() else { return Ok(()) };
        if !self.sent.is_sorted_by_key(|(at, ..)| *at) {
            return Ok(());
        }
        let hour = Duration::from_secs(3600);
        let ago = |(then, ..): &&(Timestamp, Channel, AddressKey)| at.duration_since(*then).unsigned_abs();
        let same = self.sent.iter().filter(|(.., to)| *to == key);
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
