output "service_url" {
  description = "The address that Cloud Run gives."
  value       = google_cloud_run_v2_service.relay.uri
}

output "twilio_incoming_webhook" {
  description = "To be set at the WhatsApp sender in Twilio's console, with POST: docs/webhooks.md."
  value       = "${trimsuffix(var.webhook_base_url, "/")}/webhooks/twilio/incoming#rc=5&rp=all&ct=2000&rt=5000&tt=15000"
}

output "image_repository" {
  description = "Where images are pushed."
  value       = "${var.region}-docker.pkg.dev/${var.project_id}/${google_artifact_registry_repository.images.repository_id}"
}

output "secrets" {
  description = "The secrets that need a value, by the variable that each one becomes."
  value = merge(
    { for name, secret in google_secret_manager_secret.service : name => secret.secret_id },
    local.scheduler_enabled ? { (local.scheduler_secret) = google_secret_manager_secret.scheduler[0].secret_id } : {},
  )
}

output "service_account" {
  description = "What the service runs as."
  value       = google_service_account.service.email
}
