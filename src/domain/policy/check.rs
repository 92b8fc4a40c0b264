//! Whether a policy can do its work, looked at as a whole: everybody whom it names is there and can be told, and nobody is
//! waited for in vain.

use std::ops::RangeInclusive;
use std::time::Duration;

use jiff::Timestamp;

use super::explain::{Idle, IdleContact, WhyMissing};
use super::{Policy, Target};
use crate::domain::contact::{Channel, Contact, ContactRole, Directory};
use crate::domain::ids::ContactId;

/// How many rungs a ladder may have.
pub const STEPS_MAX: usize = 16;
/// How many targets a rung may name.
pub const TARGETS_MAX: usize = 16;
/// How often a ladder may be climbed.
pub const ROUNDS_MAX: u32 = 100;
/// How far ahead gaps are looked for.
pub const OUTLOOK: Duration = Duration::from_secs(14 * 86_400);

/// What is not in order with a policy. Its [`rule`](Self::rule) says what must hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shortcoming {
    /// No rungs, or too many.
    StepCount,
    /// A rung names nobody, or too many.
    TargetCount,
    /// A rung names the same target twice.
    TargetTwice,
    /// No channel.
    NoChannel,
    /// One channel twice: a message is tried again by itself.
    ChannelTwice,
    /// A contact who is not there.
    UnknownContact,
    /// A contact who cannot be told over any of the channels.
    ContactUnreachable,
    /// A role that is told otherwise, if at all.
    NotStaff,
    /// A role of which nobody can be told over any of the channels.
    RoleUnreachable,
    /// A schedule that is not there.
    UnknownSchedule,
    /// A schedule of which nobody can be told over any of the channels.
    ScheduleUnreachable,
    /// At last somebody must be there, whatever the hour.
    LastResponderOnCall,
    /// How often the ladder is climbed.
    Rounds,
    /// A time that is out of its range.
    After,
    /// The same.
    Repeat,
    /// The same.
    FallOver,
    /// The same.
    ActWithin,
    /// The same.
    RespondWithin,
    /// The same.
    EmergencyContactAfter,
    /// Some of those who are named cannot be told over any of the channels. No fault, but a warning.
    SomeUnreachable,
    /// In the next two weeks nobody is on call for a while. No fault, but a warning.
    Gap,
}

impl Shortcoming {
    /// What must hold, fit to be shown.
    pub const fn rule(self) -> &'static str {
        match self {
            Self::StepCount => "must have 1 to 16 steps",
            Self::TargetCount => "must name 1 to 16 contacts, roles or schedules",
            Self::TargetTwice => "must be named once in a step",
            Self::NoChannel => "must name a channel",
            Self::ChannelTwice => "must name each channel once: a message is tried again by itself",
            Self::UnknownContact => "must be a contact who is set up",
            Self::ContactUnreachable => "must be an active contact with a verified number on one of the channels",
            Self::NotStaff => "must be counsellor, lead or duty_manager",
            Self::RoleUnreachable => "must be a role of which somebody has a verified number on one of the channels",
            Self::UnknownSchedule => "must be a schedule that is set up",
            Self::ScheduleUnreachable => {
                "must be a schedule of which somebody has a verified number on one of the channels"
            }
            Self::LastResponderOnCall => "must be a contact or a role: a schedule may have a gap",
            Self::Rounds => "must be 1 to 100",
            Self::After => "must be from 0 seconds to an hour",
            Self::Repeat => "must be from 10 seconds to an hour",
            Self::FallOver => "must be from 5 seconds to 10 minutes",
            Self::ActWithin => "must be from a minute to a day",
            Self::RespondWithin => "must be from a minute to an hour",
            Self::EmergencyContactAfter => "must be from a minute to a day",
            Self::SomeUnreachable => "comes to people who cannot be told over any of the channels",
            Self::Gap => "has a gap in the next 14 days: the next step begins at once then",
        }
    }

    /// Whether it is that people cannot be told, which verifying a number may mend.
    pub const fn is_of_reach(self) -> bool {
        match self {
            Self::ContactUnreachable | Self::RoleUnreachable | Self::ScheduleUnreachable | Self::SomeUnreachable => {
                true
            }
            Self::StepCount
            | Self::TargetCount
            | Self::TargetTwice
            | Self::NoChannel
            | Self::ChannelTwice
            | Self::UnknownContact
            | Self::NotStaff
            | Self::UnknownSchedule
            | Self::LastResponderOnCall
            | Self::Rounds
            | Self::After
            | Self::Repeat
            | Self::FallOver
            | Self::ActWithin
            | Self::RespondWithin
            | Self::EmergencyContactAfter
            | Self::Gap => false,
        }
    }

    /// Whether a policy must not be so. Else it is a warning.
    pub const fn is_fault(self) -> bool {
        match self {
            Self::SomeUnreachable | Self::Gap => false,
            Self::StepCount
            | Self::TargetCount
            | Self::TargetTwice
            | Self::NoChannel
            | Self::ChannelTwice
            | Self::UnknownContact
            | Self::ContactUnreachable
            | Self::NotStaff
            | Self::RoleUnreachable
            | Self::UnknownSchedule
            | Self::ScheduleUnreachable
            | Self::LastResponderOnCall
            | Self::Rounds
            | Self::After
            | Self::Repeat
            | Self::FallOver
            | Self::ActWithin
            | Self::EmergencyContactAfter
            | Self::RespondWithin => true,
        }
    }
}

