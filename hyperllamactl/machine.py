"""The subcommands that look at the machine, and how they read."""

from __future__ import annotations

import argparse
from collections.abc import Iterator

from hyperllamactl import render
from hyperllamactl.commands import Session
from hyperllamactl.protocol.machine import GpuRow, Info, MachineReport, OfferRow, Recommend, Recommendations

_HEAD = ("MODEL", "KIND", "ENGINE", "ON", "NEEDS", "OF", "TOK/S", "64 STREAMS", "CONTEXT", "")


def info(session: Session, args: argparse.Namespace) -> None:  # noqa: ARG001  the shape all subcommands share
    reply = session.client.call(Info(), MachineReport)
    session.reply(reply, render.facts(list(_facts(reply))))


def recommend(session: Session, args: argparse.Namespace) -> None:
    reply = session.client.call(Recommend(model=args.model or "", every=args.all), Recommendations)
    quiet = "\n".join(row.name if args.model else row.model for row in reply.offers)
    session.reply(reply, quiet if args.quiet else _recommendations(reply.offers))


def _facts(reply: MachineReport) -> Iterator[tuple[str, str]]:
    for gpu in reply.gpus:
        yield f"GPU {gpu.index}", _gpu(gpu)
    if reply.gpu_problem:
        yield "GPUs" if reply.gpus else "GPU", reply.gpu_problem
    if reply.driver:
        yield "Driver", f"{reply.driver}, CUDA up to {reply.cuda}"
    yield "Processor", f"{reply.processor or 'unknown'}, {reply.cores} cores"
    yield "Features", ", ".join(reply.features) or "none that engines make use of"
    held = f", {render.size(reply.ours)} held by engines here" if reply.ours else ""
    yield "Memory", f"{render.size(reply.available)} free of {render.size(reply.memory)}{held}"
    installed = [
        f"{row.title} {row.version} ({row.variant}){'' if row.in_use else ', not in use'}"
        for row in reply.engines
        if row.installed
    ]
    yield "Engines", "\n".join(installed) or "none; see: hyperllamactl engine list"


def _gpu(gpu: GpuRow) -> str:
    held = f", {render.size(gpu.ours)} held by engines here" if gpu.ours else ""
    speed = f", {render.size(gpu.bandwidth)}/s" if gpu.bandwidth else ""
    memory = f"{render.size(gpu.free)} free of {render.size(gpu.total)}{held}"
    return f"{gpu.name}, compute capability {gpu.capability}, {memory}{speed}"


def _recommendations(rows: list[OfferRow]) -> str:
    """The table, and what its numbers are worth."""
    if not rows:
        return "no model of the catalogue fits here; `hyperllamactl recommend --all` says why"
    table = render.table(_HEAD, [_row(row) for row in rows])
    return f"{table}\n\nNeeds and speeds are estimates; the model's name alone pulls the kind that comes first."


def _row(row: OfferRow) -> tuple[str, ...]:
    return (
        row.model,
        row.kind,
        row.engine,
        "GPU" if row.device == "cuda" else "CPU",
        render.size(row.need),
        render.size(row.room) if row.room else "?",
        _speed(row.single),
        _speed(row.together),
        str(row.context) if row.context else "-",
        f"{'' if row.fits else 'does not fit: '}{row.why}{', terms to accept first' if row.gated else ''}",
    )


def _speed(tokens: float) -> str:
    """Two digits: it is an estimate."""
    if not tokens:
        return "-"
    return f"{tokens:.1f}" if tokens < 10 else f"{float(f'{tokens:.2g}'):.0f}"
