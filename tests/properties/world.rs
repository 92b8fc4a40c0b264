//! What an alert lives in, at random: people, a ladder, rules, templates, and the grounds that may come.

use std::collections::BTreeSet;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use crisis_relay::domain::alert::{AlertState, Compose, Facts, Kind, NewAlert, Rules};
use crisis_relay::domain::audit::Actor;
use crisis_relay::domain::consent::Ground;
use crisis_relay::domain::contact::{Channel, Contact, ContactMethod, ContactRole, Directory, Language};
use crisis_relay::domain::delivery::DeliveryRules;
use crisis_relay::domain::event::{Score, Source, Trigger};
use crisis_relay::domain::ids::{
    AddressKey, AlertId, ContactId, EventId, PersonKey, PrincipalKey, Reference, SubjectKey,
};
use crisis_relay::domain::message::{
    BandThresholds, Composed, Desk, MessageFacts, Purpose, Speech, TemplateSet, UrgencyBand,
};
use crisis_relay::domain::policy::{Ladders, Policy, Stage, Step, Target};
use crisis_relay::domain::schedule::{Schedule, Shift};
use crisis_relay::domain::sealed::Sealed;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};

/// Stands in everything personal. It must turn up in no text, and in no `Debug`.
pub(crate) const CANARY: &str = "zwitschernder-kanari";

/// When every alert opens.
pub(crate) const START: &str = "2026-11-20T10:00:00.123456Z";

/// How many people a policy may name. One more than there are: a name may lead nowhere.
const PEOPLE: u8 = 4;

/// How many schedules there are; a name may lead nowhere.
const SCHEDULES: u8 = 2;

/// What an alert lives in.
#[derive(Debug, Clone)]
pub(crate) struct World {
    pub(crate) policy: Arc<Policy>,
    /// The policy of the gravest band, if it has one of its own.
    pub(crate) critical: Option<Arc<Policy>>,
    pub(crate) rules: Rules,
    pub(crate) directory: Directory,
    pub(crate) lease: Duration,
    pub(crate) kind: Kind,
    /// Whether WhatsApp takes notices at any time.
    pub(crate) approved: bool,
}

impl World {
    pub(crate) fn composer(&self) -> &'static Texts {
        if self.approved { &TEXTS } else { &UNAPPROVED }
    }

    pub(crate) fn ladders(&self) -> Ladders {
        let critical = self.critical.as_ref().unwrap_or(&self.policy);
        Ladders::by_band(BandThresholds::default(), |band| match band {
            UrgencyBand::Elevated | UrgencyBand::High => Arc::clone(&self.policy),
            UrgencyBand::Critical => Arc::clone(critical),
        })
    }

    /// The policies that an alert may run on.
    pub(crate) fn policies(&self) -> impl Iterator<Item = &Policy> {
        [&self.policy].into_iter().chain(&self.critical).map(Arc::as_ref)
    }
}

/// Whom a stage names at an instant, if nobody stands in: those who are set up, and those who are not any more.
pub(crate) fn named(stage: Stage, policy: &Policy, people: &Directory, now: Timestamp) -> BTreeSet<ContactId> {
    let of = |target: &Target| match target {
        Target::Contact(id) => vec![id.clone()],
        Target::Role(role) => {
            people.people().filter(|person| person.role == *role).map(|person| person.id.clone()).collect()
        }
        Target::Schedule(id) => {
            let on_call = people.schedule(id).map(|schedule| schedule.on_call(now)).unwrap_or_default();
            on_call.into_iter().filter(|id| people.contact(id).is_some()).collect()
        }
    };
    stage.targets(policy).0.iter().flat_map(of).collect()
}

/// The rungs that are told with the last responder: those that were vacant, and the one whose turn it is again.
pub(crate) fn with_last(stage: Stage, policy: &Policy, vacant: &[u32]) -> BTreeSet<Stage> {
    let Stage::LastResponder { times } = stage else { return BTreeSet::new() };
    let rungs = u32::try_from(policy.steps.len()).unwrap();
    let again = (policy.further_rounds_with_last && times > 1 && times - 2 < rungs * (policy.rounds - 1))
        .then(|| (times - 2) % rungs);
    vacant.iter().copied().chain(again).map(|step| Stage::Step { round: 0, step }).collect()
}

