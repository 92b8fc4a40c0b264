# Which secrets there are and who may read them. The values are put in with gcloud (docs/deploy.md), so that they stand
# neither in a file here nor in the state.

resource "google_secret_manager_secret" "service" {
  for_each  = local.service_secrets
  project   = var.project_id
  secret_id = "${var.name}-${lower(replace(each.key, "_", "-"))}"
  replication {
    user_managed {
      replicas {
        location = var.region
      }
    }
  }
  depends_on = [google_project_service.needed]
  lifecycle {
    # Without the master key all that is sealed stays sealed for ever.
    prevent_destroy = true
  }
}

resource "google_secret_manager_secret_iam_member" "service" {
  for_each  = google_secret_manager_secret.service
  project   = var.project_id
  secret_id = each.value.secret_id
  role      = "roles/secretmanager.secretAccessor"
  member    = google_service_account.service.member
}

resource "google_secret_manager_secret" "scheduler" {
  count     = local.scheduler_enabled ? 1 : 0
  project   = var.project_id
  secret_id = "${var.name}-${lower(replace(local.scheduler_secret, "_", "-"))}"
  replication {
    user_managed {
      replicas {
        location = var.region
      }
    }
  }
  depends_on = [google_project_service.needed]
}
