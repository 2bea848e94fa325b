"""A bill of materials of the executables in CycloneDX 1.6, from Cargo's own data: what is linked in or runs while it is
built for a target, without what only tests and benches need.

    python3 deploy/sbom.py TARGET EPOCH_SECONDS >broadgate.cdx.json
"""
import datetime
import json
import subprocess
import sys
import tomllib
import uuid


def main(target, epoch):
    command = ["cargo", "metadata", "--format-version", "1", "--locked", "--filter-platform", target]
    metadata = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    with open("Cargo.lock", "rb") as file:
        locked = {(one["name"], one["version"]): one.get("checksum") for one in tomllib.load(file)["package"]}
    packages = {one["id"]: one for one in metadata["packages"]}
    root = metadata["resolve"]["root"]
    needs = {node["id"]: [dependency["pkg"] for dependency in node["deps"]
                          if any(kind["kind"] != "dev" for kind in dependency["dep_kinds"])]
             for node in metadata["resolve"]["nodes"]}
    # Which of them this executable has: `cargo metadata` also counts what features of tests ask for.
    tree = subprocess.run(["cargo", "tree", "--locked", "--package", "broadgate", "--edges", "normal,build", "--target", target,
                           "--prefix", "none", "--format", "{p}"], check=True, stdout=subprocess.PIPE, text=True).stdout
    names = {tuple(line.split()[:2]) for line in tree.splitlines() if line.strip()}
    used = {one for one, package in packages.items() if (package["name"], f"v{package['version']}") in names}

    def purl(package):
        return f"pkg:cargo/{package['name']}@{package['version']}"

    def component(package, kind="library"):
        made = {"type": kind, "bom-ref": purl(package), "name": package["name"], "version": package["version"],
                "purl": purl(package)}
        if package["description"]:
            made["description"] = " ".join(package["description"].split())
        if package["license"]:
            # "A/B" is how Cargo wrote OR.
            made["licenses"] = [{"expression": package["license"].replace("/", " OR ")}]
        checksum = locked[package["name"], package["version"]]
        if checksum:
            made["hashes"] = [{"alg": "SHA-256", "content": checksum}]
        if package["repository"]:
            made["externalReferences"] = [{"type": "vcs", "url": package["repository"]}]
        return made

    others = sorted((packages[one] for one in used - {root}), key=purl)
    bom = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {
            "timestamp": datetime.datetime.fromtimestamp(int(epoch), datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "component": component(packages[root], "application"),
            "properties": [{"name": "cargo:target", "value": target}],
        },
        "components": [component(package) for package in others],
        "dependencies": [{"ref": purl(packages[one]), "dependsOn": sorted({purl(packages[it]) for it in needs[one] if it in used})}
                         for one in sorted(used, key=lambda one: purl(packages[one]))],
    }
    # Of the same contents the same number.
    bom["serialNumber"] = f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, json.dumps(bom, sort_keys=True))}"
    json.dump(bom, sys.stdout, indent=2)
    print()


main(*sys.argv[1:])
