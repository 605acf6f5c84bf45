"""Encodes messages by Google's own Protobuf, and values by Confluent's serializers of Protobuf and of JSON Schema over a registry: reads
what is to be done as JSON from its standard input, and answers in JSON with each value in hex.

{"registry": URL, "files": {NAME: TEXT}, "schema": JSON Schema,
 "values": [{"message": its name, "framed": whether by the registry, "value": as Protobuf's JSON}, or {"value": JSON}]}
"""

import importlib
import json
import os
import sys
import tempfile

import grpc_tools
from confluent_kafka.schema_registry import SchemaRegistryClient
from confluent_kafka.schema_registry.json_schema import JSONSerializer
from confluent_kafka.schema_registry.protobuf import ProtobufSerializer
from confluent_kafka.serialization import MessageField, SerializationContext
from google.protobuf import descriptor_pool, json_format, message_factory
from grpc_tools import protoc

work = json.load(sys.stdin)
registry = SchemaRegistryClient({"url": work["registry"]})
directory = tempfile.mkdtemp()
for name, text in work["files"].items():
    with open(os.path.join(directory, name), "w", encoding="utf-8") as file:
        file.write(text)
google = os.path.join(os.path.dirname(grpc_tools.__file__), "_proto")
if protoc.main(["", f"-I{directory}", f"-I{google}", f"--python_out={directory}", *work["files"]]):
    sys.exit("protoc compiles none of them")
sys.path.insert(0, directory)
for name in work["files"]:
    importlib.import_module(name.removesuffix(".proto") + "_pb2")

context = SerializationContext("any", MessageField.VALUE)
by_json = JSONSerializer(work["schema"], registry, conf={"subject.name.strategy": lambda _context, _record: "by-json"})
by_message = {}


def encoded(value):
    if "message" not in value:
        return by_json(value["value"], context)
    of = descriptor_pool.Default().FindMessageTypeByName(value["message"])
    kind = message_factory.GetMessageClass(of)
    message = json_format.ParseDict(value["value"], kind())
    if not value["framed"]:
        return message.SerializeToString()
    if of.full_name not in by_message:
        config = {"use.deprecated.format": False, "subject.name.strategy": lambda _context, _record, of=of: of.full_name}
        by_message[of.full_name] = ProtobufSerializer(kind, registry, config)
    return by_message[of.full_name](message, context)


json.dump({"values": [encoded(value).hex() for value in work["values"]]}, sys.stdout)
