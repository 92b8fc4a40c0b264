//! The default ladder: the configuration's. It follows who is set up, in the configuration and over the API alike, and is
//! made anew whenever that changes. A case keeps the ladder that it was opened on; whom a role on it comes to is found when
//! the rung begins.

use std::time::Duration;

use super::explain::{Idle, WhyMissing};
use super::{Policy, Step, Target};
use crate::domain::contact::{Channel, Contact, ContactRole, Directory};
use crate::domain::ids::ContactId;

/// When each place of the usual ladder comes, counted from the beginning. A place that nobody has moves no other one.
const CALL: Duration = Duration::from_secs(90);
const SECOND: Duration = Duration::from_secs(180);
const EVERYBODY: Duration = Duration::from_secs(360);
const LAST_RESPONDER: Duration = Duration::from_secs(600);

/// What is known of the default ladder before it is known who is set up.
#[derive(Debug, Clone)]
pub struct DefaultLadder {
    figures: Policy,
    first: ContactId,
    names_last_responder: bool,
}

/// One place of the usual ladder.
struct Place {
    at: Duration,
    targets: Vec<Target>,
    channels: Vec<Channel>,
}

impl DefaultLadder {
    /// A ladder of these figures. Where it has no rungs everybody has the usual place, `first` the first one; where it does
    /// not name the last responder, that is whoever has the most to decide.
    pub const fn new(figures: Policy, first: ContactId, names_last_responder: bool) -> Self {
        Self { figures, first, names_last_responder }
    }

    /// Its counts and times, as they are set. Its rungs are not all there is to it: see [`Self::for_people`].
    pub const fn figures(&self) -> &Policy {
        &self.figures
    }

    /// The ladder as these people climb it; `idle` are those who are set up and cannot be told anything.
    pub fn for_people(&self, people: &Directory, idle: &Idle) -> Policy {
        let mut policy = self.figures.clone();
        if !self.names_last_responder {
            policy.last_responder = Target::Role(most_senior(people));
            policy.last_responder_channels = Channel::ALL.to_vec();
        }
        if policy.steps.is_empty() {
            self.give_usual_places(&mut policy, people, idle);
        }
        policy
    }

    fn give_usual_places(&self, policy: &mut Policy, people: &Directory, idle: &Idle) {
        let first = people.contact(&self.first).map(channels_of).unwrap_or_else(|| vec![Channel::Whatsapp]);
        let (called, written) = first.into_iter().partition(|channel| *channel == Channel::Voice);
        let first = || vec![Target::Contact(self.first.clone())];
        let mut places = vec![
            Place { at: Duration::ZERO, targets: first(), channels: written },
            Place { at: CALL, targets: first(), channels: called },
        ];
        let has_others = people.people().any(|person| person.id != self.first);
        if has_others {
            let second = people.with_role(ContactRole::Counsellor).find(|person| person.id != self.first);
            places.extend(second.map(|second| Place {
                at: SECOND,
                targets: vec![Target::Contact(second.id.clone())],
                channels: channels_of(second),
            }));
            // Whoever leads and is not verified yet may be by then; and is not to be overlooked where this is explained.
            let waits = idle.values().any(|idle| idle.role == ContactRole::Lead && idle.why != WhyMissing::Inactive);
            let leads = waits || people.with_role(ContactRole::Lead).next().is_some();
            let roles = leads.then_some(ContactRole::Lead).into_iter().chain([ContactRole::Counsellor]);
            places.push(Place {
                at: EVERYBODY,
                targets: roles.map(Target::Role).collect(),
                channels: Channel::ALL.to_vec(),
            });
        }
        places.retain(|place| !place.channels.is_empty());
        // The first rung begins with the case, whichever it is.
        let mut begun = Duration::ZERO;
        let mut steps = Vec::new();
        for Place { at, targets, channels } in places {
            let at = if steps.is_empty() { Duration::ZERO } else { at };
            steps.push(Step { after: at.saturating_sub(begun), targets, channels });
            begun = at;
        }
        policy.steps = steps;
        if has_others {
            policy.repeat_every = LAST_RESPONDER.saturating_sub(begun);
            policy.further_rounds_with_last = true;
        }
    }
}

/// Who is told at last, if nobody is named: whoever has the most to decide, of those who can be told.
fn most_senior(people: &Directory) -> ContactRole {
    let senior = [ContactRole::DutyManager, ContactRole::Lead];
    let is_there = |role: &ContactRole| people.with_role(*role).next().is_some();
    senior.into_iter().find(is_there).unwrap_or(ContactRole::Counsellor)
}

/// Over what a person can be told, the usual first.
fn channels_of(person: &Contact) -> Vec<Channel> {
    let has = |channel: &Channel| person.methods.iter().any(|method| method.channel == *channel);
    Channel::ALL.into_iter().filter(has).collect()
}

#[cfg(test)]
mod tests {
    use super::super::Stage;
    use super::super::explain::IdleContact;
    use super::*;
    use crate::domain::contact::ContactMethod;
    use crate::domain::ids::{AddressKey, PersonKey};
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

    fn figures() -> Policy {
        Policy {
            id: "default".parse().unwrap(),
            version: 1,
            steps: Vec::new(),
            rounds: 3,
            repeat_every: Duration::from_secs(300),
            last_responder: Target::Contact("anita".parse().unwrap()),
            last_responder_channels: vec![Channel::Whatsapp],
            last_responder_every: Duration::from_secs(300),
            further_rounds_with_last: false,
            fall_over_after: Duration::from_secs(30),
            act_within: Duration::from_secs(900),
            check_in_within: Duration::from_secs(300),
            resolve_by_reply: false,
            emergency_contact_after: None,
            respond_within: Duration::from_secs(300),
        }
    }

