#!/usr/bin/env python3
"""Checks what deploy/ and migrations/firestore/ say, as far as that can be done without an account at Google.

    python3 -m venv target/deploy-check && target/deploy-check/bin/pip install -r deploy/check/requirements.txt
    target/deploy-check/bin/python deploy/check/check.py

- Terraform: each resource against the names that the provider knows (google.json), each reference against what is
  declared, each variable against its use. With the terraform binary: its format, and the part that needs no provider
  (variables.tf, locals.tf) is planned: with the example's values, and with wrong ones, which must be refused.
- deploy/cloudrun/service.yaml: its form, and that it says the same as Terraform.
- Both: every setting that the container is given is one that the service knows.
- migrations/firestore: the form of the Firebase command line's files.

Prints each fault; exit status 1 if there is one. What only Google can say is not checked: docs/deploy.md lists it.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

import hcl2
import yaml

TOP = Path(__file__).resolve().parent.parent.parent
TERRAFORM = TOP / "deploy" / "terraform"
META = {"count", "for_each", "depends_on", "provider", "lifecycle"}
# What has an approved template besides the alert.
BESIDES = "TAKEN_NOTICE|OUTCOME_REMINDER|FOLLOW_UP_REMINDER|EMERGENCY_CONTACT"
faults = []
passed = 0


def check(holds, fault):
    global passed
    if holds:
        passed += 1
    else:
        faults.append(fault)


def bare(name):
    return name.strip('"')


def own(body):
    """The members of a parsed block that somebody wrote."""
    return {key: value for key, value in body.items() if not key.startswith("__")}


# --- Terraform against the provider's names ------------------------------------------------------------------------------


def blocks_of(body):
    """Attributes and nested blocks of a parsed body; a dynamic block counts as one of its label's blocks."""
    attributes, nested = {}, []
    for key, value in own(body).items():
        is_block = isinstance(value, list) and value and all(isinstance(v, dict) and "__is_block__" in v for v in value)
        if key == "dynamic":
            for entry in value:
                for label, inner in own(entry).items():
                    nested += [(bare(label), content) for content in inner["content"]]
        elif is_block:
            nested += [(key, entry) for entry in value]
        else:
            attributes[key] = value
    return attributes, nested


def against(known, body, where, top=False):
    attributes, nested = blocks_of(body)
    for name in attributes:
        fine = name in known["attributes"] or name in known["blocks"] or (top and name in META)
        check(fine, f"{where}: the provider knows no {name}")
    for name, inner in nested:
        if top and name == "lifecycle":
            continue
        if name not in known["blocks"]:
            check(False, f"{where}: the provider knows no block {name}")
            continue
        against(known["blocks"][name], inner, f"{where}.{name}")
    given = set(attributes) | {name for name, _ in nested}
    for name in known["required"]:
        check(name in given, f"{where}: {name} must be given")


