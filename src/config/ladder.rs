//! Who is told, and in which order: `[[contacts]]`, `[[policy.steps]]`, and the last responder.

use std::time::Duration;

use super::names::meant;
use super::reader::{Reader, parse_duration, show_duration};
use super::settings::{Contact, Counsellor, Step};
use crate::domain::contact::{Channel, ContactRole, Language, PhoneNumber};
use crate::domain::ids::ContactId;
use crate::domain::policy::Target;

/// The longest that a rung may wait for.
const AFTER_MAX: Duration = Duration::from_secs(3_600);
/// How many people there may be: a case carries the newest message to each phone.
const PEOPLE_MAX: usize = 16;
/// Where a person's numbers stand.
const NUMBERS: [(Channel, &str); 3] =
    [(Channel::Whatsapp, "whatsapp_to"), (Channel::Sms, "sms_to"), (Channel::Voice, "voice_to")];

/// One table of a list, read field by field.
struct Fields<'r, 'l> {
    r: &'r mut Reader<'l>,
    /// `contacts[0]`.
    at: String,
    table: &'l toml::Table,
}

impl<'l> Fields<'_, 'l> {
    fn refuse_others(&mut self, known: &[&str]) {
        for field in self.table.keys().filter(|field| !known.contains(&field.as_str())) {
            let remedy = meant(field, known.iter().copied())
                .map_or_else(|| "remove it".to_owned(), |near| format!("did you mean {near}?"));
            self.r.fault(&self.at, format!("has a field that is none of {}", known.join(", ")), remedy);
        }
    }

    fn fault(&mut self, field: &str, rule: &str, remedy: &str) {
        self.r.fault(&format!("{}.{field}", self.at), rule, remedy);
    }

    /// A text; `None` where there is none, and where it does not fit, which is a fault.
    fn text<T>(&mut self, field: &str, rule: &str, remedy: &str, parse: impl Fn(&str) -> Option<T>) -> Option<T> {
        let value = self.table.get(field)?;
        let parsed = value.as_str().map(str::trim).and_then(parse);
        if parsed.is_none() {
            self.fault(field, rule, remedy);
        }
        parsed
    }

    /// A list of words; each that does not fit is a fault.
    fn words<T>(&mut self, field: &str, rule: &str, remedy: &str, parse: impl Fn(&str) -> Option<T>) -> Vec<T> {
        let Some(value) = self.table.get(field) else { return Vec::new() };
        let words = value.as_array().map(|words| words.iter().map(toml::Value::as_str).collect::<Vec<_>>());
        let parsed: Option<Vec<T>> =
            words.and_then(|words| words.into_iter().map(|word| parse(word?.trim())).collect());
        if parsed.is_none() {
            self.fault(field, rule, remedy);
        }
        parsed.unwrap_or_default()
    }
}

/// The people of `[[contacts]]`. What is not in order is left out, and is a fault.
pub(super) fn contacts(r: &mut Reader<'_>) -> Vec<Contact> {
    let tables = r.tables("contacts");
    if tables.len() >= PEOPLE_MAX {
        let remedy = "leave out who is never told; a case keeps what it told each of them";
        r.fault("contacts", format!("are too many: with [counsellor] at the most {PEOPLE_MAX}"), remedy);
    }
    tables.into_iter().enumerate().filter_map(|(index, table)| contact(r, index, table)).collect()
}

