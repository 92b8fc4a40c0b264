//! What is planted, where it may be seen, and how it is looked for.

use data_encoding::{BASE64, BASE64URL, HEXLOWER};

/// Where something was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Surface {
    /// Standard output and error of the service.
    Log,
    /// What its other commands say about settings: `check`, and a start that is refused.
    Commands,
    /// The page of `audit report`, made with the keys.
    Report,
    /// The number that a message is for: the fields `To` of a form and of a query.
    TwilioTo,
    /// What proves to Twilio who calls.
    TwilioAuthorization,
    /// All else that Twilio is sent: addresses, headers, bodies.
    Twilio,
    /// What the API answers to whoever asks.
    Answers,
    /// What it answers to those who may see a student's consent or a case's audit.
    Records,
    /// What it answers to a person who opens a case.
    Revealed,
    /// `/metrics`, `/readyz`, `/openapi.json`.
    Operations,
    /// The files in the service's folder.
    Files,
}

/// Something that somebody said or owns.
pub(crate) struct Canary {
    /// What it is.
    pub(crate) what: &'static str,
    /// The part of it that tells it from everything else.
    pub(crate) mark: &'static str,
    /// Where it has to be, which also proves that it is looked for in the right way. Everywhere else it must not be.
    pub(crate) belongs: &'static [Surface],
}

macro_rules! canaries {
    ($($name:ident = $mark:literal, $what:literal, [$($surface:ident),*];)*) => {
        $(pub(crate) const $name: &str = $mark;)*
        /// All of them.
        pub(crate) const ALL: &[Canary] =
            &[$(Canary { what: $what, mark: $mark, belongs: &[$(Surface::$surface),*] }),*];
    };
}

canaries! {
    STUDENT = "zqstudent5001", "the student's id", [Revealed];
    MESSAGE = "zqmessage5002", "an event's message", [Revealed];
    METADATA_FIELD = "zqmetafield5003", "a field of an event's metadata", [Revealed];
    METADATA = "zqmetadata5004", "a value of an event's metadata", [Revealed];
    OVERRIDE_BY = "zqoverrideby5005", "who stated an override", [Report];
    OVERRIDE_REASON = "zqoverridereason5006", "why an override was stated", [Report];
    RAISED = "zqraised5007", "what a person wrote who raised a case", [Revealed];
    NOTE = "zqnote5008", "the note of an outcome", [Report];
    PERSON = "zqperson5009", "who signed in", [Report];
    CLAIM = "zqclaim5010", "a further claim of a token", [];
    REPLY = "zqreply5011", "a counsellor's reply", [];
    STRANGER = "9722266012", "the number of a stranger who writes", [];
    COUNSELLOR = "9811155013", "the counsellor's number", [TwilioTo];
    SERVICE_KEY = "zqservicekey5014", "a backend's API key", [];
    AUDITOR_KEY = "zqauditorkey5015", "an auditor's API key", [];
    WRONG_KEY = "zqwrongkey5016", "a key that nobody has", [];
    AUTH_TOKEN = "zqauthtoken5017", "Twilio's auth token", [TwilioAuthorization];
    JWT_SECRET = "zqjwtsecret5018", "the secret that tokens are signed with", [];
    MASTER_KEY = "zqmasterkey5019", "the master key", [];
    IDEMPOTENCY = "zqidempotency5020", "an idempotency key", [];
    REQUEST_ID = "zqrequestid5021", "a request's id that is more than an id", [];
    HEADER = "zqheader5022", "other headers", [];
    // Labels have no room for free text; they are kept in the clear and shown with what they tell of.
    CONSENT_SOURCE = "zqconsentsource5023", "where consent was given", [Records, Files];
    NOTICE = "zqnotice5024", "the notice that was read", [Records, Files];
    MODEL = "zqmodel5025", "the model that gave a score", [Records, Report, Files];
    QUERY = "zqquery5026", "a query string", [];
    PATH = "zqpath5027", "a path that is none", [];
    BROKEN = "zqbroken5028", "a body that is none", [];
    // Its sender is told which field is not known, so that it can be mended; the value is never repeated.
    FIELD = "zqfield5029", "the name of a field that is none", [Answers];
    WRONG_SETTING = "zqsetting5030", "a setting that cannot be read", [];
    FORGED = "zqforged5031", "a webhook that Twilio did not send", [];
    PROFILE = "zqprofile5032", "a phone's profile name", [];
}

