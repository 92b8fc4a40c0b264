locals {
  # The one list of indexes, exemptions and TTL policies, which `crisis-relay migrate` and `firebase deploy` read, too.
  firestore = jsondecode(file("${path.module}/../../migrations/firestore/firestore.indexes.json"))
  indexes = {
    for index in local.firestore.indexes :
    "${index.collectionGroup}(${join(",", [for field in index.fields : "${field.fieldPath} ${lookup(field, "order", "CONTAINS")}"])})" => index
  }
  fields = { for field in local.firestore.fieldOverrides : "${field.collectionGroup}.${field.fieldPath}" => field }

  # What the container is told. Names: .env.example; every other key of config/default.toml: CRISIS_RELAY__SECTION__KEY.
  settings = merge(
    {
      CRISIS_RELAY_MODE       = "production"
      LOG_FORMAT              = "json"
      RUST_LOG                = var.log_filter
      STORE                   = "firestore"
      FIRESTORE_PROJECT_ID    = var.project_id
      FIRESTORE_DATABASE_ID   = var.firestore_database
      ORGANISATION_ID         = var.organisation_id
      ORGANISATION_NAME       = var.organisation_name
      ORGANISATION_TIME_ZONE  = var.organisation_time_zone
      COUNSELLOR_LANGUAGE     = var.counsellor_language
      CRISIS_THRESHOLD        = tostring(var.crisis_threshold)
      TWILIO_ACCOUNT_SID      = var.twilio_account_sid
      TWILIO_WHATSAPP_FROM    = var.twilio_whatsapp_from
      TWILIO_WEBHOOK_BASE_URL = var.webhook_base_url
      # Cloud Run appends the caller's address to X-Forwarded-For.
      CRISIS_RELAY__HTTP__TRUSTED_PROXIES = var.ingress == "INGRESS_TRAFFIC_ALL" ? "1" : "2"
      # Cloud Run kills ten seconds after SIGTERM: everything that may be under way must be over before.
      CRISIS_RELAY__HTTP__SHUTDOWN_GRACE             = "9s"
      CRISIS_RELAY__TWILIO__REQUEST_TIMEOUT          = "8s"
      CRISIS_RELAY__STORE__FIRESTORE__COMMIT_TIMEOUT = "8s"
      # Twilio's limit is one for the sender: each instance takes its share.
      CRISIS_RELAY__TWILIO__WHATSAPP_PER_SECOND = tostring(floor(var.whatsapp_per_second / var.instances_max))
    },
    { for language, sid in var.content_sids : "TWILIO_CONTENT_SID_${upper(language)}" => sid },
    { for role, hashes in var.api_key_sha256 : "API_KEY_${upper(role)}_SHA256" => join(",", hashes) if length(hashes) > 0 },
    var.dashboard_url == "" ? {} : { DASHBOARD_URL = var.dashboard_url },
    var.has_twilio_api_key ? { TWILIO_API_KEY_SID = var.twilio_api_key_sid } : {},
    var.jwt == null ? {} : { JWT_JWKS_URL = var.jwt.jwks_url, JWT_ISSUER = var.jwt.issuer, JWT_AUDIENCE = var.jwt.audience },
  )

  # Read by the service. The counsellor's number is no key, but it is personal: it does not belong into a state file.
  service_secrets = toset(concat(
    ["MASTER_KEY", "TWILIO_AUTH_TOKEN", "COUNSELLOR_WHATSAPP_TO"],
    var.has_twilio_api_key ? ["TWILIO_API_KEY_SECRET"] : [],
    var.has_former_master_keys ? ["FORMER_MASTER_KEYS"] : [],
  ))
  # Sent by the scheduler; the service knows its hash only.
  scheduler_secret  = "SCHEDULER_API_KEY"
  scheduler_enabled = var.run_due_schedule != ""
}