/// A field of a policy that is not in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Where: a path such as `steps[2].targets[0]`.
    pub field: String,
    /// What.
    pub what: Shortcoming,
}

/// Whom a policy is held against.
#[derive(Debug, Clone, Copy)]
pub struct Staff<'a> {
    /// Everybody who can be told, and who of them is on call when.
    pub directory: &'a Directory,
    /// Everybody who is set up besides, and cannot be told anything.
    pub idle: &'a Idle,
    /// The time, from which on gaps are looked for.
    pub now: Timestamp,
}

/// Everything that is not in order with a policy: faults, and warnings.
pub fn check(policy: &Policy, staff: &Staff<'_>) -> Vec<Finding> {
    let mut list = List { found: Vec::new(), staff };
    list.note_if(!(1..=STEPS_MAX).contains(&policy.steps.len()), "steps", Shortcoming::StepCount);
    for (place, step) in policy.steps.iter().enumerate() {
        let at = format!("steps[{place}]");
        let count = step.targets.len();
        list.note_if(!(1..=TARGETS_MAX).contains(&count), format!("{at}.targets"), Shortcoming::TargetCount);
        list.channels(&format!("{at}.channels"), &step.channels);
        for (place, target) in step.targets.iter().enumerate() {
            let field = format!("{at}.targets[{place}]");
            list.note_if(step.targets[..place].contains(target), &field, Shortcoming::TargetTwice);
            list.target(&field, target, &step.channels);
        }
        list.note_if(step.after > HOUR, format!("{at}.after_seconds"), Shortcoming::After);
    }
    list.channels("last_responder_channels", &policy.last_responder_channels);
    let on_call = matches!(policy.last_responder, Target::Schedule(_));
    list.note_if(on_call, "last_responder", Shortcoming::LastResponderOnCall);
    if !on_call {
        list.target("last_responder", &policy.last_responder, &policy.last_responder_channels);
    }
    list.times(policy);
    list.found
}

const HOUR: Duration = Duration::from_secs(3_600);

/// What has been found so far.
struct List<'a> {
    found: Vec<Finding>,
    staff: &'a Staff<'a>,
}

