//! Whether somebody would be there: who is on call now and in the next two weeks, and what stands against it. Found in
//! advance, so that no gap is found by a crisis.

use std::collections::BTreeSet;

use jiff::Timestamp;

use super::contact::{Channel, Contact, Directory, Language};
use super::ids::{ContactId, PolicyId, ScheduleId};
use super::message::{Purpose, Texts};
use super::policy::check::{OUTLOOK, can_be_told};
use super::policy::{Policy, Target};
use super::schedule::{OnCall, Schedule};

/// A method that must not be used for alerts, though its person is active.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdleMethod {
    /// Whose.
    pub contact: ContactId,
    /// Over which channel.
    pub channel: Channel,
    /// The phone takes nothing from us; else nobody has proved that it reaches the person.
    pub opted_out: bool,
}

/// One schedule over the next two weeks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outlook {
    /// Which.
    pub schedule: ScheduleId,
    /// Whether a policy in use names it.
    pub in_use: bool,
    /// Who is on call, from now on: spans without hole or overlap, gaps among them.
    pub spans: Vec<OnCall>,
}

/// What stands against it that somebody would be there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Obstacle {
    /// Nobody is on call for a while, by a schedule that a policy in use names.
    Gap {
        /// Which.
        schedule: ScheduleId,
        /// Since when, or from when on.
        from: Timestamp,
        /// Until when, as far as the two weeks reach.
        until: Timestamp,
    },
    /// Somebody will be on call who cannot be told over any channel of the rungs that name the schedule.
    OnCallUnreachable {
        /// Which.
        schedule: ScheduleId,
        /// Who.
        contact: ContactId,
        /// From when on they are on call.
        from: Timestamp,
    },
    /// A rung of which nobody whom it names can ever be told.
    StepUnreachable {
        /// The policy.
        policy: PolicyId,
        /// The rung, from 0.
        step: usize,
    },
    /// Nobody is there at last.
    LastResponderUnreachable {
        /// The policy.
        policy: PolicyId,
    },
    /// Somebody who can be told, and whom no rung and no last responder of a policy in use comes to: they are only told in
    /// somebody's place.
    ContactOnNoLadder {
        /// Who.
        contact: ContactId,
    },
    /// A number that nobody has proved to reach its person.
    MethodUnverified {
        /// Whose.
        contact: ContactId,
        /// Over which channel.
        channel: Channel,
    },
    /// A phone that takes nothing from us.
    MethodOptedOut {
        /// Whose.
        contact: ContactId,
        /// Over which channel.
        channel: Channel,
    },
    /// A number that the provider calls bad for its channel. It is tried all the same.
    MethodRefused {
        /// Whose.
        contact: ContactId,
        /// Over which channel.
        channel: Channel,
        /// The provider's code.
        code: u32,
    },
    /// Something is said over WhatsApp in a language of which there is no approved template for it: outside the 24 hours after
    /// a person's own last message nothing arrives there.
    TemplateMissing {
        /// Who cannot be told of a case; `None` for whatever else is said: it concerns all who are told in that language.
        contact: Option<ContactId>,
        /// What is to be said.
        purpose: Purpose,
        /// The language that is used.
        language: Language,
    },
}

impl Obstacle {
    /// Every kind's name, as in the API and in metric labels.
    pub const KINDS: [&str; 9] = [
        "gap",
        "on_call_unreachable",
        "step_unreachable",
        "last_responder_unreachable",
        "contact_on_no_ladder",
        "method_unverified",
        "method_opted_out",
        "method_refused",
        "template_missing",
    ];

    /// Its kind's name.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Gap { .. } => "gap",
            Self::OnCallUnreachable { .. } => "on_call_unreachable",
            Self::StepUnreachable { .. } => "step_unreachable",
            Self::LastResponderUnreachable { .. } => "last_responder_unreachable",
            Self::ContactOnNoLadder { .. } => "contact_on_no_ladder",
            Self::MethodUnverified { .. } => "method_unverified",
            Self::MethodOptedOut { .. } => "method_opted_out",
            Self::MethodRefused { .. } => "method_refused",
            Self::TemplateMissing { .. } => "template_missing",
        }
    }

    /// From when on a case may find nobody because of it; `None` where it takes away a channel only.
    pub const fn bites_from(&self) -> Option<Timestamp> {
        match self {
            Self::Gap { from, .. } | Self::OnCallUnreachable { from, .. } => Some(*from),
            Self::StepUnreachable { .. } | Self::LastResponderUnreachable { .. } => Some(Timestamp::MIN),
            Self::ContactOnNoLadder { .. }
            | Self::MethodUnverified { .. }
            | Self::MethodOptedOut { .. }
            | Self::MethodRefused { .. }
            | Self::TemplateMissing { .. } => None,
        }
    }
}

