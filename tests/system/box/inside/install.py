"""From a bare system to an installed package that does nothing yet."""

from __future__ import annotations

from lib import BOX, check, sh, stale_modules

UNITS = "hyperllamad.service hyperllamad-admin.socket hyperllamad.socket"


@check("rpm installs with all dependencies met")
def _() -> None:
    sh(f"rpm -i {BOX}/rpms/1/hyperllama-0*.noarch.rpm")


@check("rpm -V finds everything as it was packaged")
def _() -> None:
    assert sh("rpm -V hyperllama") == ""


@check("byte code comes with the package, and fits the sources")
def _() -> None:
    assert not (stale := stale_modules()), stale[:5]


@check("rpmlint has nothing to say")
def _() -> None:
    said = sh(f"rpmlint --config {BOX}/rpmlint.toml {BOX}/rpms/1/*.rpm")
    assert "0 errors, 0 warnings" in said, said


@check("Python's packages are asked of the distribution, what it lacks is declared as bundled")
def _() -> None:
    requires, provides = sh("rpm -q --requires hyperllama"), sh("rpm -q --provides hyperllama")
    assert "dist(quart)" in requires and "dist(hypercorn)" in requires, requires
    assert "nvidia-ml-py" not in requires, requires
    assert "bundled(python3dist(nvidia-ml-py))" in provides, provides


@check("the user, its groups and its home")
def _() -> None:
    groups = sh("id -nG hyperllama").split()
    assert {"hyperllama", "video", "render"} <= set(groups), groups
    entry = sh("getent passwd hyperllama").split(":")
    assert entry[5] == "/var/lib/hyperllama" and entry[6].endswith("nologin"), entry


@check("directories belong to whom they should")
def _() -> None:
    found = sh("stat -c '%A %U %G %n' /etc/hyperllama /var/lib/hyperllama /var/cache/hyperllama /run/hyperllama")
    assert found.splitlines() == [
        "drwxr-x--- root hyperllama /etc/hyperllama",
        "drwxr-x--- hyperllama hyperllama /var/lib/hyperllama",
        "drwxr-x--- hyperllama hyperllama /var/cache/hyperllama",
        "drwxr-x--- hyperllama hyperllama /run/hyperllama",
    ], found


@check("the preset leaves every unit disabled and stopped")
def _() -> None:
    for unit in UNITS.split():
        sh(f"systemctl is-enabled {unit}", status=1)
        sh(f"systemctl is-active {unit}", status=3)


@check("systemd-analyze verify says nothing")
def _() -> None:
    assert sh(f"systemd-analyze verify {UNITS}") == ""


@check("systemd-analyze security: exposure below 3.0")
def _() -> None:
    said = sh("systemd-analyze security --threshold=30 hyperllamad.service")
    print("      " + said.splitlines()[-1].strip("→ "))


@check("manual pages are found")
def _() -> None:
    for page in ("8 hyperllamad", "1 hyperllamactl", "5 hyperllamad.toml"):
        assert sh(f"man -w {page}").startswith("/usr/share/man/"), page
        assert "warning" not in sh(f"MANWIDTH=100 man --warnings {page} 2>&1 >/dev/null"), page


@check("bash, zsh and fish complete")
def _() -> None:
    sh("bash -n /usr/share/bash-completion/completions/hyperllamactl")
    sh("zsh -n /usr/share/zsh/site-functions/_hyperllamactl /usr/share/zsh/site-functions/_hyperllamad")
    assert sh("""fish -c 'complete -C "hyperllamactl unl"'""").startswith("unload"), "fish"
    assert "llama_cpp" in sh("""fish -c 'complete -C "hyperllamactl engine install "'"""), "fish engines"
    zsh = "autoload -U compinit; compinit -D; autoload -U +X _hyperllamactl; whence -v _hyperllamactl"
    assert "function" in sh(f"zsh -c '{zsh}'"), "zsh"


@check("the configuration as it is shipped is good, and the service's user may read it")
def _() -> None:
    assert "is good" in sh("runuser -u hyperllama -- hyperllamad --config /etc/hyperllama --check-config")


@check("hyperllamactl says that nothing runs, and how to start it")
def _() -> None:
    said = sh("hyperllamactl status", status=69)
    assert "systemctl start hyperllamad" in said, said
