//! Webhooks are believed only if Twilio signed them, for this URL, this account and this body; and whatever is refused
//! changes nothing.

use crisis_relay::domain::alert::Alert;
use crisis_relay::secret::Secret;
use crisis_relay::twilio::signature::{self, SIGNATURE_HEADER};
use serde_json::{Value, json};

use crate::common::gate::{Fate, Fault, Gate};
use crate::common::{Answer, COUNSELLOR, Setting, World, answer};

const ACCOUNT: &str = "AC00000000000000000000000000000000";
const TOKEN: &str = "simulator-auth-token";
const FORM: &str = "application/x-www-form-urlencoded";

/// A world with a message at Twilio, and a receipt for it that nobody has posted yet.
struct Scene {
    world: World,
    reference: String,
    before: Alert,
    url: String,
    pairs: Vec<(String, String)>,
}

impl Scene {
    async fn new() -> Self {
        Self::of(Setting::default()).await
    }

    async fn of(setting: Setting) -> Self {
        let mut world = setting.start().await;
        let reference = world.told("student-1", 0.93).await;
        world.work().await;
        let message = world.expect_on_the_phone(&reference);
        let url = message.status_callback.unwrap().split('#').next().unwrap().to_owned();
        let pairs = [
            ("AccountSid", ACCOUNT),
            ("ApiVersion", "2010-04-01"),
            ("MessageSid", &message.sid),
            ("MessageStatus", "delivered"),
            ("To", &format!("whatsapp:{COUNSELLOR}")),
        ];
        let pairs = pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
        let before = world.stored(&reference).await;
        Self { world, reference, before, url, pairs }
    }

    fn body(&self) -> String {
        form_urlencoded::Serializer::new(String::new()).extend_pairs(&self.pairs).finish()
    }

    fn signature(&self) -> String {
        sign(TOKEN, &self.url, &self.pairs)
    }

    async fn post(&self, url: &str, kind: &str, body: impl Into<Vec<u8>>, signature: Option<&str>) -> Answer {
        let mut request = self.world.client().post(url).header("Content-Type", kind).body(body.into());
        if let Some(signature) = signature {
            request = request.header(SIGNATURE_HEADER, signature);
        }
        answer(request).await
    }

    /// The form as it is, under this signature.
    async fn post_form(&self, url: &str, signature: Option<&str>) -> Answer {
        self.post(url, FORM, self.body(), signature).await
    }

    /// Fails the story if anything has changed.
    async fn nothing_has_changed(&self) {
        assert_eq!(self.world.stored(&self.reference).await, self.before);
    }

    async fn is_delivered(&self) {
        self.world.expect_state(&self.reference, "delivered").await;
    }

    /// Posts, is refused with this, and nothing has changed.
    async fn refused(&self, posted: impl Future<Output = Answer>, status: u16, code: &str) {
        let answer = posted.await.expect(status);
        assert_eq!(answer.text_at("/code"), code);
        self.nothing_has_changed().await;
    }
}

fn sign(token: &str, url: &str, pairs: &[(String, String)]) -> String {
    signature::sign(&Secret::new(token), url, pairs)
}

// -- forms ------------------------------------------------------------------------------------------------------------

#[tokio::test]
async fn a_signed_receipt_is_taken() {
    let scene = Scene::new().await;
    scene.post_form(&scene.url, Some(&scene.signature())).await.expect(204);
    scene.is_delivered().await;
    scene.post_form(&scene.url, Some(&scene.signature())).await.expect(204);
}

#[tokio::test]
async fn a_receipt_without_a_right_signature_is_refused() {
    let scene = Scene::new().await;
    let right = scene.signature();
    let altered = format!("{}{}", if right.starts_with('A') { 'B' } else { 'A' }, &right[1..]);
    let of_another_token = sign("another-token", &scene.url, &scene.pairs);
    let of_another_url = sign(TOKEN, &scene.url.replace("status", "incoming"), &scene.pairs);
    let of_nothing = sign(TOKEN, &scene.url, &[]);
    for wrong in [None, Some(""), Some("nonsense"), Some("ÿ"), Some(&altered), Some(&right.to_lowercase())] {
        scene.refused(scene.post_form(&scene.url, wrong), 403, "bad_signature").await;
    }
    for wrong in [of_another_token, of_another_url, of_nothing] {
        scene.refused(scene.post_form(&scene.url, Some(&wrong)), 403, "bad_signature").await;
    }
    assert_eq!(scene.world.counted("crisis_relay_webhooks_refused_total{kind=\"signature\"}").await, 9.0);
    scene.post_form(&scene.url, Some(&right)).await.expect(204);
}

