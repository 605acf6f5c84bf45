"""Checks Kubernetes manifests against their schemas, as strictly as the API server: a field that it does not know is an error.

    manifests.py MONITORING CONFIGS FILE...

Kubernetes' own kinds go by its published schemas, of the oldest release that the manifests are made for. MONITORING is the JSON
Schema of the Prometheus operator's kinds. The configs that ConfigMaps hold are written to the directory CONFIGS.
"""
import json
import pathlib
import sys

import jsonschema
import kubernetes_validate
import yaml

KUBERNETES = "1.29"


def without_flags(thing):
    """An older draft's `required: true` inside a property is no keyword of today's."""
    return {key: value for key, value in thing.items() if not (key == "required" and isinstance(value, bool))}


def monitoring(path):
    """By kind, the schema of what the Prometheus operator adds."""
    document = json.loads(pathlib.Path(path).read_text(), object_hook=without_flags)
    definitions = document["definitions"]
    # It lets more fields be: strict, as the definitions of the cluster are.
    for name, definition in definitions.items():
        if name.startswith("os_monitoring_") and "properties" in definition:
            definition["additionalProperties"] = False
    kind = {"$schema": "http://json-schema.org/draft-07/schema#", "definitions": definitions}
    return {name.removeprefix("os_monitoring_v1_"): kind | {"$ref": f"#/definitions/{name}"} for name in definitions}


def check(document, operators):
    if document["apiVersion"] == "monitoring.coreos.com/v1":
        jsonschema.validate(document, operators[document["kind"]])
    elif document["kind"] != "Kustomization":  # read by kubectl alone
        kubernetes_validate.validate(document, KUBERNETES, strict=True)


def main(schema, configs, *paths):
    operators, wrong = monitoring(schema), 0
    for path in paths:
        for document in yaml.safe_load_all(pathlib.Path(path).read_text()):
            what = f"{path}: {document['kind']}"
            try:
                check(document, operators)
                print(what)
            except (jsonschema.ValidationError, kubernetes_validate.ValidationError) as error:
                wrong += 1
                print(f"{what}: {'.'.join(map(str, error.path))}: {error.message}", file=sys.stderr)
            for name, text in document.get("data", {}).items() if document["kind"] == "ConfigMap" else ():
                place = pathlib.Path(configs) / pathlib.Path(path).stem
                place.mkdir(parents=True, exist_ok=True)
                (place / name).write_text(text)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
