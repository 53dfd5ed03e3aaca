"""Every command by its name, and every line an answer may hold: what both sides look commands and lines up in."""

from __future__ import annotations

from hyperllamactl.protocol.base import Caution, Command, Done, Failed, Progress
from hyperllamactl.protocol.daemon import Reload, Status, StatusReport
from hyperllamactl.protocol.decisions import Decision, Events, LoadPlan, PlanLoad, Why, WhyReport
from hyperllamactl.protocol.engines import EngineInstall, EngineList, EngineRemove, Engines
from hyperllamactl.protocol.instances import Change, Instances, Load, LogLine, Logs, Ps, Unload, Warm, Watch
from hyperllamactl.protocol.keys import KeyList, KeyMade, KeyNew, KeyRemove, Keys
from hyperllamactl.protocol.machine import Info, MachineReport, Recommend, Recommendations
from hyperllamactl.protocol.store import (
    Collected,
    CollectGarbage,
    Copy,
    Create,
    List,
    ModelDetails,
    Models,
    Pull,
    Remove,
    Show,
)

COMMANDS: dict[str, type[Command]] = {
    "status": Status,
    "reload": Reload,
    "ps": Ps,
    "list": List,
    "show": Show,
    "pull": Pull,
    "rm": Remove,
    "cp": Copy,
    "create": Create,
    "gc": CollectGarbage,
    "info": Info,
    "recommend": Recommend,
    "load": Load,
    "warm": Warm,
    "unload": Unload,
    "logs": Logs,
    "watch": Watch,
    "why": Why,
    "plan-load": PlanLoad,
    "events": Events,
    "engine-list": EngineList,
    "engine-install": EngineInstall,
    "engine-remove": EngineRemove,
    "key-new": KeyNew,
    "key-list": KeyList,
    "key-remove": KeyRemove,
}

# Every line an answer may hold.
Line = (
    Progress
    | Caution
    | Failed
    | Done
    | Instances
    | Models
    | ModelDetails
    | StatusReport
    | LogLine
    | Change
    | Decision
    | WhyReport
    | LoadPlan
    | Engines
    | Keys
    | KeyMade
    | MachineReport
    | Recommendations
    | Collected
)
