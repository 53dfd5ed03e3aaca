"""Changes to what there is under which name: copy, create from a model, delete.

Each is a single change to one file or directory name, or several in an order that leaves every model whole wherever
the power fails; what then remains without a use is found by store/garbage.py.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from hyperllamad.core.errors import BadRequestError, InUseError, InvalidNameError, ModelNotFoundError, UnsupportedError
from hyperllamad.core.models import Message, Model
from hyperllamad.core.names import ModelName
from hyperllamad.store import adapters, blobs, disk, layout
from hyperllamad.store.catalog import Catalog
from hyperllamad.store.fetch_wire import ORIGIN
from hyperllamad.store.overlays import Overlay
from hyperllamad.store.steps import SUCCESS, WRITING, OnStep, Step, ignore
from hyperllamad.store.survey import Place


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What a client wants made: POST /api/create, or a Modelfile.  Empty = as the base has it."""

    name: str
    base: str = ""  # `from`: the name of a model or of a variant
    path: str = ""  # in its place: a GGUF file or a Hugging Face directory on this machine
    files: Mapping[str, str] = field(default_factory=dict)  # relative path -> digest of a blob
    adapters: Mapping[str, str] = field(default_factory=dict)  # file name -> digest of a blob
    adapter_paths: Sequence[str] = ()  # adapters on this machine, absolute
    quantize: str = ""
    system: str = ""
    template: str = ""
    license: Sequence[str] = ()
    parameters: Mapping[str, Any] = field(default_factory=dict)  # any names; lists for several values of one
    messages: Sequence[Message] = ()

    @property
    def adds(self) -> bool:
        """Whether anything is to be said besides what the files say."""
        return any((self.system, self.template, self.license, self.parameters, self.messages, self.adapts))

    @property
    def adapts(self) -> bool:
        """Whether adapters are to be laid over the weights."""
        return bool(self.adapters or self.adapter_paths)


def check(wanted: Wanted) -> ModelName:
    """The name to be made; raises InvalidNameError, BadRequestError and UnsupportedError for what cannot be done."""
    name = ModelName.parse(wanted.name)
    if not wanted.base and not wanted.files and not wanted.path:
        raise BadRequestError("neither 'from' or 'files' was specified")
    if wanted.base and wanted.files:
        raise BadRequestError("both 'from' and 'files' were specified", hint="give one of them")
    if wanted.quantize:
        hint = "leave `quantize` out, and choose a model that is quantised already, such as hf.co/org/repo:Q4_K_M"
        raise UnsupportedError("quantising is not supported: weights are used as they are", hint=hint)
    return name