def texts(value):
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, inner in value.items():
            if key != "__comments__":
                yield key
                yield from texts(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from texts(inner)


def parsed_terraform():
    whole = {"resource": {}, "data": {}, "variable": {}, "locals": {}, "output": {}}
    for path in sorted(TERRAFORM.glob("*.tf")):
        with path.open() as file:
            for kind, entries in hcl2.load(file).items():
                for entry in entries if kind in whole else []:
                    for name, body in own(entry).items():
                        if kind in ("resource", "data"):
                            for label, inner in own(body).items():
                                whole[kind][f"{bare(name)}.{bare(label)}"] = inner
                        else:
                            whole[kind][bare(name)] = body
    return whole


def check_terraform(whole):
    known = json.loads((Path(__file__).with_name("google.json")).read_text())
    used = re.search(r'version = "~> (\d+)\.(\d+)"', (TERRAFORM / "versions.tf").read_text())
    check(known["provider"].startswith(f"{used[1]}.{used[2]}."), f"google.json is of {known['provider']}, versions.tf asks for {used[0]}")
    for kind in ("resource", "data"):
        for address, body in whole[kind].items():
            names = known[kind].get(address.split(".")[0])
            check(names is not None, f"{address}: not in google.json; run deploy/check/extract.py")
            if names:
                against(names, body, address, top=True)
    everything = "\n".join(texts(whole))
    for name in set(re.findall(r"\bvar\.(\w+)", everything)):
        check(name in whole["variable"], f"var.{name} is not declared")
    for name in whole["variable"]:
        rest = "\n".join(texts({key: value for key, value in whole.items() if key != "variable"}))
        check(re.search(rf"\bvar\.{name}\b", rest), f"the variable {name} is not used")
    for name in set(re.findall(r"\blocal\.(\w+)", everything)):
        check(name in whole["locals"], f"local.{name} is not declared")
    reference = re.compile(r"(?<![\w./\"-])(data\.)?(google_\w+)\.(\w+)(?:\[[^\]]*\])?(?:\.(\w+))?")
    bodies = [body for kind in whole.values() for body in kind.values()]
    for text in texts(bodies):
        for data, kind, label, output in reference.findall(text):
            where = "data" if data else "resource"
            check(f"{kind}.{label}" in whole[where], f"{data}{kind}.{label} is not declared")
            fine = not output or output in known[where].get(kind, {}).get("outputs", [])
            check(fine, f"{data}{kind}.{label}: the provider knows no {output}")


# --- What the service's account may do -------------------------------------------------------------------------------------


def check_least_privilege(whole):
    granted = {}
    for address, body in whole["resource"].items():
        kind = address.split(".")[0]
        check(not kind.endswith(("_iam_binding", "_iam_policy")), f"{address} would replace the grants of others")
        if kind.endswith("_iam_member") and "google_service_account.service" in body["member"]:
            granted[kind] = bare(body["role"])
    expected = {
        "google_project_iam_member": "roles/datastore.user",
        "google_secret_manager_secret_iam_member": "roles/secretmanager.secretAccessor",
    }
    check(granted == expected, f"the service's account is granted {granted}, not {expected}")


# --- Terraform by Terraform ------------------------------------------------------------------------------------------------

WRONG = {
    "an image by its tag": ('image = "r/p/i:latest"', "digest"),
    "the sandbox": ('twilio_whatsapp_from = "+14155238886"', "sandbox"),
    "a key instead of its hash": ('api_key_sha256 = { service = ["crk_chat-backend_secret"] }', "64 hexadecimal"),
    "nobody who may post": ("api_key_sha256 = { counsellor = [] }", "role service"),
    "nobody who wakes it": ('instances_min = 0\nrun_due_schedule = ""', "give a schedule"),
    "plain http": ('webhook_base_url = "http://relay.example.org"', "https"),
    "a language without a template": ('counsellor_language = "hi"', "must have a template"),
    "more instances than messages": ("instances_max = 100\nwhatsapp_per_second = 80", "share"),
    "an API key's SID alone": ('twilio_api_key_sid = "SK00000000000000000000000000000000"', "has_twilio_api_key"),
}


def terraform(folder, *arguments):
    environment = {**os.environ, "TF_IN_AUTOMATION": "1", "TF_CLI_CONFIG_FILE": os.devnull, "CHECKPOINT_DISABLE": "1"}
    command = ["terraform", f"-chdir={folder}", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120)


def check_by_terraform():
    """The settings and secrets that the example's values come to, or None without the binary."""
    if not shutil.which("terraform"):
        print("not checked: terraform is not installed, so its format and its variables' rules were not tried")
        return None
    run = terraform(TERRAFORM, "fmt", "-check", "-no-color")
    check(run.returncode == 0, f"terraform fmt would change {run.stdout.split()}")
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder) / "deploy" / "terraform"
        base.mkdir(parents=True)
        shutil.copytree(TOP / "migrations" / "firestore", Path(folder) / "migrations" / "firestore")
        for name in ("variables.tf", "locals.tf"):
            shutil.copy(TERRAFORM / name, base)
        names = ("settings", "service_secrets", "indexes", "fields", "scheduler_enabled")
        (base / "outputs.tf").write_text("".join(f'output "{n}" {{\n value = local.{n}\n}}\n' for n in names))
        example = TERRAFORM / "terraform.tfvars.example"
        shutil.copy(example, base / "terraform.tfvars")
        run = terraform(base, "init", "-backend=false", "-no-color")
        check(run.returncode == 0, f"terraform init: {run.stderr}")
        run = terraform(base, "validate", "-no-color")
        check(run.returncode == 0, f"terraform validate: {run.stderr}")
        run = terraform(base, "apply", "-auto-approve", "-no-color")
        check(run.returncode == 0, f"the example's values are refused: {run.stderr}")
        out = json.loads(terraform(base, "output", "-json").stdout or "{}")
        for what, (line, words) in WRONG.items():
            wrong = base / "wrong.tfvars"
            wrong.write_text(line + "\n")
            run = terraform(base, "plan", "-no-color", f"-var-file={wrong}")
            refused = run.returncode != 0 and words in re.sub(r"[\s│]+", " ", run.stderr)
            check(refused, f"{what} is not refused as it should be: {run.stderr or run.stdout}")
    return {name: entry["value"] for name, entry in out.items()}


# --- What the service knows --------------------------------------------------------------------------------------------------


def known_settings():
    """Every name of .env.example, and every key of config/default.toml in the environment's form."""
    names = set(re.findall(r"^#?([A-Z][A-Z0-9_]+)=", (TOP / ".env.example").read_text(), re.M))
    defaults = tomllib.loads((TOP / "config" / "default.toml").read_text())

    def walk(prefix, value):
        for key, inner in value.items():
            name = f"{prefix}__{key.upper()}"
            names.add(name)
            if isinstance(inner, dict):
                walk(name, inner)

    walk("CRISIS_RELAY", defaults)
    return names