impl List<'_> {
    fn note_if(&mut self, is_so: bool, field: impl Into<String>, what: Shortcoming) {
        if is_so {
            self.found.push(Finding { field: field.into(), what });
        }
    }

    fn is_known(&self, id: &ContactId) -> bool {
        self.staff.directory.contact(id).is_some() || self.staff.idle.contains_key(id)
    }

    fn channels(&mut self, field: &str, channels: &[Channel]) {
        let twice = (1..channels.len()).any(|place| channels[..place].contains(&channels[place]));
        self.note_if(channels.is_empty(), field, Shortcoming::NoChannel);
        self.note_if(twice, field, Shortcoming::ChannelTwice);
    }

    fn target(&mut self, field: &str, target: &Target, channels: &[Channel]) {
        let directory = self.staff.directory;
        let can_be_told = |person: &&Contact| channels.is_empty() || can_be_told(person, channels);
        let people = target.ever(directory);
        let reachable = people.iter().filter(|person| can_be_told(person)).count();
        let nobody = match target {
            Target::Contact(id) if !self.is_known(id) => Some(Shortcoming::UnknownContact),
            Target::Contact(_) => Some(Shortcoming::ContactUnreachable),
            Target::Role(role) if !ContactRole::STAFF.contains(role) => Some(Shortcoming::NotStaff),
            Target::Role(_) => Some(Shortcoming::RoleUnreachable),
            Target::Schedule(id) if directory.schedule(id).is_none() => Some(Shortcoming::UnknownSchedule),
            Target::Schedule(_) => Some(Shortcoming::ScheduleUnreachable),
        };
        let named = match target {
            Target::Contact(_) => people.len(),
            Target::Role(role) => {
                let of_role = |idle: &&IdleContact| idle.role == *role && idle.why != WhyMissing::Inactive;
                people.len() + self.staff.idle.values().filter(of_role).count()
            }
            Target::Schedule(id) => directory.schedule(id).map_or(0, |schedule| schedule.names().len()),
        };
        match nobody {
            Some(fault) if reachable == 0 => self.note_if(true, field, fault),
            Some(_) | None => self.note_if(reachable < named, field, Shortcoming::SomeUnreachable),
        }
        if let Target::Schedule(id) = target
            && let Some(schedule) = directory.schedule(id)
        {
            let until = self.staff.now.saturating_add(OUTLOOK).unwrap_or(Timestamp::MAX);
            let gaps = !schedule.gaps(self.staff.now, until).is_empty();
            self.note_if(gaps, field, Shortcoming::Gap);
        }
    }

    fn times(&mut self, policy: &Policy) {
        let seconds =
            |range: RangeInclusive<u64>| Duration::from_secs(*range.start())..=Duration::from_secs(*range.end());
        let ranges = [
            ("repeat_every_seconds", policy.repeat_every, seconds(10..=3_600), Shortcoming::Repeat),
            ("last_responder_every_seconds", policy.last_responder_every, seconds(10..=3_600), Shortcoming::Repeat),
            ("fall_over_after_seconds", policy.fall_over_after, seconds(5..=600), Shortcoming::FallOver),
            ("act_within_seconds", policy.act_within, seconds(60..=86_400), Shortcoming::ActWithin),
            ("check_in_within_seconds", policy.check_in_within, seconds(60..=3_600), Shortcoming::RespondWithin),
            ("respond_within_seconds", policy.respond_within, seconds(60..=3_600), Shortcoming::RespondWithin),
        ];
        if let Some(after) = policy.emergency_contact_after {
            let is_out = !seconds(60..=86_400).contains(&after);
            self.note_if(is_out, "emergency_contact_after_seconds", Shortcoming::EmergencyContactAfter);
        }
        self.note_if(!(1..=ROUNDS_MAX).contains(&policy.rounds), "rounds", Shortcoming::Rounds);
        for (field, value, range, what) in ranges {
            self.note_if(!range.contains(&value), field, what);
        }
    }
}

/// Whether a person has a number on one of these channels.
pub fn can_be_told(person: &Contact, channels: &[Channel]) -> bool {
    person.methods.iter().any(|method| channels.contains(&method.channel))
}

#[cfg(test)]
mod tests {
    use super::super::Step;
    use super::*;
    use crate::domain::contact::ContactMethod;
    use crate::domain::ids::{AddressKey, PersonKey};
    use crate::domain::schedule::{Schedule, Shift};
    use crate::domain::sealed::Sealed;

    fn person(id: &str, role: ContactRole, channels: &[Channel]) -> Contact {
        let method = |channel: &Channel| ContactMethod {
            channel: *channel,
            address: Sealed(String::new()),
            address_key: AddressKey::from_bytes([1; 32]),
        };
        Contact {
            id: id.parse().unwrap(),
            organisation: "mitra".parse().unwrap(),
            person: PersonKey::from_bytes([1; 32]),
            role,
            language: "en".parse().unwrap(),
            methods: channels.iter().map(method).collect(),
        }
    }

    fn schedule(id: &str, people: &[&str], until: &str) -> Schedule {
        let people = people.iter().map(|id| id.parse().unwrap()).collect();
        Schedule {
            id: id.parse().unwrap(),
            version: 1,
            time_zone: "Asia/Kolkata".parse().unwrap(),
            shifts: vec![Shift { from: "monday 08:00".parse().unwrap(), until: until.parse().unwrap(), people }],
            overrides: Vec::new(),
            absences: Vec::new(),
        }
    }

