//! Who is let in and who is not, by API key and by token; published keys and the extractor have modules of their own.

mod extractor;
mod published_keys;

use std::time::Duration;

use jiff::Timestamp;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::*;
use crate::clock::ManualClock;

const ISSUER: &str = "https://issuer.example";
const AUDIENCE: &str = "crisis-relay";
const SECRET: &[u8] = b"a secret for development, 32 byte";
const API_KEY: &str = "a demo key for a backend";

/// 2026-01-01T00:00:00Z, in seconds.
const NOW: i64 = 1_767_225_600;

fn clock() -> ManualClock {
    ManualClock::new(Timestamp::from_second(NOW).unwrap())
}

fn api_keys() -> ApiKeys {
    let record = ApiKeyRecord {
        id: "chat".to_owned(),
        organisation: "north".parse().unwrap(),
        role: Role::Service,
        hash: ApiKeyHash::of(API_KEY),
        expires_at: None,
    };
    ApiKeys::new(vec![record]).unwrap()
}

fn shared_secret() -> JwtSettings {
    let secret = SharedSecret(Zeroizing::new(SECRET.to_vec()));
    JwtSettings::new(ISSUER, AUDIENCE, JwtKeySource::SharedSecret(secret))
}

fn authenticator(jwt: JwtSettings, clock: &ManualClock) -> Authenticator {
    Authenticator::new(api_keys(), Some(jwt), Arc::new(clock.clone())).unwrap()
}

fn claims() -> Value {
    json!({
        "iss": ISSUER, "aud": AUDIENCE, "sub": "ada@north.example", "exp": NOW + 600, "iat": NOW,
        "org": "north", "roles": ["counsellor", "unheard-of"],
    })
}

fn claims_with(name: &str, value: Value) -> Value {
    let mut claims = claims();
    claims[name] = value;
    claims
}

fn claims_without(name: &str) -> Value {
    let mut claims = claims();
    claims.as_object_mut().unwrap().remove(name);
    claims
}

fn signed(claims: &Value) -> String {
    jsonwebtoken::encode(&Header::new(Algorithm::HS256), claims, &EncodingKey::from_secret(SECRET)).unwrap()
}

fn bearer(token: &str) -> HeaderMap {
    HeaderMap::from_iter([(header::AUTHORIZATION, format!("Bearer {token}").parse().unwrap())])
}

async fn ask(authenticator: &Authenticator, token: &str) -> Result<Principal, AuthError> {
    authenticator.authenticate(&bearer(token)).await
}

/// What a token with these claims gets, checked with the shared secret.
async fn ask_with(claims: &Value) -> Result<Principal, AuthError> {
    ask(&authenticator(shared_secret(), &clock()), &signed(claims)).await
}

#[tokio::test]
async fn an_api_key_opens_by_either_header() {
    let authenticator = authenticator(shared_secret(), &clock());
    let by_header = HeaderMap::from_iter([(API_KEY_HEADER.parse().unwrap(), API_KEY.parse().unwrap())]);
    for headers in [bearer(API_KEY), by_header] {
        let principal = authenticator.authenticate(&headers).await.unwrap();
        assert_eq!((principal.id.as_str(), principal.kind), ("chat", PrincipalKind::Machine));
        assert_eq!(principal.roles, [Role::Service]);
    }
}

#[tokio::test]
async fn a_token_opens_for_a_person_of_its_organisation() {
    let principal = ask_with(&claims()).await.unwrap();
    assert_eq!(principal.id, "ada@north.example");
    assert_eq!(principal.organisation.as_str(), "north");
    assert_eq!((principal.roles.as_slice(), principal.kind), (&[Role::Counsellor][..], PrincipalKind::Person));
}

#[tokio::test]
async fn none_or_several_credentials_let_nobody_in() {
    let authenticator = authenticator(shared_secret(), &clock());
    assert_eq!(authenticator.authenticate(&HeaderMap::new()).await, Err(AuthError::Missing));
    let mut both = bearer(API_KEY);
    both.insert(API_KEY_HEADER, API_KEY.parse().unwrap());
    let mut twice = bearer(API_KEY);
    twice.append(header::AUTHORIZATION, format!("Bearer {API_KEY}").parse().unwrap());
    let other = |value: &str| HeaderMap::from_iter([(header::AUTHORIZATION, value.parse().unwrap())]);
    let long = format!("Bearer {}", "x".repeat(CREDENTIAL_LENGTH_MAX));
    for headers in [both, twice, other("Basic YTpi"), other("Bearer"), other("Bearer "), other(&long)] {
        assert_eq!(authenticator.authenticate(&headers).await, Err(AuthError::Malformed), "{headers:?}");
    }
}

