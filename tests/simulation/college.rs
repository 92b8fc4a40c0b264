//! What every schedule takes place in: students, counsellors, a ladder, and one instance of the service after another.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use crisis_relay::clock::SeededEntropy;
use crisis_relay::domain::alert::{Compose, Facts, Rules};
use crisis_relay::domain::contact::{Channel, ContactRole, Directory, Language, PhoneNumber};
use crisis_relay::domain::delivery::DeliveryRules;
use crisis_relay::domain::event::Score;
use crisis_relay::domain::ids::OrganisationId;
use crisis_relay::domain::message::{
    BandThresholds, Composed, MessageFacts, Purpose, Speech, TemplateSet, Texts as Approved, UrgencyBand,
};
use crisis_relay::domain::policy::{DefaultLadder, Policy, Step, Target};
use crisis_relay::keyring::{LocalKeyring, MasterKeys};
use crisis_relay::ports::Keyring;
use crisis_relay::service::caller::Caller;
use crisis_relay::service::people::ConfiguredContact;
use jiff::tz::TimeZone;

use crate::chance::Chance;

const fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// The people who are told, with the channels that each has.
pub(crate) const COUNSELLORS: [(&str, &str, &[Channel]); 3] = [
    ("counsellor-1", "+919800000001", &[Channel::Whatsapp, Channel::Sms, Channel::Voice]),
    ("counsellor-2", "+919800000002", &[Channel::Whatsapp]),
    ("duty-manager", "+919800000003", &[Channel::Sms, Channel::Whatsapp, Channel::Voice]),
];

/// What differs from schedule to schedule.
#[derive(Debug, Clone)]
pub(crate) struct Setup {
    /// One process at a time owns the store; else two share it.
    pub(crate) exclusive: bool,
    pub(crate) students: usize,
    pub(crate) places: usize,
    pub(crate) poll: Duration,
    pub(crate) due_batch: usize,
    pub(crate) per_second: f64,
    pub(crate) templates: bool,
    pub(crate) two_steps: bool,
    /// Who is told is called first, and not last.
    pub(crate) calls_first: bool,
}

impl Setup {
    pub(crate) fn draw(chance: &Chance) -> Self {
        Self {
            exclusive: chance.happens(0.5),
            students: 1 + chance.below(3),
            places: *chance.one_of(&[1, 3, 50]),
            poll: *chance.one_of(&[s(1), s(5), s(5)]),
            due_batch: *chance.one_of(&[2, 20]),
            per_second: *chance.one_of(&[0.5, 20.0, 80.0]),
            templates: chance.happens(0.5),
            two_steps: chance.happens(0.6),
            calls_first: chance.happens(0.5),
        }
    }
}

pub(crate) fn organisation() -> OrganisationId {
    "mitra".parse().expect("an id")
}

pub(crate) fn caller(id: &str, role: &'static str) -> Caller {
    Caller { organisation: organisation(), id: id.to_owned(), role, is_person: role != "service", deadline: None }
}

pub(crate) fn threshold() -> Score {
    Score::new(0.5).expect("a score")
}

/// The rules of every schedule: those of the configuration, hurried up a little.
pub(crate) fn rules() -> Rules {
    let delivery = DeliveryRules {
        attempts_max: 4,
        give_up_after: s(240),
        backoff_base: s(1),
        backoff_max: s(20),
        retry_after_max: s(40),
        look_up_first: s(2),
        look_up_then: s(5),
        look_up_lost: Duration::from_secs(1),
        look_ups_max: 3,
        receipt_poll_first: s(30),
        receipt_poll_max: s(120),
        receipt_polls_max: 4,
    };
    Rules { repage_rise: 0.1, retry_when_all_failed: s(20), delivery }
}

/// How long a claim lasts.
pub(crate) const LEASE: Duration = s(30);

