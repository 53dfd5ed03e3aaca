"""Finds and removes what lies in the store and belongs to no name: what was cut off, uploaded in vain, or replaced.

Looks at the store's own directories only, never behind links: caches that other programs share are not touched.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from hyperllamad.core.errors import LoadFailedError
from hyperllamad.store import blobs, disk, staging
from hyperllamad.store.catalog import Catalog
from hyperllamad.store.variants import Variants

OLD_DOWNLOAD = 7 * 86400.0  # seconds without a change after which nobody is expected to go on with a pull


@dataclass(frozen=True, slots=True)
class Garbage:
    """Something that could go."""

    path: Path
    size: int  # bytes that would be free
    reason: str


def collect(catalog: Catalog, *, dry_run: bool = False) -> tuple[Garbage, ...]:
    """Remove what no name refers to; what it was.  With `dry_run` nothing is removed.  Raises StoreError."""
    variants, uploads = Variants(catalog), blobs.Blobs(catalog.store)
    found = []
    for place in variants.unused():
        path = place.path or catalog.store
        found.append(Garbage(path, disk.size(path), f"no name leads to the files of {place.name.short} any more"))
        if not dry_run:
            variants.remove(place)
    for path in variants.unused_adapters():
        found.append(Garbage(path, disk.size(path), "an adapter that no model is made with any more"))
        if not dry_run:
            catalog.adapters.remove(path)
    for path in uploads.unused():
        found.append(Garbage(path, disk.size(path), "an uploaded file that no model was made of"))
        _remove(path, dry_run=dry_run)
    for path, reason in (*_leftovers(catalog.store), *_leftovers(catalog.overlays.directory)):
        found.append(Garbage(path, disk.size(path), reason))
        _remove(path, dry_run=dry_run)
    return tuple(found)


def _remove(path: Path, *, dry_run: bool) -> None:
    if dry_run:
        return
    with disk.explained(str(path)), contextlib.suppress(FileNotFoundError):
        if path.name.endswith(staging.PARTIAL):
            try:
                with staging.locked(path):
                    disk.remove(path)
            except LoadFailedError:  # somebody goes on with it at this very moment
                return
        else:
            disk.remove(path)


def _leftovers(root: Path) -> Iterator[tuple[Path, str]]:
    """What work that was cut off has left behind."""
    now = time.time()
    for directory, names, files in os.walk(root):
        here = Path(directory)
        for name in [name for name in names if name.startswith(".")]:
            names.remove(name)
            if name.endswith(disk.DELETED):
                yield here / name, "the rest of a model that was removed"
            elif name.endswith(staging.PARTIAL) and _newest(here / name) < now - OLD_DOWNLOAD:
                yield here / name, "a download or conversion that nobody went on with for a week"
        for name in files:
            if name.startswith(".") and name.endswith(disk.TEMPORARY) and _newest(here / name) < now - blobs.YOUNG:
                yield here / name, "a file that was not written to its end"


def _newest(path: Path) -> float:
    """When anything in it changed last, Unix time."""
    try:
        times = [path.stat().st_mtime]
        if path.is_dir():
            times += [_newest(entry) for entry in path.iterdir() if not entry.is_symlink()]
    except FileNotFoundError:
        return time.time()
    return max(times)
