# --- Where ------------------------------------------------------------------------------------------------------------

variable "project_id" {
  description = "The Google Cloud project: a project of its own, so that its accounts reach nothing else."
  type        = string
  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{4,28}[a-z0-9]$", var.project_id))
    error_message = "A project id has 6 to 30 small letters, digits and '-', and begins with a letter."
  }
}

variable "region" {
  description = "The region of the service, the scheduler and the images."
  type        = string
  default     = "asia-south1"
  validation {
    condition     = can(regex("^[a-z]+-[a-z]+[0-9]+$", var.region))
    error_message = "A region looks like asia-south1."
  }
}

variable "firestore_location" {
  description = "Where the data lies: a region, or a multi-region (nam5, eur3). It can never be changed. Each call goes there and back: take the service's own region."
  type        = string
  default     = "asia-south1"
}

variable "firestore_database" {
  description = "The database's id. Only one database of a project, as a rule (default), has the free quota."
  type        = string
  default     = "(default)"
  validation {
    condition     = var.firestore_database == "(default)" || can(regex("^[a-z][a-z0-9-]{2,61}[a-z0-9]$", var.firestore_database))
    error_message = "(default), or 4 to 63 small letters, digits and '-'."
  }
}

variable "backup_retention_days" {
  description = "How long daily backups are kept, besides seven days of point-in-time recovery. 0: no backups."
  type        = number
  default     = 28
  validation {
    condition     = var.backup_retention_days >= 0 && var.backup_retention_days <= 98 && floor(var.backup_retention_days) == var.backup_retention_days
    error_message = "0 to 98 days (Firestore keeps a backup for 14 weeks at most)."
  }
}

# --- What runs --------------------------------------------------------------------------------------------------------

variable "name" {
  description = "Name of the service and of what belongs to it."
  type        = string
  default     = "crisis-relay"
  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{4,19}$", var.name))
    error_message = "5 to 20 small letters, digits and '-', since an account is named after it."
  }
}

variable "image" {
  description = "The container image, by digest: what was tested is what runs. asia-south1-docker.pkg.dev/PROJECT/crisis-relay/crisis-relay@sha256:…"
  type        = string
  validation {
    condition     = can(regex("@sha256:[0-9a-f]{64}$", var.image))
    error_message = "Name the image by its digest (…@sha256:…), not by a tag, which can be moved."
  }
}

variable "instances_min" {
  description = "Instances that always run. 1: what is due is done within half a second. 0: see scale to zero in docs/deploy.md."
  type        = number
  default     = 1
  validation {
    condition     = var.instances_min >= 0 && var.instances_min <= 100
    error_message = "0 to 100."
  }
}

variable "instances_max" {
  description = "Most instances. Twilio's pace for one sender is divided among them."
  type        = number
  default     = 3
  validation {
    condition     = var.instances_max >= 1 && var.instances_max <= 100 && var.instances_max >= var.instances_min
    error_message = "1 to 100, and not below instances_min."
  }
}

variable "whatsapp_per_second" {
  description = "Twilio's limit for the WhatsApp sender, in messages a second, for all instances together."
  type        = number
  default     = 80
  validation {
    condition     = var.whatsapp_per_second >= 1 && var.whatsapp_per_second <= 400
    error_message = "1 to 400: Twilio raises it no further."
  }
  validation {
    condition     = var.whatsapp_per_second >= var.instances_max
    error_message = "Each instance needs a share of at least one message a second: lower instances_max."
  }
}

variable "startup_path" {
  description = "Asked before an instance gets requests."
  type        = string
  default     = "/readyz?exclude=twilio"
  validation {
    condition     = contains(["/readyz?exclude=twilio", "/readyz", "/livez"], var.startup_path)
    error_message = "/readyz?exclude=twilio, /readyz or /livez."
  }
}

variable "log_filter" {
  description = "Which log lines (RUST_LOG)."
  type        = string
  default     = "info"
}

# --- The college and its counsellor -----------------------------------------------------------------------------------

variable "organisation_id" {
  description = "Choose it once: everything stored bears it."
  type        = string
  validation {
    condition     = can(regex("^[A-Za-z0-9_-]{1,64}$", var.organisation_id))
    error_message = "1 to 64 letters, digits, '-' or '_'."
  }
}

variable "organisation_name" {
  description = "Short sender name, shown in messages. No word in it may tell of a crisis."
  type        = string
  validation {
    condition     = can(regex("^[A-Za-z0-9&-]+( [A-Za-z0-9&-]+)*$", var.organisation_name)) && length(var.organisation_name) <= 20
    error_message = "1 to 20 letters, digits, single spaces, '-' or '&'."
  }
}

variable "organisation_time_zone" {
  description = "IANA name. Times in messages are local to the college."
  type        = string
  default     = "Asia/Kolkata"
}

variable "counsellor_language" {
  description = "Language of the messages; content_sids must have it."
  type        = string
  default     = "en"
  validation {
    condition     = can(regex("^[a-z]{2,3}$", var.counsellor_language))
    error_message = "Two or three small letters."
  }
}

variable "crisis_threshold" {
  description = "A score of at least this becomes an alert."
  type        = number
  default     = 0.8
  validation {
    condition     = var.crisis_threshold >= 0.01 && var.crisis_threshold <= 1
    error_message = "0.01 to 1."
  }
}

# --- Twilio -----------------------------------------------------------------------------------------------------------

