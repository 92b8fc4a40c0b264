//! A small college and its alerts, made without a clock and without chance: equal numbers give equal values.
//!
//! Every binary takes what it needs of this; what one leaves unused, another uses.

use std::sync::Arc;
use std::time::Duration;

use crisis_relay::domain::alert::{AckVia, Alert, Compose, Facts, Input, Kind, NewAlert, Outcome, Rules, Situation};
use crisis_relay::domain::audit::{Actor, AuditStream};
use crisis_relay::domain::consent::{ChannelConsent, ConsentRecord, EmergencyContact, Ground};
use crisis_relay::domain::contact::{Channel, Contact, ContactMethod, ContactRole, Directory, Language};
use crisis_relay::domain::delivery::{DeliveryRules, Lease};
use crisis_relay::domain::event::{EventDetails, ReplyOrigin, Score, Source, Trigger};
use crisis_relay::domain::ids::{
    AddressKey, AlertId, AttemptNo, DeliveryNo, EventId, IdempotencyKey, OrganisationId, PersonKey, ProviderId,
    Reference, SubjectKey,
};
use crisis_relay::domain::message::{BandThresholds, Composed, Purpose, Speech, segments};
use crisis_relay::domain::method::{Method, SentCode, Standing};
use crisis_relay::domain::policy::{Ladders, Policy, Step, Target};
use crisis_relay::domain::provider::{MessageStatus, SendOutcome};
use crisis_relay::domain::roster::{self, Change, ContactDetails, MethodDetails, Number, Roster};
use crisis_relay::domain::sealed::Sealed;
use crisis_relay::ports::{AlertCommit, ConsentCommit, IdempotencyRecord, RosterCommit, WrappedDataKey};
use jiff::Timestamp;
use serde::Serialize;

/// A time on the test's time line, in seconds from its beginning.
pub(crate) fn at(seconds: i64) -> Timestamp {
    Timestamp::new(1_790_000_000 + seconds, 0).unwrap()
}

/// A time on the test's time line, in microseconds from its beginning.
pub(crate) fn at_micros(micros: i64) -> Timestamp {
    Timestamp::from_microsecond(1_790_000_000_000_000 + micros).unwrap()
}

fn hash(kind: u8, number: u32) -> [u8; 32] {
    let mut bytes = [kind; 32];
    bytes[28..].copy_from_slice(&number.to_be_bytes());
    bytes
}

pub(crate) fn organisation(name: &str) -> OrganisationId {
    name.parse().unwrap()
}

pub(crate) fn subject(number: u32) -> SubjectKey {
    SubjectKey::from_bytes(hash(1, number))
}

pub(crate) fn person(number: u32) -> PersonKey {
    PersonKey::from_bytes(hash(2, number))
}

pub(crate) fn address(number: u32) -> AddressKey {
    AddressKey::from_bytes(hash(3, number))
}

pub(crate) fn idempotency_key(number: u32) -> IdempotencyKey {
    IdempotencyKey::from_bytes(hash(4, number))
}

pub(crate) fn reference(number: u32) -> Reference {
    let [a, b, c, d] = number.to_be_bytes();
    Reference::new([0, a, b, c, d])
}

pub(crate) fn provider_id(number: u32) -> ProviderId {
    format!("SM{number:032x}").parse().unwrap()
}

fn random(number: u32) -> [u8; 10] {
    let mut bytes = [0; 10];
    bytes[6..].copy_from_slice(&number.to_be_bytes());
    bytes
}

/// The answer to a request.
pub(crate) fn answer(number: u32, created_at: Timestamp) -> IdempotencyRecord {
    IdempotencyRecord {
        key: idempotency_key(number),
        body: hash(5, number),
        status: 202,
        answer: format!("{{\"number\":{number}}}"),
        created_at,
    }
}

/// A data key; `edition` tells two keys of one person apart.
pub(crate) fn data_key(organisation: &OrganisationId, person: PersonKey, edition: u32) -> WrappedDataKey {
    WrappedDataKey {
        organisation: organisation.clone(),
        person,
        key_id: format!("{edition:016x}"),
        wrapped: format!("v1.master.{edition}"),
        created_at: at(i64::from(edition)),
    }
}

/// What came along with an event.
pub(crate) fn details(number: u32, received_at: Timestamp) -> EventDetails {
    EventDetails {
        event: EventId::new(received_at, random(number)),
        received_at,
        reply: number
            .is_multiple_of(3)
            .then(|| ReplyOrigin { contact: "counsellor-1".parse().unwrap(), channel: Channel::Sms }),
        message: Some(Sealed(format!("v1.key.message-{number}"))),
        metadata: number.is_multiple_of(2).then(|| Sealed(format!("v1.key.metadata-{number}"))),
    }
}

/// One college with two counsellors, a duty manager and a ladder of two steps.
pub(crate) struct College {
    pub(crate) organisation: OrganisationId,
    pub(crate) policy: Arc<Policy>,
    pub(crate) directory: Directory,
    ladders: Ladders,
    pub(crate) rules: Rules,
    pub(crate) lease: Lease,
}

struct Plain;