#[tokio::test]
async fn a_token_is_no_api_key() {
    let authenticator = authenticator(shared_secret(), &clock());
    let headers = HeaderMap::from_iter([(API_KEY_HEADER.parse().unwrap(), signed(&claims()).parse().unwrap())]);
    assert_eq!(authenticator.authenticate(&headers).await, Err(AuthError::Invalid));
}

#[tokio::test]
async fn without_token_settings_no_token_opens() {
    let authenticator = Authenticator::new(api_keys(), None, Arc::new(clock())).unwrap();
    assert_eq!(ask(&authenticator, &signed(&claims())).await, Err(AuthError::Invalid));
}

#[tokio::test]
async fn times_hold_with_a_minutes_leeway() {
    let cases = [
        ("exp", NOW - 59, Ok(())),
        ("exp", NOW - 60, Err(AuthError::Expired)),
        ("nbf", NOW + 60, Ok(())),
        ("nbf", NOW + 61, Err(AuthError::Invalid)),
        ("iat", NOW + 60, Ok(())),
        ("iat", NOW + 61, Err(AuthError::Invalid)),
    ];
    for (name, time, expected) in cases {
        assert_eq!(ask_with(&claims_with(name, json!(time))).await.map(drop), expected, "{name} {time}");
    }
}

#[tokio::test]
async fn the_service_clock_and_no_other_decides() {
    let clock = clock();
    let authenticator = authenticator(shared_secret(), &clock);
    let token = signed(&claims());
    assert!(ask(&authenticator, &token).await.is_ok());
    clock.advance(Duration::from_secs(660));
    assert_eq!(ask(&authenticator, &token).await, Err(AuthError::Expired));
    clock.set(Timestamp::from_second(NOW - 61).unwrap());
    assert_eq!(ask(&authenticator, &token).await, Err(AuthError::Invalid), "made in the future");
}

#[tokio::test]
async fn a_token_for_others_or_without_what_it_must_say_lets_nobody_in() {
    let refused = [
        claims_with("iss", json!("https://other.example")),
        claims_with("iss", json!(null)),
        claims_with("aud", json!("other-service")),
        claims_with("aud", json!(["a", "b"])),
        claims_with("sub", json!("")),
        claims_with("sub", json!(7)),
        claims_with("sub", json!("x".repeat(256))),
        claims_with("exp", json!("tomorrow")),
        claims_with("iat", json!("now")),
        claims_without("iss"),
        claims_without("aud"),
        claims_without("sub"),
        claims_without("exp"),
    ];
    for claims in refused {
        assert_eq!(ask_with(&claims).await, Err(AuthError::Invalid), "{claims}");
    }
    assert!(ask_with(&claims_with("aud", json!(["other", AUDIENCE]))).await.is_ok());
}

#[tokio::test]
async fn a_forged_token_lets_nobody_in() {
    let encode = |header: &Header, secret: &[u8]| {
        jsonwebtoken::encode(header, &claims(), &EncodingKey::from_secret(secret)).unwrap()
    };
    let part = |value: &Value| data_encoding::BASE64URL_NOPAD.encode(value.to_string().as_bytes());
    let good = signed(&claims());
    let (head, signature) = (good.split('.').next().unwrap(), good.rsplit('.').next().unwrap());
    let raised = part(&claims_with("roles", json!(["admin"])));
    let mut critical = Header::new(Algorithm::HS256);
    critical.crit = Some(vec!["exp".to_owned()]);
    let forged = [
        encode(&Header::new(Algorithm::HS256), b"another secret, of the same length"),
        encode(&Header::new(Algorithm::HS384), SECRET),
        encode(&critical, SECRET),
        format!("{}.{}.", part(&json!({"alg": "none"})), part(&claims())),
        format!("{}.{}.{signature}", part(&json!({"alg": "none", "typ": "JWT"})), part(&claims())),
        format!("{head}.{raised}.{signature}"),
        format!("{head}.{}.", part(&claims())),
        "..".to_owned(),
        "a.b.c".to_owned(),
    ];
    let authenticator = authenticator(shared_secret(), &clock());
    for token in forged {
        assert_eq!(ask(&authenticator, &token).await, Err(AuthError::Invalid), "{token}");
    }
}

