"""Replies as text for people: tables, sizes, times.  Pure: takes structs and the time, returns strings, prints nothing.

Sizes and times read as Ollama's command line writes them, because its users' eyes know them.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence

from hyperllamactl.protocol.base import Progress
from hyperllamactl.protocol.daemon import StatusReport
from hyperllamactl.protocol.engines import EngineRow
from hyperllamactl.protocol.instances import Change, InstanceRow
from hyperllamactl.protocol.keys import Keys
from hyperllamactl.protocol.store import Collected, ModelDetails, ModelRow

Paint = Callable[[str, str], str]  # (text, kind) -> the same text, coloured where the terminal wants it

# Ollama counts hours with rounding and everything above in whole days (its format/time.go, seen from outside).
_LONG = ((48, 1, "hours"), (24 * 14, 24, "days"), (24 * 60, 24 * 7, "weeks"), (24 * 730, 24 * 30, "months"))


# What a terminal would obey: control characters, and escapes other than those for colours.
_COMMANDS = re.compile(r"\x1b(?!\[[0-9;]*m)|[\x00-\x08\x0b-\x1a\x1c-\x1f\x7f-\x9f]")


def harmless(text: str) -> str:
    """Without what a terminal would obey: a licence, a file's name or an error may come from anybody's model."""
    return _COMMANDS.sub("", text)


def plain(text: str, kind: str) -> str:  # noqa: ARG001  a Paint that paints nothing
    return text


def size(count: int) -> str:
    """Bytes with decimal units, at most one digit after the point: 92 MB, 1.3 GB."""
    for unit, factor in (("TB", 10**12), ("GB", 10**9), ("MB", 10**6), ("KB", 10**3)):
        if count >= factor:
            value = count / factor
            whole = value >= 10 or value == int(value)
            return f"{int(value)} {unit}" if whole else f"{value:.1f} {unit}"
    return f"{count} B"


def duration(seconds: float) -> str:
    """A length of time in words: 4 seconds, About a minute, 3 hours."""
    whole = int(seconds)
    if whole < 1:
        return "Less than a second"
    if whole < 60:
        return "1 second" if whole == 1 else f"{whole} seconds"
    if whole < 3600:
        return "About a minute" if whole < 120 else f"{whole // 60} minutes"
    hours = math.floor(seconds / 3600 + 0.5)
    if hours == 1:
        return "About an hour"
    for below, divisor, unit in _LONG:
        if hours < below:
            return f"{hours // divisor} {unit}"
    return f"{whole // (3600 * 24 * 365)} years"


def moment(at: float, now: float) -> str:
    """A point in time seen from `now`: 4 minutes from now, 2 days ago."""
    return f"{duration(at - now)} from now" if at > now else f"{duration(now - at)} ago"


def clock(seconds: float) -> str:
    """A running time, short: 4.2s, 41s, 1m04s, 1h02m."""
    whole = int(seconds)
    if whole < 10:
        return f"{seconds:.1f}s"
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02}s"
    return f"{whole // 3600}h{whole % 3600 // 60:02}m"


def bar(done: int, total: int, width: int = 20) -> str:
    """[#####---------------]  25%"""
    share = min(max(done / total, 0.0), 1.0) if total else 1.0
    filled = int(share * width)
    return f"[{'#' * filled}{'-' * (width - filled)}] {share:4.0%}"


def transfer(line: Progress, rows: int) -> list[str]:
    """Files that are fetched side by side: at most `rows` lines of them, those that move first, then all together."""
    moving = [file for file in line.files if file.done < file.total]
    whole = len(line.files) - len(moving)
    shown = moving[: max(rows - 2, 0)]
    width = max((len(file.name) for file in shown), default=0)
    lines = [f"{file.name:<{width}}  {bar(file.done, file.total)}  {size(file.total)}" for file in shown]
    if hidden := len(moving) - len(shown):
        lines.append(f"{hidden} more files")
    ended = f"{whole} of {len(line.files)} files" if len(line.files) > 1 else "total"
    amount = f"{size(line.done)} of {size(line.total)}"
    return [*lines, f"{ended}  {bar(line.done, line.total)}  {amount}  {clock(line.elapsed)}"]


def table(head: Sequence[str], rows: Sequence[Sequence[str]], paint: Paint = plain, kinds: Sequence[str] = ()) -> str:
    """Columns as wide as their content, two spaces apart; `kinds` gives the colour of each row's STATE cell."""
    widths = [max(len(line[i]) for line in (head, *rows)) for i in range(len(head))]
    state = head.index("STATE") if kinds else -1
    lines = []
    for number, line in enumerate((head, *rows)):
        cells = [cell.ljust(width) for cell, width in zip(line, widths, strict=True)]
        if number and kinds:
            cells[state] = paint(cells[state], kinds[number - 1])
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


# -- instances ---------------------------------------------------------------------------------------------------------

_PS = ("NAME", "ID", "SIZE", "PROCESSOR", "CONTEXT", "UNTIL", "STATE", "ENGINE", "RUN/WAIT", "RST", "")


def instances(rows: Sequence[InstanceRow], now: float, paint: Paint = plain) -> str:
    """`ps`: Ollama's six columns in Ollama's order, then ours."""
    return table(_PS, [_instance(row, now) for row in rows], paint, [row.state for row in rows])


def _instance(row: InstanceRow, now: float) -> tuple[str, ...]:
    return (
        row.name,
        row.id,
        size(row.size) if row.size else "-",
        row.processor or "-",
        str(row.context) if row.context else "-",
        _until(row, now),
        state(row.state, row.phase),
        row.engine,
        f"{row.running}/{row.waiting}",
        str(row.restarts),
        f"({row.cause})" if row.cause else "",
    )


def state(name: str, phase: str) -> str:
    """`starting: weights` while there is something to tell."""
    return f"{name}: {phase}" if phase and phase != name else name


def _until(row: InstanceRow, now: float) -> str:
    if row.state in {"draining", "stopping"}:
        return "Stopping..."
    if row.state not in {"ready", "asleep"}:
        return "-"
    if row.until is None:
        return "Forever"
    return moment(row.until, now) if row.until > now else "Stopping..."


def change(line: Change, timestamp: str) -> str:
    """One line of `watch`."""
    detail = f"  {line.detail}" if line.detail else ""
    return f"{timestamp}  {line.name:<24}  {state(line.state, line.phase)}{detail}"


# -- models and engines ------------------------------------------------------------------------------------------------


def models(rows: Sequence[ModelRow], now: float) -> str:
    """`list`: Ollama's four columns, then ours."""
    head = ("NAME", "ID", "SIZE", "MODIFIED", "PARAMETERS", "QUANTIZATION", "FORMAT", "ENGINE")
    cells = [
        (
            row.name,
            row.id,
            size(row.size),
            moment(row.modified_at, now),
            row.parameter_size or "-",
            row.quantization or "-",
            row.format,
            row.engine or f"none: {row.problem}",
        )
        for row in rows
    ]
    return table(head, cells)


def details(reply: ModelDetails) -> str:
    """`show`: one fact per line, then the texts."""
    row = reply.model
    known = [
        ("Name", row.name),
        ("ID", row.id),
        ("Path", reply.path),
        ("Format", row.format),
        ("Size", size(row.size)),
        ("Architecture", reply.architecture),
        ("Parameters", row.parameter_size),
        ("Quantization", row.quantization),
        ("Context length", str(reply.context_length or "")),
        ("Embedding length", str(reply.embedding_length or "")),
        ("Capabilities", ", ".join(reply.capabilities)),
        ("Engine", row.engine or f"none: {row.problem}"),
        *((f"Option {name}", str(value)) for name, value in reply.parameters.items()),
        ("System", reply.system),
        ("License", reply.license.strip().partition("\n")[0]),
    ]
    return facts([(name, value) for name, value in known if value])


def garbage(reply: Collected) -> str:
    """`gc`: a line for each thing, then what it comes to."""
    verb = "would be freed" if reply.dry_run else "freed"
    lines = [f"{size(item.size):>8}  {item.path}: {item.reason}" for item in reply.items]
    return "\n".join([*lines, f"{size(reply.freed)} {verb}" if lines else "nothing to remove"])


def engines(rows: Sequence[EngineRow], now: float) -> str:
    """`engine list`: installed homes, the ones in use marked, and what could be installed."""
    head = ("NAME", "ENGINE", "VERSION", "VARIANT", "SIZE", "INSTALLED", "IN USE")
    cells = [
        (
            row.name,
            row.title,
            row.version or "-",
            row.variant or "-",
            size(row.size) if row.size else "-",
            moment(row.installed_at, now) if row.installed_at else "yes" if row.installed else _available(row),
            "yes" if row.in_use else "",
        )
        for row in rows
    ]
    return table(head, cells)


def _available(row: EngineRow) -> str:
    return f"no (can be: {', '.join(row.variants)})" if row.variants else "no"


def keys(reply: Keys, now: float) -> str:
    """`key list`: names and limits, and whether anybody is asked."""
    head = ("NAME", "AT ONCE", "TOKENS/MIN", "MADE", "")
    cells = [
        (
            row.name,
            str(row.concurrent or "-"),
            str(row.tokens_per_minute or "-"),
            moment(row.created_at, now) if row.created_at else "-",
            "from a credential" if row.fixed else "",
        )
        for row in reply.keys
    ]
    asked = "" if reply.required else "\n\nNobody is asked for a key: `keys.required` is not set."
    return table(head, cells) + asked


# -- status ------------------------------------------------------------------------------------------------------------


def status(reply: StatusReport, now: float, paint: Paint = plain) -> str:
    """The daemon on one page, then what `ps` shows."""
    loaded = sum(row.state == "ready" for row in reply.instances)
    known = [
        ("hyperllamad", f"{reply.version}, pid {reply.pid}, started {moment(reply.started_at, now)}"),
        ("API", reply.url),
        ("Configuration", reply.config),
        ("Config error", reply.config_error),
        ("GPU", "; ".join(reply.gpu_problems)),
        ("Engines", ", ".join(reply.engines) or "none; see: hyperllamactl engine list"),
        ("Models", f"{reply.models} in the store, {loaded} loaded"),
        ("Requests", f"{reply.requests} running, {reply.waiting} waiting"),
        ("Memory", size(reply.memory)),
        ("Prepared", ", ".join(f"{home} ({size(held)})" for home, held in reply.prepared.items())),
    ]
    page = facts([(name, value) for name, value in known if value])
    return f"{page}\n\n{instances(reply.instances, now, paint)}" if reply.instances else page


def facts(known: Sequence[tuple[str, str]]) -> str:
    """One fact on each line, the values below each other; a value may have several lines."""
    width = max(len(name) for name, _ in known) + 2
    indent = "\n" + " " * width
    return "\n".join(f"{name + ':':<{width}}{value.replace(chr(10), indent)}" for name, value in known)