fn contact<'l>(r: &mut Reader<'l>, index: usize, table: &'l toml::Table) -> Option<Contact> {
    const NUMBER: (&str, &str) = ("must be a phone number in E.164 form", "write + and the country code, digits only");
    let mut fields = Fields { r, at: format!("contacts[{index}]"), table };
    fields.refuse_others(&["id", "role", "language", "whatsapp_to", "sms_to", "voice_to"]);
    let (rule, remedy) = ("must be 1 to 64 letters, digits, '-' or '_'", "choose an id that is not a name");
    let id = fields.text("id", rule, remedy, |text| text.parse::<ContactId>().ok());
    if !table.contains_key("id") {
        fields.fault("id", "is missing", remedy);
    }
    let (rule, remedy) = ("must be counsellor, lead or duty_manager", "choose one of these words");
    let role = fields.text("role", rule, remedy, ContactRole::staff_from_word);
    if !table.contains_key("role") {
        fields.fault("role", "is missing", remedy);
    }
    let (rule, remedy) = ("must be a language tag of two or three small letters", "write it like en or hi");
    let language = match table.contains_key("language") {
        true => fields.text("language", rule, remedy, |text| text.parse::<Language>().ok()),
        false => "en".parse().ok(),
    };
    let mut methods = Vec::new();
    for (channel, field) in NUMBERS {
        let number = fields.text(field, NUMBER.0, NUMBER.1, |text| text.parse::<PhoneNumber>().ok());
        methods.extend(number.map(|number| (channel, number)));
    }
    if !NUMBERS.iter().any(|(_, field)| table.contains_key(*field)) {
        fields.fault("whatsapp_to", "is missing, and so are sms_to and voice_to: this person cannot be told", NUMBER.1);
    }
    Some(Contact { index, id: id?, role: role?, language: language?, methods })
}

/// Everybody who can be told.
pub(super) struct People {
    all: Vec<(ContactId, ContactRole, Vec<Channel>)>,
}

impl People {
    pub(super) fn new(counsellor: &Counsellor, contacts: &[Contact]) -> Self {
        let first = (counsellor.contact_id.clone(), ContactRole::Counsellor, counsellor_channels(counsellor));
        let further = contacts.iter().map(|contact| {
            let channels = contact.methods.iter().map(|(channel, _)| *channel).collect();
            (contact.id.clone(), contact.role, channels)
        });
        Self { all: std::iter::once(first).chain(further).collect() }
    }

    fn channels_of(&self, id: &ContactId) -> Option<&[Channel]> {
        self.all.iter().find(|(known, ..)| known == id).map(|(.., channels)| channels.as_slice())
    }

    /// Every channel over which one of them has a number, the usual first.
    fn channels_of_all(&self, contacts: &[ContactId]) -> Vec<Channel> {
        let has = |channel: &Channel| {
            contacts.iter().filter_map(|id| self.channels_of(id)).any(|theirs| theirs.contains(channel))
        };
        Channel::ALL.into_iter().filter(has).collect()
    }

    /// Who of the configuration is told at last, if nobody is named. Over the API there may be somebody more senior.
    fn most_senior(&self) -> Vec<ContactId> {
        let of = |role| self.with_role(role).cloned().collect::<Vec<_>>();
        let senior = [ContactRole::DutyManager, ContactRole::Lead].map(of);
        senior.into_iter().find(|people| !people.is_empty()).unwrap_or_else(|| of(ContactRole::Counsellor))
    }

    fn with_role(&self, role: ContactRole) -> impl Iterator<Item = &ContactId> {
        self.all.iter().filter(move |(_, of, _)| *of == role).map(|(id, ..)| id)
    }
}

/// The counsellor's channels. In development nobody may be set: then the simulator has a phone for them.
fn counsellor_channels(counsellor: &Counsellor) -> Vec<Channel> {
    let sms = counsellor.sms_to.is_some().then_some(Channel::Sms);
    let voice = counsellor.voice_to.is_some().then_some(Channel::Voice);
    [Channel::Whatsapp].into_iter().chain(sms).chain(voice).collect()
}

/// The rungs, as they are written; none: everybody has the usual place. What is not in order is left out, and is a fault.
pub(super) fn steps(r: &mut Reader<'_>, people: &People) -> Vec<Step> {
    let mut seen = std::collections::BTreeSet::new();
    for (id, ..) in &people.all {
        if !seen.insert(id) {
            r.fault(
                "contacts",
                format!("hold the id {id} twice (one is counsellor.contact_id)"),
                "give each an id of its own",
            );
        }
    }
    let steps = r.tables("policy.steps").into_iter().enumerate();
    steps.map(|(index, table)| step(r, index, table, people)).collect()
}

