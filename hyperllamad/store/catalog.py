"""Which models there are and under which names.  Owns what is known of the disk; changes nothing on it.

Models come from three places; where two have the same name, the first of these wins:
1. files of models.d: a path (absolute, from ~, or below the store) or, without one, settings for a model found below;
2. the store itself, `models` in the state directory, laid out as store/layout.py says;
3. the directories of `[models] directories`, one level deep.
Over these lie the variants (store/overlays.py): names of their own for one of those models, with something added.  A
variant may have the name of a model, and then stands in its place.

The mutable state is the survey (what lies where) and the looks (what files said when they were last read).  Both are
believed as long as the directories and files they came from are unchanged: asking costs a few stat calls.  The first
look at a large vocabulary takes up to 0.1 s: call list() once before requests are taken, in a worker thread if there
may be many models.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from hyperllamad.config.paths import Paths
from hyperllamad.config.tables import ModelsTable, ModelTable
from hyperllamad.core.errors import HyperLlamaError, LoadFailedError, ModelNotFoundError
from hyperllamad.core.models import Model
from hyperllamad.core.names import ModelName
from hyperllamad.store import adapters, layout
from hyperllamad.store.adapters import Adapters
from hyperllamad.store.inspect import inspect
from hyperllamad.store.layout import Problem
from hyperllamad.store.overlays import Overlay, Overlays
from hyperllamad.store.survey import Place, Stamp, Survey, settled, stamp, survey


@dataclass(frozen=True, slots=True)
class _Look:
    """What a place's files said: a model, or why there is none."""

    place: Place
    files: tuple[str, ...]
    stamp: Stamp | None
    result: Model | HyperLlamaError


@dataclass(frozen=True, slots=True)
class _Variant:
    """A variant as it came out, and what of."""

    overlay: Overlay
    base: Model
    adapters: Stamp | None  # of their files
    model: Model


