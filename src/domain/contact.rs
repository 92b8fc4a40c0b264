//! Contacts: the people who can be told, and how they are reached.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::ids::{AddressKey, ContactId, InvalidId, OrganisationId, PersonKey, ScheduleId};
use super::schedule::Schedule;
use super::sealed::Sealed;

/// A way to reach a phone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Channel {
    /// A WhatsApp message.
    Whatsapp,
    /// A text message.
    Sms,
    /// A phone call.
    Voice,
}

impl Channel {
    /// Every channel there is.
    pub const ALL: [Self; 3] = [Self::Whatsapp, Self::Sms, Self::Voice];

    /// The channel's name, as in the API and in metric labels.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Whatsapp => "whatsapp",
            Self::Sms => "sms",
            Self::Voice => "voice",
        }
    }

    /// The channel of this name.
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|channel| channel.as_str() == word)
    }
}

/// A phone number in E.164 form (`+` and 2 to 15 digits). Its `Debug` and `Display` show the last two digits only.
///
/// Source of the form: ITU-T E.164; Twilio accepts `^\+[1-9]\d{1,14}$`.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct PhoneNumber(String);

impl PhoneNumber {
    /// The whole number: only for the provider's request and for sealing.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl FromStr for PhoneNumber {
    type Err = InvalidId;
    /// Reads `+4915112345678`, with or without a leading `whatsapp:`.
    fn from_str(text: &str) -> Result<Self, InvalidId> {
        let number = text.trim().strip_prefix("whatsapp:").unwrap_or(text.trim());
        let digits = number.strip_prefix('+').unwrap_or("");
        let fits =
            (2..=15).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_digit()) && !digits.starts_with('0');
        if fits {
            Ok(Self(number.to_owned()))
        } else {
            Err(InvalidId { rule: "must be a phone number in E.164 form, such as +919876543210" })
        }
    }
}

impl fmt::Debug for PhoneNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PhoneNumber(…{})", &self.0[self.0.len() - 2..])
    }
}
impl fmt::Display for PhoneNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "…{}", &self.0[self.0.len() - 2..])
    }
}

/// Why a person is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ContactRole {
    /// Takes cases.
    Counsellor,
    /// Leads the counsellors.
    Lead,
    /// The last responder.
    DutyManager,
    /// A person the student named; told through a disclosure of its own.
    EmergencyContact,
}

impl ContactRole {
    /// Everybody's role who works for the college.
    pub const STAFF: [Self; 3] = [Self::Counsellor, Self::Lead, Self::DutyManager];

    /// The role of this name, among those who work for the college.
    pub fn staff_from_word(word: &str) -> Option<Self> {
        Self::STAFF.into_iter().find(|role| role.as_str() == word)
    }

    /// The role's name, as in the API and the audit.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Counsellor => "counsellor",
            Self::Lead => "lead",
            Self::DutyManager => "duty_manager",
            Self::EmergencyContact => "emergency_contact",
        }
    }
}

/// The language a person is told in, as a BCP 47 primary tag (`en`, `hi`).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Language(String);

impl Language {
    /// The tag as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}
impl FromStr for Language {
    type Err = InvalidId;
    fn from_str(text: &str) -> Result<Self, InvalidId> {
        if (2..=3).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_lowercase()) {
            Ok(Self(text.to_owned()))
        } else {
            Err(InvalidId { rule: "must be a language tag of two or three small letters, such as en or hi" })
        }
    }
}
impl TryFrom<String> for Language {
    type Error = InvalidId;
    fn try_from(text: String) -> Result<Self, InvalidId> {
        text.parse()
    }
}
impl From<Language> for String {
    fn from(language: Language) -> String {
        language.0
    }
}
impl fmt::Display for Language {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One number on one channel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContactMethod {
    /// The channel.
    pub channel: Channel,
    /// The number, sealed under the contact's data key.
    pub address: Sealed,
    /// The number's keyed hash, to recognise a reply and to name the recipient in the audit.
    pub address_key: AddressKey,
}

/// A person who can be told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Contact {
    /// The contact's id.
    pub id: ContactId,
    /// The college.
    pub organisation: OrganisationId,
    /// Whose data key seals the numbers.
    pub person: PersonKey,
    /// Why this person is told.
    pub role: ContactRole,
    /// The language they are told in.
    pub language: Language,
    /// Their numbers, in the order in which they are tried.
    pub methods: Vec<ContactMethod>,
}

/// The people of one organisation, as far as a decision needs them, and who of them is on call when.
#[derive(Debug, Clone, Default)]
pub struct Directory {
    contacts: Vec<Contact>,
    schedules: Vec<Schedule>,
}

impl Directory {
    /// A directory of these people, without schedules.
    pub fn new(contacts: Vec<Contact>) -> Self {
        Self { contacts, schedules: Vec::new() }
    }

    /// The same people, with these schedules.
    pub fn with_schedules(self, schedules: Vec<Schedule>) -> Self {
        Self { schedules, ..self }
    }

    /// Everybody of this role.
    pub fn with_role(&self, role: ContactRole) -> impl Iterator<Item = &Contact> {
        self.contacts.iter().filter(move |contact| contact.role == role)
    }

    /// Every schedule.
    pub fn schedules(&self) -> &[Schedule] {
        &self.schedules
    }

    /// The schedule with this id.
    pub fn schedule(&self, id: &ScheduleId) -> Option<&Schedule> {
        self.schedules.iter().find(|schedule| &schedule.id == id)
    }

    /// Everybody, in the order in which they are set up.
    pub fn people(&self) -> impl Iterator<Item = &Contact> {
        self.contacts.iter()
    }

    /// The person whose phone this is, over this channel.
    pub fn contact_at(&self, channel: Channel, address: AddressKey) -> Option<&Contact> {
        let theirs = |method: &ContactMethod| method.channel == channel && method.address_key == address;
        self.contacts.iter().find(|contact| contact.methods.iter().any(theirs))
    }

    /// Whether this is a number of this person's, on this channel.
    pub fn reaches(&self, id: &ContactId, channel: Channel, address: AddressKey) -> bool {
        let theirs = |method: &ContactMethod| method.channel == channel && method.address_key == address;
        self.contact(id).is_some_and(|contact| contact.methods.iter().any(theirs))
    }

    /// The person with this id.
    pub fn contact(&self, id: &ContactId) -> Option<&Contact> {
        self.contacts.iter().find(|contact| &contact.id == id)
    }
}
