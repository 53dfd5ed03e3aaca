"""An upgrade of the package while clients ask."""

from __future__ import annotations

import json
from typing import Any

from lib import BOX, chat, check, eventually, instances, load, processes, sh, show

CONFIG = "/etc/hyperllama/hyperllamad.toml"


@check("with adoption, a restart under load refuses nobody and loads no model again")
def _() -> None:
    # As /usr/share/doc/hyperllama/adoption.conf says.
    sh("cp $(rpm -qd hyperllama | grep adoption.conf) /etc/systemd/system/hyperllamad.service.d/")
    sh(f'printf \'[fleet]\\nkeep_alive = "7m"\\nadopt_within = "60s"\\n\' >{CONFIG}')
    sh("systemctl daemon-reload && systemctl restart hyperllamad")
    chat()
    (before,) = instances()
    main = show("MainPID")
    with load() as wrong:
        sh("systemctl restart hyperllamad")
    (after,) = instances()
    assert wrong == [], wrong
    assert show("MainPID") != main
    assert (after["pid"], after["restarts"]) == (before["pid"], before["restarts"])


@check("rpm -U under load: nobody is refused, no model is loaded again, and the new version serves")
def _() -> None:
    sh(f"echo '# edited' >>{CONFIG}")
    before = json.loads(sh("hyperllamactl status --json"))
    (engine,) = instances()

    def newer() -> dict[str, Any] | None:
        status: dict[str, Any] = json.loads(sh("hyperllamactl status --json"))
        return status if status["version"] != before["version"] else None

    with load() as wrong:
        sh(f"rpm -U {BOX}/rpms/2/hyperllama-*.noarch.rpm")
        after = eventually(newer, within=90, what="the new version answers")  # the restart is only queued
    assert wrong == [], wrong
    assert after["pid"] != before["pid"] and str(after["pid"]) == show("MainPID")
    assert instances()[0]["pid"] == engine["pid"], "its model was not loaded again"


@check("systemctl stop still ends everything")
def _() -> None:
    sh("systemctl stop hyperllamad")
    eventually(lambda: processes() == [], within=15, what="no process is left")
    sh("systemctl start hyperllamad")
    assert chat()


@check("the edited configuration was kept, and the service stays enabled")
def _() -> None:
    assert sh(f"tail -1 {CONFIG}") == "# edited"
    assert sh("systemctl is-enabled hyperllamad") == "enabled"
    assert "wheels" in sh("systemctl cat hyperllamad"), "the administrator's drop-in"
