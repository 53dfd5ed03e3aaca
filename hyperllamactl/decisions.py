"""The subcommands that explain: why, plan load, events; and how decisions read."""

from __future__ import annotations

import argparse
from time import localtime, strftime

from hyperllamactl import render
from hyperllamactl.commands import Session
from hyperllamactl.protocol.base import Reply
from hyperllamactl.protocol.decisions import Decision, Events, LeavingRow, LoadPlan, PlanLoad, Why, WhyReport


def why(session: Session, args: argparse.Namespace) -> None:
    reply = session.client.call(Why(model=args.model), WhyReport)
    session.reply(reply, _why(reply, session.now, session.paint))


def events(session: Session, args: argparse.Namespace) -> None:
    def each(line: Reply) -> None:
        if isinstance(line, Decision):
            session.print(decision(line))

    session.follow(Events(lines=args.lines, follow=args.follow), each)


def plan_load(session: Session, args: argparse.Namespace) -> None:
    def each(line: Reply) -> None:
        if isinstance(line, LoadPlan):
            session.print(_plan(line))

    session.follow(PlanLoad(model=args.model), each)


def decision(line: Decision) -> str:
    """One line: when, what, to whom, why."""
    return f"{strftime('%H:%M:%S', localtime(line.at))}  {line.what:<9}  {line.model:<24}  {line.why}"


def _why(reply: WhyReport, now: float, paint: render.Paint) -> str:
    state = render.instances(reply.instances, now, paint) if reply.instances else f"{reply.model} is not loaded"
    told = "\n".join(decision(line) for line in reply.decisions) or "nothing was decided about it lately"
    return f"{state}\n\n{told}"


def _plan(plan: LoadPlan) -> str:
    if plan.outcome in {"waits", "never", "loaded"}:
        word = {"waits": "waits", "never": "does not fit", "loaded": "is loaded"}[plan.outcome]
        return f"{plan.model} {word}: {plan.why}"
    facts = [("Fits", _where(plan))]
    if plan.need is not None and plan.need.weights:
        parts = f"{render.size(plan.need.weights)} weights, {render.size(plan.need.kv_cache)} KV cache"
        facts.append(("Needs", f"{parts}, {render.size(plan.need.overhead)} overhead"))
    facts += [("After", _leaving(row)) for row in plan.leaving]
    facts.append(("Ready in", f"about {render.clock(plan.seconds)}, on {plan.engine}"))
    return render.facts(facts)


def _where(plan: LoadPlan) -> str:
    places = ", ".join(
        f"{render.size(share.size)} of {'memory' if share.gpu < 0 else f'GPU {share.gpu}'}" for share in plan.shares
    )
    return f"{plan.why}: {places}" if places else plan.why


def _leaving(row: LeavingRow) -> str:
    busy = f", after {row.requests} request{'s' if row.requests > 1 else ''}" if row.requests else ""
    return f"{row.model} {row.how}{busy} (back in about {render.clock(row.seconds)})"
