#!/usr/bin/env python3
"""What is in the binary, as CycloneDX 1.5: packaging/sbom.py [CARGO-FEATURE...] >tapline.cdx.json

From `cargo metadata` and Cargo.lock alone, for the platform that it runs on: each crate that is linked
in (no build script's, no test's), with its version, licence, source and checksum. The same commit gives
the same bytes."""

import json
import re
import subprocess
import sys

command = ["cargo", "metadata", "--locked", "--format-version", "1"]
host = re.search(r"host: (\S+)", subprocess.check_output(["rustc", "-vV"], text=True)).group(1)
command += ["--filter-platform", host]
if sys.argv[1:]:
    command += ["--features", ",".join(sys.argv[1:])]
metadata = json.loads(subprocess.check_output(command))
packages = {package["id"]: package for package in metadata["packages"]}
nodes = {node["id"]: node for node in metadata["resolve"]["nodes"]}
lock = open("Cargo.lock", encoding="utf-8").read()
checksums = dict(((name, version), sum) for name, version, sum in re.findall(
    r'name = "([^"]+)"\nversion = "([^"]+)"\nsource = "[^"]+"\nchecksum = "([0-9a-f]{64})"', lock))

root = next(id for id, package in packages.items()
            if package["name"] == "tapline" and package["source"] is None)


def linked(node):
    """The crates that a crate links: neither for its build nor for its tests."""
    for dependency in node["deps"]:
        if any(kind["kind"] is None for kind in dependency["dep_kinds"]):
            yield dependency["pkg"]


# Features are of the whole workspace there; which crates the binary alone has, `cargo tree` says.
tree = ["cargo", "tree", "--locked", "-p", "tapline", "-e", "normal", "--prefix", "none", "--no-dedupe"]
tree += ["--features", ",".join(sys.argv[1:])]
names = {tuple(line.split()[:2]) for line in subprocess.check_output(tree, text=True).splitlines()}
own = {id for id, package in packages.items() if (package["name"], f"v{package['version']}") in names}

seen, waiting = {root}, [root]
while waiting:
    for other in linked(nodes[waiting.pop()]):
        if other not in seen and other in own:
            seen.add(other)
            waiting.append(other)


def purl(package):
    return f"pkg:cargo/{package['name']}@{package['version']}"


def component(package, kind):
    found = {"type": kind, "bom-ref": purl(package), "name": package["name"],
             "version": package["version"], "purl": purl(package)}
    if package["license"]:
        found["licenses"] = [{"expression": package["license"].replace("/", " OR ")}]
    checksum = checksums.get((package["name"], package["version"]))
    if checksum:
        found["hashes"] = [{"alg": "SHA-256", "content": checksum}]
    return found


others = sorted((packages[id] for id in seen - {root}), key=purl)
json.dump({
    "bomFormat": "CycloneDX", "specVersion": "1.5", "version": 1,
    "metadata": {"component": component(packages[root], "application")},
    "components": [component(package, "library") for package in others],
    "dependencies": sorted(
        ({"ref": purl(packages[id]), "dependsOn": sorted({purl(packages[to]) for to in linked(nodes[id]) if to in seen})}
         for id in seen), key=lambda one: one["ref"]),
}, sys.stdout, indent=1, sort_keys=True)
print()
