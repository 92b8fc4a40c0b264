//! What is planted, and where it may be seen. How it is looked for: [`Search`].

use std::sync::LazyLock;

use crisis_relay::clock::{SeededEntropy, SystemEntropy};
use crisis_relay::ports::random;

use crate::search::{Mark, Search, Wanted};

/// Where something was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Surface {
    /// Standard output and error of the service.
    Log,
    /// Standard output and error of its other commands; of `audit report` standard error only.
    Commands,
    /// What `audit verify` says where chains do not verify.
    Damage,
    /// The page of `audit report`, made with the keys.
    Report,
    /// The same, made without them, or with the wrong ones.
    SealedReport,
    /// The number that a message is for: the fields `To` of a form and of a query.
    TwilioTo,
    /// What proves to Twilio who calls.
    TwilioAuthorization,
    /// All else that Twilio is sent: addresses, headers, bodies.
    Twilio,
    /// What the API answers to whoever asks.
    Answers,
    /// What it answers to those who may see a student's consent or a case.
    Records,
    /// What it answers to those who may see a case's audit.
    Audit,
    /// What it answers to a person who opens a case.
    Revealed,
    /// `/metrics`, `/readyz`, `/openapi.json`.
    Operations,
    /// The files in the service's folder.
    Files,
}

/// What tells a canary from everything else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Letters and digits.
    Words,
    /// The ten digits of a number in [`COUNTRY`].
    Number,
}

/// Something that somebody said or owns.
pub(crate) struct Canary {
    /// What it is.
    pub(crate) what: &'static str,
    kind: Kind,
    /// What is said; `{}` stands for the mark.
    said: &'static str,
    /// Where it has to be, which also proves that it is looked for in the right way. Everywhere else it must not be.
    pub(crate) belongs: &'static [Surface],
}

macro_rules! canaries {
    ($($name:ident = $kind:ident $said:literal, $what:literal, [$($surface:ident),*];)*) => {
        #[expect(non_camel_case_types, reason = "named as the functions are")]
        #[derive(Clone, Copy)]
        enum Place { $($name),* }
        $(
            /// The part of it that tells it from everything else.
            pub(crate) fn $name() -> &'static str {
                &MARKS[Place::$name as usize]
            }
        )*
        /// All of them.
        pub(crate) const ALL: &[Canary] = &[$(Canary {
            what: $what, kind: canaries!(@$kind), said: $said, belongs: &[$(Surface::$surface),*],
        }),*];
    };
    (@words) => { Kind::Words };
    (@number) => { Kind::Number };
}

canaries! {
    student = words "{}", "the student's id", [Revealed];
    message = words "\u{1f622} \"{}\"\n", "an event's message", [Revealed];
    metadata_field = words "{}", "a field of an event's metadata", [Revealed];
    metadata = words "{}", "a value of an event's metadata", [Revealed];
    override_by = words "Dr. {}", "who stated an override", [Report];
    override_reason = words "{} <&>", "why an override was stated", [Report];
    raised = words "{}", "what a person wrote who raised a case", [Revealed];
    note = words "{}", "the note of an outcome", [Report];
    person = words "{}@college.example", "who signed in", [Report];
    claim = words "{}", "a further claim of a token", [];
    reply = words "{} STOP?", "a counsellor's reply", [Revealed];
    stranger = number "+91{}", "the number of a stranger who writes", [];
    counsellor = number "+91{}", "the counsellor's number", [TwilioTo];
    ops_phone = number "+91{}", "the number of a phone of the operator's", [TwilioTo];
    contact_name = words "Dr. {}", "what a contact is called", [Revealed];
    contact_number = number "+91{}", "a contact's number", [Revealed, TwilioTo];
    relative_name = words "Mrs. {}", "what an emergency contact is called", [Revealed];
    relative_number = number "+91{}", "an emergency contact's number", [TwilioTo];
    informed_by = words "Dr. {}", "who decides that an emergency contact is told", [Report];
    informed_why = words "{} <&>", "why an emergency contact is told", [Report];
    texts = number "+91{}", "the counsellor's number for text messages", [TwilioTo];
    calls = number "+91{}", "the counsellor's number for calls", [TwilioTo];
    further_texts = number "+91{}", "a further contact's number for text messages", [TwilioTo];
    further_calls = number "+91{}", "a further contact's number for calls", [TwilioTo];
    service_key = words "{}-and-more", "a backend's API key", [];
    auditor_key = words "{}-and-more", "an auditor's API key", [];
    wrong_key = words "{}", "a key that nobody has", [];
    auth_token = words "{}0123456789abcdef", "Twilio's auth token", [TwilioAuthorization];
    // Nobody listens there: each notice to the operator is tried, and cannot be told.
    ops_hook = words "http://127.0.0.1:9/hook/{}", "the operator's webhook", [];
    ops_key = words "{}0123456789abcdef", "the operator's PagerDuty key", [];
    ops_heartbeat = words "http://127.0.0.1:9/beat/{}", "where the heartbeat goes", [];
    jwt_secret = words "{}, in all more than 32 bytes", "the secret that tokens are signed with", [];
    master_key = words "{}----------------", "the master key", [];
    idempotency = words "{}", "an idempotency key", [];
    request_id = words "{}", "a request's id that is more than an id", [];
    // As long as an id, and of hexadecimal digits only.
    request_number = number "0000000000000000000091{}", "a request's id that is a number", [];
    header = words "{}", "other headers", [];
    // Labels have no room for free text, though for a number: digits are allowed, and it is the backend's part to send
    // none. They are kept in the clear and shown with what they tell of.
    consent_source = words "{}", "where consent was given", [Records, Files];
    notice = words "{}", "the notice that was read", [Records, Files];
    model = words "{}", "the model that gave a score", [Audit, Report, SealedReport, Files];
    query = words "{}", "a query string", [];
    path = words "{}", "a path that is none", [];
    broken = words "{}", "a body that is none", [];
    // Its sender is told which field is not known, so that it can be mended; the value is never repeated.
    field = words "{}", "the name of a field that is none", [Answers];
    wrong_setting = words " \n{} ", "a setting that cannot be read", [];
    forged = words "{}", "a webhook that Twilio did not send", [];
    hidden = words "{}", "a user name that hides a number", [];
    callback = words "{}", "further words of a callback that Twilio signed", [];
    profile = words "{}", "a phone's profile name", [];
}

