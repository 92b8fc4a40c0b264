//! Tokens checked with an identity provider's published keys.

use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, RsaKeyPair};
use jsonwebtoken::jwk::Jwk;
use wiremock::matchers::path;
use wiremock::{Mock, MockServer, ResponseTemplate};

use super::*;

/// A provider's key: signs tokens, and can be published.
struct SigningKey {
    kid: &'static str,
    algorithm: Algorithm,
    key: EncodingKey,
}

impl SigningKey {
    fn ec(kid: &'static str) -> Self {
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &SystemRandom::new()).unwrap();
        Self { kid, algorithm: Algorithm::ES256, key: EncodingKey::from_ec_der(pkcs8.as_ref()) }
    }

    fn rsa(kid: &'static str, algorithm: Algorithm) -> Self {
        let pair = RsaKeyPair::generate(aws_lc_rs::rsa::KeySize::Rsa2048).unwrap();
        let pkcs8: Pkcs8V1Der<'_> = pair.as_der().unwrap();
        // The inner PKCS #1 key starts behind a head of 26 bytes.
        Self { kid, algorithm, key: EncodingKey::from_rsa_der(&pkcs8.as_ref()[26..]) }
    }

    fn public(&self) -> Value {
        let mut jwk = Jwk::from_encoding_key(&self.key, self.algorithm).unwrap();
        jwk.common.key_id = Some(self.kid.to_owned());
        serde_json::to_value(jwk).unwrap()
    }

    fn sign(&self, kid: Option<&str>) -> String {
        let mut header = Header::new(self.algorithm);
        header.kid = kid.map(str::to_owned);
        jsonwebtoken::encode(&header, &claims(), &self.key).unwrap()
    }

    fn token(&self) -> String {
        self.sign(Some(self.kid))
    }
}

/// An identity provider over HTTP, and an authenticator that trusts it.
struct Provider {
    server: MockServer,
    clock: ManualClock,
    authenticator: Authenticator,
}

impl Provider {
    async fn start() -> Self {
        Self::start_with(|_| {}).await
    }

    async fn start_with(change: impl FnOnce(&mut JwksSettings)) -> Self {
        let server = MockServer::start().await;
        let mut jwks = JwksSettings::new(format!("{}/jwks", server.uri()).parse().unwrap());
        change(&mut jwks);
        let clock = clock();
        let mut settings = JwtSettings::new(ISSUER, AUDIENCE, JwtKeySource::Jwks(jwks));
        settings.default_organisation = Some("north".parse().unwrap());
        let authenticator = authenticator(settings, &clock);
        Self { server, clock, authenticator }
    }

    async fn answer_with(&self, response: ResponseTemplate) {
        self.server.reset().await;
        Mock::given(path("/jwks")).respond_with(response).mount(&self.server).await;
    }

    async fn publish(&self, keys: &[Value]) {
        self.answer_with(ResponseTemplate::new(200).set_body_json(json!({ "keys": keys }))).await;
    }

    /// How often keys were fetched since they were last published or withdrawn.
    async fn fetches(&self) -> usize {
        self.server.received_requests().await.unwrap().len()
    }

    async fn ask(&self, token: &str) -> Result<(), AuthError> {
        ask(&self.authenticator, token).await.map(drop)
    }
}

#[tokio::test]
async fn tokens_of_every_allowed_algorithm_open() {
    let keys = [SigningKey::ec("ec"), SigningKey::rsa("rs", Algorithm::RS256), SigningKey::rsa("ps", Algorithm::PS256)];
    let provider = Provider::start().await;
    provider.publish(&keys.iter().map(SigningKey::public).collect::<Vec<_>>()).await;
    for key in &keys {
        assert_eq!(provider.ask(&key.token()).await, Ok(()), "{}", key.kid);
    }
    assert_eq!(provider.fetches().await, 1, "one fetch serves all");
}