pub(crate) fn policy(setup: &Setup) -> Policy {
    let counsellor = |place: usize| Target::Contact(COUNSELLORS[place].0.parse().expect("an id"));
    let step = |place| Step {
        after: s(90),
        targets: vec![counsellor(place)],
        channels: if setup.calls_first {
            vec![Channel::Voice, Channel::Whatsapp, Channel::Sms]
        } else {
            vec![Channel::Whatsapp, Channel::Sms, Channel::Voice]
        },
    };
    let steps = if setup.two_steps { vec![step(0), step(1)] } else { vec![step(0)] };
    Policy {
        id: "ladder".parse().expect("an id"),
        version: 1,
        steps,
        rounds: 2,
        repeat_every: s(120),
        last_responder: counsellor(2),
        last_responder_channels: vec![Channel::Sms, Channel::Voice, Channel::Whatsapp],
        last_responder_every: s(100),
        further_rounds_with_last: false,
        fall_over_after: s(30),
        act_within: s(300),
        check_in_within: s(120),
        resolve_by_reply: true,
        emergency_contact_after: None,
        respond_within: s(300),
    }
}

pub(crate) fn ladder(setup: &Setup) -> DefaultLadder {
    DefaultLadder::new(policy(setup), COUNSELLORS[0].0.parse().expect("an id"), true)
}

pub(crate) fn contacts() -> impl Iterator<Item = ConfiguredContact> {
    COUNSELLORS.into_iter().map(|(id, number, channels)| ConfiguredContact {
        id: id.parse().expect("an id"),
        role: ContactRole::Counsellor,
        language: "en".parse().expect("a language"),
        methods: channels.iter().map(|channel| (*channel, phone(number))).collect(),
    })
}

pub(crate) fn phone(number: &str) -> PhoneNumber {
    number.parse().expect("a number")
}

/// The keys of a schedule: real ones, but drawn by the seed.
pub(crate) fn keyring(entropy: SeededEntropy) -> Arc<dyn Keyring> {
    let masters = MasterKeys::from_text("AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=").expect("a key");
    Arc::new(LocalKeyring::new(masters, Arc::new(entropy)))
}

/// The directory as a start of the service makes it.
pub(crate) async fn enrolled(
    store: &dyn crisis_relay::ports::Store,
    keyring: &dyn Keyring,
    now: jiff::Timestamp,
) -> Directory {
    let mut people = Vec::new();
    for contact in contacts() {
        let enrolled = crisis_relay::service::people::enrol(store, keyring, now, &organisation(), &contact).await;
        people.push(enrolled.expect("a store in memory takes it"));
    }
    Directory::new(people)
}

static TEXTS: LazyLock<TemplateSet> = LazyLock::new(TemplateSet::builtin);

/// No message reaches a real phone, so that none has to be approved.
pub(crate) fn texts() -> Approved {
    Approved::new(TemplateSet::builtin(), std::collections::BTreeMap::new(), false)
}

/// The program's own texts; with templates, the provider puts them together itself.
pub(crate) struct Texts {
    pub(crate) templates: bool,
}

impl Compose for Texts {
    fn compose(&self, facts: &Facts<'_>) -> Option<Composed> {
        let sid =
            (self.templates && facts.channel == Channel::Whatsapp).then_some("HX00000000000000000000000000000001");
        let message = message(facts)?;
        match facts.purpose {
            Purpose::CounsellorAlert => TEXTS.compose(facts.channel, facts.language, &message, sid).ok(),
            // A notice has no template of its own here, and is sent in words.
            notice @ (Purpose::TakenNotice | Purpose::OutcomeReminder | Purpose::FollowUpReminder) => {
                TEXTS.compose_notice(notice, facts.channel, facts.language, &message, facts.taken_by, None).ok()
            }
            // Nobody has named anybody here.
            Purpose::EmergencyContact => None,
        }
    }

    fn speech(&self, facts: &Facts<'_>) -> Option<Speech> {
        TEXTS.speech(facts.language, &message(facts)?).ok()
    }

    fn has_desk(&self) -> bool {
        false
    }

    fn is_approved(&self, _: &Language, purpose: Purpose) -> bool {
        !self.templates || purpose.is_alert()
    }
}

fn message(facts: &Facts<'_>) -> Option<MessageFacts> {
    Some(MessageFacts {
        reference: facts.reference,
        score: facts.score.map(Score::value),
        band: UrgencyBand::of(facts.severity.value(), BandThresholds::default()),
        raised_at: facts.at,
        respond_by: facts.respond_by,
        time_zone: TimeZone::UTC,
        link: None,
        sender: "MITRA".parse().ok()?,
        drill: facts.drill,
    })
}
