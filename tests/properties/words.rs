//! The small types: what is read, what is refused, and how it is written.

use std::collections::BTreeMap;
use std::time::Duration;

use crisis_relay::domain::audit::{AuditHead, AuditStream};
use crisis_relay::domain::consent::{ChannelConsent, ConsentRecord, Ground, ground_for};
use crisis_relay::domain::contact::{Channel, Language, PhoneNumber};
use crisis_relay::domain::event::{Label, Score};
use crisis_relay::domain::ids::{ContactId, ProviderId, Reference, SubjectKey};
use crisis_relay::domain::policy::{Policy, Stage};
use crisis_relay::domain::provider::MessageStatus;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};

use crate::cases;
use crate::steps::STATUSES;
use crate::world::{Granted, policy, score, start_plus, with_last};

const SYMBOLS: &str = "0123456789ABCDEFGHJKMNPQRSTVWXYZ";

proptest! {
    #![proptest_config(cases(300))]

    #[test]
    fn a_score_is_a_number_from_0_to_1_and_nothing_else(value in prop::num::f64::ANY, within in 0.0..=1.0f64) {
        prop_assert_eq!(Score::new(value).is_some(), (0.0..=1.0).contains(&value));
        let json = serde_json::to_string(&score(within)).unwrap();
        prop_assert_eq!(serde_json::from_str::<Score>(&json).unwrap(), score(within));
        prop_assert_eq!(serde_json::from_str::<Score>(&format!("{value:?}")).is_ok(), Score::new(value).is_some());
    }

    #[test]
    fn scores_are_ordered_as_their_numbers_are(left in 0.0..=1.0f64, right in 0.0..=1.0f64) {
        prop_assert_eq!(Some(score(left).cmp(&score(right))), left.partial_cmp(&right));
        prop_assert_eq!(score(left) == score(right), score(left).cmp(&score(right)).is_eq());
    }

    #[test]
    fn a_score_never_reads_as_more_than_it_is(value in 0.0..=1.0f64, hundredths in 0u32..=100) {
        let shown: f64 = score(value).to_string().parse().unwrap();
        prop_assert!(shown <= value + 1e-9 && value < shown + 0.01, "{} is shown as {}", value, shown);
        let exact = score(f64::from(hundredths) / 100.0).to_string();
        prop_assert_eq!(exact, format!("{}.{:02}", hundredths / 100, hundredths % 100));
    }

    /// Small letters, a dash after any of them, and the three letters that are mistaken for digits.
    #[test]
    fn a_reference_is_read_as_people_type_it(
        random in any::<[u8; 5]>(),
        typed in vec((any::<bool>(), any::<bool>(), 0usize..2), 8),
    ) {
        let reference = Reference::new(random);
        let text: String = reference.as_str().chars().zip(typed).flat_map(|(symbol, (small, alike, dashes))| {
            let symbol = match (symbol, alike) {
                ('1', true) => if small { 'l' } else { 'I' },
                ('0', true) => 'O',
                _ => symbol,
            };
            let symbol = if small { symbol.to_ascii_lowercase() } else { symbol };
            std::iter::once(symbol).chain(std::iter::repeat_n('-', dashes))
        }).collect();
        prop_assert_eq!(text.parse::<Reference>(), Ok(reference), "{}", text);
        let longer = format!("{text}{}", "-".repeat(17 - text.len()));
        prop_assert!(longer.parse::<Reference>().is_err(), "{} has more dashes than anybody types", longer);
        prop_assert!(reference.as_str().chars().all(|symbol| SYMBOLS.contains(symbol)));
        prop_assert_eq!(reference.to_string().parse(), Ok(reference));
    }

    #[test]
    fn two_references_differ_where_their_bytes_do(left in any::<[u8; 5]>(), right in any::<[u8; 5]>()) {
        prop_assert_eq!(Reference::new(left) == Reference::new(right), left == right);
    }

    #[test]
    fn a_reference_of_another_length_or_alphabet_is_refused(
        symbols in vec(select(SYMBOLS.chars().collect::<Vec<_>>()), 0..16),
        text in "\\PC{0,12}",
    ) {
        let code: String = symbols.iter().collect();
        prop_assert_eq!(code.parse::<Reference>().is_ok(), symbols.len() == 8);
        if let Ok(reference) = text.parse::<Reference>() {
            prop_assert_eq!(text.chars().filter(|symbol| *symbol != '-').count(), 8);
            prop_assert_eq!(reference.to_string().len(), 8);
        }
        prop_assert!("U0000000".parse::<Reference>().is_err(), "there is no U: it is mistaken for V");
    }

    #[test]
    fn a_phone_number_is_read_with_and_without_its_channel_and_never_shown(digits in "[1-9][0-9]{6,14}") {
        let number: PhoneNumber = format!(" whatsapp:+{digits}\n").parse().unwrap();
        prop_assert_eq!(number.expose(), format!("+{digits}"));
        prop_assert_eq!(format!("+{digits}").parse(), Ok(number.clone()));
        for shown in [format!("{number:?}"), number.to_string()] {
            prop_assert!(shown.ends_with(&digits[digits.len() - 2..]) || shown.ends_with(')'));
            prop_assert!(shown.chars().filter(char::is_ascii_digit).count() == 2, "{}", shown);
        }
    }

    /// As Twilio has it: `^\+[1-9]\d{1,14}$`.
    #[test]
    fn nothing_but_a_phone_number_is_read_as_one(text in "[+0-9 a:٣-]{0,18}|\\+[0-9]{0,18}|\\PC{0,20}") {
        let trimmed = text.trim();
        let digits = trimmed.strip_prefix('+').unwrap_or("x");
        let fits = (2..=15).contains(&digits.len())
            && digits.bytes().all(|byte| byte.is_ascii_digit())
            && !digits.starts_with('0');
        prop_assert_eq!(text.parse::<PhoneNumber>().is_ok(), fits, "{}", text);
    }

    /// These stand in the clear in the audit and in labels of metrics: no room for a sentence.
    #[test]
    fn technical_words_have_no_room_for_free_text(text in "[A-Za-z0-9._:/+_-]{0,70}|\\PC{0,70}") {
        let plain = |extra: &str, longest: usize| {
            (1..=longest).contains(&text.len())
                && text.chars().all(|symbol| symbol.is_ascii_alphanumeric() || extra.contains(symbol))
        };
        prop_assert_eq!(text.parse::<Label>().is_ok(), plain("._:/+-", 64), "{}", text);
        prop_assert_eq!(text.parse::<ContactId>().is_ok(), plain("_-", 64), "{}", text);
        prop_assert_eq!(text.parse::<Label>().map(|label| label.as_str() == text), text.parse::<Label>().map(|_| true));
        let tag = (2..=3).contains(&text.len()) && text.chars().all(|symbol| symbol.is_ascii_lowercase());
        prop_assert_eq!(text.parse::<Language>().is_ok(), tag, "{}", text);
    }

    #[test]
    fn a_message_id_of_twilios_is_read_and_nothing_else(hex in "[0-9a-f]{32}", text in "\\PC{0,36}|[A-Z]{2}[0-9a-f]{30,33}") {
        let id = format!("SM{hex}");
        prop_assert!(id.parse::<ProviderId>().is_ok());
        let fits = text.len() == 34
            && text.chars().take(2).all(|symbol| symbol.is_ascii_uppercase())
            && text.chars().skip(2).all(|symbol| symbol.is_ascii_hexdigit());
        prop_assert_eq!(text.parse::<ProviderId>().is_ok(), fits, "{}", text);
    }

    /// Round by round, rung by rung, then the last responder for ever.
    #[test]
    fn the_ladder_goes_on_and_ends_with_the_last_responder(policy in policy(0), steps in 0usize..40) {
        let rounds = if policy.further_rounds_with_last { 1 } else { policy.rounds };
        let mut expected: Vec<Stage> = (0..rounds)
            .flat_map(|round| (0..u32::try_from(policy.steps.len()).unwrap()).map(move |step| Stage::Step { round, step }))
            .collect();
        expected.extend((1..=40).map(|times| Stage::LastResponder { times }));
        let climbed: Vec<Stage> = std::iter::successors(Some(Stage::FIRST), |stage| Some(stage.next(&policy)))
            .take(steps)
            .collect();
        prop_assert_eq!(&climbed[..], &expected[..steps]);
        for stage in climbed {
            let with_last = with_last(stage, &policy, &[]).first().and_then(Stage::rung);
            prop_assert_eq!(stage.told_again(&policy), with_last);
            prop_assert!(stage.patience(&policy) > Duration::ZERO, "{:?} would go round in circles", stage);
            let (targets, channels) = stage.targets(&policy);
            prop_assert!(channels.iter().all(|channel| policy.channels().contains(channel)), "{:?} {:?}", targets, channels);
        }
    }

    /// An alert keeps the ladder it was opened with, but what is stored may be damaged or very old.
    #[test]
    fn from_any_stage_the_ladder_goes_on(
        policy in policy(0),
        round in prop_oneof![0u32..5, Just(u32::MAX)],
        step in prop_oneof![0u32..6, Just(u32::MAX)],
        rounds in prop_oneof![0u32..5, Just(u32::MAX)],
        times in prop_oneof![1u32..5, Just(u32::MAX)],
    ) {
        let policy = Policy { rounds, ..policy };
        let stage = Stage::Step { round, step };
        prop_assert_ne!(stage.next(&policy), stage);
        let (targets, _) = stage.targets(&policy);
        prop_assert!(!targets.is_empty() || (step as usize) < policy.steps.len());
        prop_assert!(stage.patience(&policy) > Duration::ZERO);
        let last = Stage::LastResponder { times }.next(&policy);
        prop_assert_eq!(last, Stage::LastResponder { times: times.saturating_add(1) });
    }

    #[test]
    fn of_any_receipts_the_one_that_got_furthest_counts(statuses in vec(select(STATUSES.to_vec()), 1..8)) {
        let furthest = statuses.iter().max_by_key(|status| status.rank()).unwrap();
        let arrived = statuses.iter().any(|status| status.has_arrived());
        let failed = statuses.iter().any(|status| status.is_failure());
        prop_assert_eq!(furthest.has_arrived(), arrived, "what has arrived, has arrived");
        prop_assert_eq!(furthest.is_failure(), failed && !arrived);
        for status in statuses {
            let of_a_call = MessageStatus::of_call(&status.word().replace('_', "-"), None);
            let read = MessageStatus::parse(status.word()).or(of_a_call);
            let by_whom = matches!(status, MessageStatus::Answered | MessageStatus::Machine);
            prop_assert!(by_whom || read == Some(status), "{:?} {:?}", read, status);
        }
    }

    #[test]
    fn only_what_a_human_answers_has_arrived(word in "[a-z-]{1,12}", who in prop::option::of("human|machine_start|machine_end_[a-z]{1,6}|fax|unknown|[a-z_]{0,12}")) {
        for word in [word.as_str(), "queued", "initiated", "ringing", "in-progress", "completed", "busy", "no-answer", "failed", "canceled"] {
            let Some(status) = MessageStatus::of_call(word, who.as_deref()) else { continue };
            let over = matches!(word, "in-progress" | "answered" | "completed");
            prop_assert_eq!(status.has_arrived(), over && who.as_deref() == Some("human"), "{} {:?}", word, who);
        }
    }

    #[test]
    fn streams_are_read_as_they_are_written(hash in any::<[u8; 32]>(), id in any::<[u8; 10]>()) {
        let alert = crisis_relay::domain::ids::AlertId::new(start_plus(0), id);
        for stream in [
            AuditStream::Alert(alert),
            AuditStream::Access(alert),
            AuditStream::Consent(SubjectKey::from_bytes(hash)),
        ] {
            prop_assert_eq!(stream.to_string().parse(), Ok(stream));
        }
    }
}