impl Compose for Plain {
    fn compose(&self, facts: &Facts<'_>) -> Option<Composed> {
        Some(Composed {
            template: "counsellor_alert".to_owned(),
            version: 1,
            language: facts.language.clone(),
            text: format!("Ref {}", facts.reference),
            content_sid: None,
            variables: Vec::new(),
            has_buttons: false,
            text_sha256: "0".repeat(64),
            segments: segments::count("Ref"),
        })
    }

    fn speech(&self, _: &Facts<'_>) -> Option<Speech> {
        None
    }

    fn has_desk(&self) -> bool {
        true
    }

    fn is_approved(&self, _: &Language, _: Purpose) -> bool {
        true
    }
}

impl College {
    pub(crate) fn new(name: &str) -> Self {
        let organisation = organisation(name);
        let contacts = [("counsellor-1", 1), ("counsellor-2", 2), ("duty-manager", 3)]
            .map(|(id, number)| contact(&organisation, id, number))
            .to_vec();
        let policy = Arc::new(policy());
        let ladders = Ladders::one(&policy, BandThresholds::default());
        let lease = Lease { owner: "instance-1".to_owned(), until: at(1_000_000) };
        Self { organisation, policy, directory: Directory::new(contacts), ladders, rules: rules(), lease }
    }

    /// Opens the escalating alert with this number, for the student with the same number.
    pub(crate) fn open(&self, number: u32, now: Timestamp) -> AlertCommit {
        self.open_for(number, subject(number), now)
    }

    /// Opens an escalating alert for a student.
    pub(crate) fn open_for(&self, number: u32, subject: SubjectKey, now: Timestamp) -> AlertCommit {
        let channels = vec![Channel::Whatsapp];
        self.begin(number, subject, Some(Ground::Consent { version: 1, granted_at: at(0), channels }), now)
    }

    /// Opens an alert that nobody may be told of.
    pub(crate) fn withhold(&self, number: u32, now: Timestamp) -> AlertCommit {
        self.begin(number, subject(number), None, now)
    }

    fn begin(&self, number: u32, subject: SubjectKey, ground: Option<Ground>, now: Timestamp) -> AlertCommit {
        let new = NewAlert {
            id: AlertId::new(now, random(number)),
            reference: reference(number),
            organisation: self.organisation.clone(),
            subject,
            kind: Kind::Live,
            identity: Sealed(format!("v1.key.identity-{number}")),
            trigger: trigger(number, 0.9, now),
            ground,
            policy: Arc::clone(&self.policy),
        };
        let transition = Alert::open(new, &self.situation(&Actor::Machine { key: "backend".to_owned() }, now));
        commit(transition)
    }

    /// Changes an alert as the service itself.
    pub(crate) fn change(&self, alert: &Alert, input: Input, now: Timestamp) -> AlertCommit {
        commit(alert.clone().on(input, &self.situation(&Actor::Service, now)).unwrap())
    }

    /// A human takes it.
    pub(crate) fn acknowledge(&self, alert: &Alert, now: Timestamp) -> AlertCommit {
        self.change(alert, Input::Acknowledge { via: AckVia::Api }, now)
    }

    /// A human closes it.
    pub(crate) fn resolve(&self, alert: &Alert, now: Timestamp) -> AlertCommit {
        self.change(alert, Input::Resolve { outcome: Outcome::SafeByPhone, note: None, follow_up_at: None }, now)
    }

    /// A further event of the same student.
    pub(crate) fn join(&self, alert: &Alert, number: u32, score: f64, now: Timestamp) -> AlertCommit {
        self.change(alert, Input::Joined { trigger: trigger(number, score, now), ground: None }, now)
    }

    /// Twilio took the message of the first delivery's first attempt.
    pub(crate) fn accept_first_message(&self, alert: &Alert, provider_id: ProviderId, now: Timestamp) -> AlertCommit {
        let outcome = SendOutcome::Accepted { provider_id, status: MessageStatus::Queued };
        self.change(alert, Input::Settled { delivery: DeliveryNo(1), attempt: AttemptNo(1), outcome }, now)
    }

    /// The next version of what a student has said, from nothing or from the version before.
    pub(crate) fn consent(&self, subject: SubjectKey, before: Option<&ConsentRecord>, now: Timestamp) -> ConsentCommit {
        let mut record = before.cloned().unwrap_or_else(|| ConsentRecord::empty(self.organisation.clone(), subject));
        record.version += 1;
        let granted = record.version % 2 == 1;
        let source = "app_settings".parse().unwrap();
        let word = ChannelConsent { granted, at: now, source, notice_version: None };
        record.channels.insert(Channel::Whatsapp, word.clone());
        if record.version == 2 {
            // From the second word on the student names somebody, too.
            let address_key = AddressKey::from_bytes([77; 32]);
            let (address, standing) = (Sealed("v1.0.number".to_owned()), Standing::Verified { at: now });
            let method = Method { channel: Channel::Sms, address, address_key, standing, code: None };
            record.emergency_contacts.push(EmergencyContact {
                id: "e-k7q4tx3m".parse().unwrap(),
                version: 1,
                name: Sealed("v1.0.name".to_owned()),
                language: "en".parse().unwrap(),
                methods: vec![method],
                consent: Some(word),
            });
            record.codes_sent.push(SentCode { at: now, channel: Channel::Sms, address: address_key });
        }
        let entry = record.audit_head.append(AuditStream::Consent(subject), now, &Actor::Service, &Said { granted });
        ConsentCommit { record, audit: vec![entry] }
    }