/// The stage that begins where this one's turn has come: one for whoever is on call gives way while nobody is.
pub(crate) fn landing(stage: Stage, policy: &Policy, people: &Directory, now: Timestamp) -> Stage {
    let is_vacant = |stage: Stage| {
        let targets = stage.targets(policy).0;
        !targets.is_empty() && named(stage, policy, people, now).is_empty()
    };
    let (mut stage, mut passed) = (stage, 0);
    while let Stage::Step { .. } = stage
        && is_vacant(stage)
    {
        passed += 1;
        stage = if passed < policy.steps.len() { stage.next(policy) } else { Stage::LastResponder { times: 1 } };
    }
    stage
}

/// A ground, before it is known when it is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Granted {
    Nothing,
    Consent(&'static [Channel]),
    Override,
}

/// Every set of channels that a consent may cover.
pub(crate) const CONSENTS: [&[Channel]; 7] = [
    &[Channel::Whatsapp],
    &[Channel::Sms],
    &[Channel::Voice],
    &[Channel::Whatsapp, Channel::Sms],
    &[Channel::Whatsapp, Channel::Voice],
    &[Channel::Sms, Channel::Voice],
    &[Channel::Whatsapp, Channel::Sms, Channel::Voice],
];

impl Granted {
    pub(crate) fn ground(self, now: Timestamp) -> Option<Ground> {
        match self {
            Self::Nothing => None,
            Self::Consent(channels) => {
                Some(Ground::Consent { version: 3, granted_at: now, channels: channels.to_vec() })
            }
            Self::Override => {
                Some(Ground::EmergencyOverride { statement: sealed("override"), authorised_by: person(), at: now })
            }
        }
    }
}

/// A text that only a key would open.
pub(crate) fn sealed(what: &str) -> Sealed {
    Sealed(format!("v1.0123456789abcdef.{what}-{CANARY}"))
}

/// A counsellor at the dashboard.
pub(crate) fn person() -> Actor {
    Actor::Person {
        principal: PrincipalKey::from_bytes([5; 32]),
        role: "counsellor".to_owned(),
        name: Some(sealed("name")),
    }
}

pub(crate) fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

/// `START` and `seconds`.
pub(crate) fn start_plus(seconds: i64) -> Timestamp {
    at(START) + jiff::SignedDuration::from_secs(seconds)
}

pub(crate) fn score(value: f64) -> Score {
    Score::new(value).unwrap()
}

/// An event at `now`; without a score, a person raised it.
pub(crate) fn trigger(now: Timestamp, score: Option<Score>) -> Trigger {
    Trigger {
        event: EventId::new(now, [1; 10]),
        source: if score.is_some() { Source::Chat } else { Source::Manual },
        score,
        threshold: score.map(|_| Score::new(0.5).unwrap()),
        model_version: score.map(|_| format!("model/{CANARY}").parse().unwrap()),
        occurred_at: now,
        received_at: now,
    }
}

/// A case as intake makes it.
pub(crate) fn new_alert(world: &World, now: Timestamp, score: Option<Score>, granted: Granted) -> NewAlert {
    NewAlert {
        id: AlertId::new(at(START), [7; 10]),
        reference: Reference::new([0xC0, 0xFF, 0xEE, 0x12, 0x34]),
        organisation: "mitra".parse().unwrap(),
        subject: SubjectKey::from_bytes([9; 32]),
        kind: world.kind,
        identity: sealed("user-id"),
        trigger: trigger(now, score),
        ground: granted.ground(now),
        policy: Arc::clone(world.ladders().opening(score.unwrap_or(Score::HIGHEST))),
    }
}

/// The program's own templates, as the service fills them.
pub(crate) struct Texts(TemplateSet, bool);

static TEXTS: LazyLock<Texts> = LazyLock::new(|| Texts(TemplateSet::builtin(), true));