#[tokio::test]
async fn roles_and_organisation_are_found_where_settings_say() {
    let nested = json!({
        "iss": ISSUER, "aud": AUDIENCE, "sub": "s", "exp": NOW + 600,
        "realm_access": {"roles": ["auditor", "admin", "admin"]}, "https://north.example/org": "north",
    });
    let mut settings = shared_secret();
    settings.roles_claim = "realm_access.roles".to_owned();
    settings.organisation_claim = "https://north.example/org".to_owned();
    let principal = ask(&authenticator(settings, &clock()), &signed(&nested)).await.unwrap();
    assert_eq!(principal.roles, [Role::Admin, Role::Auditor]);
    assert_eq!(principal.organisation.as_str(), "north");
}

#[tokio::test]
async fn roles_may_be_a_text_and_a_token_makes_nobody_a_service() {
    let principal = ask_with(&claims_with("roles", json!("admin counsellor"))).await.unwrap();
    assert_eq!(principal.roles, [Role::Counsellor, Role::Admin]);
    for claim in [json!(["service"]), json!("service")] {
        let principal = ask_with(&claims_with("roles", claim)).await.unwrap();
        assert_eq!((principal.roles.as_slice(), principal.kind), (&[][..], PrincipalKind::Person));
    }
    let principal = ask_with(&claims_with("roles", json!(["service", "admin"]))).await.unwrap();
    assert_eq!((principal.roles.as_slice(), principal.kind), (&[Role::Admin][..], PrincipalKind::Person));
    let principal = ask_with(&claims_without("roles")).await.unwrap();
    assert_eq!((principal.roles.as_slice(), principal.kind), (&[][..], PrincipalKind::Person));
}

#[tokio::test]
async fn a_token_without_organisation_belongs_to_the_default_or_nowhere() {
    assert_eq!(ask_with(&claims_without("org")).await, Err(AuthError::NoOrganisation));
    let mut settings = shared_secret();
    settings.default_organisation = Some("home".parse().unwrap());
    let authenticator = authenticator(settings, &clock());
    let principal = ask(&authenticator, &signed(&claims_without("org"))).await.unwrap();
    assert_eq!(principal.organisation.as_str(), "home");
    // One that is named and unusable is not replaced.
    assert_eq!(ask(&authenticator, &signed(&claims_with("org", json!("a b")))).await, Err(AuthError::NoOrganisation));
    assert_eq!(
        ask(&authenticator, &signed(&claims_with("org", json!(["north"])))).await,
        Err(AuthError::NoOrganisation)
    );
}

#[test]
fn unsafe_settings_are_refused() {
    let jwks = |url: &str| JwtKeySource::Jwks(JwksSettings::new(url.parse().unwrap()));
    let refused = |settings| Authenticator::new(api_keys(), Some(settings), Arc::new(clock())).unwrap_err();
    let short = JwtKeySource::SharedSecret(SharedSecret(Zeroizing::new(SECRET[..31].to_vec())));
    assert_eq!(refused(JwtSettings::new(ISSUER, AUDIENCE, short)), InvalidJwtSettings::ShortSecret);
    assert_eq!(refused(JwtSettings { issuer: String::new(), ..shared_secret() }), InvalidJwtSettings::NoIssuer);
    assert_eq!(refused(JwtSettings { audiences: vec![], ..shared_secret() }), InvalidJwtSettings::NoAudience);
    for url in ["http://issuer.example/jwks", "http://localhost.example/", "ftp://localhost/"] {
        assert_eq!(refused(JwtSettings::new(ISSUER, AUDIENCE, jwks(url))), InvalidJwtSettings::InsecureJwks, "{url}");
    }
}

#[test]
fn debug_shows_neither_person_nor_secret() {
    let principal = Principal {
        id: "ada@north.example".to_owned(),
        organisation: "north".parse().unwrap(),
        roles: vec![Role::Admin],
        kind: PrincipalKind::Person,
    };
    assert_eq!(
        format!("{principal:?}"),
        r#"Principal { id: …, organisation: OrganisationId("north"), roles: [Admin], kind: Person }"#
    );
    assert!(!format!("{:?}", shared_secret()).contains("secret for"));
}

#[test]
fn role_words_are_the_same_everywhere() {
    for role in Role::ALL {
        assert_eq!(Role::from_word(role.word()), Some(role));
        assert_eq!(serde_json::to_value(role).unwrap(), json!(role.word()));
    }
    assert_eq!(Role::from_word("Admin"), None);
}
