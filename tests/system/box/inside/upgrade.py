"""An upgrade of the package while clients ask."""

from __future__ import annotations

import json

from lib import BOX, check, load, sh, show

CONFIG = "/etc/hyperllama/hyperllamad.toml"


@check("rpm -U under load: nobody is refused, and the new version serves")
def _() -> None:
    sh(f"echo '# edited' >>{CONFIG}")
    before = json.loads(sh("hyperllamactl status --json"))
    with load() as wrong:
        sh(f"rpm -U {BOX}/rpms/2/hyperllama-*.noarch.rpm")
    assert wrong == [], wrong
    after = json.loads(sh("hyperllamactl status --json"))
    assert after["version"] != before["version"], after
    assert after["pid"] != before["pid"] and str(after["pid"]) == show("MainPID")


@check("the edited configuration was kept, and the service stays enabled")
def _() -> None:
    assert sh(f"tail -1 {CONFIG}") == "# edited"
    assert sh("systemctl is-enabled hyperllamad") == "enabled"
    assert "wheels" in sh("systemctl cat hyperllamad"), "the administrator's drop-in"
