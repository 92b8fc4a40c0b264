use jiff::Timestamp;
use jiff::tz::TimeZone;
use proptest::prelude::*;

use super::segments::Encoding;
use super::*;
use crate::domain::ids::Reference;
use crate::domain::reply::Command;
use crate::domain::tap::Tap;

const EN: &str = include_str!("../../../config/templates/en.toml");
const HI: &str = include_str!("../../../config/templates/hi.toml");
const MANUAL: &str = include_str!("../../../docs/templates.md");
const SID: &str = "HX0123456789abcdef0123456789abcdef";

fn language(tag: &str) -> Language {
    tag.parse().unwrap()
}

fn facts() -> MessageFacts {
    MessageFacts {
        reference: "K7Q4TX3M".parse().unwrap(),
        score: Some(0.93),
        band: UrgencyBand::High,
        raised_at: "2026-11-03T08:35:00Z".parse().unwrap(),
        respond_by: "2026-11-03T08:40:00Z".parse().unwrap(),
        time_zone: TimeZone::posix("IST-5:30").unwrap(),
        link: Some("https://relay.example.org/a".parse().unwrap()),
        sender: "MITRA".parse().unwrap(),
        drill: false,
    }
}

fn compose(channel: Channel, tag: &str, facts: &MessageFacts) -> Composed {
    TemplateSet::builtin().compose(channel, &language(tag), facts, None).unwrap()
}

/// The faults of the English file after `from` was replaced by `to` in it.
fn faults_after(from: &str, to: &str) -> Vec<TemplateFault> {
    assert!(EN.contains(from), "{from}");
    TemplateSet::parse(&[("en.toml", &EN.replacen(from, to, 1))]).err().unwrap_or_default()
}

/// That one replacement is a fault of that key, with that rule.
fn refuses(from: &str, to: &str, key: &str, rule: &str) {
    let faults = faults_after(from, to);
    let told = faults.iter().any(|fault| fault.file == "en.toml" && fault.key == key && fault.rule.contains(rule));
    assert!(told, "{to}: {faults:#?}");
}

// ---------------------------------------------------------------------------------------------------------------------
// Rules on files

#[test]
fn every_fault_of_every_file_is_told_at_once() {
    let broken = EN
        .replace("version = 1", "version = 0\ncolour = \"red\"")
        .replace("live = \"live\"", "live = 7")
        .replace("{sender}, {urgency}", "{user_id}, {urgency}")
        .replace("-{sender}", "-{sender");
    let faults = TemplateSet::parse(&[("a.toml", &broken), ("b.toml", "language = \"d\"\n"), ("c.toml", "= 3")]);
    let told: Vec<String> = faults.unwrap_err().iter().map(ToString::to_string).collect();
    for start in [
        "a.toml: version: must be a whole number",
        "a.toml: colour: is not a known key",
        "a.toml: words.live: must be a text",
        "a.toml: counsellor_alert.whatsapp.body: has the unknown variable {user_id}",
        "a.toml: counsellor_alert.sms.body: has an opening brace",
        "b.toml: language: must be a language tag",
        "b.toml: version: is missing",
        "b.toml: words: is missing",
        "b.toml: counsellor_alert: is missing",
        "c.toml: (line 1): ",
    ] {
        assert!(told.iter().any(|fault| fault.starts_with(start)), "{start}\n{told:#?}");
    }
}

#[test]
fn a_file_that_is_no_toml_names_the_line() {
    let faults = TemplateSet::parse(&[("en.toml", "language = \"en\"\nversion = 1\nwords = {{\n")]).unwrap_err();
    assert_eq!(faults.len(), 1);
    assert_eq!(faults[0].key, "(line 3)");
    let long = "#".repeat(64 * 1024 + 1);
    assert_eq!(TemplateSet::parse(&[("en.toml", &long)]).unwrap_err()[0].key, "(file)");
}

