"""Decodes values by a deserializer that is not ours, Confluent's own over a registry: reads what is to be done as JSON from its standard
input, and answers in JSON with each value as JSON, spelled as Foldline spells it.

{"registry": URL, "values": [hex]}
"""

import base64
import datetime
import json
import sys
import uuid
from decimal import Decimal

from confluent_kafka.schema_registry import SchemaRegistryClient
from confluent_kafka.schema_registry.avro import AvroDeserializer
from confluent_kafka.serialization import MessageField, SerializationContext


def shown(value):
    if isinstance(value, dict):
        return "{" + ",".join(f"{json.dumps(name)}:{shown(inner)}" for name, inner in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(shown, value)) + "]"
    if isinstance(value, Decimal):
        return format(value, "f")
    if isinstance(value, datetime.datetime):
        assert value.utcoffset() == datetime.timedelta(0)
        return json.dumps(plain(value.replace(tzinfo=None).isoformat()) + "Z")
    if isinstance(value, datetime.time):
        return json.dumps(plain(value.isoformat()))
    if isinstance(value, (datetime.date, uuid.UUID)):
        return json.dumps(str(value))
    if isinstance(value, bytes):
        return json.dumps(base64.b64encode(value).decode())
    return json.dumps(value, ensure_ascii=False)


def plain(text):
    """A fraction without the zeros that say nothing."""
    return text.rstrip("0") if "." in text else text


work = json.load(sys.stdin)
deserializer = AvroDeserializer(SchemaRegistryClient({"url": work["registry"]}))
context = SerializationContext("any", MessageField.VALUE)
values = [shown(deserializer(bytes.fromhex(value), context)) for value in work["values"]]
json.dump({"values": values}, sys.stdout)