#[tokio::test]
async fn a_flood_of_forgeries_is_turned_away_and_keeps_no_signed_call_out() {
    let scene = Scene::of(Setting::default().with("CRISIS_RELAY__RATE_LIMITS__WEBHOOK_PER_SECOND", "100")).await;
    let mut turned_away = false;
    for _ in 0..10_000 {
        turned_away = scene.post_form(&scene.url, None).await.status == 429;
        if turned_away {
            break;
        }
    }
    assert!(turned_away, "forgeries are not limited");
    scene.nothing_has_changed().await;
    for _ in 0..20 {
        let malformed = scene.post(&scene.url, FORM, "%ff", None).await.status;
        assert!([400, 403, 429].contains(&malformed), "{malformed}");
        scene.post_form(&scene.url, Some(&scene.signature())).await.expect(204);
    }
    scene.is_delivered().await;
}

#[tokio::test]
async fn an_empty_token_lets_nobody_sign() {
    let scene = Scene::new().await;
    let signature = sign("", &scene.url, &scene.pairs);
    scene.refused(scene.post_form(&scene.url, Some(&signature)), 403, "bad_signature").await;
}

#[tokio::test]
async fn an_altered_body_is_refused() {
    let scene = Scene::new().await;
    let signature = scene.signature();
    let body = scene.body();
    for altered in [
        body.replace("delivered", "failed"),
        format!("{body}&ErrorCode=63024"),
        body.replace("&ApiVersion=2010-04-01", ""),
        format!("{body}&MessageStatus=read"),
    ] {
        scene.refused(scene.post(&scene.url, FORM, altered, Some(&signature)), 403, "bad_signature").await;
    }
    // The same fields in another order are the same form.
    let turned: Vec<&str> = body.split('&').rev().collect();
    scene.post(&scene.url, FORM, turned.join("&"), Some(&signature)).await.expect(204);
    scene.is_delivered().await;
}

#[tokio::test]
async fn an_altered_query_is_refused() {
    let scene = Scene::new().await;
    let signature = scene.signature();
    for altered in [
        scene.url.replace("attempt=1", "attempt=2"),
        format!("{}&x=1", scene.url),
        scene.url.split('?').next().unwrap().to_owned(),
    ] {
        scene.refused(scene.post_form(&altered, Some(&signature)), 403, "bad_signature").await;
    }
}

#[tokio::test]
async fn a_host_header_does_not_decide_which_url_was_signed() {
    let scene = Scene::new().await;
    let elsewhere = scene.url.replace(scene.world.base().authority(), "relay.evil.example");
    let signature = sign(TOKEN, &elsewhere, &scene.pairs);
    let request = scene.world.client().post(&scene.url).header("Host", "relay.evil.example");
    let request = request.header("X-Forwarded-Host", "relay.evil.example").header("Content-Type", FORM);
    let posted = answer(request.header(SIGNATURE_HEADER, signature).body(scene.body()));
    scene.refused(posted, 403, "bad_signature").await;
}

#[tokio::test]
async fn the_public_address_is_what_twilio_signs_with_its_port_or_without() {
    for (base, signed) in [
        ("https://relay.example.org", "https://relay.example.org"),
        ("https://relay.example.org", "https://relay.example.org:443"),
        ("https://relay.example.org:8443", "https://relay.example.org:8443"),
        ("https://relay.example.org:8443", "https://relay.example.org"),
    ] {
        let scene = Scene::of(Setting::default().with("TWILIO_WEBHOOK_BASE_URL", base)).await;
        let path = scene.url.strip_prefix(base).expect("callbacks go to the public address").to_owned();
        let here = format!("{}{path}", scene.world.base().as_str().trim_end_matches('/'));
        let of_here = sign(TOKEN, &here, &scene.pairs);
        scene.refused(scene.post_form(&here, Some(&of_here)), 403, "bad_signature").await;
        let signature = sign(TOKEN, &format!("{signed}{path}"), &scene.pairs);
        scene.post_form(&here, Some(&signature)).await.expect(204);
        scene.is_delivered().await;
    }
}

#[tokio::test]
async fn a_receipt_of_another_account_is_refused_though_it_is_signed() {
    let mut scene = Scene::new().await;
    for (account, status, code) in [
        ("AC11111111111111111111111111111111", 403, "forbidden"),
        ("nonsense", 400, "malformed_request"),
        ("", 400, "malformed_request"),
    ] {
        scene.pairs[0].1 = account.to_owned();
        let signature = scene.signature();
        scene.refused(scene.post_form(&scene.url, Some(&signature)), status, code).await;
    }
}