def check_settings(names, where):
    known = known_settings()
    for name in names:
        fine = name in known or re.fullmatch(rf"TWILIO_CONTENT_SID_[A-Z]{{2,3}}(_({BESIDES}))?", name)
        check(fine, f"{where}: the service knows no setting {name}")


def check_cloudrun(planned):
    path = TOP / "deploy" / "cloudrun" / "service.yaml"
    service = yaml.safe_load(path.read_text())
    check((service["apiVersion"], service["kind"]) == ("serving.knative.dev/v1", "Service"), "service.yaml: kind")
    template = service["spec"]["template"]
    annotations = {**service["metadata"]["annotations"], **template["metadata"]["annotations"]}
    check(all(isinstance(value, str) for value in annotations.values()), "service.yaml: annotations are texts")
    check(annotations["run.googleapis.com/cpu-throttling"] == "false", "service.yaml: the worker needs a processor")
    spec = template["spec"]
    known = {"serviceAccountName", "containerConcurrency", "timeoutSeconds", "containers", "volumes"}
    check(set(spec) <= known, f"service.yaml: {set(spec) - known} in the template's spec")
    (container,) = spec["containers"]
    known = {"image", "ports", "resources", "startupProbe", "livenessProbe", "env", "command", "args", "name"}
    check(set(container) <= known, f"service.yaml: {set(container) - known} in the container")
    check(container["startupProbe"]["httpGet"]["path"] == "/readyz?exclude=twilio", "service.yaml: startup probe")
    check(container["livenessProbe"]["httpGet"]["path"] == "/livez", "service.yaml: liveness probe")
    names = [entry["name"] for entry in container["env"]]
    check(len(names) == len(set(names)), "service.yaml: a setting is given twice")
    for entry in container["env"]:
        text = entry.get("value", "")
        check(isinstance(text, str), f"service.yaml: {entry['name']} is not a text")
        check(("value" in entry) != ("valueFrom" in entry), f"service.yaml: {entry['name']} has no value, or two")
    check_settings(names, "service.yaml")
    if planned:
        secret = {entry["name"] for entry in container["env"] if "valueFrom" in entry}
        check(secret == set(planned["service_secrets"]), f"service.yaml: other secrets than Terraform's: {secret}")
        given = {entry["name"]: entry["value"] for entry in container["env"] if "value" in entry}
        for name, value in planned["settings"].items():
            fixed = name in given and "${" not in given[name]
            check(not fixed or given[name] == value, f"service.yaml: {name} is {given.get(name)}, Terraform says {value}")


# --- Firestore's files -------------------------------------------------------------------------------------------------------


def check_firestore(planned):
    folder = TOP / "migrations" / "firestore"
    firebase = json.loads((folder / "firebase.json").read_text())["firestore"]
    for name in (firebase["rules"], firebase["indexes"]):
        check((folder / name).exists(), f"firebase.json names {name}")
    spec = json.loads((folder / firebase["indexes"]).read_text())
    check(set(spec) == {"indexes", "fieldOverrides"}, "firestore.indexes.json: its two lists")
    orders, scopes = {"ASCENDING", "DESCENDING"}, {"COLLECTION", "COLLECTION_GROUP"}

    def one_way(field):
        return (field.get("order") in orders) != (field.get("arrayConfig") == "CONTAINS")

    for index in spec["indexes"]:
        check(set(index) == {"collectionGroup", "queryScope", "fields"}, f"an index has other keys: {index}")
        check(index["queryScope"] in scopes and len(index["fields"]) > 1, f"an index that Firestore refuses: {index}")
        for field in index["fields"]:
            check(set(field) <= {"fieldPath", "order", "arrayConfig"} and one_way(field), f"a field of {index}")
        check(sum("arrayConfig" in field for field in index["fields"]) <= 1, f"more than one array in {index}")
    for field in spec["fieldOverrides"]:
        check({"collectionGroup", "fieldPath", "indexes"} <= set(field), f"a field override lacks a key: {field}")
        check(all(one_way(index) and index["queryScope"] in scopes for index in field["indexes"]), f"indexes of {field}")
    with_ttl = [field["collectionGroup"] for field in spec["fieldOverrides"] if field.get("ttl")]
    check(len(with_ttl) == len(set(with_ttl)), "a collection may have one TTL field")
    check(len(spec["indexes"]) <= 200, "a project without billing may have 200 composite indexes")
    if planned:
        check(len(planned["indexes"]) == len(spec["indexes"]), "Terraform makes another number of indexes")
        check(len(planned["fields"]) == len(spec["fieldOverrides"]), "Terraform makes another number of field settings")


def main():
    whole = parsed_terraform()
    check_terraform(whole)
    check_least_privilege(whole)
    planned = check_by_terraform()
    if planned:
        check_settings([*planned["settings"], *planned["service_secrets"]], "locals.tf")
    check_cloudrun(planned)
    check_firestore(planned)
    for fault in faults:
        print(f"FAULT  {fault}")
    print(f"deploy/: {passed} passed, {len(faults)} failed")
    sys.exit(1 if faults else 0)


if __name__ == "__main__":
    main()
