"""A LoRA adapter on the real llama.cpp: the answer is another one with it, and the same as before without it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.daemon import Daemon, daemon
from tests.real.conftest import MODEL, answer, demo_model
from tests.store.lora import lora_gguf

pytestmark = [pytest.mark.real, pytest.mark.timeout(300)]

WIDTH, INNER = 576, 1536  # of the demo model
STRONG = lora_gguf({f"blk.{block}.ffn_down.weight": (INNER, WIDTH) for block in (10, 20)}, size=0.5)
NOTHING = lora_gguf({"blk.10.ffn_down.weight": (INNER, WIDTH)}, size=0.0)


@pytest.fixture(scope="module")
def served() -> Iterator[Daemon]:
    with daemon({MODEL: demo_model("llama_cpp")}, main='[fleet]\nkeep_alive = "-1"\n') as running:
        yield running


def test_an_adapter_changes_the_answer(served: Daemon) -> None:
    before = answer(served.url, MODEL)
    assert "Paris" in before
    for name, data in (("strong", STRONG), ("nothing", NOTHING)):
        digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
        with httpx.Client(base_url=served.url, timeout=60) as client:
            assert client.post(f"/api/blobs/{digest}", content=data).status_code == 201
            body = {"model": name, "from": MODEL, "adapters": {"lora.gguf": digest}, "stream": False}
            reply = client.post("/api/create", json=body)
            assert reply.json() == {"status": "success"}, reply.text
            shown = client.post("/api/show", json={"model": name}).json()["modelfile"]
            assert f"\nADAPTER {served.root}/state/models/.adapters/{digest.replace(':', '-')}.gguf\n" in shown
    assert answer(served.url, "nothing") == before, "weights that add nothing"
    changed = answer(served.url, "strong")
    assert changed != before
    assert "Paris" not in changed
    assert answer(served.url, MODEL) == before
    assert sorted(row["name"] for row in served.ps()) == ["m:latest", "nothing:latest", "strong:latest"]


def test_a_modelfile_with_an_adapter(served: Daemon, tmp_path: Path) -> None:
    (tmp_path / "lora.gguf").write_bytes(STRONG)
    (tmp_path / "Modelfile").write_text(f"FROM {demo_model('llama_cpp')['path']}\nADAPTER ./lora.gguf\n")
    served.ctl("create", "mine", "-f", str(tmp_path / "Modelfile"))
    assert "Paris" not in answer(served.url, "mine")
    with httpx.Client(base_url=served.url, timeout=60) as client:
        shown = client.post("/api/show", json={"model": "mine"}).json()["modelfile"]
    assert f"\nADAPTER {tmp_path / 'lora.gguf'}\n" in shown
    (tmp_path / "lora.gguf").write_bytes(lora_gguf(general__architecture="qwen2"))
    refused = served.ctl("create", "other", "-f", str(tmp_path / "Modelfile"), check=False)
    assert refused.returncode != 0
    assert "architecture qwen2" in refused.stderr
    assert "other" not in served.ctl("list").stdout
