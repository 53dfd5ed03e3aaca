"""The real engines under the unit's own sandbox."""

from __future__ import annotations

from lib import BOX, MODEL, ask, check, instances, sh

MODELS, ENGINES = "/etc/hyperllama/models.d", "/etc/hyperllama/engines.d"


@check("the package is installed beside the engines, and finds them")
def _() -> None:
    sh(f"rpm -i {BOX}/rpms/1/hyperllama-0*.noarch.rpm")
    sh("install -d /var/lib/hyperllama && cp -a /opt/compiled /var/lib/hyperllama/compiled")
    sh("chown -R hyperllama:hyperllama /var/lib/hyperllama/compiled")
    # That Python may look for its own library where it was built.
    sh(f"for file in {ENGINES}/*.toml; do echo 'env = {{ LD_LIBRARY_PATH = \"/opt/python/lib\" }}' >>$file; done")
    sh("systemctl enable --now hyperllamad")
    assert len(sh("hyperllamactl engine list -q").split()) == 3


def _serves(engine: str, directory: str) -> None:
    path = f"/opt/models/{directory}"
    sh(f'printf \'name = "{MODEL}"\\npath = "{path}"\\nengine = "{engine}"\\n\' >{MODELS}/demo.toml')
    sh("hyperllamactl reload")
    sh(f"hyperllamactl load {MODEL}", limit=900)
    (row,) = instances()
    assert row["engine"].lower().replace(".", "_") == engine, row
    told = sh(f"cat /proc/{row['pid']}/status")
    assert "NoNewPrivs:\t1" in told and "Seccomp:\t2" in told
    message = {"role": "user", "content": "What is the capital of France?"}
    answer = ask("/api/chat", {"model": MODEL, "messages": [message], "stream": False, "options": {"num_predict": 12}})
    assert answer["message"]["content"].strip(), answer
    sh(f"hyperllamactl unload {MODEL}")


@check("llama.cpp answers")
def _() -> None:
    _serves("llama_cpp", "smollm2@135m/smollm2-135m-instruct-q4_1.gguf")


@check("vLLM answers")
def _() -> None:
    _serves("vllm", "smollm2@135m-bf16")


@check("MAX answers")
def _() -> None:
    _serves("max", "smollm2@135m-bf16")