#[test]
fn english_must_be_there_and_no_language_twice() {
    assert_eq!(TemplateSet::parse(&[]).unwrap_err().len(), 1);
    assert!(TemplateSet::parse(&[("hi.toml", HI)]).unwrap_err()[0].rule.contains("`en`"));
    let twice = TemplateSet::parse(&[("en.toml", EN), ("also.toml", EN)]).unwrap_err();
    assert_eq!((twice.len(), twice[0].file.as_str()), (1, "also.toml"));
}

#[test]
fn a_text_that_lacks_what_it_must_say_is_refused() {
    let (whatsapp, sms) = ("counsellor_alert.whatsapp.body", "counsellor_alert.sms.body");
    refuses("Ref {reference}, ", "", sms, "must say the {reference}");
    refuses("Its reference is {reference}, the", "The", whatsapp, "must say the {reference}");
    refuses("\"{urgency}: a case", "\"A case", sms, "{drill} marker");
    refuses("more. Reply 1 to take it. -", "more. Say yes. -", sms, "words.acknowledge");
    refuses("more. Reply 1 to take it.\"", "more. Say yes.\"", whatsapp, "words.acknowledge");
    refuses("acknowledge = \"Reply 1 to take it\"", "acknowledge = \"Reply 10\"", "words.acknowledge", "reply 1");
}

#[test]
fn a_text_that_names_the_matter_is_refused() {
    refuses("a case needs you.", "a student needs you.", "counsellor_alert.sms.body", "name the matter");
    refuses("high = \"URGENT\"", "high = \"CRISIS\"", "words.urgency.high", "name the matter");
    refuses("live = \"live\"", "live = \"health\"", "words.live", "name the matter");
}

#[test]
fn what_whatsapp_would_refuse_is_refused_here() {
    let key = "counsellor_alert.whatsapp.body";
    refuses("\"Message from {sender}", "\"{sender}", key, "start or end");
    refuses("more. Reply 1 to take it.\"", "more. Reply 1 to take it. {drill}\"", key, "start or end");
    refuses("by {respond_by}, then {action}", "by {respond_by} {action}", key, "between any two");
    refuses("needs you now.", "needs you now.\\n", key, "line breaks");
    refuses("needs you now.", &format!("needs you now. {}", "x".repeat(900)), key, "longer than");
    let listed = "counsellor_alert.whatsapp.variables";
    refuses("\"sender\", \"urgency\"", "\"urgency\", \"sender\"", listed, "in their order");
    refuses("[\"sender\", ", "[", listed, "in their order");
    refuses("raised at {time}", "raised at {score}", listed, "twice");
}

#[test]
fn an_sms_that_could_take_too_many_parts_is_refused() {
    let key = "counsellor_alert.sms.body";
    refuses("segments_max = 2", "segments_max = 1", key, "can take 2 parts");
    refuses("needs you. Ref", "needs yóu. Ref", key, "can take 4 parts");
    refuses("needs you. Ref", &format!("needs you. {} Ref", "x".repeat(100)), key, "can take 3 parts");
    refuses("segments_max = 2", "segments_max = 7", "counsellor_alert.sms.segments_max", "from 1 to 6");
    refuses("segments_max = 2", "", "counsellor_alert.sms.segments_max", "missing");
}

#[test]
fn a_link_that_would_swallow_its_neighbour_is_refused() {
    refuses(
        "Open {link} to see more. Reply 1 to take it. -",
        "Open {link}. Reply 1 to take it. -",
        "counsellor_alert.sms.body",
        "set {link} off",
    );
}

#[test]
fn a_word_that_a_variable_cannot_carry_is_refused() {
    refuses("live = \"live\"", "live = \"\"", "words.live", "must be words");
    refuses("live = \"live\"", "live = \"a\\tb\"", "words.live", "must be words");
    refuses("live = \"live\"", "live = \"a     b\"", "words.live", "must be words");
    refuses("live = \"live\"", "live = \" live\"", "words.live", "must be words");
    refuses("live = \"live\"", "live = \"{score}\"", "words.live", "must be words");
    refuses("live = \"live\"", &format!("live = \"{}\"", "x".repeat(31)), "words.live", "31 characters");
    assert_eq!(faults_after("live = \"live\"", "live = \"a    b\""), []);
}