/// Whether somebody would be there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Readiness {
    /// Every schedule.
    pub outlooks: Vec<Outlook>,
    /// What stands against it.
    pub obstacles: Vec<Obstacle>,
}

impl Readiness {
    /// Looks ahead from `now`: over every schedule, the policies in use, and the methods that lie idle.
    pub fn look(now: Timestamp, directory: &Directory, in_use: &[&Policy], idle: &[IdleMethod], texts: &Texts) -> Self {
        let until = now.saturating_add(OUTLOOK).unwrap_or(Timestamp::MAX);
        let mut obstacles = Vec::new();
        let mut outlooks = Vec::new();
        for schedule in directory.schedules() {
            let spans = schedule.spans(now, until);
            let channels = channels_of(&schedule.id, in_use);
            if let Some(channels) = &channels {
                obstacles.extend(against(schedule, &spans, directory, channels));
            }
            outlooks.push(Outlook { schedule: schedule.id.clone(), in_use: channels.is_some(), spans });
        }
        for policy in in_use {
            obstacles.extend(against_policy(policy, directory));
        }
        let left_out =
            directory.people().filter(|person| !in_use.iter().any(|policy| comes_to(policy, person, directory)));
        obstacles.extend(left_out.map(|person| Obstacle::ContactOnNoLadder { contact: person.id.clone() }));
        obstacles.extend(idle.iter().map(|method| {
            let (contact, channel) = (method.contact.clone(), method.channel);
            if method.opted_out {
                Obstacle::MethodOptedOut { contact, channel }
            } else {
                Obstacle::MethodUnverified { contact, channel }
            }
        }));
        let missing = directory.people().flat_map(|person| {
            let of_person = texts.unapproved_for(person);
            of_person.map(|(said, language)| (Some(&person.id).filter(|_| said.is_alert()), said, language))
        });
        let mut seen = BTreeSet::new();
        obstacles.extend(missing.filter(|found| seen.insert(*found)).map(|(contact, purpose, language)| {
            Obstacle::TemplateMissing { contact: contact.cloned(), purpose, language: language.clone() }
        }));
        Self { outlooks, obstacles }
    }

    /// How many obstacles of each kind there are.
    pub fn count(&self, kind: &str) -> usize {
        self.obstacles.iter().filter(|obstacle| obstacle.kind() == kind).count()
    }

    /// When the next gap begins, if one does in the next two weeks; one that has begun counts.
    pub fn next_gap(&self) -> Option<Timestamp> {
        let begins = |obstacle: &Obstacle| match obstacle {
            Obstacle::Gap { from, .. } => Some(*from),
            Obstacle::OnCallUnreachable { .. }
            | Obstacle::StepUnreachable { .. }
            | Obstacle::LastResponderUnreachable { .. }
            | Obstacle::ContactOnNoLadder { .. }
            | Obstacle::MethodUnverified { .. }
            | Obstacle::MethodOptedOut { .. }
            | Obstacle::MethodRefused { .. }
            | Obstacle::TemplateMissing { .. } => None,
        };
        self.obstacles.iter().filter_map(begins).min()
    }
}

/// The channels over which policies in use tell whoever is on call by a schedule; `None`: none names it.
fn channels_of(schedule: &ScheduleId, in_use: &[&Policy]) -> Option<BTreeSet<Channel>> {
    let is_it = |target: &Target| matches!(target, Target::Schedule(id) if id == schedule);
    let steps = in_use.iter().flat_map(|policy| &policy.steps).filter(|step| step.targets.iter().any(is_it));
    let last = in_use.iter().filter(|policy| is_it(&policy.last_responder));
    let named: Vec<&[Channel]> = steps
        .map(|step| step.channels.as_slice())
        .chain(last.map(|policy| policy.last_responder_channels.as_slice()))
        .collect();
    (!named.is_empty()).then(|| named.concat().into_iter().collect())
}

