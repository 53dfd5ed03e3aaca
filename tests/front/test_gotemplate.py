"""Go templates: what is wrong with one is told in Go's words, on the two routes that take one."""

from __future__ import annotations

import pytest

from hyperllamad.front.gotemplate import fault
from tests.front.conftest import OpenHouse
from tests.front.scripted_engine import Stream, short_chat

SOUND = (
    "",
    "no action",
    "{{ .Prompt }}",
    "{{- range .Messages }}{{ .Role }}{{- end }}",
    "{{ if .System }}a{{ else if .Prompt }}b{{ else }}c{{ end }}",
    '{{ "}}" }}{{ `}}` }}',
    "{{/* a comment with }} in it */}}",
    "{{\n.Prompt }}",
    "{% if x %}{{ '{{' }}{% endif %}",  # Jinja
)


@pytest.mark.parametrize("template", SOUND)
def test_sound(template: str) -> None:
    assert fault(template) == ""


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("{{ .X", "template: :1: unclosed action"),
        ("{{", "template: :1: unclosed action"),
        ("a\n{{ .X", "template: :2: unclosed action"),
        ("{{\n.X", "template: :2: unclosed action started at :1"),
        ("{{ if .X }}a", "template: :1: unexpected EOF"),
        ("a{{ end }}", "template: :1: unexpected {{end}}"),
        ("\n{{ else }}", "template: :2: unexpected {{else}}"),
        ('{{ "a }}', "template: :1: unterminated quoted string"),
        ('\n{{ "a\n" }}', "template: :2: unterminated quoted string"),
        ("{{ `a }}", "template: :1: unterminated raw quoted string"),
        ("{{ 'a }}", "template: :1: unterminated character constant"),
    ],
)
def test_broken(template: str, text: str) -> None:
    assert fault(template) == text


def test_a_long_text_is_read_once() -> None:
    """Not in as many ways as its quotes can be paired, which for forty of them is longer than anybody waits."""
    for inside in ('"a" ', "'a' ", "`a` "):
        assert fault("{{ " + inside * 100_000) == "template: :1: unclosed action"


async def test_generate_and_create_tell_it(house: OpenHouse) -> None:
    """The two routes of Ollama answer with different statuses."""
    async with house(lambda _: Stream(short_chat("Hi"))) as h:
        asked = {"model": "m", "prompt": "x", "template": "{{ .X"}
        for stream in (True, False):
            reply = await h.client.post("/api/generate", asked | {"stream": stream})
            assert (reply.status, reply.json()) == (500, {"error": "template: :1: unclosed action"})
            assert reply.header("content-type") == "application/json; charset=utf-8"
            reply = await h.client.post("/api/create", {"model": "n", "from": "m", "stream": stream, **asked})
            assert (reply.status, reply.json()) == (400, {"error": "template error: template: :1: unclosed action"})
        assert h.engine.asked == []
        assert (await h.client.post("/api/generate", asked | {"template": "{{ .Prompt }}"})).status == 200
