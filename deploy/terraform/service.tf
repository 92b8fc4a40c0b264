# The service on Cloud Run. deploy/cloudrun/service.yaml says the same without Terraform.

resource "google_cloud_run_v2_service" "relay" {
  project             = var.project_id
  name                = var.name
  location            = var.region
  ingress             = var.ingress
  deletion_protection = true

  template {
    service_account       = google_service_account.service.email
    execution_environment = "EXECUTION_ENVIRONMENT_GEN2"
    # http.request_timeout (10 s) ends a request long before; the scheduler's may take longer.
    timeout                          = "60s"
    max_instance_request_concurrency = 250

    scaling {
      min_instance_count = var.instances_min
      max_instance_count = var.instances_max
    }

    containers {
      image = var.image

      ports {
        # http.bind of the image listens on every address; Cloud Run sets PORT.
        container_port = 8080
      }

      resources {
        limits = {
          cpu    = "1"
          memory = "512Mi"
        }
        # The worker sends, looks up and escalates between requests: without a processor it would stand still.
        cpu_idle          = false
        startup_cpu_boost = true
      }

      dynamic "env" {
        for_each = local.settings
        content {
          name  = env.key
          value = env.value
        }
      }

      dynamic "env" {
        for_each = google_secret_manager_secret.service
        content {
          name = env.key
          value_source {
            secret_key_ref {
              secret = env.value.secret_id
              # Read when an instance starts. A new version counts from the next revision on: docs/deploy.md.
              version = "latest"
            }
          }
        }
      }

      # A revision whose store does not answer never gets requests; the one before goes on.
      startup_probe {
        http_get {
          path = var.startup_path
        }
        period_seconds    = 3
        timeout_seconds   = 3
        failure_threshold = 40
      }

      # Alive is not ready: while Firestore is away a restart helps nobody.
      liveness_probe {
        http_get {
          path = "/livez"
        }
        period_seconds    = 10
        timeout_seconds   = 5
        failure_threshold = 3
      }
    }
  }

  # Not before it can read what it needs, and not before its queries have their indexes.
  depends_on = [
    google_project_iam_member.documents,
    google_secret_manager_secret_iam_member.service,
    google_firestore_index.composite,
    google_firestore_field.override,
    google_firebaserules_release.firestore,
  ]
}

# Twilio and the backends cannot show a Google identity. The service asks everybody for a key, a token or a signature
# itself; what it answers to anybody stands in docs/deploy.md.
resource "google_cloud_run_v2_service_iam_member" "everybody" {
  project  = var.project_id
  location = var.region
  name     = google_cloud_run_v2_service.relay.name
  role     = "roles/run.invoker"
  member   = "allUsers"
}