#[test]
fn a_drill_that_is_not_marked_and_a_live_text_that_is_are_refused() {
    refuses("drill = \"DRILL, NOT REAL\"", "drill = \"practice\"", "words.drill", "must contain DRILL");
    refuses("drill = \"DRILL, NOT REAL\"", "drill = \"practice\"", "counsellor_alert.sms.body", "marked as one");
    refuses("high = \"URGENT\"", "high = \"No drill\"", "counsellor_alert.sms.body", "must not");
    refuses("a case needs you.", "a case (or drill) needs you.", "counsellor_alert.sms.body", "must not");
    // The marker may stand in a place of its own instead.
    assert_eq!(faults_after("\"{urgency}: a case", "\"Now ({drill}): a case"), []);
}

// ---------------------------------------------------------------------------------------------------------------------
// Composing

#[test]
fn a_text_says_what_was_agreed_and_nothing_else() {
    let composed = compose(Channel::Sms, "en", &facts());
    assert_eq!(
        composed.text,
        "URGENT: a case needs you. Ref K7Q4TX3M, score 0.93, 14:05 IST. Answer by 14:10 IST, then read it and call now. \
         Open https://relay.example.org/a/K7Q4TX3M to see more. Reply 1 to take it. -MITRA"
    );
    assert_eq!((composed.template.as_str(), composed.version), ("counsellor_alert", 1));
    assert_eq!(composed.language, language("en"));
    assert_eq!(composed.segments, SegmentCount { encoding: Encoding::Gsm7, units: 192, segments: 2 });
    assert_eq!(composed.variables, [""; 0]);
    // This is all that a message is made of. A field more is a field that can leak: think before it is added here.
    let MessageFacts {
        reference: _,
        score: _,
        band: _,
        raised_at: _,
        respond_by: _,
        time_zone: _,
        link: _,
        sender: _,
        drill: _,
    } = facts();
}

#[test]
fn the_hash_is_of_the_text_that_the_phone_shows() {
    let composed = compose(Channel::Whatsapp, "hi", &facts());
    let expected = data_encoding::HEXLOWER.encode(&Sha256::digest(&composed.text));
    assert_eq!(composed.text_sha256, expected);
    assert_eq!(composed.text_sha256.len(), 64);
}

#[test]
fn without_a_score_or_a_link_the_text_still_reads_well() {
    let by_hand = MessageFacts { score: None, link: None, band: UrgencyBand::Critical, ..facts() };
    let text = compose(Channel::Sms, "en", &by_hand).text;
    assert!(text.starts_with("CRITICAL: "), "{text}");
    assert!(text.contains("score set by a person,") && text.contains("Open the dashboard to see more."), "{text}");
    assert!(compose(Channel::Whatsapp, "hi", &by_hand).text.contains("डैशबोर्ड खोलें"));
}

#[test]
fn a_language_without_a_file_falls_back_to_english_and_says_so() {
    let set = TemplateSet::builtin();
    let composed = compose(Channel::Whatsapp, "ta", &facts());
    assert_eq!(composed.language, language("en"));
    assert_eq!(set.language_for(&language("ta")), &language("en"));
    assert_eq!(set.language_for(&language("hi")), &language("hi"));
    assert_eq!(composed.text, compose(Channel::Whatsapp, "en", &facts()).text);
}

#[test]
fn a_drill_can_never_be_mistaken_for_a_live_alert_nor_a_live_one_for_a_drill() {
    let drill = MessageFacts { drill: true, ..facts() };
    for tag in ["en", "hi"] {
        for channel in [Channel::Whatsapp, Channel::Sms] {
            let (live, drill) = (compose(channel, tag, &facts()), compose(channel, tag, &drill));
            assert!(drill.text.contains("DRILL") && !live.text.to_uppercase().contains("DRILL"));
            if channel == Channel::Whatsapp {
                // What the provider fills in by itself must bear the mark too.
                assert!(drill.variables.iter().any(|value| value.contains("DRILL")));
            }
        }
    }
}