class Catalog:
    """The models on disk by name.  Plain calls, to be made by one thread at a time."""

    def __init__(self, paths: Paths, models: ModelsTable, entries: Sequence[ModelTable]) -> None:
        self._store = paths.models
        self.configure(models, entries)
        self.overlays = Overlays(paths.state / "variants")
        self.adapters = Adapters(paths.models)
        self.store = paths.models

    def configure(self, models: ModelsTable, entries: Sequence[ModelTable]) -> None:
        """Go by another configuration from now on: everything is looked at again."""
        self._defaults = models
        self._entries = tuple(entries)
        self._directories = tuple(Path(directory).expanduser() for directory in models.directories)
        self._survey: Survey | None = None
        self._looks: dict[str, _Look] = {}
        self._variants: dict[str, _Variant] = {}

    def list(self) -> tuple[Model, ...]:
        """Every usable model, the most recently changed first.  Broken ones are left out: see problems()."""
        models = [result for _, _, result in self._results() if isinstance(result, Model)]
        return tuple(sorted(models, key=lambda model: (-model.modified_at, model.name.key)))

    def problems(self) -> tuple[Problem, ...]:
        """Everything that was meant to be a model and cannot be used, with a sentence that says why."""
        broken = tuple(
            Problem(name, path, str(result)) for name, path, result in self._results() if not isinstance(result, Model)
        )
        return self._surveyed(whole=True).problems + broken

    def resolve(self, text: str) -> Model:
        """The model a client calls `text`, whatever the case; its `name` is spelled as on disk or in models.d.

        Raises InvalidNameError, ModelNotFoundError, and LoadFailedError for a model that is there but broken.
        """
        name = ModelName.parse(text)
        result: Model | HyperLlamaError | None
        overlay = self.overlays.get(name)
        if isinstance(overlay, Overlay) and not overlay.hidden:
            result = self._variant(overlay)
        elif isinstance(overlay, HyperLlamaError):
            result = overlay
        else:
            place = self.place(name)
            result = None if place is None or (overlay and not _stated(place)) else self._look(place).result
        if result is None:
            raise ModelNotFoundError(text)
        if isinstance(result, Model):
            return result
        # A fresh one each time: an exception that is raised again keeps the frames it passed before.
        raise LoadFailedError(result.message, hint=result.hint)

    def place(self, name: ModelName) -> Place | None:
        """Where the files of that name lie, whatever variants say; None when there are none."""
        key = name.key
        return self._surveyed(whole=False).places.get(key) or self._surveyed(whole=True).places.get(key)

    def places(self) -> tuple[Place, ...]:
        """Every name that has files of its own, hidden ones included."""
        return tuple(self._surveyed(whole=True).places.values())

    def _results(self) -> Iterator[tuple[str, str, Model | HyperLlamaError]]:
        """(name, path, the model or why there is none) for everything that is meant to be seen."""
        overlays = self.overlays.all()
        hidden, taken = set(), set()
        for stem, overlay in overlays.items():
            if not isinstance(overlay, Overlay):
                yield stem.replace("+", "/").replace("@", ":"), str(self.overlays.directory / f"{stem}.toml"), overlay
            elif overlay.hidden:
                hidden.add(overlay.name.key)
            else:
                taken.add(overlay.name.key)
                yield overlay.name.short, str(self.overlays.path(overlay.name)), self._variant(overlay)
        self._variants = {key: variant for key, variant in self._variants.items() if key in taken}
        for key, place in self._surveyed(whole=True).places.items():
            if key not in taken and (key not in hidden or _stated(place)):
                yield place.name.short, str(place.path or ""), self._look(place).result

    def _variant(self, overlay: Overlay) -> Model | HyperLlamaError:
        place = self.place(overlay.base)
        if place is None:
            sentence = f"'{overlay.name.short}' is a variant of '{overlay.base.short}', which is not here any more"
            return LoadFailedError(sentence, hint=f"pull {overlay.base.short} again, or delete {overlay.name.short}")
        base = self._look(place).result
        if not isinstance(base, Model):
            return base
        known = self._variants.get(overlay.name.key)
        paths = [self.adapters.path(kept) for kept in overlay.adapters]
        now, began = stamp(paths), time.time_ns()
        if known is None or known.overlay is not overlay or known.base is not base or known.adapters != now:
            try:
                model = adapters.applied(paths, _applied(overlay, base))
            except (HyperLlamaError, OSError, ValueError) as failure:  # ValueError: a path with a NUL in it
                return _without(overlay, failure)
            own = self.place(overlay.name)
            if own is not None and own.path is None:  # models.d has settings for the variant
                model = self._overlaid(model, own.table)
            known = self._variants[overlay.name.key] = _Variant(overlay, base, settled(now, began), model)
        return known.model

    def _surveyed(self, *, whole: bool) -> Survey:
        """The survey, made anew when a directory changed; `whole` also asks the directories that are models."""
        now = self._survey
        if now is None or now.branch_stamp != stamp(now.branches) or (whole and now.leaf_stamp != stamp(now.leaves)):
            now = self._survey = survey(self._store, self._directories, self._entries)
            self._looks = {key: look for key, look in self._looks.items() if key in now.places}
        return now

    def _look(self, place: Place) -> _Look:
        look = self._looks.get(place.name.key)
        if look is None or look.place != place or look.stamp != stamp(look.files):
            look = self._looks[place.name.key] = self._look_anew(place)
        return look

    def _look_anew(self, place: Place) -> _Look:
        began = time.time_ns()
        if place.path is None:
            sentence = f"models.d names '{place.name.short}' without a path, and there is no such model elsewhere"
            return _Look(place, (), (), LoadFailedError(sentence, hint="add `path`, or put the model into the store"))
        # What would change if what is missing came: the parent for the other parts of a split file.
        files: tuple[str, ...] = (str(place.path), str(place.path.parent))
        result: Model | HyperLlamaError
        try:
            location = layout.locate(place.path)
            files = tuple(map(str, (*((location.directory,) if location.directory else ()), *location.files)))
            before = stamp(files)
            result = self._overlaid(inspect(place.name, location), place.table)
        except HyperLlamaError as failure:
            before, result = stamp(files), failure
        return _Look(place, files, settled(before, began), result)

    def _overlaid(self, model: Model, table: ModelTable | None) -> Model:
        """The model with what models.d and `[models]` add."""
        table = table or ModelTable(name=model.name.short)
        return replace(
            model,
            system=table.system or model.system,
            parameters={**model.parameters, **table.parameters},
            engine=table.engine or model.engine,
            context=table.context or model.context or self._defaults.context,
            parallel=table.parallel or model.parallel or self._defaults.parallel,
            quantize=table.quantize or model.quantize,
            engine_args=table.args or model.engine_args,
            limits=table.limits.over(model.limits),
        )


def _stated(place: Place) -> bool:
    """A file of models.d says where it lies: what a person wrote there is always to be seen."""
    return place.table is not None and bool(place.table.path)


def _without(overlay: Overlay, failure: Exception) -> LoadFailedError:
    """The error for a variant whose adapter is gone or is not what it was."""
    sentence = f"'{overlay.name.short}' cannot be used with its adapter: {failure}"
    return LoadFailedError(sentence, hint="put the adapter back, or create the model again")


def _applied(overlay: Overlay, base: Model) -> Model:
    """The base under the variant's name, with what the variant adds."""
    return replace(
        base,
        name=overlay.name,
        modified_at=overlay.modified_at,
        parent=overlay.parent,
        system=overlay.system or base.system,
        template=overlay.template or base.template,
        messages=overlay.messages or base.messages,
        parameters={**base.parameters, **overlay.parameters},
        license="\n".join(text for text in (base.license, *overlay.license) if text),
    )
