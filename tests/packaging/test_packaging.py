"""What the files of packaging/ must agree on with each other and with the code."""

from __future__ import annotations

import configparser
import re
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree as ET

import hyperllamactl
from hyperllamad import doors
from hyperllamad.__main__ import parser
from hyperllamad.config.paths import SYSTEM_DIRECTORY
from hyperllamad.config.tables import Server

ROOT = Path(__file__).parents[2]
PACKAGING = ROOT / "packaging"
PORT = Server().address[1]
# podman-systemd.unit(5), section [Container]: those in use here.
QUADLET_KEYS = {
    *("ContainerName", "Image", "PublishPort", "Volume", "AddDevice", "ShmSize", "Notify", "NoNewPrivileges"),
    *("DropCapability", "StopTimeout"),
}


def unit(name: str) -> dict[str, list[tuple[str, str]]]:
    """Section to (key, value), repeated keys kept."""
    sections: dict[str, list[tuple[str, str]]] = {}
    for line in (PACKAGING / name).read_text(encoding="utf-8").splitlines():
        if line.startswith("["):
            keys = sections.setdefault(line.strip("[]"), [])
        elif line and not line.startswith("#"):
            key, equals, value = line.partition("=")
            assert equals, line
            keys.append((key, value))
    return sections


def values(name: str, section: str, key: str) -> list[str]:
    return [value for found, value in unit(name)[section] if found == key]


def spec() -> str:
    return (PACKAGING / "rpm/hyperllama.spec").read_text(encoding="utf-8")


def test_the_package_has_the_version_of_the_code() -> None:
    assert re.search(r"^Version: +(.+)$", spec(), re.MULTILINE)[1] == hyperllamactl.__version__  # type: ignore[index]


def test_the_spec_knows_no_distribution_but_fedora() -> None:
    assert re.findall(r"(?i)debian|ubuntu|%if\S* +.*(?:fedora|rhel|suse)", spec()) == []


def test_every_file_that_the_spec_installs_is_there() -> None:
    named = set(re.findall(r"(?:packaging|etc)/[\w./*$-]+", spec()))
    assert len(named) > 10
    for name in named:
        pattern = re.sub(r"\$\w+", "*", name)
        assert list(ROOT.glob(pattern)), name


def test_every_unit_and_directory_of_packaging_is_installed() -> None:
    for path in (PACKAGING / "systemd").iterdir():
        assert path.name in spec(), path
    for name in ("sysusers", "tmpfiles", "firewalld", "man", "completions"):
        assert f"packaging/{name}/" in spec()


def test_sockets_pass_the_names_the_daemon_looks_for() -> None:
    assert values("systemd/hyperllamad-admin.socket", "Socket", "FileDescriptorName") == [doors.ADMIN]
    assert values("systemd/hyperllamad.socket", "Socket", "FileDescriptorName") == [doors.API]
    assert values("systemd/hyperllamad.socket", "Socket", "ListenStream") == [Server().host]
    assert values("systemd/hyperllamad-admin.socket", "Socket", "ListenStream") == ["/run/hyperllama/admin.sock"]


def test_the_unit_calls_programs_with_arguments_they_have() -> None:
    (start,) = values("systemd/hyperllamad.service", "Service", "ExecStart")
    assert parser().parse_args(start.split()[1:]).config == SYSTEM_DIRECTORY


def test_the_firewall_service_opens_the_default_port() -> None:
    (port,) = ET.parse(PACKAGING / "firewalld/hyperllama.xml").getroot().iter("port")
    assert (port.get("protocol"), port.get("port")) == ("tcp", str(PORT))


def _instructions() -> Iterator[tuple[str, str]]:
    text = (PACKAGING / "container/Containerfile").read_text(encoding="utf-8").replace("\\\n", " ")
    for line in text.splitlines():
        if line and not line.startswith("#"):
            word, _, rest = line.partition(" ")
            yield word, " ".join(rest.split())


def test_the_container_runs_the_daemon_as_its_user_on_its_port() -> None:
    found = list(_instructions())
    assert {word for word, _ in found} <= {
        *("ARG", "FROM", "COPY", "RUN", "ENV", "USER", "WORKDIR", "VOLUME", "EXPOSE", "HEALTHCHECK", "STOPSIGNAL"),
        "ENTRYPOINT",
    }
    last = dict(found)
    assert last["USER"] == "hyperllama"
    assert last["EXPOSE"] == str(PORT)
    assert f"OLLAMA_HOST=0.0.0.0:{PORT}" in last["ENV"]
    assert last["ENTRYPOINT"] == '["/usr/bin/hyperllamad", "--config", "/etc/hyperllama"]'


def test_the_quadlet_has_only_keys_that_quadlets_have() -> None:
    name = "container/hyperllama.container"
    assert set(unit(name)) == {"Unit", "Container", "Service", "Install"}
    assert {key for key, _ in unit(name)["Container"]} <= QUADLET_KEYS
    assert values(name, "Container", "PublishPort") == [f"127.0.0.1:{PORT}:{PORT}"]
    text = (PACKAGING / name).read_text(encoding="utf-8")
    commented = set(re.findall(r"^#([A-Z]\w+)=", text, re.MULTILINE))
    assert commented <= QUADLET_KEYS


def test_the_rpmlint_configuration_says_why_for_each_filter() -> None:
    lines = (PACKAGING / "rpm/rpmlint.toml").read_text(encoding="utf-8").splitlines()
    filters = [index for index, line in enumerate(lines) if line.startswith('    "')]
    assert filters
    assert all(lines[index - 1].startswith(("    #", '    "')) for index in filters)


def test_units_are_plain_ini() -> None:
    for path in (PACKAGING / "systemd").iterdir():
        configparser.RawConfigParser(strict=False, allow_no_value=False).read_string(path.read_text(encoding="utf-8"))