#[tokio::test]
async fn fields_that_are_missing_or_malformed_are_refused_by_name() {
    let scene = Scene::new().await;
    for (field, value) in [("MessageSid", None), ("MessageSid", Some("SM-1")), ("MessageStatus", None)] {
        let mut pairs = scene.pairs.clone();
        pairs.retain(|(name, _)| name != field);
        pairs.extend(value.map(|value| (field.to_owned(), value.to_owned())));
        let body = form_urlencoded::Serializer::new(String::new()).extend_pairs(&pairs).finish();
        let signature = sign(TOKEN, &scene.url, &pairs);
        let answer = scene.post(&scene.url, FORM, body, Some(&signature)).await.expect(400);
        assert!(answer.text_at("/detail").contains(field), "{answer:?}");
        assert!(!answer.text.contains("SM-1"), "no value is repeated: {answer:?}");
        scene.nothing_has_changed().await;
    }
}

#[tokio::test]
async fn an_oversized_body_is_refused_before_it_is_believed() {
    let scene = Scene::new().await;
    let mut pairs = scene.pairs.clone();
    pairs.push(("Padding".to_owned(), "x".repeat(70_000)));
    let body = form_urlencoded::Serializer::new(String::new()).extend_pairs(&pairs).finish();
    let signature = sign(TOKEN, &scene.url, &pairs);
    scene.refused(scene.post(&scene.url, FORM, body, Some(&signature)), 413, "body_too_large").await;
}

#[tokio::test]
async fn two_hundred_fields_are_read_and_one_more_is_refused() {
    let scene = Scene::new().await;
    let with_fields = |count: usize| {
        let mut pairs = scene.pairs.clone();
        pairs.extend((pairs.len()..count).map(|no| (format!("Field{no}"), no.to_string())));
        let body = form_urlencoded::Serializer::new(String::new()).extend_pairs(&pairs).finish();
        (body, sign(TOKEN, &scene.url, &pairs))
    };
    let (body, signature) = with_fields(201);
    scene.refused(scene.post(&scene.url, FORM, body, Some(&signature)), 400, "malformed_request").await;
    let (body, signature) = with_fields(200);
    scene.post(&scene.url, FORM, body, Some(&signature)).await.expect(204);
    scene.is_delivered().await;
}

#[tokio::test]
async fn a_body_that_is_no_form_is_refused() {
    let scene = Scene::new().await;
    let signature = sign(TOKEN, &scene.url, &[]);
    for body in [&b""[..], b"\xff\xfe\x00", b"{}", b"<xml/>", b"%%%&&&==="] {
        let answer = scene.post(&scene.url, "text/plain", body, Some(&signature)).await;
        assert!(matches!(answer.status, 400 | 403), "{answer:?}");
        scene.nothing_has_changed().await;
    }
}

#[tokio::test]
async fn other_methods_are_refused() {
    let scene = Scene::new().await;
    let signature = sign(TOKEN, &scene.url, &[]);
    let client = scene.world.client();
    for request in [client.get(&scene.url), client.put(&scene.url), client.delete(&scene.url)] {
        answer(request.header(SIGNATURE_HEADER, &signature)).await.expect(405);
    }
    scene.nothing_has_changed().await;
}

// -- JSON -------------------------------------------------------------------------------------------------------------

impl Scene {
    fn json(&self) -> String {
        let fields = self.pairs.iter().map(|(name, value)| (name.clone(), json!(value)));
        Value::Object(fields.collect()).to_string()
    }
}

#[tokio::test]
async fn a_json_body_is_believed_by_the_hash_in_its_url() {
    let scene = Scene::new().await;
    let body = scene.json();
    let url = signature::json_url(&scene.url, body.as_bytes());
    let right = sign(TOKEN, &url, &[]);

    let of_another = signature::json_url(&scene.url, b"{}");
    let of_another_signed = sign(TOKEN, &of_another, &[]);
    let twice = format!("{url}&bodySHA256={}", "0".repeat(64));
    let twice_signed = sign(TOKEN, &twice, &[]);
    let none_signed = sign(TOKEN, &scene.url, &[]);
    for (url, signature) in [
        (&of_another, Some(&of_another_signed)),
        (&of_another, Some(&right)),
        (&url, None),
        (&url, Some(&none_signed)),
        (&scene.url, Some(&none_signed)),
        (&twice, Some(&twice_signed)),
    ] {
        let posted = scene.post(url, "application/json", body.clone(), signature.map(String::as_str));
        scene.refused(posted, 403, "bad_signature").await;
    }
    let altered = body.replace("delivered", "failed");
    scene.refused(scene.post(&url, "application/json", altered, Some(&right)), 403, "bad_signature").await;

    scene.post(&url, "application/json; charset=utf-8", body, Some(&right)).await.expect(204);
    scene.is_delivered().await;
}

