//! The body of an event: whatever it is, it is taken whole or refused by field and rule.

use axum::body::Body;
use axum::http::Request;
use serde_json::Value;

use super::edge::{self, SERVICE};

/// The fields that an event may have.
const FIELDS: [&str; 8] =
    ["user_id", "crisis_score", "source", "message", "occurred_at", "model_version", "emergency_override", "metadata"];

/// Input: the body.
pub fn run(data: &[u8]) {
    let request = Request::post("/api/v1/crisis/events")
        .header("content-type", "application/json")
        .header("authorization", format!("Bearer {SERVICE}"))
        .body(Body::from(data.to_vec()))
        .expect("a request");
    let answer = edge::ask(request);
    if answer.status != 202 {
        assert!(matches!(answer.status, 400 | 413 | 422), "{} {}", answer.status, answer.body);
        return;
    }
    // What was taken, another reader of JSON takes for the same thing.
    let event: Value = serde_json::from_slice(data).expect("what was accepted is JSON");
    let event = event.as_object().expect("what was accepted is an object");
    assert!(event.keys().all(|name| FIELDS.contains(&name.as_str())), "an unknown field was accepted");
    let score = event["crisis_score"].as_f64().expect("the score is a number");
    assert!((0.0..=1.0).contains(&score), "a score of {score} was accepted");
    let user_id = event["user_id"].as_str().expect("the student is a text");
    assert!((1..=128).contains(&user_id.chars().count()), "a student of {} characters", user_id.chars().count());
    let decided: Value = serde_json::from_str(&answer.body).expect("an answer is JSON");
    let overridden = event.get("emergency_override").is_some_and(|stated| !stated.is_null());
    let expected = match (score < edge::THRESHOLD, overridden) {
        (true, _) => "below_threshold",
        (false, true) => "escalated",
        (false, false) => "withheld_no_consent",
    };
    assert_eq!(decided["decision"], expected, "nobody has agreed, and {score} was given: {}", answer.body);
    assert!(!super::repeats(&answer.body), "the answer repeats a value: {}", answer.body);
}
