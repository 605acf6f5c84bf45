"""Writes events as the Kafka records that the CloudEvents SDK makes of them: reads a list of {"mode": "binary" or "structured", "attributes",
"data", "bytes": whether the data is handed over as bytes} from its standard input, and answers with a list of {"headers", "value"}.
"""

import json
import sys

from cloudevents.core.bindings import kafka
from cloudevents.core.v1.event import CloudEvent
from dateutil.parser import isoparse

WRITE = {"binary": kafka.to_binary_event, "structured": kafka.to_structured_event}


def record(given):
    attributes = given["attributes"] | {"time": isoparse(given["attributes"]["time"])}
    data = given.get("data")
    if given["bytes"]:
        data = json.dumps(data).encode()
    message = WRITE[given["mode"]](CloudEvent(attributes=attributes, data=data))
    headers = {name: value.decode() for name, value in message.headers.items()}
    return {"headers": headers, "value": message.value.decode()}


json.dump([record(given) for given in json.load(sys.stdin)], sys.stdout)
