"""Draws docs/states.md from the table in core/instance.py: `python -m tests.core.states_doc` writes it anew."""

from __future__ import annotations

from pathlib import Path

from hyperllamad.core.instance import CRASH, DEADLINED, FATE, HAS_CHILD, HOLDS_PLACE, TABLE, Fact, Move, State, Target

PAGE = Path(__file__).parents[2] / "docs" / "states.md"

MEANING = {
    State.WAITING: "has the promise of a place; others are still leaving it",
    State.STARTING: "its child was spawned and does not answer yet",
    State.READY: "may be leased",
    State.DRAINING: "no new leases, the open ones finish",
    State.SETTLING: "no new leases, the open ones finish, then it sleeps",
    State.SLEEPING: "its child was told to sleep",
    State.ASLEEP: "its child lives and holds little memory; may be woken",
    State.WAKING: "its child was told to wake and does not answer yet",
    State.STOPPING: "its child was told to exit",
    State.BACKOFF: "crashed; pauses before the next try",
    State.FAILED: "gave up; kept so that the error can be read",
    State.GONE: "over",
}

ENDS: dict[Target, list[str]] = {CRASH: ["backoff", "failed"], FATE: ["gone", "backoff", "failed"]}

HEAD = """\
# The states of an instance

This page is drawn from the table in `hyperllamad/core/instance.py` by `python -m tests.core.states_doc`; a test fails
when it has fallen behind.

*Facts* come from the world (supervision reports them) and may come in any state; a fact without an entry is late news
and changes nothing. *Orders* come from the fleet; one without an entry is a bug of the fleet. *Effects* are what is to
be done then, in that order.

"""

TAIL = """\

*crash* = backoff while the restart budget lasts, then failed. *fate* = what was decided when the child was told to
exit, in brackets: the end of the child leads there. DRAIN of a ready instance without leases is STOP, and SLEEP of one
finds it idle at once.
"""


def target(move: Move) -> str:
    """Where a move leads, in words: `stopping (crash)`."""
    words: dict[Target, str] = {CRASH: "crash", FATE: "fate"}
    place = words.get(move.to, str(move.to))
    return f"{place} ({words.get(move.fate, str(move.fate))})" if move.to is State.STOPPING else place


def diagram() -> str:
    """A Mermaid diagram: one arrow for each pair of states, with the events that take it."""
    lines = ["```mermaid", "stateDiagram-v2", "    [*] --> waiting"]
    for state, row in TABLE.items():
        arrows: dict[str, list[str]] = {}
        for event, move in row.items():
            for end in ENDS.get(move.to, [str(move.to)]):
                arrows.setdefault(end, []).append(event.name)
        lines += [f"    {state} --> {end}: {', '.join(events)}" for end, events in arrows.items() if end != state]
    return "\n".join([*lines, "    gone --> [*]", "```", ""])


def facts_about() -> str:
    """What each state is and holds."""
    lines = ["| state | is | child | place | deadline |", "|---|---|---|---|---|"]
    for state in State:
        marks = ["yes" if state in group else "" for group in (HAS_CHILD, HOLDS_PLACE, DEADLINED)]
        lines.append(f"| {state} | {MEANING[state]} | {' | '.join(marks)} |")
    return "\n".join([*lines, ""])


def cells() -> str:
    """The table itself, a line for each cell."""
    lines = ["| in | event | leads to | effects |", "|---|---|---|---|"]
    for state, row in TABLE.items():
        for event, move in row.items():
            kind = "fact" if isinstance(event, Fact) else "order"
            effects = ", ".join(effect.name for effect in move.effects)
            lines.append(f"| {state} | {kind} {event.name} | {target(move)} | {effects} |")
    return "\n".join([*lines, ""])


def page() -> str:
    """The whole of docs/states.md."""
    return f"{HEAD}{diagram()}\n{facts_about()}\n{cells()}{TAIL}"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
