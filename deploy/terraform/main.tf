# What everything else stands on: APIs, the place for images, and the service's own account.

resource "google_project_service" "needed" {
  for_each = toset([
    "artifactregistry.googleapis.com",
    "cloudbuild.googleapis.com",
    "cloudscheduler.googleapis.com",
    "firebaserules.googleapis.com",
    "firestore.googleapis.com",
    "iam.googleapis.com",
    "monitoring.googleapis.com",
    "run.googleapis.com",
    "secretmanager.googleapis.com",
  ])
  project = var.project_id
  service = each.key
  # Somebody else in the project may need it.
  disable_on_destroy = false
}

resource "google_artifact_registry_repository" "images" {
  project       = var.project_id
  location      = var.region
  repository_id = var.name
  format        = "DOCKER"
  description   = "Images of crisis-relay"
  docker_config {
    # A tag is not moved to another image.
    immutable_tags = true
  }
  depends_on = [google_project_service.needed]
}

# The service runs as nobody else, and this account may do two things: read and write documents of one database, and
# read its own secrets (secrets.tf). It cannot change indexes, rules, other databases, or itself.
resource "google_service_account" "service" {
  project      = var.project_id
  account_id   = var.name
  display_name = "crisis-relay, the service"
  depends_on   = [google_project_service.needed]
}

resource "google_project_iam_member" "documents" {
  project = var.project_id
  role    = "roles/datastore.user"
  member  = google_service_account.service.member
  condition {
    title      = "only-this-database"
    expression = "resource.name == \"projects/${var.project_id}/databases/${var.firestore_database}\""
  }
}