#[test]
fn a_drill_is_refused_where_its_text_would_not_say_so() {
    let unmarked = Values::widest(&english().words, &english().actions);
    let mut drill = unmarked.into_iter().find(|values| values.drill).unwrap();
    let template = &english().sms;
    assert!(template.render(&drill).is_ok());
    drill.urgency = "URGENT".to_owned();
    assert_eq!(template.render(&drill), Err(ComposeError::DrillMark));
}

#[test]
fn values_that_a_provider_would_refuse_never_leave_the_house() {
    let template = &english().whatsapp;
    let values = || Values::sample(&english().words, &english().actions);
    assert!(template.render(&values()).is_ok());
    for bad in ["", "  ", "a\nb", "a\tb", "a\u{7}b", "a     b"] {
        let values = Values { sender: bad.to_owned(), ..values() };
        assert_eq!(template.render(&values), Err(ComposeError::Value { variable: Variable::Sender }), "{bad:?}");
    }
    let long = Values { sender: "x".repeat(1024), ..values() };
    assert_eq!(template.render(&long), Err(ComposeError::TooLong));
}

#[test]
fn what_the_caller_gave_wrongly_is_told() {
    let set = TemplateSet::builtin();
    let refused = |channel, facts: &MessageFacts, sid| set.compose(channel, &language("en"), facts, sid).unwrap_err();
    for score in [f64::NAN, f64::INFINITY, -0.1, 1.1] {
        let facts = MessageFacts { score: Some(score), ..facts() };
        assert_eq!(refused(Channel::Sms, &facts, None), ComposeError::Score);
    }
    for sid in ["", "HX", "HX0123", "MG0123456789abcdef0123456789abcdef", "HX0123456789abcdef0123456789abcdeg"] {
        assert_eq!(refused(Channel::Whatsapp, &facts(), Some(sid)), ComposeError::ContentSid, "{sid}");
    }
}

#[test]
fn an_approved_template_goes_out_on_whatsapp_only() {
    let set = TemplateSet::builtin();
    let composed = |channel| set.compose(channel, &language("en"), &facts(), Some(SID)).unwrap();
    assert_eq!(composed(Channel::Whatsapp).content_sid.as_deref(), Some(SID));
    assert_eq!(composed(Channel::Sms).content_sid, None);
}

#[test]
fn the_registered_template_filled_with_the_variables_is_the_text() {
    let set = TemplateSet::builtin();
    for tag in ["en", "hi"] {
        let definition = set.content_definition(Purpose::CounsellorAlert, &language(tag));
        let composed = set.compose(Channel::Whatsapp, &language(tag), &facts(), Some(SID)).unwrap();
        let mut text = body_of(&definition).to_owned();
        for (place, value) in composed.variables.iter().enumerate() {
            let hole = format!("{{{{{}}}}}", place + 1);
            assert_eq!(text.matches(&hole).count(), 1);
            assert_eq!(definition["variables"][(place + 1).to_string()].as_str(), Some(value.as_str()));
            text = text.replace(&hole, value);
        }
        assert_eq!(text, composed.text);
        assert_eq!(definition["language"], tag);
        assert_eq!(definition["friendly_name"], format!("counsellor_alert_{tag}_v1_buttons"));
        // The ticket follows them.
        assert!(composed.has_buttons);
        assert_eq!(definition["variables"].as_object().unwrap().len(), composed.variables.len() + 1);
    }
}

fn body_of(definition: &serde_json::Value) -> &str {
    let shapes = definition["types"].as_object().unwrap();
    assert_eq!(shapes.len(), 1, "{definition}");
    shapes.values().next().unwrap()["body"].as_str().unwrap()
}

// ---------------------------------------------------------------------------------------------------------------------
// Buttons

