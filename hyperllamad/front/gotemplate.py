"""What is wrong with a Go template, in the words of Go's parser (text/template/parse); nothing here renders one.

Ollama keeps templates in this language.  Engines here render the model's own Jinja template, so only that a template
is well formed matters: its actions are closed, and its blocks.
"""

from __future__ import annotations

import re

# An action up to its end: a comment, or anything with quoted texts taken whole.
_ACTION = re.compile(
    r"""\{\{-?\s*/\*.*?\*/\s*-?\}\}|\{\{((?:"(?:\\.|[^"\\\n])*"|`[^`]*`|'(?:\\.|[^'\\\n])*'|(?!\}\}).)*?)\}\}""",
    re.DOTALL,
)
_WORD = re.compile(r"-?\s*(\w+)")
_OPENING = frozenset({"if", "range", "with", "define", "block"})


def fault(template: str) -> str:
    """The first fault, "" when there is none.  A Jinja template has another grammar and is taken as it is."""
    if "{%" in template:
        return ""
    open_blocks, at = 0, 0
    while (start := template.find("{{", at)) >= 0:
        action = _ACTION.match(template, start)
        if action is None:
            return _unclosed(template, start)
        at = action.end()
        word = _WORD.match(action[1] or "")
        match word[1] if word else "":
            case "end" | "else" as stray if not open_blocks:
                return f"template: :{_line(template, start)}: unexpected {{{{{stray}}}}}"
            case "end":
                open_blocks -= 1
            case opening if opening in _OPENING:
                open_blocks += 1
    return f"template: :{_line(template, len(template))}: unexpected EOF" if open_blocks else ""


def _unclosed(template: str, start: int) -> str:
    began, ended = _line(template, start), _line(template, len(template))
    where = f" started at :{began}" if began != ended else ""
    return f"template: :{ended}: unclosed action{where}"


def _line(text: str, at: int) -> int:
    return text.count("\n", 0, at) + 1
