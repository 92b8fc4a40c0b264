# Asks the service for what is due. Where an instance always runs this is a second pair of eyes; with scale to zero it is what
# wakes one.
#
# It shows an API key, not an OIDC token: the service is open to everybody at Google's door (Twilio has no Google
# identity), so Google would check nothing, and the service itself trusts one identity provider, the people's. The price: the key
# stands in the job and in Terraform's state. It opens this one endpoint's role and nothing that can be read.

data "google_secret_manager_secret_version_access" "scheduler" {
  count   = local.scheduler_enabled ? 1 : 0
  project = var.project_id
  secret  = google_secret_manager_secret.scheduler[0].secret_id
}

resource "google_cloud_scheduler_job" "run_due" {
  count            = local.scheduler_enabled ? 1 : 0
  project          = var.project_id
  region           = var.region
  name             = "${var.name}-run-due"
  description      = "Runs what is due"
  schedule         = var.run_due_schedule
  time_zone        = "Etc/UTC"
  attempt_deadline = "60s"
  retry_config {
    # The next minute is soon enough for anything more.
    retry_count          = 2
    min_backoff_duration = "5s"
    max_backoff_duration = "10s"
  }
  http_target {
    http_method = "POST"
    uri         = "${google_cloud_run_v2_service.relay.uri}/api/v1/tasks/run-due"
    headers = {
      "Authorization" = "Bearer ${data.google_secret_manager_secret_version_access.scheduler[0].secret_data}"
      "Content-Type"  = "application/json"
    }
    body = base64encode("{}")
  }
}