#[test]
fn what_is_answered_has_buttons_and_what_only_tells_has_none() {
    let set = TemplateSet::builtin();
    for (language, _) in set.languages() {
        for purpose in [Purpose::CounsellorAlert, Purpose::EmergencyContact].into_iter().chain(Purpose::NOTICES) {
            let definition = set.content_definition(purpose, language);
            let places = definition["variables"].as_object().unwrap().len();
            let actions = &definition["types"]["twilio/quick-reply"]["actions"];
            if !purpose.is_answered() {
                assert!(definition["types"]["twilio/text"]["body"].is_string(), "{definition}");
                assert_eq!(body_of(&definition).matches("{{").count(), places, "{definition}");
                continue;
            }
            let ids: Vec<&str> = actions.as_array().unwrap().iter().map(|one| one["id"].as_str().unwrap()).collect();
            assert_eq!(ids, [format!("1.{{{{{places}}}}}"), format!("2.{{{{{places}}}}}")], "{definition}");
            // The text keeps the numbers that it has without buttons.
            assert_eq!(body_of(&definition).matches("{{").count(), places - 1, "{definition}");
            for action in actions.as_array().unwrap() {
                let title = action["title"].as_str().unwrap();
                assert!((1..=20).contains(&title.chars().count()) && !title.contains("{{"), "{title}");
            }
            // A tap of which Twilio fills in the sample asks for no less.
            let sample = ids[0]
                .replace(&format!("{{{{{places}}}}}"), definition["variables"][places.to_string()].as_str().unwrap());
            assert_eq!(Tap::read(&sample), Tap { command: Command::Take(None), ticket: None });
        }
    }
}

#[test]
fn a_message_without_an_approved_template_has_no_buttons() {
    let set = TemplateSet::builtin();
    let has_buttons = |channel, sid| set.compose(channel, &language("en"), &facts(), sid).unwrap().has_buttons;
    assert!(has_buttons(Channel::Whatsapp, Some(SID)));
    for channel in [Channel::Whatsapp, Channel::Sms, Channel::Voice] {
        assert!(!has_buttons(channel, None), "{channel:?}");
    }
    assert!(!has_buttons(Channel::Sms, Some(SID)), "no text message has any");
}

#[test]
fn a_file_without_buttons_makes_the_template_that_it_made_before_there_were_any() {
    let start = EN.find("[counsellor_alert.whatsapp.buttons]").unwrap();
    let end = start + EN[start..].find("[counsellor_alert.sms]").unwrap();
    let without = format!("{}{}", &EN[..start], &EN[end..]);
    let set = TemplateSet::parse(&[("en.toml", &without)]).unwrap();
    let definition = set.content_definition(Purpose::CounsellorAlert, &language("en"));
    assert_eq!(definition["friendly_name"], "counsellor_alert_en_v1");
    assert_eq!(definition["types"].as_object().unwrap().keys().collect::<Vec<_>>(), ["twilio/text"]);
    let composed = set.compose(Channel::Whatsapp, &language("en"), &facts(), Some(SID)).unwrap();
    assert!(!composed.has_buttons);
    assert_eq!(definition["variables"].as_object().unwrap().len(), composed.variables.len());
}

#[test]
fn a_button_that_whatsapp_would_refuse_is_a_fault_of_the_file() {
    const TAKE: &str = "take = \"I take it\"";
    let key = "counsellor_alert.whatsapp.buttons.take";
    for (title, rule) in [
        ("I take this case and see to it", "a button has room for 20"),
        ("I *take* it", "without formatting and emoji"),
        ("\u{2705} I take it", "without formatting and emoji"),
        ("\u{1f44d}", "without formatting and emoji"),
        ("{reference} is mine", "without braces"),
        ("", "must be words"),
        ("The student is mine", "must not name the matter"),
    ] {
        refuses(TAKE, &format!("take = \"{title}\""), key, rule);
    }
    refuses(TAKE, "", key, "is missing");
    refuses(TAKE, "take = \"Pass it on\"", "counsellor_alert.whatsapp.buttons.pass", "the other button's title");
    refuses(TAKE, "take = \"I take it\"\nthird = \"x\"", "counsellor_alert.whatsapp.buttons.third", "not a known key");
    let notice = "[taken_notice]\n";
    refuses(
        notice,
        "[taken_notice.buttons]\ntake = \"a\"\npass = \"b\"\n[taken_notice]\n",
        "taken_notice.buttons",
        "known key",
    );
}

// ---------------------------------------------------------------------------------------------------------------------
// The texts that come with the program

fn english() -> LanguageFile {
    TemplateSet::builtin().file_for(&language("en")).clone()
}