/// The ways in which a text may be written.
pub(crate) struct Forms {
    /// In capitals or not.
    any_case: Vec<String>,
    /// As they are.
    exact: Vec<String>,
}

/// What `text` looks like inside base64, wherever in the encoded bytes it begins.
fn base64_inside(text: &str, encode: impl Fn(&[u8]) -> String) -> impl Iterator<Item = String> {
    (0..3_usize).map(move |before| {
        let mut bytes = vec![0; before];
        bytes.extend_from_slice(text.as_bytes());
        let encoded = encode(&bytes);
        // Only the characters that nothing before or after has a part in.
        encoded[(before * 8).div_ceil(6)..bytes.len() * 8 / 6].to_owned()
    })
}

impl Forms {
    pub(crate) fn of(text: &str) -> Self {
        let escaped = |form: &dyn Fn(u8) -> String| text.bytes().map(form).collect::<String>();
        let listed: Vec<String> = text.bytes().map(|byte| byte.to_string()).collect();
        let any_case = vec![
            text.to_lowercase(),
            text.chars().rev().collect::<String>().to_lowercase(),
            HEXLOWER.encode(text.as_bytes()),
            escaped(&|byte| format!("%{byte:02x}")),
            escaped(&|byte| format!("\\u{byte:04x}")),
            escaped(&|byte| format!("\\x{byte:02x}")),
            escaped(&|byte| format!("{}\0", char::from(byte))),
            listed.join(","),
            listed.join(", "),
        ];
        let mut exact = Vec::new();
        for text in [text.to_owned(), text.to_uppercase()] {
            exact.extend(base64_inside(&text, |bytes| BASE64.encode(bytes)));
            exact.extend(base64_inside(&text, |bytes| BASE64URL.encode(bytes)));
        }
        Self { any_case, exact }
    }
}

/// Something that was said or kept, to be looked through.
pub(crate) struct Exhibit {
    pub(crate) surface: Surface,
    /// Where it comes from.
    pub(crate) name: String,
    exact: String,
    lower: String,
}

impl Exhibit {
    pub(crate) fn new(surface: Surface, name: impl Into<String>, bytes: &[u8]) -> Self {
        let exact = String::from_utf8_lossy(bytes).into_owned();
        Self { surface, name: name.into(), lower: exact.to_ascii_lowercase(), exact }
    }

    /// The text around one of the forms, if there is one.
    pub(crate) fn holds(&self, forms: &Forms) -> Option<String> {
        let any_case = forms.any_case.iter().find_map(|form| self.lower.find(form));
        let place = any_case.or_else(|| forms.exact.iter().find_map(|form| self.exact.find(form)))?;
        let around = self.exact.char_indices().map(|(at, _)| at);
        let (from, to) = (place.saturating_sub(200), place + 200);
        let around: Vec<usize> = around.filter(|at| (from..to).contains(at)).collect();
        Some(self.exact[*around.first()?..*around.last()?].to_owned())
    }
}

#[test]
fn every_way_of_writing_a_canary_is_found() {
    let forms = Forms::of(STUDENT);
    let padded = |before: &str| format!("{before}{STUDENT}?>~ and more");
    for said in [
        STUDENT.to_uppercase(),
        format!("{:?}", STUDENT.as_bytes()),
        HEXLOWER.encode(padded("x").as_bytes()).to_uppercase(),
        BASE64.encode(padded("").as_bytes()),
        BASE64URL.encode(padded("x").as_bytes()),
        BASE64.encode(padded("xy").to_uppercase().as_bytes()),
        STUDENT.bytes().map(|byte| format!("%{byte:02X}")).collect(),
    ] {
        let exhibit = Exhibit::new(Surface::Log, "", format!("before\u{fffd} {said} after").as_bytes());
        assert!(exhibit.holds(&forms).is_some(), "{said}");
    }
    assert!(Exhibit::new(Surface::Log, "", b"zqstudent500").holds(&forms).is_none());
}
