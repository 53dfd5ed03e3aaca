"""What is wrong with a Go template, in the words of Go's parser (text/template/parse); nothing here renders one.

Ollama keeps templates in this language.  Engines here render the model's own Jinja template, so only that a template
is well formed matters: its actions are closed, and its blocks.
"""

from __future__ import annotations

import re

_COMMENT = re.compile(r"\{\{-?\s*/\*.*?\*/\s*-?\}\}", re.DOTALL)
# An action up to where its end must stand, quoted texts taken whole.  What may follow differs in its first character,
# so that there is one way only to read a text, and a long one without an end costs no more than its length.
_ACTION = re.compile(
    r"""\{\{((?:"(?:\\[^\n]|[^"\\\n])*"|`[^`]*`|'(?:\\[^\n]|[^'\\\n])*'|(?!\}\})[^"`'])*+)""", re.DOTALL
)
_QUOTES = {'"': "quoted string", "`": "raw quoted string", "'": "character constant"}
_WORD = re.compile(r"-?\s*(\w+)")
_OPENING = frozenset({"if", "range", "with", "define", "block"})


def fault(template: str) -> str:
    """The first fault, "" when there is none.  A Jinja template has another grammar and is taken as it is."""
    if "{%" in template:
        return ""
    open_blocks, at = 0, 0
    while (start := template.find("{{", at)) >= 0:
        if (comment := _COMMENT.match(template, start)) is not None:
            at = comment.end()
            continue
        action = _ACTION.match(template, start)
        if action is None or not template.startswith("}}", action.end()):
            return _unclosed(template, start, action.end() if action else start)
        at = action.end() + 2
        word = _WORD.match(action[1])
        match word[1] if word else "":
            case "end" | "else" as stray if not open_blocks:
                return f"template: :{_line(template, start)}: unexpected {{{{{stray}}}}}"
            case "end":
                open_blocks -= 1
            case opening if opening in _OPENING:
                open_blocks += 1
    return f"template: :{_line(template, len(template))}: unexpected EOF" if open_blocks else ""


def _unclosed(template: str, start: int, end: int) -> str:
    """What is wrong with an action that begins at `start` and can be read up to `end`."""
    if (quote := template[end : end + 1]) in _QUOTES:
        return f"template: :{_line(template, end)}: unterminated {_QUOTES[quote]}"
    began, ended = _line(template, start), _line(template, len(template))
    where = f" started at :{began}" if began != ended else ""
    return f"template: :{ended}: unclosed action{where}"


def _line(text: str, at: int) -> int:
    return text.count("\n", 0, at) + 1