#[test]
fn a_text_never_changes_under_the_same_version() {
    // The audit names a template by its version. If a text was changed: raise the version, then mend this table.
    let pinned = [("en", 1, "d1bf68a04613a058"), ("hi", 1, "ee91bca767cb44c8")];
    let set = TemplateSet::builtin();
    let mut found = Vec::new();
    for (language, version) in set.languages() {
        let file = set.file_for(language);
        let mut hash = Sha256::new();
        for values in Values::widest(&file.words, &file.actions) {
            for text in [&file.whatsapp, &file.sms] {
                hash.update(text.render(&values).unwrap());
            }
        }
        found.push((language.as_str(), version, data_encoding::HEXLOWER.encode(&hash.finalize()[..8])));
    }
    assert_eq!(found, pinned.map(|(language, version, hash)| (language, version, hash.to_owned())));
}

#[test]
fn the_whatsapp_texts_have_enough_words_for_their_variables_to_be_approved() {
    let set = TemplateSet::builtin();
    for (language, _) in set.languages() {
        let definition = set.content_definition(Purpose::CounsellorAlert, language);
        let body = body_of(&definition);
        let variables = body.matches("{{").count();
        assert!(body.split_whitespace().count() > 3 * variables, "{body}");
    }
}

/// The texts of the manual: those an administrator shows to others before switching anything on.
fn examples() -> Vec<(Channel, &'static str, MessageFacts)> {
    let kinds = [
        facts(),
        MessageFacts { score: None, link: None, band: UrgencyBand::Critical, ..facts() },
        MessageFacts { drill: true, ..facts() },
    ];
    let mut all = Vec::new();
    for tag in ["en", "hi"] {
        for channel in [Channel::Whatsapp, Channel::Sms] {
            all.extend(kinds.clone().map(|facts| (channel, tag, facts)));
        }
    }
    all
}

