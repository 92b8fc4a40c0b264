#!/usr/bin/env python3
"""Writes google.json, the names that the Google provider for Terraform knows of what deploy/terraform uses.

For whoever raises the provider's version; needs node's package manager, and is not run by CI:

    npm pack @cdktf/provider-google@16.12.1 && tar xzf cdktf-provider-google-*.tgz
    deploy/check/extract.py package deploy/terraform

The package is the provider's schema in the form of TypeScript interfaces. Kept are names, which of them must be given,
and which are blocks; no text of it.
"""

import json
import re
import sys
from pathlib import Path

INTERFACE = re.compile(r"export interface (\w+)(?: extends \S+)? \{(.*?)\n\}", re.S)
MEMBER = re.compile(r"readonly (\w+)(\?)?: (.*?);\n(?=\s*(?:/\*\*|readonly|\Z))", re.S)


def snake(name):
    """A name as Terraform writes it.

    >>> snake("pointInTimeRecoveryEnablement"), snake("cloudRunV2Service")
    ('point_in_time_recovery_enablement', 'cloud_run_v2_service')
    """
    return re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()


def block(interfaces, name, depth=0):
    """What may stand in a block: its attributes and blocks, and which of them must."""
    found = {"attributes": [], "required": [], "blocks": {}}
    for member, optional, kind in MEMBER.findall(interfaces[name] + "\n"):
        inner = re.match(r"(\w+)(\[\])?", kind)
        if inner and inner[1] in interfaces and depth < 12:
            found["blocks"][snake(member)] = block(interfaces, inner[1], depth + 1)
        else:
            found["attributes"].append(snake(member))
        if not optional:
            found["required"].append(snake(member))
    return found


def resource(text):
    interfaces = dict(INTERFACE.findall(text))
    main = next(name for name in interfaces if name.endswith("Config") and f"interface {name} extends cdktf" in text)
    known = block(interfaces, main)
    own = text[text.index("extends cdktf.Terraform", text.rindex("export declare class")):]
    outputs = {snake(name) for name in re.findall(r"^    get (\w+)\(\)", own, re.M)}
    known["outputs"] = sorted(name for name in outputs if not name.endswith("_input"))
    return known


def main(package, terraform):
    kinds = sorted(set(re.findall(r'^(resource|data) "google_(\w+)"', "\n".join(
        path.read_text() for path in Path(terraform).glob("*.tf")), re.M)))
    known = {"resource": {}, "data": {}}
    version = None
    for kind, name in kinds:
        folder = ("data-google-" if kind == "data" else "") + name.replace("_", "-")
        text = (Path(package) / "lib" / folder / "index.d.ts").read_text()
        known[kind][f"google_{name}"] = resource(text)
        version = re.search(r"providers/hashicorp/google/([\d.]+)/docs", text)[1]
    out = Path(__file__).with_name("google.json")
    lines = [f' "provider": "{version}"']
    for kind, names in known.items():
        members = ",\n".join(f"  {json.dumps(name)}: {json.dumps(what, sort_keys=True)}" for name, what in names.items())
        lines.append(f' "{kind}": {{\n{members}\n }}')
    out.write_text("{\n" + ",\n".join(lines) + "\n}\n")
    print(f"{out}: provider {version}, {len(kinds)} kinds")


if __name__ == "__main__":
    main(*sys.argv[1:])