/// What a student said of one channel.
const SAID: [Option<bool>; 3] = [None, Some(false), Some(true)];

/// Every word on every channel, with and without an override, for every set of channels that may be needed.
#[test]
fn a_ground_is_the_students_word_where_it_covers_all_then_an_override_then_part_of_that_word() {
    let combinations =
        SAID.iter().flat_map(|whatsapp| SAID.iter().flat_map(move |sms| SAID.map(|voice| [*whatsapp, *sms, voice])));
    for said in combinations {
        for needed in subsets() {
            for stated in [Granted::Nothing, Granted::Override] {
                let record = consent(said);
                let stated = stated.ground(start_plus(60));
                let found = ground_for(Some(&record), stated.clone(), &needed);
                assert_eq!(found, expected(said, stated.clone(), &needed), "{said:?} {needed:?} {stated:?}");
                // Naming a channel twice changes nothing.
                let twice = [needed.clone(), needed.clone()].concat();
                assert_eq!(ground_for(Some(&record), stated, &twice), found);
            }
        }
    }
    for needed in subsets() {
        let stated = Granted::Override.ground(start_plus(60));
        assert_eq!(ground_for(None, stated.clone(), &needed), stated, "a stated override is never lost");
        assert_eq!(ground_for(None, None, &needed), None, "silence is not a yes");
    }
}

