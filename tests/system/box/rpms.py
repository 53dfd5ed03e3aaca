"""Builds the package inside the root tree: with its rpm and Python, without a network, leaving the tree as it was."""

from __future__ import annotations

import hashlib
import shutil
import sys
import tempfile
from pathlib import Path

from tests.system.box.shell import CACHE, ROOT, run, say

MACROS = Path(__file__).with_name("fedora") / "macros"
# An overlay over the tree, in namespaces of its own: nothing is left mounted, whatever happens.
_BUILD = """
tree=$1 work=$2
shift 2
mkdir -p $work/upper $work/overlay $work/merged
mount -t overlay overlay -o lowerdir=$tree,upperdir=$work/upper,workdir=$work/overlay $work/merged
mkdir -p $work/merged/build
mount --bind $work/build $work/merged/build
mount -t proc proc $work/merged/proc
mount --bind /dev $work/merged/dev
exec chroot $work/merged env -i PATH=/usr/sbin:/usr/bin HOME=/build/home LC_ALL=C.UTF-8 \\
    /build/build.sh /build/sources /build/out "$@"
"""


# Without namespaces: in a copy of the tree.
_BUILD_PLAIN = """
tree=$1 work=$2
shift 2
mkdir -p $work/merged
cp -a $tree/. $work/merged
mv $work/build $work/merged/build
chroot $work/merged env -i PATH=/usr/sbin:/usr/bin HOME=/build/home LC_ALL=C.UTF-8 \\
    /build/build.sh /build/sources /build/out "$@"
mv $work/merged/build $work/build
"""


def build(tree: Path, out: Path, *, bundled: bool = False, version: str = "", plain: bool = False) -> list[Path]:
    """The packages, in `out`; `version` instead of the spec's makes one to upgrade to; `plain`: without namespaces."""
    key, stamp = _key(tree, bundled=bundled, version=version), out / "made-from"
    if stamp.exists() and stamp.read_text() == key:
        return sorted(out.glob("*.rpm"))
    say(f"building the package{' with everything in it' if bundled else ''}{f' as {version}' if version else ''}")
    python = run(["chroot", tree, "python3", "-c", "import sys; print('{}.{}'.format(*sys.version_info))"]).strip()
    with tempfile.TemporaryDirectory(dir=CACHE, prefix="rpmbuild-") as work:
        inside = Path(work) / "build"
        (inside / "home").mkdir(parents=True)
        stated = [version] if version else []
        run(
            [ROOT / "packaging/rpm/sources.sh", inside / "sources", python, *stated],
            log=CACHE / "sources.log",
            BUILD_PYTHON=sys.executable,
        )
        shutil.copy(ROOT / "packaging/rpm/build.sh", inside)
        shutil.copy(MACROS, inside / "home" / ".rpmmacros")
        # What the spec asks for to build is in the tree, but as Debian's packages: rpm does not know.
        arguments = ["--nodeps", *(["--with", "bundled"] if bundled else [])]
        shell = ["bash", "-euc", _BUILD_PLAIN if plain else _BUILD, "build"]
        command = [*([] if plain else ["unshare", "--mount", "--net", "--propagation", "private"]), *shell]
        log = CACHE / f"rpmbuild{'-bundled' if bundled else ''}.log"
        run([*command, tree, work, *arguments], log=log)
        shutil.rmtree(out, ignore_errors=True)
        shutil.copytree(inside / "out", out)
    stamp.write_text(key)
    return sorted(out.glob("*.rpm"))


def _key(tree: Path, *, bundled: bool, version: str) -> str:
    """What the package is made from: the tree, the working tree as git sees it, and the flavour."""
    listed = run(["git", "-C", ROOT, "ls-files", "-z", "--cached", "--others", "--exclude-standard"])
    digest = hashlib.sha256(f"{bundled} {version} {tree.with_suffix('.key').read_text()}".encode())
    for name in sorted(listed.split("\0")):
        path = ROOT / name
        # Of the tests only what the package is built with belongs to it.
        if path.is_file() and (not name.startswith("tests/") or path == MACROS):
            digest.update(f"{name} {hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    return digest.hexdigest()