#[tokio::test]
async fn the_settings_choose_the_algorithm_and_not_the_token() {
    let key = SigningKey::ec("ec");
    let provider = Provider::start_with(|jwks| jwks.algorithms = vec![JwksAlgorithm::Rs256]).await;
    provider.publish(&[key.public()]).await;
    assert_eq!(provider.ask(&key.token()).await, Err(AuthError::Invalid));

    // The classic: a public key taken for a shared secret.
    let provider = Provider::start().await;
    provider.publish(&[key.public()]).await;
    for material in [key.public()["x"].as_str().unwrap().as_bytes().to_vec(), key.public().to_string().into_bytes()] {
        let mut header = Header::new(Algorithm::HS256);
        header.kid = Some("ec".to_owned());
        let token = jsonwebtoken::encode(&header, &claims(), &EncodingKey::from_secret(&material)).unwrap();
        assert_eq!(provider.ask(&token).await, Err(AuthError::Invalid));
    }
    assert_eq!(provider.fetches().await, 0, "a forbidden algorithm is not worth a fetch");
}

#[tokio::test]
async fn a_key_is_used_only_for_what_it_was_published_for() {
    let (encryption, other_use) = (SigningKey::rsa("enc", Algorithm::RS256), SigningKey::rsa("alg", Algorithm::RS256));
    let good = SigningKey::ec("good");
    let mut for_encryption = encryption.public();
    for_encryption["use"] = json!("enc");
    let mut for_pss = other_use.public();
    for_pss["alg"] = json!("PS256");
    let unknown = json!({"kty": "AKP", "kid": "new", "alg": "ML-DSA-44", "pub": "AAAA"});
    let shared = json!({"kty": "oct", "kid": "oct", "k": "AAAA"});
    let provider = Provider::start().await;
    provider.publish(&[for_encryption, for_pss, unknown, shared, good.public()]).await;
    assert_eq!(provider.ask(&encryption.token()).await, Err(AuthError::Invalid));
    assert_eq!(provider.ask(&other_use.token()).await, Err(AuthError::Invalid));
    assert_eq!(provider.ask(&good.token()).await, Ok(()), "odd neighbours do no harm");
}

#[tokio::test]
async fn a_strangers_signature_under_a_known_key_id_lets_nobody_in() {
    let provider = Provider::start().await;
    provider.publish(&[SigningKey::ec("k1").public()]).await;
    assert_eq!(provider.ask(&SigningKey::ec("k1").token()).await, Err(AuthError::Invalid));
}

#[tokio::test]
async fn a_token_without_key_id_needs_a_lone_key() {
    let (one, two) = (SigningKey::ec("k1"), SigningKey::ec("k2"));
    let provider = Provider::start().await;
    provider.publish(&[one.public()]).await;
    assert_eq!(provider.ask(&one.sign(None)).await, Ok(()));
    let provider = Provider::start().await;
    provider.publish(&[one.public(), two.public()]).await;
    assert_eq!(provider.ask(&one.sign(None)).await, Err(AuthError::Invalid));
}

#[tokio::test]
async fn a_rotated_key_is_found_and_strangers_cannot_make_us_fetch() {
    let (old, new) = (SigningKey::ec("old"), SigningKey::ec("new"));
    let provider = Provider::start().await;
    provider.publish(&[old.public()]).await;
    assert_eq!(provider.ask(&old.token()).await, Ok(()));

    provider.publish(&[new.public()]).await;
    assert_eq!(provider.ask(&new.token()).await, Err(AuthError::Invalid), "fetched less than a minute ago");
    assert_eq!(provider.fetches().await, 0);
    provider.clock.advance(Duration::from_secs(60));
    assert_eq!(provider.ask(&new.token()).await, Ok(()));
    assert_eq!(provider.ask(&old.token()).await, Err(AuthError::Invalid), "what is withdrawn no longer opens");
    for n in 0..20 {
        assert_eq!(provider.ask(&new.sign(Some(&format!("invented-{n}")))).await, Err(AuthError::Invalid));
    }
    assert_eq!(provider.fetches().await, 1);
}