    const ALL: [Channel; 3] = Channel::ALL;
    const COUNSELLOR: ContactRole = ContactRole::Counsellor;
    const LEAD: ContactRole = ContactRole::Lead;
    const MANAGER: ContactRole = ContactRole::DutyManager;

    /// Each rung in words: when it begins, in seconds; whom it is for; over what.
    fn shown(people: &[(&str, ContactRole, &[Channel])], idle: &[(&str, ContactRole)]) -> Vec<String> {
        let people = people.iter().map(|(id, role, channels)| person(id, *role, channels)).collect();
        let idle = idle
            .iter()
            .map(|(id, role)| (id.parse().unwrap(), IdleContact { role: *role, why: WhyMissing::Unverified }));
        let ladder = DefaultLadder::new(figures(), "anita".parse().unwrap(), false);
        let policy = ladder.for_people(&Directory::new(people), &idle.collect());
        let (mut stage, mut at, mut shown) = (Stage::FIRST, 0, Vec::new());
        for _ in 0..6 {
            let (targets, channels) = stage.targets(&policy);
            let targets = targets.iter().map(|target| match target {
                Target::Contact(id) => id.to_string(),
                Target::Role(role) => format!("every {}", role.as_str()),
                Target::Schedule(id) => format!("on call by {id}"),
            });
            let is_last = if stage.rung().is_none() { "at last " } else { "" };
            let (targets, channels) = (targets.collect::<Vec<_>>(), channels.iter().map(|channel| channel.as_str()));
            let channels = channels.collect::<Vec<_>>().join("+");
            shown.push(format!("{at} {is_last}{} over {channels}", targets.join(", ")));
            at += stage.patience(&policy).as_secs();
            stage = stage.next(&policy);
        }
        shown
    }

    #[test]
    fn with_somebody_in_each_place_the_figures_are_those_that_were_promised() {
        let two: [Channel; 2] = [Channel::Whatsapp, Channel::Sms];
        let people: [(&str, ContactRole, &[Channel]); 5] = [
            ("anita", COUNSELLOR, &ALL),
            ("bela", COUNSELLOR, &two),
            ("chetan", COUNSELLOR, &ALL),
            ("lead", LEAD, &ALL),
            ("manager", MANAGER, &ALL),
        ];
        let promised = [
            "0 anita over whatsapp+sms",
            "90 anita over voice",
            "180 bela over whatsapp+sms",
            "360 every lead, every counsellor over whatsapp+sms+voice",
            "600 at last every duty_manager over whatsapp+sms+voice",
            "900 at last every duty_manager over whatsapp+sms+voice",
        ];
        assert_eq!(shown(&people, &[]), promised);
    }

    #[test]
    fn a_place_that_nobody_has_moves_no_other_one() {
        let starts = |people: &[(&str, ContactRole, &[Channel])]| {
            let shown = shown(people, &[]);
            shown.iter().map(|rung| rung.split(" over ").next().unwrap().to_owned()).collect::<Vec<_>>()
        };
        let (anita, bela) = (("anita", COUNSELLOR, &ALL[..]), ("bela", COUNSELLOR, &ALL[..]));
        let mute = ("anita", COUNSELLOR, &ALL[..2]);
        let (lead, manager) = (("lead", LEAD, &ALL[..]), ("manager", MANAGER, &ALL[..]));
        assert_eq!(
            starts(&[anita, lead, manager])[..4],
            ["0 anita", "90 anita", "360 every lead, every counsellor", "600 at last every duty_manager"]
        );
        assert_eq!(
            starts(&[mute, lead, manager])[..3],
            ["0 anita", "360 every lead, every counsellor", "600 at last every duty_manager"]
        );
        assert_eq!(
            starts(&[anita, bela])[..5],
            ["0 anita", "90 anita", "180 bela", "360 every counsellor", "600 at last every counsellor"]
        );
        assert_eq!(
            starts(&[mute, manager])[..3],
            ["0 anita", "360 every counsellor", "600 at last every duty_manager"]
        );
        assert_eq!(starts(&[anita, lead])[3], "600 at last every lead");
        // Who can be called only is called at once.
        let called = ("anita", COUNSELLOR, &ALL[2..]);
        assert_eq!(starts(&[called, bela])[..3], ["0 anita", "180 bela", "360 every counsellor"]);
    }

    #[test]
    fn who_is_alone_is_told_again_in_rounds_as_they_are_set() {
        let starts = shown(&[("anita", COUNSELLOR, &ALL[..2])], &[("lead", LEAD)]);
        let told = "every counsellor over whatsapp+sms+voice";
        let rounds = ["0", "300", "600"].map(|at| format!("{at} anita over whatsapp+sms"));
        let last = ["900", "1200", "1500"].map(|at| format!("{at} at last {told}"));
        assert_eq!(starts, [rounds, last].concat());
    }

    #[test]
    fn a_lead_who_waits_to_be_verified_has_a_place_and_no_last_responder_does() {
        let starts = shown(
            &[("anita", COUNSELLOR, &ALL[..1]), ("bela", COUNSELLOR, &ALL[..1])],
            &[("lead", LEAD), ("manager", MANAGER)],
        );
        assert_eq!(starts[2], "360 every lead, every counsellor over whatsapp+sms+voice");
        assert_eq!(starts[3], "600 at last every counsellor over whatsapp+sms+voice");
    }

    #[test]
    fn what_is_written_stands() {
        let step = Step { after: Duration::ZERO, targets: vec![Target::Role(LEAD)], channels: vec![Channel::Sms] };
        let written = Policy { steps: vec![step], ..figures() };
        let ladder = DefaultLadder::new(written.clone(), "anita".parse().unwrap(), true);
        assert_eq!(ladder.for_people(&Directory::default(), &Idle::new()), written);
    }
}
