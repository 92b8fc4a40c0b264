# Who is told. A log line and a ready answer are enough for that; figures are in /metrics (docs/deploy.md).

locals {
  alarms = var.alarm_email == "" ? 0 : 1
  # Behind a load balancer the address that Cloud Run gives is closed: the balancer must let Google's uptime checks see /readyz.
  watched_url = var.ingress == "INGRESS_TRAFFIC_ALL" ? google_cloud_run_v2_service.relay.uri : var.webhook_base_url
}

resource "google_monitoring_notification_channel" "on_call" {
  count        = local.alarms
  project      = var.project_id
  display_name = "crisis-relay, on call"
  type         = "email"
  labels = {
    email_address = var.alarm_email
  }
  depends_on = [google_project_service.needed]
}

resource "google_monitoring_uptime_check_config" "ready" {
  count        = local.alarms
  project      = var.project_id
  display_name = "${var.name} is ready"
  timeout      = "10s"
  period       = "60s"
  http_check {
    # With Twilio: who is on call must see that it is away.
    path         = "/readyz"
    port         = 443
    use_ssl      = true
    validate_ssl = true
  }
  monitored_resource {
    type = "uptime_url"
    labels = {
      project_id = var.project_id
      host       = split("/", trimprefix(local.watched_url, "https://"))[0]
    }
  }
}

resource "google_monitoring_alert_policy" "not_ready" {
  count        = local.alarms
  project      = var.project_id
  display_name = "${var.name} is not ready"
  combiner     = "OR"
  conditions {
    display_name = "/readyz fails from more than one place"
    condition_threshold {
      filter          = "metric.type=\"monitoring.googleapis.com/uptime_check/check_passed\" AND metric.labels.check_id=\"${google_monitoring_uptime_check_config.ready[0].uptime_check_id}\" AND resource.type=\"uptime_url\""
      comparison      = "COMPARISON_GT"
      threshold_value = 1
      duration        = "60s"
      aggregations {
        alignment_period     = "60s"
        per_series_aligner   = "ALIGN_NEXT_OLDER"
        cross_series_reducer = "REDUCE_COUNT_FALSE"
        group_by_fields      = ["resource.label.host"]
      }
    }
  }
  notification_channels = [google_monitoring_notification_channel.on_call[0].id]
}

# Each of these means that the service cannot do its job alone: docs/operations.md.
resource "google_monitoring_alert_policy" "operator_alarm" {
  count        = local.alarms
  project      = var.project_id
  display_name = "${var.name}: operator alarm"
  combiner     = "OR"
  conditions {
    display_name = "an operator alarm in the log"
    condition_matched_log {
      filter = "resource.type=\"cloud_run_revision\" AND resource.labels.service_name=\"${var.name}\" AND jsonPayload.message=\"operator alarm\""
      label_extractors = {
        alarm = "EXTRACT(jsonPayload.alarm)"
      }
    }
  }
  alert_strategy {
    notification_rate_limit {
      period = "300s"
    }
    auto_close = "3600s"
  }
  documentation {
    mime_type = "text/markdown"
    content   = "Look the alarm up in docs/operations.md, under Alarms. The log line names the alert."
  }
  notification_channels = [google_monitoring_notification_channel.on_call[0].id]
}