fn step<'l>(r: &mut Reader<'l>, index: usize, table: &'l toml::Table, people: &People) -> Step {
    let mut fields = Fields { r, at: format!("policy.steps[{index}]"), table };
    fields.refuse_others(&["after", "contacts", "roles", "channels"]);
    let rule = format!("must be a span of time up to {}", show_duration(AFTER_MAX));
    let span = |text: &str| parse_duration(text).filter(|span| *span <= AFTER_MAX);
    let after = fields.text("after", &rule, "write it like 90s", span);
    if index > 0 && !table.contains_key("after") {
        fields.fault("after", "is missing", "write how long after the rung before it, like 90s");
    }
    const LIKE: &str = "write it like [\"whatsapp\", \"sms\"]";
    let (rule, remedy) = ("must be a list of whatsapp, sms and voice", LIKE);
    let channels = fields.words("channels", rule, remedy, Channel::from_word);
    let (rule, remedy) = ("must be a list of ids", "write it like [\"counsellor\"]");
    let mut contacts = fields.words("contacts", rule, remedy, |word| word.parse::<ContactId>().ok());
    let (rule, remedy) = ("must be a list of counsellor, lead and duty_manager", "write it like [\"lead\"]");
    let roles = fields.words("roles", rule, remedy, ContactRole::staff_from_word);
    let mut seen = std::collections::BTreeSet::new();
    contacts.retain(|id| seen.insert(id.clone()));
    if channels.iter().enumerate().any(|(at, channel)| channels[..at].contains(channel)) {
        fields.fault("channels", "name a channel twice", "name each once: a message is tried again by itself");
    }
    if channels.is_empty() && !fields.r.any_faulty_under(&format!("{}.channels", fields.at)) {
        fields.fault("channels", "is empty", LIKE);
    }
    if contacts.is_empty() && roles.is_empty() && !fields.r.any_faulty_under(&fields.at) {
        fields.fault("contacts", "is empty: this rung tells nobody", "name contacts, or roles");
    }
    for id in &contacts {
        reachable(&mut fields, "contacts", id, &channels, people);
    }
    // Who is set up over the API is not known here: whether a role has anybody at all is looked at with them.
    let mut targets: Vec<Target> = contacts.into_iter().map(Target::Contact).collect();
    for role in roles {
        for id in people.with_role(role) {
            reachable(&mut fields, "roles", id, &channels, people);
        }
        if !targets.contains(&Target::Role(role)) {
            targets.push(Target::Role(role));
        }
    }
    Step { after: after.unwrap_or_default(), targets, channels }
}

fn reachable(fields: &mut Fields<'_, '_>, field: &str, id: &ContactId, channels: &[Channel], people: &People) {
    match people.channels_of(id) {
        None => fields.fault(field, &format!("name {id}, who is not among the contacts"), "add them to [[contacts]]"),
        Some(theirs) if channels.is_empty() || theirs.iter().any(|channel| channels.contains(channel)) => {}
        Some(_) => {
            fields.fault(
                field,
                &format!("name {id}, who has a number on none of the channels"),
                "add one, or a channel",
            );
        }
    }
}

