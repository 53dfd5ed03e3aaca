"""Engines on the wire: which homes there are, install and remove."""

from __future__ import annotations

import msgspec

from hyperllamactl.protocol.base import Command, Reply, Role


class EngineRow(msgspec.Struct, kw_only=True):
    """One engine home, or an engine that is not installed."""

    name: str
    title: str  # as people write it
    version: str = ""
    variant: str = ""  # cpu, cuda; system for a program that came with the system
    id: str = ""  # of the home
    path: str = ""
    size: int = 0  # bytes on disk
    installed_at: float = 0.0  # Unix seconds; 0 = not known
    installed: bool = False
    in_use: bool = False  # new instances run in it
    variants: list[str] = []  # what can be installed


class Engines(Reply, tag="engines"):
    """Every engine home, and every engine that has none."""

    engines: list[EngineRow]


class EngineList(Command):
    """List engines: installed homes and what can be installed."""

    reply = Engines


class EngineInstall(Command):
    """Install an engine into a home of its own."""

    role = Role.ADMIN
    streams = True

    name: str  # llama_cpp, vllm, max
    version: str = ""  # "" = the one this release was tried with
    variant: str = ""  # cpu, cuda; "" = what this machine can use


class EngineRemove(Command):
    """Remove an engine home that nothing uses; `force` removes it although new instances would run in it."""

    role = Role.ADMIN
    streams = True

    name: str  # llama_cpp, vllm, max
    version: str = ""  # "" = the only one there is
    variant: str = ""
    force: bool = False
