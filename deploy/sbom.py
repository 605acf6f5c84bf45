#!/usr/bin/env python3
"""Prints what is compiled into Foldline as a CycloneDX 1.5 bill of materials: sbom.py VERSION TARGET TIME

By `cargo tree`, which resolves features as a build does: what goes by `cargo metadata` also lists crates that some feature could bring
in and none does, and so warns of faults that the binary does not have. Checksums are those of Cargo.lock. TIME is in seconds.

CycloneDX: https://cyclonedx.org/docs/1.5/json/
"""
import datetime
import json
import subprocess
import sys
import tomllib

ROOT = "foldline"


def tree(target):
    """Each line of the tree: how deep it is, and the crate's name, version and licence."""
    command = ["cargo", "tree", "--locked", "--package", ROOT, "--edges", "normal", "--target", target]
    command += ["--prefix", "depth", "--format", "\t{p}\t{l}"]
    for line in subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines():
        depth, package, licence = line.split("\t")[:3]
        name, version = package.split()[:2]
        yield int(depth), (name, version.removeprefix("v")), licence.removesuffix(" (*)").replace("/", " OR ")


def reference(crate):
    return "pkg:cargo/{}@{}".format(*crate)


def component(crate, licence, checksums):
    made = {"type": "library", "bom-ref": reference(crate), "name": crate[0], "version": crate[1], "purl": reference(crate)}
    if licence:
        made["licenses"] = [{"expression": licence}]
    if crate in checksums:
        made["hashes"] = [{"alg": "SHA-256", "content": checksums[crate]}]
    return made


def main(version, target, time):
    with open("Cargo.lock", "rb") as lock:
        packages = tomllib.load(lock)["package"]
    checksums = {(p["name"], p["version"]): p["checksum"] for p in packages if "checksum" in p}
    licences, needs, above = {}, {}, []
    for depth, crate, licence in tree(target):
        licences.setdefault(crate, licence)
        needs.setdefault(crate, set())
        del above[depth:]
        if above:
            needs[above[-1]].add(crate)
        above.append(crate)
    root = (ROOT, version)
    moment = datetime.datetime.fromtimestamp(int(time), datetime.timezone.utc)
    bill = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {
            "timestamp": moment.strftime("%Y-%m-%dT%H:%M:%SZ"),
            "component": component(root, licences[root], {}) | {"type": "application"},
        },
        "components": [component(c, licences[c], checksums) for c in sorted(licences) if c != root],
        "dependencies": [{"ref": reference(c), "dependsOn": [reference(n) for n in sorted(needs[c])]} for c in sorted(needs)],
    }
    json.dump(bill, sys.stdout, indent=1)
    print()


if __name__ == "__main__":
    main(*sys.argv[1:])