/// Who is told at last, if somebody is named, and over what: every channel they have a number on.
pub(super) fn last_responder(r: &mut Reader<'_>, people: &People) -> (Option<ContactId>, Vec<Channel>) {
    const KEY: &str = "policy.last_responder";
    let rule = super::reader::Rule { rule: "must be the id of a contact", remedy: "name one of [[contacts]]" };
    let named = r.optional(KEY, &rule, |text| text.parse::<ContactId>().ok(), |id| format!("\"{id}\""));
    let Some(id) = named else { return (None, people.channels_of_all(&people.most_senior())) };
    let channels = people.channels_of(&id).map(<[Channel]>::to_vec);
    if channels.is_none() {
        r.fault(KEY, "is nobody among the contacts", rule.remedy);
    }
    (Some(id), channels.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::super::tests::{faulty, keys, load, production_with};
    use super::*;

    const PEOPLE: &str = "[[contacts]]\nid = 'lead'\nrole = 'lead'\nsms_to = '+919876543211'\n\
        [[contacts]]\nid = 'manager'\nrole = 'duty_manager'\nwhatsapp_to = '+919876543212'\nlanguage = 'hi'\n";

    fn with(steps: &str) -> String {
        format!("{PEOPLE}[policy]\nlast_responder = 'manager'\n{steps}")
    }

    #[test]
    fn without_rungs_none_are_made_up_here_and_the_last_responders_channels_are_those_of_the_most_senior() {
        let last = |file: &str, variables: &[(&str, &str)]| {
            let policy = load(file, variables).unwrap().policy;
            assert_eq!((policy.steps.len(), policy.last_responder), (0, None));
            policy.last_responder_channels
        };
        assert_eq!(last("", &[]), [Channel::Whatsapp]);
        assert_eq!(last("", &[("COUNSELLOR_SMS_TO", "+919876543219")]), [Channel::Whatsapp, Channel::Sms]);
        assert_eq!(last(PEOPLE, &[]), [Channel::Whatsapp], "the manager's");
    }

    #[test]
    fn rungs_name_people_and_roles_each_once() {
        let steps = "[[policy.steps]]\ncontacts = ['counsellor']\nchannels = ['whatsapp']\n\
            [[policy.steps]]\nafter = '90s'\ncontacts = ['lead']\nroles = ['lead', 'counsellor', 'lead']\n\
            channels = ['sms', 'whatsapp']";
        let policy = load(&with(steps), &[]).unwrap().policy;
        let contact = |id: &str| Target::Contact(id.parse().unwrap());
        let roles = [ContactRole::Lead, ContactRole::Counsellor].map(Target::Role);
        assert_eq!(policy.steps[0].targets, [contact("counsellor")]);
        assert_eq!(policy.steps[1].targets, [vec![contact("lead")], roles.to_vec()].concat());
        assert_eq!(policy.steps[1].after, Duration::from_secs(90));
        assert_eq!(policy.steps[1].channels, [Channel::Sms, Channel::Whatsapp]);
        assert_eq!(
            (policy.last_responder.unwrap().as_str(), policy.last_responder_channels),
            ("manager", vec![Channel::Whatsapp])
        );
    }

    #[test]
    fn each_fault_of_a_contact_is_told_by_its_place() {
        for (contact, field) in [
            ("id = 'a b'\nrole = 'lead'\nsms_to = '+919876543211'", "[0].id"),
            ("role = 'lead'\nsms_to = '+919876543211'", "[0].id"),
            ("id = 'a'\nsms_to = '+919876543211'", "[0].role"),
            ("id = 'a'\nrole = 'emergency_contact'\nsms_to = '+919876543211'", "[0].role"),
            ("id = 'a'\nrole = 'lead'\nsms_to = '0987'", "[0].sms_to"),
            ("id = 'a'\nrole = 'lead'\nwhatsapp_to = 7", "[0].whatsapp_to"),
            ("id = 'a'\nrole = 'lead'", "[0].whatsapp_to"),
            ("id = 'a'\nrole = 'lead'\nlanguage = 'English'\nsms_to = '+919876543211'", "[0].language"),
            ("id = 'a'\nrole = 'lead'\nsms = '+919876543211'\nsms_to = '+919876543211'", "[0]"),
            ("id = 'counsellor'\nrole = 'lead'\nsms_to = '+919876543211'", ""),
        ] {
            let found = faulty(load(&format!("[[contacts]]\n{contact}"), &[]));
            assert_eq!(found, keys(&[&format!("contacts{field}")]), "{contact}");
        }
    }

    #[test]
    fn a_rung_that_tells_nobody_is_refused() {
        for (step, field) in [
            ("channels = ['sms']", "[0].contacts"),
            ("contacts = ['nobody']\nchannels = ['sms']", "[0].contacts"),
            ("contacts = ['lead']\nchannels = ['whatsapp']", "[0].contacts"),
            ("contacts = ['lead']", "[0].channels"),
            ("contacts = ['lead']\nchannels = []", "[0].channels"),
            ("contacts = ['lead']\nchannels = ['sms', 'sms']", "[0].channels"),
            ("contacts = ['lead']\nchannels = ['voice']", "[0].contacts"),
            ("contacts = ['lead']\nchannels = ['pigeon']", "[0].channels"),
            ("contacts = ['lead']\nchannels = 'sms'", "[0].channels"),
            ("roles = ['boss']\nchannels = ['sms']", "[0].roles"),
            ("contacts = ['lead']\nchannels = ['sms']\nafter = '2h'", "[0].after"),
            ("contacts = ['lead']\nchannels = ['sms']\nwait = '2m'", "[0]"),
            (
                "contacts = ['lead']\nchannels = ['sms']\n[[policy.steps]]\ncontacts = ['lead']\nchannels = ['sms']",
                "[1].after",
            ),
        ] {
            let found = faulty(load(&with(&format!("[[policy.steps]]\n{step}")), &[]));
            assert_eq!(found, keys(&[&format!("policy.steps{field}")]), "{step}");
        }
        let roles = |channel: &str| format!("[[policy.steps]]\nroles = ['lead']\nchannels = ['{channel}']");
        assert_eq!(faulty(load(&with(&roles("whatsapp")), &[])), keys(&["policy.steps[0].roles"]), "the lead has none");
        // Somebody over the API may have that role.
        assert_eq!(faulty(load(&roles("sms"), &[])), keys(&[]));
        assert_eq!(faulty(load("policy.last_responder = 'nobody'", &[])), keys(&["policy.last_responder"]));
    }

    #[test]
    fn nobody_is_told_at_the_senders_number_nor_at_another_persons() {
        let contact =
            |field: &str, number: &str| format!("[[contacts]]\nid = 'a'\nrole = 'lead'\n{field} = '{number}'");
        let sender = [("TWILIO_WHATSAPP_FROM", "+4915112345678"), ("COUNSELLOR_WHATSAPP_TO", "+919876543210")];
        let found = faulty(load(&contact("whatsapp_to", "+4915112345678"), &sender[..1]));
        assert!(found.contains("contacts[0].whatsapp_to"), "{found:?}");
        let twice = faulty(load(&contact("whatsapp_to", "+919876543210"), &sender[1..]));
        assert_eq!(twice, keys(&["contacts[0].whatsapp_to"]));
        // One number for WhatsApp and text messages is one person's phone, or two people's.
        assert_eq!(faulty(load(&contact("sms_to", "+919876543210"), &sender[1..])), keys(&[]));
    }

    #[test]
    fn more_people_than_a_case_can_remember_are_refused() {
        let many = |count: usize| {
            (1..=count)
                .map(|no| format!("[[contacts]]\nid = 'c{no}'\nrole = 'lead'\nsms_to = '+9198765432{no:02}'\n"))
                .collect::<String>()
        };
        assert_eq!(faulty(load(&many(15), &[])), keys(&[]));
        assert_eq!(faulty(load(&many(16), &[])), keys(&["contacts"]));
    }

    #[test]
    fn text_messages_need_a_sender_where_twilio_sends() {
        let missing = production_with(&[("COUNSELLOR_SMS_TO", "+919876543219")]);
        assert_eq!(faulty(missing), keys(&["twilio.sms_from"]));
        let there = production_with(&[("COUNSELLOR_SMS_TO", "+919876543219"), ("TWILIO_SMS_FROM", "+4915112345678")]);
        assert_eq!(faulty(there), keys(&[]));
    }
}