/// The same, where no notice has an approved template.
static UNAPPROVED: LazyLock<Texts> = LazyLock::new(|| Texts(TemplateSet::builtin(), false));

impl Compose for Texts {
    fn compose(&self, facts: &Facts<'_>) -> Option<Composed> {
        let message = message(facts);
        match facts.purpose {
            Purpose::CounsellorAlert => self.0.compose(facts.channel, facts.language, &message, None).ok(),
            notice @ (Purpose::TakenNotice | Purpose::OutcomeReminder | Purpose::FollowUpReminder) => {
                self.0.compose_notice(notice, facts.channel, facts.language, &message, facts.taken_by, None).ok()
            }
            Purpose::EmergencyContact => {
                let (reference, sender) = (facts.reference, message.sender);
                self.0.compose_emergency(facts.channel, facts.language, reference, &sender, &desk(), None).ok()
            }
        }
    }

    fn speech(&self, facts: &Facts<'_>) -> Option<Speech> {
        self.0.speech(facts.language, &message(facts)).ok()
    }

    fn has_desk(&self) -> bool {
        true
    }

    fn is_approved(&self, _: &Language, purpose: Purpose) -> bool {
        self.1 || purpose.is_alert()
    }
}

fn desk() -> Desk {
    Desk { name: "care desk".parse().unwrap(), phone: "+911123456789".parse().unwrap() }
}

fn message(facts: &Facts<'_>) -> MessageFacts {
    MessageFacts {
        reference: facts.reference,
        score: facts.score.map(Score::value),
        band: UrgencyBand::of(facts.severity.value(), BandThresholds::default()),
        raised_at: facts.at,
        respond_by: facts.respond_by,
        time_zone: TimeZone::posix("IST-5:30").unwrap(),
        link: Some("https://relay.example.org/a".parse().unwrap()),
        sender: "MITRA".parse().unwrap(),
        drill: facts.drill,
    }
}

/// The longest that an alert in this state may be left alone.
pub(crate) fn patience(state: &AlertState, policy: &Policy) -> Option<Duration> {
    match state {
        AlertState::Escalating { stage, .. } => Some(stage.patience(policy)),
        AlertState::Acknowledged { reminded_at: None, .. } => Some(policy.act_within),
        AlertState::Acknowledged { reminded_at: Some(_), .. } => Some(policy.check_in_within),
        AlertState::Withheld { .. } | AlertState::Resolved { .. } => None,
    }
}

/// The longest that any stage of a policy waits.
pub(crate) fn longest_patience(policy: &Policy) -> Duration {
    (0..u32::try_from(policy.steps.len()).unwrap())
        .map(|step| Stage::Step { round: 0, step }.patience(policy))
        .chain([policy.last_responder_every])
        .max()
        .unwrap()
}

// -- at random --------------------------------------------------------------------------------------------------------

pub(crate) fn contact_id(number: u8) -> ContactId {
    format!("contact-{number}").parse().unwrap()
}

fn seconds(range: std::ops::RangeInclusive<u64>) -> impl Strategy<Value = Duration> {
    range.prop_map(Duration::from_secs)
}

fn millis(range: std::ops::RangeInclusive<u64>) -> impl Strategy<Value = Duration> {
    range.prop_map(Duration::from_millis)
}

fn channels(at_least: usize) -> impl Strategy<Value = Vec<Channel>> {
    subsequence(Channel::ALL.to_vec(), at_least..=3).prop_shuffle()
}

