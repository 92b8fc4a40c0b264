//! People's tokens: whose is taken, whose is not, and that a refusal says nothing of what was wrong.

use std::time::Duration;

use serde_json::{Value, json};

use crate::common::{AUDITOR, START, Setting, World, signed, token};

const LIST: &str = "/api/v1/crisis/alerts";

async fn world() -> World {
    Setting::default().with_people().start().await
}

fn claims(name: &str, value: Value) -> Value {
    let start = START.parse::<jiff::Timestamp>().unwrap().as_second();
    let mut claims = json!({
        "iss": "crisis-relay", "aud": "crisis-relay", "sub": "ada@college.example", "role": "counsellor",
        "iat": start, "exp": start + 3600,
    });
    claims[name] = value;
    claims
}

fn base64(text: &str) -> String {
    data_encoding::BASE64URL_NOPAD.encode(text.as_bytes())
}

#[tokio::test]
async fn a_token_is_good_until_it_runs_out() {
    let world = world().await;
    let token = token("ada@college.example", "counsellor");
    world.get(LIST, &token).await.expect(200);
    world.clock.advance(Duration::from_secs(3600 + 61));
    let refused = world.get(LIST, &token).await.expect(401);
    assert_eq!(refused.text_at("/code"), "token_expired");
    assert!(refused.headers["www-authenticate"].to_str().unwrap().contains("invalid_token"));
}

#[tokio::test]
async fn a_token_that_is_not_ours_to_trust_opens_nothing_and_is_not_explained() {
    let world = world().await;
    let good = token("ada@college.example", "counsellor");
    let parts: Vec<&str> = good.split('.').collect();
    let none = format!("{}.{}.", base64(r#"{"alg":"none","typ":"JWT"}"#), parts[1]);
    let none_signed = format!("{}.{}.{}", base64(r#"{"alg":"none"}"#), parts[1], parts[2]);
    let raised = format!("{}.{}.{}", parts[0], base64(&claims("role", json!("admin")).to_string()), parts[2]);
    let other_algorithm = format!("{}.{}.{}", base64(r#"{"alg":"RS256"}"#), parts[1], parts[2]);
    let cases = [
        ("alg none", none),
        ("alg none with a signature", none_signed),
        ("altered claims", raised),
        ("another algorithm", other_algorithm),
        ("no signature", format!("{}.{}.", parts[0], parts[1])),
        ("another issuer", signed(&claims("iss", json!("https://elsewhere.example")))),
        ("another audience", signed(&claims("aud", json!("another-service")))),
        ("no subject", signed(&claims("sub", json!("")))),
        ("no end", signed(&claims("exp", Value::Null))),
        ("not yet valid", signed(&claims("nbf", json!(4_000_000_000_u64)))),
        ("not a token", "canary7791.canary7791.canary7791".to_owned()),
    ];
    for (what, token) in cases {
        let refused = world.get(LIST, &token).await;
        assert_eq!(
            (refused.status, refused.text_at("/code").as_str()),
            (401, "unauthenticated"),
            "{what}: {refused:?}"
        );
        assert_eq!(refused.json().get("detail"), None, "{what}: which part is wrong is nobody's business");
    }
}

#[tokio::test]
async fn a_right_token_without_a_role_or_of_nobodys_organisation_may_do_nothing() {
    let world = world().await;
    for role in [json!("student"), json!([]), json!({ "counsellor": true }), Value::Null] {
        world.get(LIST, &signed(&claims("role", role))).await.expect(403);
    }
    world.get(LIST, &signed(&claims("organisation", json!("no such place!")))).await.expect(403);
    let elsewhere = world.get(LIST, &signed(&claims("organisation", json!("elsewhere")))).await.expect(200);
    assert_eq!(elsewhere.json(), json!({ "alerts": [] }));
}

#[tokio::test]
async fn a_person_who_takes_a_case_is_shown_by_a_hash_and_never_by_name() {
    let mut world = world().await;
    let reference = world.escalated("student-1").await.text_at("/reference");
    world.work().await;
    world.expect_told(&reference);
    let ada = token("ada@college.example", "counsellor");
    let path = format!("{LIST}/{reference}/acknowledge");
    let taken = world.post(&path, &ada, &json!({})).await.expect(200);
    assert_eq!(taken.text_at("/detail/by/kind"), "person");
    assert!(!taken.text.contains("ada@"), "{taken:?}");
    let audit = world.get(&format!("{LIST}/{reference}/audit"), AUDITOR).await.expect(200);
    assert!(!audit.text.contains("ada@"), "{audit:?}");
    world.sim().assert_no_unexpected();
    world.assert_audit_verifies().await;
}