#[test]
fn the_manual_shows_the_texts_as_they_are() {
    for (channel, tag, facts) in examples() {
        let Composed { text, segments, .. } = compose(channel, tag, &facts);
        assert!(MANUAL.contains(&format!("> {text}\n")), "docs/templates.md lacks:\n> {text}");
        if channel == Channel::Sms {
            let SegmentCount { encoding, units, segments } = segments;
            let cost = format!("> {text}\n\n{units} units of {}, {segments} parts.\n", encoding.as_str());
            assert!(MANUAL.contains(&cost), "docs/templates.md lacks:\n{cost}");
        }
    }
    let set = TemplateSet::builtin();
    for (language, _) in set.languages() {
        let bound = format!("| `{language}` | {} |", set.sms_segments_bound(language));
        assert!(MANUAL.contains(&bound), "docs/templates.md lacks: {bound}");
    }
    for variable in Variable::ALL {
        assert!(MANUAL.contains(&format!("| `{{{variable}}}` |")), "docs/templates.md lacks {{{variable}}}");
    }
    let shown = MANUAL.split("```json\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
    let shown: serde_json::Value = serde_json::from_str(shown).unwrap();
    assert_eq!(shown, set.content_definition(Purpose::CounsellorAlert, &language("en")));
}

// ---------------------------------------------------------------------------------------------------------------------
// Whatever the facts

prop_compose! {
    fn any_facts()(
        reference in any::<[u8; 5]>(),
        score in proptest::option::of((0..=1000u32).prop_map(|thousandths| f64::from(thousandths) / 1000.0)),
        band in proptest::sample::select(&UrgencyBand::ALL[..]),
        raised in 0i64..4_000_000_000,
        wait in 0i64..100_000,
        zone in prop_oneof!["[A-Z]{3,6}-5:30", "<[+-][0-9]{2,4}>[+-]?1[0-4]:45", "[a-zA-Z]{7,20}11"],
        link in proptest::option::of("https://[a-z0-9.-]{1,20}[a-z]/[a-zA-Z0-9/]{0,20}[a-z]"),
        sender in "[A-Z][A-Z0-9]{0,18}[A-Z]",
        drill in any::<bool>(),
    ) -> Option<MessageFacts> {
        Some(MessageFacts {
            reference: Reference::new(reference),
            score,
            band,
            raised_at: Timestamp::from_second(raised).ok()?,
            respond_by: Timestamp::from_second(raised + wait).ok()?,
            time_zone: TimeZone::posix(&zone).ok()?,
            link: link.map(|link| link.parse()).transpose().ok()?,
            sender: sender.parse().ok()?,
            drill,
        })
    }
}

proptest! {
    #[test]
    fn every_text_is_within_its_bounds(
        facts in any_facts().prop_filter_map("facts", |facts| facts),
        tag in proptest::sample::select(&["en", "hi"][..]),
    ) {
        let set = TemplateSet::builtin();
        for channel in [Channel::Whatsapp, Channel::Sms] {
            let composed = set.compose(channel, &language(tag), &facts, None).unwrap();
            prop_assert!(composed.text.chars().count() <= 1024);
            prop_assert_eq!(composed.text.contains("DRILL"), facts.drill);
            prop_assert!(composed.text.contains(facts.reference.as_str()));
            prop_assert!(composed.variables.iter().all(|value| !value.trim().is_empty() && !value.contains(['\n', '\t'])));
            if channel == Channel::Sms {
                prop_assert!(composed.segments.segments <= set.sms_segments_bound(&language(tag)));
            }
            let encoding = if tag == "en" { Encoding::Gsm7 } else { Encoding::Ucs2 };
            prop_assert_eq!(composed.segments.encoding, encoding);
        }
    }

    #[test]
    fn a_text_is_its_template_and_the_facts_and_nothing_else(
        facts in any_facts().prop_filter_map("facts", |facts| facts),
        tag in proptest::sample::select(&["en", "hi"][..]),
    ) {
        // Put together again by other means, from the file as it is written and the facts as they were given.
        let raw: toml::Table = if tag == "en" { EN } else { HI }.parse().unwrap();
        let word = |table: &toml::Table, key: &str| table[key].as_str().unwrap().to_owned();
        let (words, alert) = (raw["words"].as_table().unwrap(), raw["counsellor_alert"].as_table().unwrap());
        let (urgency, action) = (words["urgency"].as_table().unwrap(), alert["action"].as_table().unwrap());
        let clock = |at: Timestamp| {
            let named = at.to_zoned(facts.time_zone.clone()).strftime("%H:%M %Z").to_string();
            let plain = named.len() <= 12;
            if plain { named } else { at.to_zoned(facts.time_zone.clone()).strftime("%H:%M %:z").to_string() }
        };
        let band = if facts.drill { "drill" } else { facts.band.as_str() };
        let said = if facts.drill { word(words, "drill") } else { word(urgency, band) };
        let score = facts.score.map(|score| format!("{score:.3}")[..4].to_owned());
        let values = [
            ("{reference}", facts.reference.to_string()),
            ("{urgency}", said),
            ("{score}", score.unwrap_or(word(words, "score_by_hand"))),
            ("{time}", clock(facts.raised_at)),
            ("{respond_by}", clock(facts.respond_by)),
            ("{action}", word(action, band)),
            ("{link}", facts.link.as_ref().map_or(word(words, "link_absent"), |link| format!("{}/{}", link.as_str(), facts.reference))),
            ("{sender}", facts.sender.to_string()),
        ];
        for channel in [Channel::Whatsapp, Channel::Sms] {
            let mut text = word(alert[channel.as_str()].as_table().unwrap(), "body");
            for (place, value) in &values {
                text = text.replace(place, value);
            }
            prop_assert_eq!(compose(channel, tag, &facts).text, text);
        }
    }

    #[test]
    fn no_file_makes_reading_panic(from in 0usize..3000, length in 0usize..40, to in "\\PC{0,12}|[{}\"=\n]{0,4}") {
        let symbols: Vec<char> = EN.chars().collect();
        let from = from.min(symbols.len());
        let until = (from + length).min(symbols.len());
        let altered: String = symbols[..from].iter().copied().chain(to.chars()).chain(symbols[until..].iter().copied()).collect();
        let _ = TemplateSet::parse(&[("en.toml", &altered)]);
    }
}
