"""A reply reduced to the facts a recording holds, and the differences between two of them.

The form is that of golden.json: values give way to their types, except under the keys whose values clients compare;
a stream keeps its first and last line and each different line between.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

HERE = Path(__file__).parent
COMPARED = {"error", "done", "done_reason", "role", "status", "object", "finish_reason", "owned_by", "param", "code"}
HEADERS = ("content-type", "allow", "location", "access-control-allow-origin", "access-control-max-age", "vary")
MOMENT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?(Z|[+-]\d\d:\d\d)")


def cases() -> list[dict[str, Any]]:
    """The requests, in an order that matters."""
    found: list[dict[str, Any]] = json.loads((HERE / "cases.json").read_text())
    return found


def golden() -> dict[str, Any]:
    """case id -> facts."""
    found: dict[str, Any] = json.loads((HERE / "golden.json").read_text())
    return found


def shape(value: Any, key: str = "") -> Any:
    """A value as a recording shows it."""
    if isinstance(value, dict):
        return {name: shape(item, name) for name, item in value.items()}
    if isinstance(value, list):
        kinds: list[Any] = []
        for item in value:
            if (found := shape(item, key)) not in kinds:
                kinds.append(found)
        return ["list", *kinds[:4]]
    if key in COMPARED or value is None:
        return value
    if isinstance(value, str):
        zone = "utc" if value.endswith("Z") else "zone"
        return f"time:{zone}" if MOMENT.fullmatch(value) else "string"
    return "bool" if isinstance(value, bool) else "number"


def facts(status: int, headers: dict[str, str], body: bytes) -> dict[str, Any]:
    """`headers` holds the first value of each, by lower-case name."""
    kept = {name: headers[name] for name in HEADERS if name in headers}
    return {"status": status, "headers": kept, "body": _body(headers.get("content-type", "").split(";")[0], body)}


def _body(kind: str, body: bytes) -> list[Any]:
    text = body.decode()
    newline = {"ends_in_newline": text.endswith("\n")}
    if not body:
        return ["empty"]
    if kind == "application/json":
        return ["json", shape(json.loads(text)), newline]
    if kind == "text/event-stream":
        return ["sse", _events(text)]
    if kind != "application/x-ndjson":
        return ["text", text]
    first, *between = [shape(json.loads(line)) for line in text.splitlines()]
    last = between.pop() if between else first
    middle = [item for i, item in enumerate(between) if item not in between[:i]]
    return ["ndjson", {"first": first, "middle": middle, "last": last, **newline}]


def _events(text: str) -> list[Any]:
    """Each different event once, as its name and its data."""
    found: list[Any] = []
    for block in filter(None, text.split("\n\n")):
        fields = dict(line.split(": ", 1) for line in block.splitlines())
        data = fields.get("data", "")
        event = [fields.get("event", ""), data if data == "[DONE]" else shape(json.loads(data))]
        if event not in found:
            found.append(event)
    return found


class Difference(NamedTuple):
    """A place where two facts differ, as a dotted path into them (numbers count into lists), and how."""

    at: str
    how: str


def without(found: dict[str, Any], ignored: list[str]) -> dict[str, Any]:
    """The facts less those a case does not fix."""
    for path in ignored:
        *way, name = path.split(".")
        at: Any = found
        for step in way:
            at = at[int(step)] if isinstance(at, list) and int(step) < len(at) else at.get(step, {}) if at else {}
        if isinstance(at, dict):
            at.pop(name, None)
    return found


def differences(wanted: Any, got: Any, at: str = "") -> Iterator[Difference]:
    """Each place where two facts differ."""
    if isinstance(wanted, dict) and isinstance(got, dict):
        for name in sorted(wanted.keys() | got.keys()):
            here = f"{at}.{name}".lstrip(".")
            if name not in got:
                yield Difference(here, "missing")
            elif name not in wanted:
                yield Difference(here, f"not in the recording: {_shown(got[name])}")
            else:
                yield from differences(wanted[name], got[name], here)
    elif isinstance(wanted, list) and isinstance(got, list) and len(wanted) == len(got):
        for i, (one, other) in enumerate(zip(wanted, got, strict=True)):
            yield from differences(one, other, f"{at}.{i}")
    elif wanted != got:
        yield Difference(at, f"recorded {_shown(wanted)}, here {_shown(got)}")


def _shown(fact: Any) -> str:
    return json.dumps(fact)[:200]


def compare(case: dict[str, Any], recorded: dict[str, Any], got: dict[str, Any]) -> list[Difference]:
    """What differs of one case, less what the case itself does not fix."""
    ignored = case.get("ignore", [])
    return list(differences(without(recorded | case.get("expect", {}), ignored), without(got, ignored)))