    /// The next version of what the college has set up: one more person with this number, from nothing or from the version
    /// before.
    pub(crate) fn roster(&self, before: Option<&Roster>, number: u32, now: Timestamp) -> RosterCommit {
        let roster = before.cloned().unwrap_or_else(|| Roster::empty(self.organisation.clone()));
        let number_of_theirs =
            Number { address: Sealed(format!("v1.key.roster-{number}")), address_key: address(1000 + number) };
        let details = ContactDetails {
            name: Some(Sealed(format!("v1.key.name-{number}"))),
            role: ContactRole::Lead,
            language: "hi".parse().unwrap(),
            time_zone: "Asia/Kolkata".parse().unwrap(),
            methods: vec![MethodDetails { channel: Channel::Sms, number: Some(number_of_theirs) }],
            active: true,
        };
        let id = format!("c-{number}").parse().unwrap();
        let change = Change::AddContact { id, person: person(1000 + number), details };
        let actor = Actor::Machine { key: "admin".to_owned() };
        let situation = roster::Situation { now, actor: &actor, configured: &self.directory, senders: &[] };
        let transition = roster.on(change, &situation).unwrap();
        RosterCommit { roster: transition.roster, audit: transition.audit }
    }

    fn situation<'a>(&'a self, actor: &'a Actor, now: Timestamp) -> Situation<'a> {
        Situation {
            now,
            jitter: 0.5,
            actor,
            rules: &self.rules,
            directory: &self.directory,
            emergency: None,
            phones: &(),
            ladders: &self.ladders,
            composer: &Plain,
            lease: Some(&self.lease),
        }
    }
}

#[derive(Serialize)]
struct Said {
    granted: bool,
}

fn commit(transition: crisis_relay::domain::alert::Transition) -> AlertCommit {
    AlertCommit {
        last_case_of: transition.last_case_of(),
        alert: transition.alert,
        from_version: transition.from_version,
        audit: transition.audit,
        provider_ids: transition.provider_ids,
        event: None,
        idempotency: None,
        data_key: None,
        consent_version: None,
        // Whatever may wait is as durable once it is answered.
        may_wait: transition.from_version.is_some(),
    }
}

/// An event.
pub(crate) fn trigger(number: u32, score: f64, now: Timestamp) -> Trigger {
    Trigger {
        event: EventId::new(now, random(number)),
        source: Source::Chat,
        score: Score::new(score),
        threshold: Score::new(0.8),
        model_version: Some("risk-3".parse().unwrap()),
        occurred_at: now,
        received_at: now,
    }
}

fn contact(organisation: &OrganisationId, id: &str, number: u32) -> Contact {
    Contact {
        id: id.parse().unwrap(),
        organisation: organisation.clone(),
        person: person(number),
        role: ContactRole::Counsellor,
        language: "en".parse().unwrap(),
        methods: vec![ContactMethod {
            channel: Channel::Whatsapp,
            address: Sealed(format!("v1.key.address-{number}")),
            address_key: address(number),
        }],
    }
}

fn policy() -> Policy {
    let step = |contact: &str| Step {
        after: Duration::from_secs(300),
        targets: vec![Target::Contact(contact.parse().unwrap())],
        channels: vec![Channel::Whatsapp],
    };
    Policy {
        id: "standard".parse().unwrap(),
        version: 1,
        steps: vec![step("counsellor-1"), step("counsellor-2")],
        rounds: 2,
        repeat_every: Duration::from_secs(600),
        last_responder: Target::Contact("duty-manager".parse().unwrap()),
        last_responder_channels: vec![Channel::Whatsapp],
        last_responder_every: Duration::from_secs(300),
        further_rounds_with_last: false,
        fall_over_after: Duration::from_secs(30),
        act_within: Duration::from_secs(3600),
        check_in_within: Duration::from_secs(300),
        resolve_by_reply: false,
        emergency_contact_after: None,
        respond_within: Duration::from_secs(300),
    }
}

fn rules() -> Rules {
    Rules {
        repage_rise: 0.1,
        retry_when_all_failed: Duration::from_secs(60),
        delivery: DeliveryRules {
            attempts_max: 5,
            give_up_after: Duration::from_secs(900),
            backoff_base: Duration::from_secs(1),
            backoff_max: Duration::from_secs(60),
            retry_after_max: Duration::from_secs(120),
            look_up_first: Duration::from_secs(5),
            look_up_then: Duration::from_secs(10),
            look_up_lost: Duration::from_secs(1),
            look_ups_max: 3,
            receipt_poll_first: Duration::from_secs(60),
            receipt_poll_max: Duration::from_secs(300),
            receipt_polls_max: 5,
        },
    }
}