class Variants:
    """Copies, creates and deletes.  Plain calls that write small files; delete may take a second for a large model."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self._overlays = catalog.overlays
        self._blobs = blobs.Blobs(catalog.store)
        self._adapters = catalog.adapters

    def copy(self, source: str, destination: str) -> None:
        """Give a model a second name, in place of what may have it.  No weights are copied.

        Raises BadRequestError (Ollama's words for bad names), ModelNotFoundError, LoadFailedError, StoreError.
        """
        source_name, name = _name(source, "source"), _name(destination, "destination")
        model = self._catalog.resolve(source)
        if source_name.key == name.key:
            return
        overlay = self._overlay(model.name)
        self._put(replace(overlay, name=name) if overlay else Overlay(name=name, base=self._base(model.name)))

    def create(self, wanted: Wanted, *, on_step: OnStep = ignore) -> None:
        """Make a variant of an existing model; parameters, messages and the rest are inherited unless given.

        Raises InvalidNameError, BadRequestError, ModelNotFoundError (of the base), LoadFailedError, UnsupportedError,
        StoreError.  Models from `files` are made by store/uploaded.py.
        """
        name = check(wanted)
        model = self._catalog.resolve(wanted.base)
        self.check_adapters(wanted, model)
        under = self._overlay(model.name) or Overlay(name=name, base=self._base(model.name))
        on_step(Step(f"using existing layer sha256:{model.digest}"))
        self.add(
            wanted, replace(under, name=name, parent="" if model.name.key == name.key else model.name.short), on_step
        )

    def check_adapters(self, wanted: Wanted, base: Model) -> None:
        """Raises BadRequestError, UnsupportedError for adapters that cannot be laid over `base`."""
        adapters.check(self._adapters.sources(wanted.adapters, wanted.adapter_paths), base)

    def add(self, wanted: Wanted, under: Overlay, on_step: OnStep) -> None:
        """Write what is wanted over what `under` says, under the name of `under`.  Raises StoreError."""
        layers = (wanted.template, wanted.system, *wanted.license, wanted.parameters, wanted.messages)
        for layer in filter(None, layers):
            digest = hashlib.sha256(str(layer).encode(errors="replace")).hexdigest()
            on_step(Step(f"creating new layer sha256:{digest}"))
        sources = self._adapters.sources(wanted.adapters, wanted.adapter_paths)
        for source in sources:
            on_step(Step(f"using adapter {source.called}"))
        self._adapters.keep(sources)
        on_step(WRITING)
        self._put(
            replace(
                under,
                system=wanted.system or under.system,
                template=wanted.template or under.template,
                license=tuple(dict.fromkeys((*under.license, *filter(None, wanted.license)))),
                adapters=tuple(dict.fromkeys((*under.adapters, *(source.kept for source in sources)))),
                parameters={**under.parameters, **wanted.parameters},
                messages=tuple(wanted.messages) or under.messages,
            )
        )
        on_step(SUCCESS)

    def delete(self, text: str) -> None:
        """Remove a variant, or a model from the store: its files too when no variant uses them.

        Raises InvalidNameError, ModelNotFoundError, StoreError, and InUseError for what is not the store's to remove:
        models named in models.d or lying in other directories.
        """
        name = ModelName.parse(text)
        overlay, place = self._overlays.get(name), self._catalog.place(name)
        variant = overlay is not None and not (isinstance(overlay, Overlay) and overlay.hidden)
        if not variant and (place is None or overlay is not None):
            raise ModelNotFoundError(text)
        if place is not None and (not variant or self._refusal(place) is None):
            if refusal := self._refusal(place):
                raise refusal
            # One step takes the name away; what follows may be cut off anywhere.
            self._overlays.put(Overlay(name=name, base=name, hidden=True))
        else:
            self._overlays.drop(name)
        if isinstance(overlay, Overlay):
            self.remove_unused(overlay.base)
        self.remove_unused(name)
        self._remove_adapters()

    def target(self, name: ModelName) -> Path:
        """The directory a new model of that name is built for; an older one of the name may be there.

        Raises InUseError when models.d leads the name elsewhere: what is built would never be seen.
        """
        place = self._catalog.place(name)
        if place is None or place.path is None:
            return layout.directory_of(self._catalog.store, name)
        if refusal := self._refusal(place):
            if place.table is not None and place.table.path:
                raise refusal
            return layout.directory_of(self._catalog.store, name)
        return place.path if place.path.is_dir() else layout.directory_of(self._catalog.store, name)

    def pull_target(self, name: ModelName) -> Path:
        """The directory that a pull of that name fills.  Raises InUseError when the model there came from elsewhere."""
        target, place = self.target(name), self._catalog.place(name)
        if place is None or place.path is None or self._refusal(place) or (place.path / ORIGIN).exists():
            return target
        hint = "delete it first, or copy it to another name"
        raise InUseError(f"'{name.short}' is here already and did not come from a hub", hint=hint)

    def placed(self, name: ModelName, target: Path) -> None:
        """A new model is at `target`: what else has its name, a variant or a bare file, goes.  Raises StoreError."""
        place = self._catalog.place(name)
        if place is not None and place.path not in {None, target} and self._refusal(place) is None:
            self._remove_files(place)
        overlay = self._overlays.get(name)
        self._overlays.drop(name)
        if isinstance(overlay, Overlay) and overlay.base.key != name.key:
            self.remove_unused(overlay.base)

    def remove_unused(self, name: ModelName) -> None:
        """Remove the files of a hidden model that no variant uses any more.  Raises StoreError."""
        overlay = self._overlays.get(name)
        if not isinstance(overlay, Overlay) or not overlay.hidden or self.used(name):
            return
        place = self._catalog.place(name)
        if place is None or self._refusal(place):
            self._overlays.drop(name)
        else:
            self.remove(place)

    def unused(self) -> tuple[Place, ...]:
        """Models in the store that no name leads to: a variant has their name, or they are hidden."""
        found = []
        for place in self._catalog.places():
            overlay = self._overlays.get(place.name)
            if isinstance(overlay, Overlay) and self._refusal(place) is None and not self.used(place.name):
                found.append(place)
        return tuple(found)

    def unused_adapters(self) -> tuple[Path, ...]:
        """Kept adapters that no variant names; none while a variant's file cannot be read."""
        overlays = self._overlays.all().values()
        readable = [overlay for overlay in overlays if isinstance(overlay, Overlay)]
        if len(readable) != len(overlays):
            return ()
        return self._adapters.unused(kept for overlay in readable for kept in overlay.adapters)

    def _remove_adapters(self) -> None:
        for path in self.unused_adapters():
            self._adapters.remove(path)

    def remove(self, place: Place) -> None:
        """Remove one of unused().  Raises StoreError."""
        self._remove_files(place)
        overlay = self._overlays.get(place.name)
        if isinstance(overlay, Overlay) and overlay.hidden:
            self._overlays.drop(place.name)

    def used(self, name: ModelName) -> bool:
        """Whether a variant or another name of models.d needs the files of `name`.

        While a variant's file cannot be read, nobody knows what it needs: then everything counts as used.
        """
        if self._overlays.users(name) or not all(isinstance(it, Overlay) for it in self._overlays.all().values()):
            return True
        place = self._catalog.place(name)
        if place is None or place.path is None:
            return False
        others = [other.path for other in self._catalog.places() if other.name.key != name.key and other.path]
        return any(path == place.path or place.path in path.parents for path in others)

    def _refusal(self, place: Place) -> InUseError | None:
        """Why the files of a place are not ours to remove; None when they are."""
        short = place.name.short
        if place.path is None or (place.table is not None and place.table.path):
            hint = "remove its file there; the weights stay where they are"
            return InUseError(f"'{short}' is named in the configuration (models.d)", hint=hint)
        store = self._catalog.store
        if store not in place.path.parents or not place.path.parent.resolve().is_relative_to(store.resolve()):
            hint = "remove it there yourself if no other program uses it"
            return InUseError(f"'{short}' lies outside the store, at {place.path}: it is not removed", hint=hint)
        return None

    def _remove_files(self, place: Place) -> None:
        path = place.path
        assert path is not None  # noqa: S101  # _refusal has seen it
        with disk.explained(f"the model {place.name.short}"):
            files = _files(path)
            shared = self._blobs.inodes(files)
            for target in (path,) if path.is_dir() else files:
                disk.remove(target)
            self._blobs.release(shared)
            _remove_empty(path.parent, self._catalog.store)

    def _put(self, overlay: Overlay) -> None:
        """Write a variant; what it replaces may have been the last to use some files."""
        before = self._overlay(overlay.name)
        self._overlays.put(overlay)
        if before is not None:
            self.remove_unused(before.base)
        self._remove_adapters()

    def _overlay(self, name: ModelName) -> Overlay | None:
        found = self._overlays.get(name)
        return found if isinstance(found, Overlay) and not found.hidden else None

    def _base(self, name: ModelName) -> ModelName:
        place = self._catalog.place(name)
        return place.name if place else name


def _name(text: str, role: str) -> ModelName:
    try:
        return ModelName.parse(text)
    except InvalidNameError as failure:
        raise BadRequestError(f'{role} "{text}" is invalid') from failure


def _files(path: Path) -> tuple[Path, ...]:
    """The files of a model, a broken one too."""
    if path.is_dir():
        return tuple(entry for entry in path.rglob("*") if entry.is_file() and not entry.is_symlink())
    return layout.parts(path)


def _remove_empty(directory: Path, store: Path) -> None:
    """Remove directories of names that lead nowhere now."""
    while directory != store and store in directory.parents:
        try:
            directory.rmdir()
        except OSError:
            return
        directory = directory.parent
