"""What the API answers, by example: one answer for each operation, as `/docs` shows it.

They are answers of a running Airmedic, cut short and with other names and dates. A test holds each against
its schema.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

FILE = Path(__file__).with_name("examples.json")
JSON = "application/json"


def add_examples(document: dict[str, Any]) -> None:
    """Put them into an OpenAPI document, each at its operation's answer."""
    given: dict[str, Any] = json.loads(FILE.read_text("utf-8"))
    for item in document["paths"].values():
        for operation in item.values():
            example = given.get(operation["operationId"])
            for status, answer in operation["responses"].items():
                if example is not None and status.startswith("2") and JSON in answer.get("content", {}):
                    answer["content"][JSON]["example"] = example
