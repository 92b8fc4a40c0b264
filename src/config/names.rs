//! Which environment variable sets which key.

/// A variable with a name of its own.
pub(super) struct Named {
    /// The variable.
    pub(super) variable: &'static str,
    /// The dotted key that it sets.
    pub(super) key: &'static str,
    /// Whether it is a secret: then `NAME_FILE` may name a file that holds it.
    pub(super) secret: bool,
}

const fn plain(variable: &'static str, key: &'static str) -> Named {
    Named { variable, key, secret: false }
}
const fn secret(variable: &'static str, key: &'static str) -> Named {
    Named { variable, key, secret: true }
}

/// Every variable with a name of its own. `.env.example` lists the same ones, and a test says so.
pub(super) const NAMED: &[Named] = &[
    plain("CRISIS_RELAY_MODE", "mode"),
    plain("HTTP_BIND", "http.bind"),
    plain("PORT", "http.port"),
    plain("ORGANISATION_ID", "organisation.id"),
    plain("ORGANISATION_NAME", "organisation.name"),
    plain("ORGANISATION_TIME_ZONE", "organisation.time_zone"),
    plain("COUNSELLOR_WHATSAPP_TO", "counsellor.whatsapp_to"),
    plain("COUNSELLOR_SMS_TO", "counsellor.sms_to"),
    plain("COUNSELLOR_VOICE_TO", "counsellor.voice_to"),
    plain("COUNSELLOR_LANGUAGE", "counsellor.language"),
    plain("CARE_DESK_PHONE", "desk.phone"),
    plain("CARE_DESK_NAME", "desk.name"),
    plain("CRISIS_THRESHOLD", "decision.threshold"),
    plain("TWILIO_ACCOUNT_SID", "twilio.account_sid"),
    secret("TWILIO_AUTH_TOKEN", "twilio.auth_token"),
    plain("TWILIO_API_KEY_SID", "twilio.api_key_sid"),
    secret("TWILIO_API_KEY_SECRET", "twilio.api_key_secret"),
    plain("TWILIO_WHATSAPP_FROM", "twilio.whatsapp_from"),
    plain("TWILIO_SMS_FROM", "twilio.sms_from"),
    plain("TWILIO_VOICE_FROM", "twilio.voice_from"),
    plain("TWILIO_MESSAGING_SERVICE_SID", "twilio.messaging_service_sid"),
    plain("TWILIO_VERIFICATION_CONTENT_SID", "twilio.verification_content_sid"),
    plain("TWILIO_REGION", "twilio.region"),
    plain("TWILIO_EDGE", "twilio.edge"),
    plain("TWILIO_API_BASE_URL", "twilio.api_base_url"),
    plain("TWILIO_WEBHOOK_BASE_URL", "twilio.webhook_base_url"),
    plain("TWILIO_CONTENT_SID_EN", "templates.content_sids.en"),
    plain("TWILIO_CONTENT_SID_HI", "templates.content_sids.hi"),
    plain("DASHBOARD_URL", "templates.dashboard_url"),
    plain("INSTANCES", "worker.instances"),
    secret("OPS_SLACK_URL", "ops.slack_url"),
    secret("OPS_PAGERDUTY_KEY", "ops.pagerduty_key"),
    plain("OPS_SMS_TO", "ops.sms_to"),
    secret("OPS_HEARTBEAT_URL", "ops.heartbeat_url"),
    plain("OPS_WHATSAPP_TO", "ops.whatsapp_to"),
    plain("STORE", "store.kind"),
    plain("DATABASE_PATH", "store.path"),
    plain("FIRESTORE_PROJECT_ID", "store.firestore.project_id"),
    plain("FIRESTORE_DATABASE_ID", "store.firestore.database_id"),
    plain("FIRESTORE_EMULATOR_HOST", "store.firestore.emulator_host"),
    secret("MASTER_KEY", "keyring.master_key"),
    secret("FORMER_MASTER_KEYS", "keyring.former_master_keys"),
    plain("API_KEY_SERVICE_SHA256", "auth.api_key_sha256.service"),
    plain("API_KEY_COUNSELLOR_SHA256", "auth.api_key_sha256.counsellor"),
    plain("API_KEY_ADMIN_SHA256", "auth.api_key_sha256.admin"),
    plain("API_KEY_AUDITOR_SHA256", "auth.api_key_sha256.auditor"),
    plain("JWT_JWKS_URL", "auth.jwt.jwks_url"),
    secret("JWT_SECRET", "auth.jwt.secret"),
    plain("JWT_ISSUER", "auth.jwt.issuer"),
    plain("JWT_AUDIENCE", "auth.jwt.audience"),
    plain("LOG_FORMAT", "log.format"),
    plain("RUST_LOG", "log.filter"),
];

/// Names the configuration file.
pub(super) const CONFIG_VARIABLE: &str = "CRISIS_RELAY_CONFIG";

/// Begins a variable for a key without a name of its own: `CRISIS_RELAY__DELIVERY__LEASE` sets `delivery.lease`.
pub(super) const GENERIC_PREFIX: &str = "CRISIS_RELAY__";

/// Begins a variable for one language's approved template: `TWILIO_CONTENT_SID_TA` sets `templates.content_sids.ta`.
pub(super) const CONTENT_SID_PREFIX: &str = "TWILIO_CONTENT_SID_";

/// The table whose keys are languages, so that they cannot all be listed.
pub(super) const CONTENT_SIDS: &str = "templates.content_sids";

/// The list of tables: no variable can hold one.
pub(super) const FILE_ONLY: &str = "auth.api_keys";

/// The variable that sets `key`, by the name people know or by the generic one.
pub(super) fn variable_of(key: &str) -> String {
    NAMED.iter().find(|named| named.key == key).map_or_else(
        || match key.strip_prefix(CONTENT_SIDS).and_then(|rest| rest.strip_prefix('.')) {
            Some(language) => format!("{CONTENT_SID_PREFIX}{}", language.to_ascii_uppercase()),
            None => format!("{GENERIC_PREFIX}{}", key.replace('.', "__").to_ascii_uppercase()),
        },
        |named| named.variable.to_owned(),
    )
}

/// The known name that `name` was probably meant to be.
pub(super) fn meant<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // One slip in a short name, two in a longer one; more is another word.
    let most = (name.len() / 4).clamp(1, 2);
    known
        .into_iter()
        .map(|candidate| (strsim::damerau_levenshtein(name, candidate), candidate))
        .filter(|(distance, _)| *distance <= most)
        .min()
        .map(|(_, candidate)| candidate)
}