fn against(
    schedule: &Schedule,
    spans: &[OnCall],
    directory: &Directory,
    channels: &BTreeSet<Channel>,
) -> Vec<Obstacle> {
    let channels: Vec<Channel> = channels.iter().copied().collect();
    let mut obstacles = Vec::new();
    let mut seen = BTreeSet::new();
    for span in spans {
        let (id, from, until) = (schedule.id.clone(), span.from, span.until);
        if span.is_gap() {
            obstacles.push(Obstacle::Gap { schedule: id, from, until });
            continue;
        }
        let unreachable = span
            .people
            .iter()
            .filter(|person| !directory.contact(person).is_some_and(|person| can_be_told(person, &channels)));
        for contact in unreachable.filter(|person| seen.insert(*person)).cloned() {
            obstacles.push(Obstacle::OnCallUnreachable { schedule: schedule.id.clone(), contact, from });
        }
    }
    obstacles
}

/// Whether a policy ever tells this person anything, on whatever rung.
fn comes_to(policy: &Policy, person: &Contact, directory: &Directory) -> bool {
    let rungs = policy.steps.iter().flat_map(|step| step.targets.iter().map(|target| (target, &step.channels)));
    rungs.chain([(&policy.last_responder, &policy.last_responder_channels)]).any(|(target, channels)| {
        can_be_told(person, channels) && target.ever(directory).into_iter().any(|named| named.id == person.id)
    })
}

