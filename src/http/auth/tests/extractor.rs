//! What a handler's caller sees.

use axum::Router;
use axum::body::Body;
use axum::extract::FromRef;
use axum::http::{Request, StatusCode};
use axum::routing::get;
use tower::ServiceExt as _;

use super::*;
use crate::http::rate_limit::{Limit, RateLimiter, RateLimits};

#[derive(Clone, FromRef)]
struct State {
    authenticator: Arc<Authenticator>,
    limiter: Arc<RateLimiter>,
}

fn router(limits: RateLimits) -> Router {
    let handler = |Authenticated(principal): Authenticated| async move {
        principal.require(&[Role::Service, Role::Admin]).map(|()| principal.organisation.to_string())
    };
    let state = State {
        authenticator: Arc::new(authenticator(shared_secret(), &clock())),
        limiter: Arc::new(RateLimiter::new(limits)),
    };
    Router::new().route("/", get(handler)).with_state(state)
}

async fn send(router: &Router, token: &str) -> (StatusCode, HeaderMap, String) {
    let mut request = Request::get("/").body(Body::empty()).unwrap();
    *request.headers_mut() = bearer(token);
    let (parts, body) = router.clone().oneshot(request).await.unwrap().into_parts();
    let body = axum::body::to_bytes(body, 1 << 16).await.unwrap();
    (parts.status, parts.headers, String::from_utf8(body.to_vec()).unwrap())
}

#[tokio::test]
async fn the_extractor_answers_in_problems_without_the_credential() {
    let router = router(RateLimits::default());
    assert_eq!(send(&router, API_KEY).await.2, "north");

    let (status, headers, body) = send(&router, "canary-wrong-key").await;
    assert_eq!(status, StatusCode::UNAUTHORIZED);
    assert!(headers.contains_key(header::WWW_AUTHENTICATE));
    assert!(body.contains("unauthenticated") && !body.contains("canary"), "{body}");

    let (status, _, body) = send(&router, &signed(&claims_with("exp", json!(NOW - 1_000)))).await;
    assert_eq!(status, StatusCode::UNAUTHORIZED);
    assert!(body.contains("token_expired"), "{body}");

    let (status, _, body) = send(&router, &signed(&claims())).await;
    assert_eq!(status, StatusCode::FORBIDDEN);
    assert!(body.contains("needs one of the roles: service, admin") && !body.contains("ada@"), "{body}");
}

#[tokio::test]
async fn keys_that_cannot_be_fetched_are_a_503() {
    let problem = Problem::from(AuthError::KeysUnavailable);
    assert_eq!(problem.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(Problem::from(AuthError::NoOrganisation).status(), StatusCode::FORBIDDEN);
}

/// One at once, and then one per second: of many in a row some are refused, however slow the machine.
fn tight() -> RateLimits {
    let one = Limit::new(1, 1);
    RateLimits { service: one, person: one, webhook: one, failure: one }
}

#[tokio::test]
async fn who_asks_too_often_is_told_when_to_come_back() {
    let router = router(tight());
    for _ in 0..50 {
        let (status, headers, _) = send(&router, API_KEY).await;
        if status == StatusCode::TOO_MANY_REQUESTS {
            assert_eq!(headers[header::RETRY_AFTER], "1");
            assert_eq!(headers["ratelimit-remaining"], "0");
            return;
        }
    }
    panic!("never refused");
}

#[tokio::test]
async fn guessing_is_limited_and_hurts_no_neighbour() {
    let mut limits = tight();
    limits.service = Limit::new(1_000, 1_000);
    let router = router(limits);
    let mut refused = 0;
    for n in 0..50 {
        let (status, ..) = send(&router, &format!("guess number {n:03}")).await;
        assert!(status == StatusCode::UNAUTHORIZED || status == StatusCode::TOO_MANY_REQUESTS);
        refused += u32::from(status == StatusCode::TOO_MANY_REQUESTS);
    }
    assert!(refused > 0);
    assert_eq!(send(&router, API_KEY).await.0, StatusCode::OK, "the right key still opens");
}