#[tokio::test]
async fn a_forms_signature_does_not_vouch_for_json_nor_json_for_a_form() {
    let scene = Scene::new().await;
    let form = scene.signature();
    scene.refused(scene.post(&scene.url, "application/json", scene.json(), Some(&form)), 403, "bad_signature").await;
    let body = scene.json();
    let url = signature::json_url(&scene.url, body.as_bytes());
    let json = sign(TOKEN, &url, &[]);
    scene.refused(scene.post(&url, FORM, scene.body(), Some(&json)), 403, "bad_signature").await;
}

#[tokio::test]
async fn signed_json_that_is_no_object_is_refused() {
    let scene = Scene::new().await;
    for body in ["", "[]", "null", "{\"MessageSid\":", "\u{feff}{}"] {
        let url = signature::json_url(&scene.url, body.as_bytes());
        let signature = sign(TOKEN, &url, &[]);
        let posted = scene.post(&url, "application/json", body, Some(&signature));
        scene.refused(posted, 400, "malformed_request").await;
    }
}

// -- replies ----------------------------------------------------------------------------------------------------------

#[tokio::test]
async fn a_reply_without_a_right_signature_takes_no_case() {
    let scene = Scene::new().await;
    let url = format!("{}webhooks/twilio/incoming", scene.world.base());
    let from = format!("whatsapp:{COUNSELLOR}");
    let pairs = [
        ("AccountSid", ACCOUNT),
        ("MessageSid", "SM0123456789abcdef0123456789abcdef"),
        ("From", &from),
        ("To", "whatsapp:+14155238886"),
        ("Body", "1"),
    ];
    let pairs = pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
    let body = form_urlencoded::Serializer::new(String::new()).extend_pairs(&pairs).finish();
    let of_the_receipt = sign(TOKEN, &scene.url, &pairs);
    for wrong in [None, Some("nonsense"), Some(of_the_receipt.as_str())] {
        scene.refused(scene.post(&url, FORM, body.clone(), wrong), 403, "bad_signature").await;
    }
    let right = sign(TOKEN, &url, &pairs);
    let answer = scene.post(&url, FORM, body, Some(&right)).await.expect(200);
    assert!(answer.text.contains(&scene.reference), "{answer:?}");
    assert_eq!(scene.world.alert(&scene.reference).await["state"], "acknowledged");
}

// -- a store that fails -----------------------------------------------------------------------------------------------

#[tokio::test]
async fn where_the_store_fails_twilio_is_told_to_come_back_and_its_repetition_succeeds() {
    for fault in [Fault::Unavailable, Fault::Unknown, Fault::Corrupt] {
        let gate = Gate::new();
        let scene = Scene::of(Setting::default().with_gate(&gate)).await;
        // An unknown commit is resolved by reading; here that fails, too.
        gate.set(
            move |call| {
                if ["commit_alert", "audit_entries"].contains(&call.name) { Fate::Fail(fault) } else { Fate::Pass }
            },
        );
        let answer = scene.post_form(&scene.url, Some(&scene.signature())).await.expect(503);
        assert!(answer.headers.contains_key("retry-after"), "{answer:?}");
        gate.open();
        scene.nothing_has_changed().await;
        scene.post_form(&scene.url, Some(&scene.signature())).await.expect(204);
        scene.is_delivered().await;
    }
}

#[tokio::test]
async fn twilios_own_repetition_within_one_call_is_enough_for_a_store_that_fails_for_a_moment() {
    let gate = Gate::new();
    let mut scene = Scene::of(Setting::default().with_gate(&gate)).await;
    gate.set(|call| if call.no <= 2 { Fate::Fail(Fault::Unavailable) } else { Fate::Pass });
    assert_eq!(scene.world.receipts().await, [204], "the callback's URL asks Twilio to try again");
    scene.world.expect_state(&scene.reference, "sent").await;
}

#[tokio::test]
async fn a_receipt_that_took_effect_though_the_store_did_not_say_so_is_answered_as_taken() {
    let gate = Gate::new();
    let scene = Scene::of(Setting::default().with_gate(&gate)).await;
    gate.strike_first("commit_alert", Fate::PassAndFail(Fault::Unknown));
    scene.post_form(&scene.url, Some(&scene.signature())).await.expect(204);
    gate.open();
    scene.is_delivered().await;
    scene.world.holds_its_promises().await;
}

#[tokio::test]
async fn a_panic_in_the_middle_of_a_receipt_is_an_error_and_its_repetition_succeeds() {
    let gate = Gate::new();
    let scene = Scene::of(Setting::default().with_gate(&gate)).await;
    gate.strike_first("alert", Fate::Panic);
    scene.post_form(&scene.url, Some(&scene.signature())).await.expect(500);
    scene.nothing_has_changed().await;
    scene.post_form(&scene.url, Some(&scene.signature())).await.expect(204);
    scene.is_delivered().await;
}
