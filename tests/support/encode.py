"""Encodes values by serializers that are not ours, Confluent's own over a registry: reads what is to be done as JSON from its standard
input, and answers in JSON with the ids of the schemas and each value in hex.

{"registry": URL, "schemas": [{"subject", "text", "references": [{"name", "subject", "version"}]}],
 "values": [{"schema": the place of its schema, "value": as the schema's JSON, a decimal as {"$decimal": "1.50"}}]}
"""

import json
import sys
from decimal import Decimal

from confluent_kafka.schema_registry import Schema, SchemaReference, SchemaRegistryClient
from confluent_kafka.schema_registry.avro import AvroSerializer
from confluent_kafka.serialization import MessageField, SerializationContext


def typed(value):
    return Decimal(value["$decimal"]) if "$decimal" in value else value


work = json.load(sys.stdin, object_hook=typed)
registry = SchemaRegistryClient({"url": work["registry"]})
ids, serializers = [], []
for schema in work["schemas"]:
    subject = schema["subject"]
    references = [SchemaReference(r["name"], r["subject"], r["version"]) for r in schema["references"]]
    known = Schema(schema["text"], "AVRO", references)
    ids.append(registry.register_schema(subject, known))
    # The subject is the schema's, whatever the topic.
    config = {"auto.register.schemas": False, "subject.name.strategy": lambda _context, _record, subject=subject: subject}
    serializers.append(AvroSerializer(registry, known, conf=config))
context = SerializationContext("any", MessageField.VALUE)
values = [serializers[value["schema"]](value["value"], context).hex() for value in work["values"]]
json.dump({"ids": ids, "values": values}, sys.stdout)
