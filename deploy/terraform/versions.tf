terraform {
  required_version = ">= 1.9"
  required_providers {
    google = {
      source  = "hashicorp/google"
      version = "~> 6.50"
    }
  }
  # The state holds one secret, the scheduler's key (scheduler.tf): keep it where only those who deploy can read it.
  #backend "gcs" {
  #  bucket = "…"
  #  prefix = "crisis-relay"
  #}
}

provider "google" {
  project = var.project_id
  region  = var.region
}