/// Where the keyed hash of a student may be: see docs/privacy.md. The file finds the student by it. The entry of a case's
/// audit that tells of its beginning names them by it, to whoever may read the audit word by word. And it is the name of
/// the chain of their consent, which whoever has the file must be told if it is broken.
const SUBJECT_BELONGS: &[Surface] = &[Surface::Files, Surface::Audit, Surface::Damage];

/// Where the numbers are.
const COUNTRY: &str = "91";

/// What the marks are drawn with: `LEAKS_SEED` draws the same again.
static SEED: LazyLock<u64> = LazyLock::new(|| match std::env::var("LEAKS_SEED") {
    Ok(seed) => seed.parse().unwrap_or_else(|_| panic!("LEAKS_SEED is no number: {seed}")),
    Err(_) => u64::from_le_bytes(random(&SystemEntropy)),
});

static MARKS: LazyLock<Vec<String>> = LazyLock::new(|| {
    let entropy = SeededEntropy::new(*SEED);
    ALL.iter().map(|canary| canary.kind.mark(&entropy)).collect()
});

impl Kind {
    /// Random, so that no accident looks like it.
    fn mark(self, entropy: &SeededEntropy) -> String {
        const SIGNS: &[u8; 36] = b"abcdefghijklmnopqrstuvwxyz0123456789";
        let draw = |signs: &[u8]| char::from(signs[random::<1>(entropy)[0] as usize % signs.len()]);
        match self {
            Self::Words => (0..16).map(|_| draw(SIGNS)).collect(),
            // What is left of it when it is cut short begins with a zero, as no count does.
            Self::Number => {
                let digits = |count: usize| (0..count).map(|_| draw(b"123456789")).collect::<String>();
                format!("9{}0{}", digits(3), digits(5))
            }
        }
    }
}

impl Canary {
    fn said(&self, mark: &str) -> String {
        self.said.replace("{}", mark)
    }

    fn wanted<'a>(&self, mark: &'a str) -> Wanted<'a> {
        let said = self.said(mark);
        let mut values = with_organisation(&said);
        values.push(said);
        let mark = match self.kind {
            Kind::Words => Mark::Words(mark),
            Kind::Number => Mark::Number { country: COUNTRY, national: mark },
        };
        Wanted { mark, values }
    }
}

/// What the keyed hashes are made of, so that one is found that was made without its key: the college and the value, in
/// the service's own form and in others.
fn with_organisation(value: &str) -> Vec<String> {
    const COLLEGE: &str = "default";
    let part = |text: &str| {
        let length = text.len() as u64;
        // Short ones only: the bytes of their length are characters.
        String::from_utf8(length.to_be_bytes().to_vec()).unwrap() + text
    };
    // Idempotency keys have their caller between the two.
    let mut all = vec![part(COLLEGE) + &part(value), part(COLLEGE) + &part("service-1") + &part(value)];
    all.extend(["", ":", "/", "|", "\0", "\n"].map(|between| format!("{COLLEGE}{between}{value}")));
    all
}

