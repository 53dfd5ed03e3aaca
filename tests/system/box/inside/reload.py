"""A new configuration while it serves."""

from __future__ import annotations

from lib import MODEL, chat, check, instances, sh, show

CONFIG, MODELS = "/etc/hyperllama/hyperllamad.toml", "/etc/hyperllama/models.d"


@check("systemctl reload is synchronous, and what did not change goes on as it was")
def _() -> None:
    chat()
    (before,) = instances()
    main = show("MainPID")
    sh(f"printf '[fleet]\\nkeep_alive = \"7m\"\\n' >{CONFIG} && systemctl reload hyperllamad")
    (after,) = instances()
    assert (after["pid"], show("MainPID")) == (before["pid"], main)


@check("a changed model is drained and loaded again before the command ends")
def _() -> None:
    (before,) = instances()
    sh(f"printf 'name = \"{MODEL}\"\\nparallel = 2\\n' >{MODELS}/demo.toml && systemctl reload hyperllamad")
    (after,) = instances()
    assert after["state"] == "ready" and after["pid"] != before["pid"] and after["parallel"] == 2, after


@check("a wrong configuration: systemctl reload fails, status says why, nothing has changed")
def _() -> None:
    (before,) = instances()
    sh(f"cp {CONFIG} /root/good.toml && sed -i 's/keep_alive = \"7m\"/keep_alive = 7/' {CONFIG}")
    sh(f"printf 'name = \"{MODEL}\"\\nparallel = 3\\n' >{MODELS}/demo.toml")
    sh("systemctl reload hyperllamad", status=1)
    assert "keep_alive" in sh("hyperllamactl status"), "the reason"
    assert "keep_alive" in sh("hyperllamactl reload", status=1)
    (after,) = instances()
    assert (after["pid"], after["parallel"]) == (before["pid"], 2), after
    assert sh("systemctl is-active hyperllamad") == "active"


@check("once it is mended, all of it is in force")
def _() -> None:
    sh(f"cat /root/good.toml >{CONFIG} && systemctl reload hyperllamad")
    (after,) = instances()
    assert after["parallel"] == 3, after
    assert "keep_alive" not in sh("hyperllamactl status")
    sh(f"rm {MODELS}/demo.toml && hyperllamactl reload")
