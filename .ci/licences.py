#!/usr/bin/env python3
"""Checks every dependency's licence, name and source against deny.toml. Needs python3 and cargo, no network.

Looks at the whole of each Cargo.lock, the service's and the fuzz targets': every platform, and what only tests use.
A lock file also lists what an optional feature of some crate would bring, though nobody asks for it; such a crate is built
on no platform, and bans do not apply to it.
Prints what is wrong and exits with 1, or one line for each and 0. Crates in several versions are counted, and are no fault.
"""

import ast
import json
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

TOP = Path(__file__).resolve().parent.parent
WORKSPACES = [TOP, TOP / "fuzz"]
INDEX = "registry+"


def arrays(text):
    """The arrays of strings of a TOML text, by section and key; they read the same in Python.

    >>> arrays('[a]\\nb = [\\n  "x", # y\\n  "z",\\n]\\nc = "d"\\n[e]\\nb = []')
    {('a', 'b'): ['x', 'z'], ('e', 'b'): []}
    """
    found, section = {}, ""
    for match in re.finditer(r'^\[([\w.-]+)\]|^([\w-]+) = (\[(?:[^\]"#]|"[^"]*"|#[^\n]*)*\])', text, re.M):
        if match[1]:
            section = match[1]
        else:
            found[section, match[2]] = ast.literal_eval(match[3])
    return found


def satisfied(expression, allowed):
    """Whether an SPDX expression can be met from the allowed licences; the old "A/B" means "A OR B".

    >>> satisfied("MIT OR GPL-3.0", {"MIT"}), satisfied("GPL-3.0/MIT", {"MIT"})
    (True, True)
    >>> satisfied("MIT AND GPL-3.0", {"MIT"}), satisfied("GPL-3.0", {"MIT"})
    (False, False)
    >>> satisfied("A AND B OR C", {"C"}), satisfied("A AND (B OR C)", {"C"}), satisfied("(A AND B) OR C", {"A", "B"})
    (True, False, True)
    >>> satisfied("A WITH X OR B", {"A"}), satisfied("A WITH X OR B", {"A WITH X"})
    (False, True)
    >>> satisfied("MIT MIT", {"MIT"})
    Traceback (most recent call last):
    ValueError: not an SPDX expression: MIT MIT
    """
    expression = re.sub(r"\s*/\s*", " OR ", expression)
    words = re.findall(r"[()]|[^\s()]+ WITH [^\s()]+|[^\s()]+", expression)
    at = 0

    def term():
        nonlocal at
        word = words[at] if at < len(words) else None
        at += 1
        if word == "(":
            value = alternatives()
            if at >= len(words) or words[at] != ")":
                raise ValueError(f"not an SPDX expression: {expression}")
            at += 1
            return value
        if word in (None, ")", "AND", "OR"):
            raise ValueError(f"not an SPDX expression: {expression}")
        return word in allowed

    def conjunction():
        nonlocal at
        value = term()
        while at < len(words) and words[at] == "AND":
            at += 1
            value = term() and value
        return value

    def alternatives():
        nonlocal at
        value = conjunction()
        while at < len(words) and words[at] == "OR":
            at += 1
            value = conjunction() or value
        return value

    value = alternatives()
    if at != len(words):
        raise ValueError(f"not an SPDX expression: {expression}")
    return value


def packages(workspace):
    """Every package of a workspace's Cargo.lock; from the local cache, or from the network where something is not there yet."""
    command = ["cargo", "metadata", "--format-version", "1", "--locked"]
    for more in (["--offline"], []):
        run = subprocess.run(command + more, cwd=workspace, capture_output=True, text=True)
        if run.returncode == 0:
            return json.loads(run.stdout)["packages"]
    sys.exit(f"cargo metadata failed in {workspace}:\n{run.stderr}")


def built(workspace):
    """The names of all packages that are built on any platform, by the features that are asked for."""
    command = "cargo tree --workspace --locked --offline --target all --edges all --prefix none --format {p}".split()
    run = subprocess.run(command, cwd=workspace, capture_output=True, text=True)
    if run.returncode != 0:
        sys.exit(f"cargo tree failed in {workspace}:\n{run.stderr}")
    return {line.split()[0] for line in run.stdout.splitlines() if line.strip()}


def faults(package, allowed, banned, registries):
    """What is wrong with one package."""
    if package["source"] is None:
        return  # ours
    if package["source"] not in registries:
        yield f"comes from {package['source']}, which is none of sources.allow-registry"
    if package["name"] in banned:
        yield "is banned by bans.deny"
    if not package["license"]:
        yield "names no licence"
        return
    try:
        if not satisfied(package["license"], allowed):
            yield f"has the licence {package['license']}, which licenses.allow does not meet"
    except ValueError as error:
        yield f"has a licence that cannot be read: {error}"


def main():
    rules = arrays((TOP / "deny.toml").read_text(encoding="utf-8"))
    allowed, banned = set(rules["licenses", "allow"]), set(rules["bans", "deny"])
    registries = {INDEX + address for address in rules["sources", "allow-registry"]}
    any_wrong = False
    for workspace in WORKSPACES:
        found = packages(workspace)
        banned_and_built = banned & built(workspace)
        wrong = [
            f"{package['name']} {package['version']} {fault}"
            for package in found
            for fault in faults(package, allowed, banned_and_built, registries)
        ]
        several = [name for name, count in Counter(package["name"] for package in found).items() if count > 1]
        lock = (workspace / "Cargo.lock").relative_to(TOP)
        versions = ", ".join(sorted(several)) or "none"
        print(f"{lock}: {len(found)} packages, {len(wrong)} faults; in several versions: {versions}")
        print("\n".join(wrong), end="\n" if wrong else "")
        any_wrong = any_wrong or bool(wrong)
    sys.exit(1 if any_wrong else 0)


if __name__ == "__main__":
    main()