/// The ranges are those that the configuration allows, where it sets one.
pub(crate) fn rules() -> impl Strategy<Value = Rules> {
    let retries = (1u32..=8, seconds(10..=1800), millis(10..=60_000), millis(0..=540_000), seconds(1..=600));
    let look_ups = (millis(100..=60_000), millis(0..=240_000), 1u32..=5);
    let polls = (seconds(1..=3600), seconds(0..=10_800), 1u32..=12);
    (0.01..0.5f64, seconds(1..=600), retries, look_ups, polls).prop_map(
        |(repage_rise, retry_when_all_failed, retries, look_ups, polls)| {
            let (attempts_max, give_up_after, backoff_base, backoff_more, retry_after_max) = retries;
            let (look_up_first, look_up_more, look_ups_max) = look_ups;
            let (receipt_poll_first, poll_more, receipt_polls_max) = polls;
            let delivery = DeliveryRules {
                attempts_max,
                give_up_after,
                backoff_base,
                backoff_max: backoff_base + backoff_more,
                retry_after_max,
                look_up_first,
                look_up_then: look_up_first + look_up_more,
                look_up_lost: look_up_first,
                look_ups_max,
                receipt_poll_first,
                receipt_poll_max: receipt_poll_first + poll_more,
                receipt_polls_max,
            };
            Rules { repage_rise, retry_when_all_failed, delivery }
        },
    )
}

/// The names of people, roles and schedules; one schedule leads nowhere.
fn target() -> impl Strategy<Value = Target> {
    prop_oneof![
        5 => (0..=PEOPLE).prop_map(|number| Target::Contact(contact_id(number))),
        2 => select(&ContactRole::STAFF[..]).prop_map(Target::Role),
        3 => (0..=SCHEDULES).prop_map(|number| Target::Schedule(format!("schedule-{number}").parse().unwrap())),
    ]
}

fn step(channels_min: usize) -> impl Strategy<Value = Step> {
    let targets = proptest::collection::vec(target(), 0..=3);
    (seconds(1..=900), targets, channels(channels_min)).prop_map(|(after, targets, channels)| Step {
        after,
        targets,
        channels,
    })
}

/// Shifts that begin and end around [`START`], a Friday at ten.
fn schedule(number: u8) -> impl Strategy<Value = Schedule> {
    let time = || {
        (-200i64..700).prop_map(|minutes| {
            let minutes = minutes + 10 * 60;
            format!("friday {:02}:{:02}", minutes / 60, minutes % 60).parse().unwrap()
        })
    };
    let people = proptest::collection::vec((0..=PEOPLE).prop_map(contact_id), 1..=2);
    let shift = (time(), time(), people).prop_map(|(from, until, people)| Shift { from, until, people });
    let zone = select(vec!["UTC", "Asia/Kolkata", "Europe/Berlin"]);
    (zone, proptest::collection::vec(shift, 0..=3)).prop_map(move |(zone, shifts)| Schedule {
        id: format!("schedule-{number}").parse().unwrap(),
        version: 1,
        time_zone: zone.parse().unwrap(),
        shifts,
        overrides: Vec::new(),
        absences: Vec::new(),
    })
}

fn schedules() -> impl Strategy<Value = Vec<Schedule>> {
    (0..SCHEDULES).map(schedule).collect::<Vec<_>>()
}

pub(crate) fn policy(channels_min: usize) -> impl Strategy<Value = Policy> {
    let ladder = (proptest::collection::vec(step(channels_min), 1..=4), 1u32..=3, seconds(10..=3600));
    let last = prop_oneof![3 => (0..PEOPLE).prop_map(|number| Target::Contact(contact_id(number))), 1 => target()];
    let last = (last, channels(channels_min), seconds(10..=3600), seconds(5..=600));
    (ladder, last, seconds(60..=86_400), seconds(60..=3600)).prop_map(|(ladder, last, act_within, respond_within)| {
        let (steps, rounds, repeat_every) = ladder;
        let (last_responder, last_responder_channels, last_responder_every, fall_over_after) = last;
        Policy {
            id: "ladder".parse().unwrap(),
            version: 2,
            steps,
            rounds,
            repeat_every,
            last_responder,
            last_responder_channels,
            last_responder_every,
            // Now and then; not drawn, so that the seeds of before keep what they mean.
            further_rounds_with_last: respond_within.as_secs() % 3 == 1,
            fall_over_after,
            act_within,
            check_in_within: respond_within / 2,
            resolve_by_reply: false,
            emergency_contact_after: None,
            respond_within,
        }
    })
}