#[tokio::test]
async fn keys_are_fetched_anew_when_they_are_old() {
    let key = SigningKey::ec("k1");
    let provider = Provider::start().await;
    provider.publish(&[key.public()]).await;
    assert_eq!(provider.ask(&key.token()).await, Ok(()));
    provider.clock.advance(Duration::from_secs(599));
    assert_eq!(provider.ask(&key.token()).await, Ok(()));
    assert_eq!(provider.fetches().await, 1);
    provider.clock.advance(Duration::from_secs(1));
    assert_eq!(provider.ask(&key.token()).await, Ok(()));
    assert_eq!(provider.fetches().await, 2);
}

#[tokio::test]
async fn old_keys_stay_in_use_while_the_provider_is_away() {
    let key = SigningKey::ec("k1");
    let provider = Provider::start().await;
    provider.publish(&[key.public()]).await;
    assert_eq!(provider.ask(&key.token()).await, Ok(()));
    // Within the life of the test token, well beyond the age of the keys.
    provider.clock.advance(Duration::from_secs(620));
    // A set that would withdraw the key, were it read.
    let other = json!({"keys": [SigningKey::ec("other").public()]});
    let too_long = format!("{}{other}", " ".repeat(256 * 1024));
    let broken = [
        ResponseTemplate::new(500).set_body_json(&other),
        ResponseTemplate::new(302).insert_header("location", "/elsewhere"),
        ResponseTemplate::new(200).set_body_string("not json"),
        ResponseTemplate::new(200).set_body_json(json!({"keys": []})),
        ResponseTemplate::new(200).set_body_string(too_long),
    ];
    for response in broken {
        provider.answer_with(response).await;
        let elsewhere = ResponseTemplate::new(200).set_body_json(&other);
        Mock::given(path("/elsewhere")).respond_with(elsewhere).mount(&provider.server).await;
        assert_eq!(provider.ask(&key.token()).await, Ok(()));
        assert_eq!(provider.ask(&key.token()).await, Ok(()));
        assert_eq!(provider.fetches().await, 1, "a failed fetch is let rest");
        provider.clock.advance(Duration::from_secs(5));
    }
}

#[tokio::test]
async fn without_any_keys_tokens_cannot_be_checked_and_that_is_said() {
    let key = SigningKey::ec("k1");
    let provider = Provider::start().await;
    provider.answer_with(ResponseTemplate::new(503)).await;
    assert_eq!(provider.ask(&key.token()).await, Err(AuthError::KeysUnavailable));
    assert_eq!(provider.ask(&key.token()).await, Err(AuthError::KeysUnavailable));
    assert_eq!(provider.fetches().await, 1);
    assert_eq!(ask(&provider.authenticator, API_KEY).await.map(drop), Ok(()), "machines go on");

    provider.publish(&[key.public()]).await;
    provider.clock.advance(Duration::from_secs(5));
    assert_eq!(provider.ask(&key.token()).await, Ok(()));
}

#[tokio::test]
async fn a_slow_provider_is_not_waited_for() {
    let provider = Provider::start_with(|jwks| jwks.fetch_timeout = Duration::from_millis(20)).await;
    provider.answer_with(ResponseTemplate::new(200).set_delay(Duration::from_secs(60))).await;
    assert_eq!(provider.ask(&SigningKey::ec("k1").token()).await, Err(AuthError::KeysUnavailable));
}

#[tokio::test]
async fn many_at_once_cause_one_fetch() {
    let key = SigningKey::ec("k1");
    let provider = Provider::start().await;
    let body = json!({ "keys": [key.public()] });
    provider.answer_with(ResponseTemplate::new(200).set_body_json(body).set_delay(Duration::from_millis(50))).await;
    let token = key.token();
    let answers = futures::future::join_all((0..20).map(|_| provider.ask(&token))).await;
    assert!(answers.iter().all(Result::is_ok), "{answers:?}");
    assert_eq!(provider.fetches().await, 1);
}
