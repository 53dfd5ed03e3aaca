"""The self-contained flavour, on a machine of its own."""

from __future__ import annotations

import re

from lib import BOX, ask, check, sh, stale_modules

PRIVATE = "/usr/lib/hyperllama/lib/"


@check("the self-contained package asks no Python package of the distribution")
def _() -> None:
    (package,) = sh(f"ls {BOX}/rpms/bundled/hyperllama-0*.$(uname -m).rpm").split()
    assert "dist(" not in sh(f"rpm -qp --requires {package}"), sh(f"rpm -qp --requires {package}")
    assert "bundled(python3dist(quart))" in sh(f"rpm -qp --provides {package}")
    said = sh(f"rpmlint --config {BOX}/rpmlint.toml {package}")
    assert "0 errors, 0 warnings" in said, said
    sh(f"rpm -i {package}")
    assert sh("rpm -V hyperllama") == ""
    assert not (stale := stale_modules()), stale[:5]


@check("its licence names those of what it brings")
def _() -> None:
    stated = set(re.findall(r"[\w.-]+", sh("rpm -q --qf '%{LICENSE}' hyperllama")))
    brought = sh(f"grep -rhs --include=METADATA ^License-Expression: {PRIVATE}").splitlines()
    assert len(brought) > 10, brought
    named = {word for line in brought for word in re.findall(r"[\w.-]+", line.partition(":")[2])}
    assert named - {"OR", "AND"} <= stated, named - stated


@check("it serves with what it brings, not with what the distribution has")
def _() -> None:
    sh("systemctl enable --now hyperllamad")
    assert "version" in ask("/api/version")
    sh("hyperllamactl status")
    where = "import quart, hyperllamad; print(quart.__file__, hyperllamad.__file__)"
    found = sh(f"/usr/lib/hyperllama/bin/python3 -c '{where}'").split()
    assert all(path.startswith(PRIVATE) for path in found), found
    assert sh("pgrep -u hyperllama -f /usr/lib/hyperllama/bin/python3 | wc -l") == "1"