variable "twilio_account_sid" {
  description = "From the front page of Twilio's console."
  type        = string
  validation {
    condition     = can(regex("^AC[0-9a-f]{32}$", var.twilio_account_sid))
    error_message = "AC and 32 hexadecimal digits."
  }
}

variable "twilio_whatsapp_from" {
  description = "The WhatsApp sender, in E.164 form. Not the sandbox."
  type        = string
  validation {
    condition     = can(regex("^\\+[1-9][0-9]{6,14}$", var.twilio_whatsapp_from)) && var.twilio_whatsapp_from != "+14155238886"
    error_message = "E.164, such as +919876543210; the sandbox is for development only."
  }
}

variable "content_sids" {
  description = "The approved WhatsApp templates: of each language that of the alert (en), and those of what is said besides (en_taken_notice, en_outcome_reminder, en_follow_up_reminder, en_emergency_contact). See docs/templates.md."
  type        = map(string)
  validation {
    condition     = length(var.content_sids) > 0 && alltrue([for sid in values(var.content_sids) : can(regex("^HX[0-9a-f]{32}$", sid))])
    error_message = "At least one, each HX and 32 hexadecimal digits."
  }
  validation {
    condition     = contains(keys(var.content_sids), var.counsellor_language)
    error_message = "The counsellor's language must have a template."
  }
}

variable "webhook_base_url" {
  description = "The public https address of the service, as Twilio calls it: your own domain, or the address that Cloud Run gives (docs/deploy.md)."
  type        = string
  validation {
    condition     = can(regex("^https://[A-Za-z0-9.-]+(/[A-Za-z0-9._~/-]*)?$", var.webhook_base_url))
    error_message = "https, no user name, no port, no underscore in the host."
  }
}

variable "dashboard_url" {
  description = "Base of the links in messages; empty: no link."
  type        = string
  default     = ""
  validation {
    condition     = var.dashboard_url == "" || (startswith(var.dashboard_url, "https://") && length(var.dashboard_url) <= 55)
    error_message = "https, at most 55 characters."
  }
}

# --- Who may call -----------------------------------------------------------------------------------------------------

variable "api_key_sha256" {
  description = "Hashes of the API keys by role: what `crisis-relay api-key ID` prints as sha256. The keys themselves are not needed here."
  type        = map(list(string))
  validation {
    condition     = alltrue([for role in keys(var.api_key_sha256) : contains(["service", "counsellor", "admin", "auditor"], role)])
    error_message = "Roles are service, counsellor, admin and auditor."
  }
  validation {
    condition     = alltrue([for hash in flatten(values(var.api_key_sha256)) : can(regex("^[0-9a-f]{64}$", hash))])
    error_message = "Each hash has 64 hexadecimal digits. A key itself must not stand here."
  }
  validation {
    condition     = length(lookup(var.api_key_sha256, "service", [])) > 0
    error_message = "Backends need a key of the role service."
  }
}

variable "jwt" {
  description = "People's identity provider; null: people use API keys."
  type = object({
    jwks_url = string
    issuer   = string
    audience = string
  })
  default = null
  validation {
    condition     = var.jwt == null ? true : startswith(var.jwt.jwks_url, "https://")
    error_message = "The provider's keys are fetched over https."
  }
}

variable "ingress" {
  description = "INGRESS_TRAFFIC_ALL, or INGRESS_TRAFFIC_INTERNAL_LOAD_BALANCER behind a load balancer of yours, which can keep /metrics, /readyz and /docs from the internet."
  type        = string
  default     = "INGRESS_TRAFFIC_ALL"
  validation {
    condition     = contains(["INGRESS_TRAFFIC_ALL", "INGRESS_TRAFFIC_INTERNAL_LOAD_BALANCER"], var.ingress)
    error_message = "INGRESS_TRAFFIC_ALL or INGRESS_TRAFFIC_INTERNAL_LOAD_BALANCER."
  }
}

# --- Secrets: only which there are; the values are put in by hand and never stand in Terraform's state ------------------

variable "has_twilio_api_key" {
  description = "Whether an API key signs in at Twilio instead of the auth token: twilio_api_key_sid, and the secret TWILIO_API_KEY_SECRET."
  type        = bool
  default     = false
}

variable "twilio_api_key_sid" {
  description = "SK…; with has_twilio_api_key."
  type        = string
  default     = ""
  validation {
    condition     = can(regex("^SK[0-9a-f]{32}$", var.twilio_api_key_sid)) == var.has_twilio_api_key
    error_message = "SK and 32 hexadecimal digits with has_twilio_api_key, else empty."
  }
}

variable "has_former_master_keys" {
  description = "After a change of the master key: the secret FORMER_MASTER_KEYS."
  type        = bool
  default     = false
}

# --- Scheduler and alarms ---------------------------------------------------------------------------------------------

variable "run_due_schedule" {
  description = "When the scheduler asks for what is due (cron, UTC). Every minute is the shortest. Empty: no scheduler, which instances_min = 0 forbids."
  type        = string
  default     = "* * * * *"
  validation {
    condition     = var.run_due_schedule != "" || var.instances_min > 0
    error_message = "Where no instance always runs, somebody must wake one: give a schedule."
  }
}

variable "alarm_email" {
  description = "Who is told of operator alarms, and when the service is not ready. Empty: no alarms from here; have others."
  type        = string
  default     = ""
}