    const BOTH: [Channel; 2] = [Channel::Whatsapp, Channel::Sms];

    fn directory() -> Directory {
        let people = vec![
            person("anita", ContactRole::Counsellor, &BOTH),
            person("bela", ContactRole::Counsellor, &[Channel::Sms]),
            person("chetan", ContactRole::DutyManager, &BOTH),
        ];
        Directory::new(people).with_schedules(vec![
            schedule("always", &["anita"], "monday 08:00"),
            schedule("mondays", &["anita", "devi"], "monday 20:00"),
            schedule("nobody", &["devi"], "monday 08:00"),
        ])
    }

    fn contact(id: &str) -> Target {
        Target::Contact(id.parse().unwrap())
    }

    fn on_call(id: &str) -> Target {
        Target::Schedule(id.parse().unwrap())
    }

    fn policy() -> Policy {
        let step = |target| Step { after: Duration::from_secs(180), targets: vec![target], channels: BOTH.to_vec() };
        Policy {
            id: "night".parse().unwrap(),
            version: 1,
            steps: vec![step(contact("anita")), step(Target::Role(ContactRole::Counsellor)), step(on_call("always"))],
            rounds: 2,
            repeat_every: Duration::from_secs(300),
            last_responder: contact("chetan"),
            last_responder_channels: BOTH.to_vec(),
            last_responder_every: Duration::from_secs(180),
            further_rounds_with_last: false,
            fall_over_after: Duration::from_secs(30),
            act_within: Duration::from_secs(900),
            check_in_within: Duration::from_secs(300),
            resolve_by_reply: false,
            emergency_contact_after: None,
            respond_within: Duration::from_secs(300),
        }
    }

    fn found(change: impl FnOnce(&mut Policy)) -> Vec<(String, Shortcoming)> {
        let mut policy = policy();
        change(&mut policy);
        let devi = IdleContact { role: ContactRole::Lead, why: WhyMissing::Unverified };
        let idle = Idle::from([("devi".parse().unwrap(), devi)]);
        let directory = directory();
        let now = "2026-11-20T10:00:00Z".parse().unwrap();
        let found = check(&policy, &Staff { directory: &directory, idle: &idle, now });
        found.into_iter().map(|finding| (finding.field, finding.what)).collect()
    }

    #[test]
    fn a_ladder_that_reaches_everybody_whom_it_names_is_in_order() {
        assert_eq!(found(|_| {}), []);
    }