fn subsets() -> Vec<Vec<Channel>> {
    (0..8)
        .map(|bits| {
            Channel::ALL
                .into_iter()
                .enumerate()
                .filter(|(at, _)| bits >> at & 1 == 1)
                .map(|(_, channel)| channel)
                .collect()
        })
        .collect()
}

fn expected(said: [Option<bool>; 3], stated: Option<Ground>, needed: &[Channel]) -> Option<Ground> {
    let yes: Vec<(usize, Channel)> = Channel::ALL
        .into_iter()
        .enumerate()
        .filter(|(at, channel)| said[*at] == Some(true) && needed.contains(channel))
        .collect();
    let newest = yes.last().map(|(at, _)| *at);
    let word = newest.map(|at| Ground::Consent {
        version: 4,
        granted_at: start_plus(at as i64),
        channels: yes.iter().map(|(_, channel)| *channel).collect(),
    });
    if yes.len() == needed.len() && word.is_some() { word } else { stated.or(word) }
}

/// The later the channel in the list, the later the word on it.
fn consent(said: [Option<bool>; 3]) -> ConsentRecord {
    let words: BTreeMap<Channel, ChannelConsent> = Channel::ALL
        .into_iter()
        .enumerate()
        .filter_map(|(at, channel)| {
            let source = "app_settings".parse().unwrap();
            let word = |granted| ChannelConsent { granted, at: start_plus(at as i64), source, notice_version: None };
            Some((channel, said[at].map(word)?))
        })
        .collect();
    ConsentRecord {
        organisation: "mitra".parse().unwrap(),
        subject: SubjectKey::from_bytes([9; 32]),
        version: 4,
        channels: words,
        emergency_contacts: Vec::new(),
        codes_sent: Vec::new(),
        audit_head: AuditHead::EMPTY,
    }
}

proptest! {
    #![proptest_config(cases(100))]

    #[test]
    fn a_consent_allows_the_channels_it_names_and_an_override_all(named in subsequence(Channel::ALL.to_vec(), 0..=3)) {
        let consent = Ground::Consent { version: 1, granted_at: start_plus(0), channels: named.clone() };
        for channel in Channel::ALL {
            prop_assert_eq!(consent.allows(channel), named.contains(&channel));
            prop_assert!(Granted::Override.ground(start_plus(0)).unwrap().allows(channel));
        }
    }
}