fn against_policy(policy: &Policy, directory: &Directory) -> Vec<Obstacle> {
    let reaches = |target: &Target, channels: &[Channel]| {
        target.ever(directory).into_iter().any(|person| can_be_told(person, channels))
    };
    let unreachable = policy
        .steps
        .iter()
        .enumerate()
        .filter(|(_, step)| !step.targets.iter().any(|target| reaches(target, &step.channels)));
    let mut obstacles: Vec<Obstacle> =
        unreachable.map(|(step, _)| Obstacle::StepUnreachable { policy: policy.id.clone(), step }).collect();
    if !reaches(&policy.last_responder, &policy.last_responder_channels) {
        obstacles.push(Obstacle::LastResponderUnreachable { policy: policy.id.clone() });
    }
    obstacles
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::Duration;

    use super::*;
    use crate::domain::contact::{ContactMethod, ContactRole};
    use crate::domain::ids::{AddressKey, PersonKey};
    use crate::domain::message::TemplateSet;
    use crate::domain::policy::Step;
    use crate::domain::schedule::Shift;
    use crate::domain::sealed::Sealed;

    fn person(id: &str, channel: Channel) -> Contact {
        let address_key = AddressKey::from_bytes([1; 32]);
        Contact {
            id: id.parse().unwrap(),
            organisation: "mitra".parse().unwrap(),
            person: PersonKey::from_bytes([1; 32]),
            role: ContactRole::Counsellor,
            language: "en".parse().unwrap(),
            methods: vec![ContactMethod { channel, address: Sealed(String::new()), address_key }],
        }
    }

    fn shift(from: &str, until: &str, person: &str) -> Shift {
        Shift { from: from.parse().unwrap(), until: until.parse().unwrap(), people: vec![person.parse().unwrap()] }
    }

    fn schedule(id: &str, shifts: Vec<Shift>) -> Schedule {
        Schedule {
            id: id.parse().unwrap(),
            version: 1,
            time_zone: "Europe/Berlin".parse().unwrap(),
            shifts,
            overrides: Vec::new(),
            absences: Vec::new(),
        }
    }

    fn policy(target: Target, last: &str) -> Policy {
        let channels = vec![Channel::Whatsapp];
        Policy {
            id: "night".parse().unwrap(),
            version: 1,
            steps: vec![Step { after: Duration::ZERO, targets: vec![target], channels: channels.clone() }],
            rounds: 1,
            repeat_every: Duration::from_secs(60),
            last_responder: Target::Contact(last.parse().unwrap()),
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

    fn simulated() -> Texts {
        Texts::new(TemplateSet::builtin(), BTreeMap::new(), false)
    }

    fn told(readiness: &Readiness) -> Vec<String> {
        let told = readiness.obstacles.iter().map(|obstacle| match obstacle {
            Obstacle::Gap { from, until, .. } => format!("gap {from} {until}"),
            Obstacle::OnCallUnreachable { contact, from, .. } => format!("unreachable {contact} {from}"),
            Obstacle::StepUnreachable { step, .. } => format!("step {step}"),
            Obstacle::LastResponderUnreachable { .. } => "last".to_owned(),
            Obstacle::ContactOnNoLadder { contact } => format!("on no ladder {contact}"),
            Obstacle::MethodUnverified { contact, channel } => format!("unverified {contact} {}", channel.as_str()),
            Obstacle::MethodOptedOut { contact, channel } => format!("opted out {contact} {}", channel.as_str()),
            Obstacle::MethodRefused { contact, channel, code } => format!("{code} {contact} {}", channel.as_str()),
            Obstacle::TemplateMissing { contact, purpose, language } => {
                let whose = contact.as_ref().map_or("all", ContactId::as_str);
                format!("no {} {whose} {language}", purpose.as_str())
            }
        });
        told.collect()
    }

    /// Two weeks from a Friday at eleven in Berlin, over the end of daylight saving.
    const NOW: &str = "2026-10-23T09:00:00Z";

    #[test]
    fn gaps_and_people_on_call_who_cannot_be_told_are_found_in_advance() {
        let nights = schedule(
            "nights",
            vec![shift("monday 00:00", "sunday 02:00", "anita"), shift("sunday 04:00", "monday 00:00", "bela")],
        );
        let directory = Directory::new(vec![person("anita", Channel::Whatsapp), person("bela", Channel::Sms)]);
        let directory = directory.with_schedules(vec![nights, schedule("unused", Vec::new())]);
        let policy = policy(Target::Schedule("nights".parse().unwrap()), "anita");
        let now = NOW.parse().unwrap();
        let readiness = Readiness::look(now, &directory, &[&policy], &[], &simulated());
        assert_eq!(
            told(&readiness),
            [
                // From two to four by the clock on the wall, which shows two o'clock twice that night.
                "gap 2026-10-25T00:00:00Z 2026-10-25T03:00:00Z",
                "unreachable bela 2026-10-25T03:00:00Z",
                "gap 2026-11-01T01:00:00Z 2026-11-01T03:00:00Z",
                "on no ladder bela",
            ]
        );
        assert_eq!(readiness.next_gap(), Some("2026-10-25T00:00:00Z".parse().unwrap()));
        let in_use: Vec<bool> = readiness.outlooks.iter().map(|outlook| outlook.in_use).collect();
        assert_eq!(in_use, [true, false]);
        assert_eq!(readiness.count("gap"), 2);
    }

    #[test]
    fn who_is_told_over_whatsapp_needs_the_approved_template_of_the_language_that_is_used() {
        let told_in =
            |id, language: &str, channel| Contact { language: language.parse().unwrap(), ..person(id, channel) };
        let people =
            [("asha", "hi", Channel::Whatsapp), ("bela", "hi", Channel::Sms), ("camille", "fr", Channel::Whatsapp)];
        let directory = Directory::new(people.map(|(id, language, channel)| told_in(id, language, channel)).to_vec());
        let english = |said| ((said, "en".parse().unwrap()), "HX1".to_owned());
        let all_but_one = [Purpose::CounsellorAlert, Purpose::TakenNotice, Purpose::OutcomeReminder];
        let texts = Texts::new(TemplateSet::builtin(), all_but_one.map(english).into(), true);
        let mut everybody = policy(Target::Role(ContactRole::Counsellor), "asha");
        everybody.steps[0].channels = vec![Channel::Whatsapp, Channel::Sms];
        let readiness = Readiness::look(NOW.parse().unwrap(), &directory, &[&everybody], &[], &texts);
        assert_eq!(
            told(&readiness),
            [
                "no counsellor_alert asha hi",
                "no taken_notice all hi",
                "no outcome_reminder all hi",
                "no follow_up_reminder all hi",
                "no follow_up_reminder all en"
            ]
        );
        assert_eq!(readiness.obstacles[0].bites_from(), None);
        assert_eq!(readiness.count("template_missing"), 5);
    }

    #[test]
    fn rungs_that_reach_nobody_and_methods_that_lie_idle_are_found() {
        let directory = Directory::new(vec![person("bela", Channel::Sms)]);
        let policy = policy(Target::Contact("bela".parse().unwrap()), "anita");
        let idle = [true, false].map(|opted_out| IdleMethod {
            contact: "bela".parse().unwrap(),
            channel: Channel::Whatsapp,
            opted_out,
        });
        let readiness = Readiness::look(NOW.parse().unwrap(), &directory, &[&policy], &idle, &simulated());
        assert_eq!(
            told(&readiness),
            ["step 0", "last", "on no ladder bela", "opted out bela whatsapp", "unverified bela whatsapp"]
        );
        let bites: Vec<bool> = readiness.obstacles.iter().map(|obstacle| obstacle.bites_from().is_some()).collect();
        assert_eq!(bites, [true, true, false, false, false]);
        assert!(readiness.obstacles.iter().all(|obstacle| Obstacle::KINDS.contains(&obstacle.kind())));
    }
}