    #[test]
    fn each_shortcoming_is_told_by_its_place() {
        type Case = (fn(&mut Policy), &'static str, Shortcoming);
        let cases: [Case; 26] = [
            (|policy| policy.steps.clear(), "steps", Shortcoming::StepCount),
            (|policy| policy.steps = vec![policy.steps[0].clone(); 17], "steps", Shortcoming::StepCount),
            (|policy| policy.steps[1].targets.clear(), "steps[1].targets", Shortcoming::TargetCount),
            (|policy| policy.steps[0].targets.push(contact("anita")), "steps[0].targets[1]", Shortcoming::TargetTwice),
            (|policy| policy.steps[0].channels.clear(), "steps[0].channels", Shortcoming::NoChannel),
            (|policy| policy.steps[0].channels.push(Channel::Sms), "steps[0].channels", Shortcoming::ChannelTwice),
            (
                |policy| policy.steps[0].targets = vec![contact("eshan")],
                "steps[0].targets[0]",
                Shortcoming::UnknownContact,
            ),
            (
                |policy| policy.steps[0].targets = vec![contact("devi")],
                "steps[0].targets[0]",
                Shortcoming::ContactUnreachable,
            ),
            (
                |policy| {
                    policy.steps[0].targets = vec![contact("bela")];
                    policy.steps[0].channels = vec![Channel::Whatsapp];
                },
                "steps[0].targets[0]",
                Shortcoming::ContactUnreachable,
            ),
            (
                |policy| policy.steps[0].targets = vec![Target::Role(ContactRole::EmergencyContact)],
                "steps[0].targets[0]",
                Shortcoming::NotStaff,
            ),
            (
                |policy| policy.steps[0].targets = vec![Target::Role(ContactRole::Lead)],
                "steps[0].targets[0]",
                Shortcoming::RoleUnreachable,
            ),
            (
                |policy| policy.steps[1].channels = vec![Channel::Whatsapp],
                "steps[1].targets[0]",
                Shortcoming::SomeUnreachable,
            ),
            (
                |policy| policy.steps[2].targets = vec![on_call("gone")],
                "steps[2].targets[0]",
                Shortcoming::UnknownSchedule,
            ),
            (
                |policy| policy.steps[2].targets = vec![on_call("nobody")],
                "steps[2].targets[0]",
                Shortcoming::ScheduleUnreachable,
            ),
            (|policy| policy.last_responder = on_call("always"), "last_responder", Shortcoming::LastResponderOnCall),
            (|policy| policy.last_responder = contact("devi"), "last_responder", Shortcoming::ContactUnreachable),
            (|policy| policy.last_responder_channels.clear(), "last_responder_channels", Shortcoming::NoChannel),
            (|policy| policy.rounds = 0, "rounds", Shortcoming::Rounds),
            (|policy| policy.steps[1].after = Duration::from_secs(3_601), "steps[1].after_seconds", Shortcoming::After),
            (|policy| policy.repeat_every = Duration::from_secs(9), "repeat_every_seconds", Shortcoming::Repeat),
            (
                |policy| policy.last_responder_every = Duration::from_secs(3_601),
                "last_responder_every_seconds",
                Shortcoming::Repeat,
            ),
            (|policy| policy.fall_over_after = Duration::ZERO, "fall_over_after_seconds", Shortcoming::FallOver),
            (|policy| policy.act_within = Duration::from_secs(30), "act_within_seconds", Shortcoming::ActWithin),
            (
                |policy| policy.check_in_within = Duration::from_secs(30),
                "check_in_within_seconds",
                Shortcoming::RespondWithin,
            ),
            (
                |policy| policy.emergency_contact_after = Some(Duration::from_secs(30)),
                "emergency_contact_after_seconds",
                Shortcoming::EmergencyContactAfter,
            ),
            (
                |policy| policy.respond_within = Duration::from_secs(30),
                "respond_within_seconds",
                Shortcoming::RespondWithin,
            ),
        ];
        for (change, field, what) in cases {
            assert_eq!(found(change), [(field.to_owned(), what)], "{field}");
        }
    }

    #[test]
    fn a_schedule_with_gaps_or_with_people_who_cannot_be_told_is_a_warning() {
        let found = found(|policy| policy.steps[2].targets = vec![on_call("mondays")]);
        let field = "steps[2].targets[0]".to_owned();
        assert_eq!(found, [(field.clone(), Shortcoming::SomeUnreachable), (field, Shortcoming::Gap)]);
        assert!(found.iter().all(|(_, what)| !what.is_fault()));
    }
    #[test]
    fn people_of_a_role_who_cannot_be_told_are_a_warning() {
        let found = found(|policy| {
            policy.steps[0].targets = vec![Target::Role(ContactRole::Lead), contact("anita")];
            policy.steps[1].targets = vec![Target::Role(ContactRole::Counsellor)];
        });
        assert_eq!(found, [("steps[0].targets[0]".to_owned(), Shortcoming::RoleUnreachable)]);
        let mut policy = policy();
        policy.steps[1].targets = vec![Target::Role(ContactRole::Counsellor)];
        let eshan = IdleContact { role: ContactRole::Counsellor, why: WhyMissing::Unverified };
        let left = IdleContact { role: ContactRole::DutyManager, why: WhyMissing::Inactive };
        policy.last_responder = Target::Role(ContactRole::DutyManager);
        let idle = Idle::from([("eshan".parse().unwrap(), eshan), ("farah".parse().unwrap(), left)]);
        let (directory, now) = (directory(), "2026-11-20T10:00:00Z".parse().unwrap());
        let found = check(&policy, &Staff { directory: &directory, idle: &idle, now });
        let found: Vec<_> = found.into_iter().map(|finding| (finding.field, finding.what)).collect();
        assert_eq!(found, [("steps[1].targets[0]".to_owned(), Shortcoming::SomeUnreachable)]);
    }
}