/// A number is named by its owner and channel, but now and then two people share one.
fn method(owner: u8, channel: Channel, shared: bool) -> ContactMethod {
    let number = if shared { 0 } else { owner };
    ContactMethod { channel, address: sealed("address"), address_key: AddressKey::from_bytes([number + 100; 32]) }
}

fn contact(number: u8) -> impl Strategy<Value = Contact> {
    let role = select(vec![ContactRole::Counsellor, ContactRole::Lead, ContactRole::DutyManager]);
    let language = select(vec!["en", "hi", "ta"]);
    (role, language, channels(0), prop::bool::weighted(0.1)).prop_map(move |(role, language, channels, shared)| {
        Contact {
            id: contact_id(number),
            organisation: "mitra".parse().unwrap(),
            person: PersonKey::from_bytes([number; 32]),
            role,
            language: language.parse().unwrap(),
            methods: channels.into_iter().map(|channel| method(number, channel, shared)).collect(),
        }
    })
}

fn directory() -> impl Strategy<Value = Directory> {
    let people = (0..PEOPLE).map(contact).collect::<Vec<_>>();
    (people, schedules()).prop_map(|(people, schedules)| Directory::new(people).with_schedules(schedules))
}

/// Anything goes: steps that name nobody, people without numbers, channels without texts.
pub(crate) fn world() -> impl Strategy<Value = World> {
    let kind = prop_oneof![9 => Just(Kind::Live), 1 => Just(Kind::Drill)];
    let ladders = (policy(0), prop::option::weighted(0.3, policy(0)));
    (ladders, rules(), directory(), seconds(2..=600), kind).prop_map(
        |((policy, critical), rules, directory, lease, kind)| {
            // Without a draw of its own, so that the seeds that are kept still give what they gave.
            let approved = lease.as_secs().is_multiple_of(2);
            let critical = critical.map(critical_band);
            World { policy: Arc::new(policy), critical, rules, directory, lease, kind, approved }
        },
    )
}

fn critical_band(policy: Policy) -> Arc<Policy> {
    Arc::new(Policy { id: "critical".parse().unwrap(), ..policy })
}

/// Everybody who is named can be told, over some channel.
pub(crate) fn reachable_world() -> impl Strategy<Value = World> {
    (world(), policy(1), prop::option::weighted(0.3, policy(1))).prop_map(|(world, policy, critical)| {
        let texts = |channels: &mut Vec<Channel>| {
            if channels.is_empty() {
                channels.push(Channel::Whatsapp);
            }
        };
        let with_texts = |mut policy: Policy| {
            policy.steps.iter_mut().for_each(|step| texts(&mut step.channels));
            texts(&mut policy.last_responder_channels);
            policy
        };
        let directory = everybody().with_schedules(world.directory.schedules().to_vec());
        let critical = critical.map(with_texts).map(critical_band);
        World { policy: Arc::new(with_texts(policy)), critical, directory, ..world }
    })
}

/// A directory in which everybody has a number of their own on every channel.
pub(crate) fn everybody() -> Directory {
    let contacts = (0..=PEOPLE).map(|number| Contact {
        id: contact_id(number),
        organisation: "mitra".parse().unwrap(),
        person: PersonKey::from_bytes([number; 32]),
        role: ContactRole::Counsellor,
        language: "en".parse().unwrap(),
        methods: Channel::ALL.map(|channel| method(number, channel, false)).to_vec(),
    });
    Directory::new(contacts.collect())
}

pub(crate) fn granted() -> impl Strategy<Value = Granted> {
    prop_oneof![
        2 => Just(Granted::Nothing),
        4 => select(CONSENTS.to_vec()).prop_map(Granted::Consent),
        2 => Just(Granted::Override),
    ]
}

pub(crate) fn any_score() -> impl Strategy<Value = Option<Score>> {
    prop_oneof![
        1 => Just(None),
        3 => (0u32..=100).prop_map(|hundredths| Score::new(f64::from(hundredths) / 100.0)),
        2 => (0.0..=1.0f64).prop_map(Score::new),
    ]
}
