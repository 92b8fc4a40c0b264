# The database, and what it needs besides its documents. Indexes, exemptions, TTL policies and rules stand in
# migrations/firestore/, and in no second place.

resource "google_firestore_database" "relay" {
  project                           = var.project_id
  name                              = var.firestore_database
  location_id                       = var.firestore_location
  type                              = "FIRESTORE_NATIVE"
  database_edition                  = "STANDARD"
  concurrency_mode                  = "OPTIMISTIC"
  app_engine_integration_mode       = "DISABLED"
  point_in_time_recovery_enablement = "POINT_IN_TIME_RECOVERY_ENABLED"
  delete_protection_state           = "DELETE_PROTECTION_ENABLED"
  # `terraform destroy` leaves it. Accepted alerts and the audit are in there.
  deletion_policy = "ABANDON"
  depends_on      = [google_project_service.needed]
  lifecycle {
    prevent_destroy = true
  }
}

resource "google_firestore_index" "composite" {
  for_each    = local.indexes
  project     = var.project_id
  database    = google_firestore_database.relay.name
  collection  = each.value.collectionGroup
  query_scope = each.value.queryScope
  dynamic "fields" {
    for_each = each.value.fields
    content {
      field_path   = fields.value.fieldPath
      order        = lookup(fields.value, "order", null)
      array_config = lookup(fields.value, "arrayConfig", null)
    }
  }
}

resource "google_firestore_field" "override" {
  for_each   = local.fields
  project    = var.project_id
  database   = google_firestore_database.relay.name
  collection = each.value.collectionGroup
  field      = each.value.fieldPath
  # Empty: an exemption.
  index_config {
    dynamic "indexes" {
      for_each = each.value.indexes
      content {
        order        = lookup(indexes.value, "order", null)
        array_config = lookup(indexes.value, "arrayConfig", null)
        query_scope  = indexes.value.queryScope
      }
    }
  }
  dynamic "ttl_config" {
    for_each = lookup(each.value, "ttl", false) ? [true] : []
    content {}
  }
}

resource "google_firebaserules_ruleset" "deny_all" {
  project = var.project_id
  source {
    files {
      name    = "firestore.rules"
      content = file("${path.module}/../../migrations/firestore/firestore.rules")
    }
  }
  depends_on = [google_firestore_database.relay]
  lifecycle {
    # What is in force cannot be deleted.
    create_before_destroy = true
  }
}

resource "google_firebaserules_release" "firestore" {
  project      = var.project_id
  name         = var.firestore_database == "(default)" ? "cloud.firestore" : "cloud.firestore/${var.firestore_database}"
  ruleset_name = "projects/${var.project_id}/rulesets/${google_firebaserules_ruleset.deny_all.name}"
}

resource "google_firestore_backup_schedule" "daily" {
  count     = var.backup_retention_days > 0 ? 1 : 0
  project   = var.project_id
  database  = google_firestore_database.relay.name
  retention = "${var.backup_retention_days * 86400}s"
  daily_recurrence {}
}