/// What is said with this mark.
pub(crate) fn in_full(mark: &str) -> String {
    let canary = ALL.iter().zip(&*MARKS).find_map(|(canary, its)| (its == mark).then_some(canary));
    canary.unwrap_or_else(|| panic!("{mark} is nobody's mark")).said(mark)
}

/// Something that was said or kept, to be looked through.
pub(crate) struct Exhibit {
    pub(crate) surface: Surface,
    /// Where it comes from.
    pub(crate) name: String,
    bytes: Vec<u8>,
}

impl Exhibit {
    pub(crate) fn new(surface: Surface, name: impl Into<String>, bytes: &[u8]) -> Self {
        Self { surface, name: name.into(), bytes: bytes.to_owned() }
    }

    /// The same, which may show what that `surface` may.
    pub(crate) fn on(self, surface: Surface) -> Self {
        Self { surface, ..self }
    }
}

impl std::fmt::Display for Exhibit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.name, String::from_utf8_lossy(&self.bytes))
    }
}

/// What stands around a place, to be shown.
fn around(bytes: &[u8], place: usize) -> String {
    let part = &bytes[place.saturating_sub(160).min(bytes.len())..(place + 160).min(bytes.len())];
    String::from_utf8_lossy(part).into_owned()
}

/// What of the canaries was found where.
struct Findings {
    leaks: Vec<String>,
    /// For each canary, on which surfaces it was found that it belongs to; then for the students' keyed hashes.
    seen: Vec<Vec<Surface>>,
}

/// What is looked for beside the canaries.
pub(crate) struct Secrets<'a> {
    /// What was sent as a whole, of which there may be no digests.
    pub(crate) sent: &'a [String],
    /// The students' keyed hashes.
    pub(crate) subjects: &'a [Vec<u8>],
}

/// Looks for every canary, and for the secrets.
fn find(exhibits: &[Exhibit], secrets: &Secrets<'_>) -> Findings {
    let Secrets { sent, subjects } = secrets;
    let mut wanted: Vec<Wanted<'_>> = ALL.iter().zip(&*MARKS).map(|(canary, mark)| canary.wanted(mark)).collect();
    let keys = sent.iter().filter(|text| text.len() < 128).flat_map(|key| with_organisation(key));
    wanted.push(Wanted { mark: Mark::Digests { keyed: None }, values: sent.iter().cloned().chain(keys).collect() });
    wanted.extend(
        subjects.iter().map(|subject| Wanted { mark: Mark::Digests { keyed: Some(subject) }, values: Vec::new() }),
    );
    let search = Search::of(&wanted);
    let mut findings = Findings { leaks: Vec::new(), seen: vec![Vec::new(); wanted.len()] };
    for exhibit in exhibits {
        for found in search.find(&exhibit.bytes) {
            let canary = ALL.get(found.which);
            let (what, belongs): (_, &[Surface]) = match canary {
                Some(canary) => (canary.what, canary.belongs),
                None if found.which == ALL.len() => ("all that was sent", &[]),
                None => ("a student's keyed hash", SUBJECT_BELONGS),
            };
            if belongs.contains(&exhibit.surface) {
                findings.seen[found.which].push(exhibit.surface);
                continue;
            }
            let around = around(&exhibit.bytes, found.place);
            let Exhibit { surface, name, .. } = exhibit;
            findings.leaks.push(format!("{what} leaks, {}: {surface:?}, {name}: …{around:?}…", found.form));
        }
    }
    findings
}

impl Findings {
    #[track_caller]
    fn expect_no_leaks(&self) {
        let told: Vec<&str> = self.leaks.iter().take(40).map(String::as_str).collect();
        let (count, seed, told) = (self.leaks.len(), *SEED, told.join("\n"));
        assert!(count == 0, "{count} leaks (LEAKS_SEED={seed} repeats the canaries):\n{told}");
    }
}

/// Fails if anything leaks.
#[track_caller]
pub(crate) fn nothing_leaks(exhibits: &[Exhibit], secrets: &Secrets<'_>) {
    assert!(!secrets.subjects.is_empty(), "no student was heard of");
    find(exhibits, secrets).expect_no_leaks();
}

/// Fails unless each canary is where it belongs, and nowhere else.
#[track_caller]
pub(crate) fn look_through(exhibits: &[Exhibit], secrets: &Secrets<'_>) {
    assert!(!secrets.subjects.is_empty(), "no student was heard of");
    let found = find(exhibits, secrets);
    found.expect_no_leaks();
    for (canary, seen) in ALL.iter().zip(&found.seen) {
        for surface in canary.belongs {
            assert!(seen.contains(surface), "{} is not where it belongs: {surface:?}", canary.what);
        }
    }
    let of_students = found.seen[ALL.len() + 1..].concat();
    for surface in SUBJECT_BELONGS {
        assert!(of_students.contains(surface), "a student's keyed hash is not where it belongs: {surface:?}");
    }
}
