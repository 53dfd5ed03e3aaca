"""`python -m hyperllamad.store.fetching`: fetches one model, as a process of its own.

Its own process, because the hub's client blocks, keeps threads and takes 20 MB of memory; and because then a pull can
be ended at any moment by killing it.  It reads one Request as a line of JSON from standard input and writes Events as
lines to standard output; when its input ends, its parent is gone and so is it.

What it leaves behind at any moment is a directory `.NAME.partial` beside the model's own:
    origin.json      where the files come from and what they should be
    incoming/        files that have not all come or have not been checked
    everything else  files of the model whose content has been checked
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import sys
import threading
import time
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

import msgspec

from hyperllamad.core.errors import HyperLlamaError, LoadFailedError, PullFailedError
from hyperllamad.core.names import ModelName
from hyperllamad.store import choosing, disk, hub_errors, inspect, layout, staging
from hyperllamad.store.choosing import RemoteFile
from hyperllamad.store.fetch_wire import ORIGIN, Event, Failure, Moved, Origin, Part, Placed, Plan, Request, Verifying

AT_ONCE = 4  # files that are fetched side by side
INCOMING = ".incoming"
_REPORT = 0.1  # seconds between two reports of how far it is
_LOCK_PATIENCE = 5.0  # seconds for a predecessor that was killed to be gone
_BLOCK = 1 << 20  # bytes
_REPORT_IT = "the log of hyperllamad has the details; please report it"

Say = Callable[[Event], None]


def main() -> int:
    """Exit status 0, also when the pull failed: then the last event says why; 1 when nobody listens any more."""
    try:
        _main()
    except BrokenPipeError:
        return 1
    return 0


def _main() -> None:
    request = msgspec.json.decode(sys.stdin.buffer.readline(), type=Request)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    writing = threading.Lock()

    def say(event: Event) -> None:
        with writing:
            sys.stdout.buffer.write(msgspec.json.encode(event) + b"\n")
            sys.stdout.buffer.flush()

    try:
        _pull(request, say)
    except HyperLlamaError as failure:
        say(Failure(kind=type(failure).__name__, message=failure.message, hint=failure.hint))
    except Exception as failure:  # noqa: BLE001  # the parent sees this or nothing
        message = f"the download ended with a fault: {type(failure).__name__}"
        # Not with its own words: those of a foreign error may hold an address that lets whoever reads it in.
        trace = "".join(traceback.format_tb(failure.__traceback__))
        say(Failure(kind=PullFailedError.__name__, message=message, hint=_REPORT_IT, trace=trace))


def _end_with_parent() -> None:
    while os.read(sys.stdin.fileno(), _BLOCK):
        pass
    os._exit(1)


def _pull(request: Request, say: Say) -> None:
    from hyperllamad.store import hub  # noqa: PLC0415  # takes 0.3 s and 20 MB: only where it is used

    commit, files = hub.listing(request.repository, request.revision)
    chosen = choosing.choose(request.repository, files, request.variant, request.kind)
    origin = Origin(
        repository=request.repository,
        commit=commit,
        variant=request.variant,
        files=tuple(Part(path=f.local, size=f.size, check=_check_of(f)) for f in chosen),
    )
    target = Path(request.target)
    layers = tuple((_shown(request.repository, f), f.size) for f in chosen)
    if _read_origin(target) == origin and all(_whole(target, part) for part in origin.files):
        say(Plan(layers=layers, names=origin.names, completed=tuple(size for _, size in layers)))
        say(Verifying())
        say(Placed(new=False))
        return
    with _staged(target) as work:
        _Fetch(request, origin, chosen, work, say).run(layers)
    say(Placed(new=True))


def _staged(target: Path) -> contextlib.AbstractContextManager[Path]:
    """The partial directory, entered once a predecessor that is being killed has let go of it."""
    end = time.monotonic() + _LOCK_PATIENCE
    partial = staging.partial(target)
    with disk.explained(f"the model at {target}"):
        partial.mkdir(parents=True, exist_ok=True)
        while time.monotonic() < end:
            try:
                with staging.locked(partial):
                    break
            except LoadFailedError:
                time.sleep(_REPORT)
    return staging.stage(target, keep=True, replace=True)


class _Fetch:
    """One attempt in a partial directory.  `_done` is shared by the threads, each writing its own entry."""

    def __init__(self, request: Request, origin: Origin, files: tuple[RemoteFile, ...], work: Path, say: Say) -> None:
        self._request, self._origin, self._files, self._work, self._say = request, origin, files, work, say
        self._done = [0] * len(files)
        self._stop = threading.Event()

    def run(self, layers: tuple[tuple[str, int], ...]) -> None:
        with disk.explained(f"the model {self._request.name}"):
            self._keep_what_fits()
            self._measure()
            self._say(Plan(layers=layers, names=self._origin.names, completed=tuple(self._done)))
            missing = sum(file.size for file in self._files) - sum(self._done)
            disk.check_room(self._work, missing + self._request.reserve, self._request.name)
            self._fetch_all()
            self._say(Moved(completed=tuple(self._done)))
            self._say(Verifying())
            shutil.rmtree(self._work / INCOMING, ignore_errors=True)
            self._check_that_it_is_a_model()

    def _keep_what_fits(self) -> None:
        """Leave only files that this commit has, and take those that an installed model has already."""
        before = {part.path: part for part in (_read_origin(self._work) or Origin()).files}
        wanted = {part.path: part for part in self._origin.files}
        for path in sorted(self._work.rglob("*")):
            relative = path.relative_to(self._work)
            if relative.parts[0] != INCOMING and path.is_file() and str(relative) != ORIGIN:
                part = wanted.get(str(relative))
                if part is None or before.get(part.path) != part or not _whole(self._work, part):
                    path.unlink()
        disk.write(self._work / ORIGIN, msgspec.json.format(msgspec.json.encode(self._origin)))
        theirs_by_check = installed(Path(self._request.store))
        for part in self._origin.files:
            ours, theirs = self._work / part.path, theirs_by_check.get(part.check)
            if theirs is not None and not ours.exists():
                ours.parent.mkdir(parents=True, exist_ok=True)
                disk.link(theirs, ours)

    def _measure(self) -> None:
        for number, (file, part) in enumerate(zip(self._files, self._origin.files, strict=True)):
            whole = _whole(self._work, part)
            self._done[number] = file.size if whole else min(_size(self._incoming(part)), file.size)

    def _incoming(self, part: Part) -> Path:
        """Where a part comes in; by its checksum, so that another version of it does not go on there."""
        return self._work / INCOMING / hashlib.sha256(f"{part.path} {part.check}".encode()).hexdigest()[:32]

    def _fetch_all(self) -> None:
        reporter = threading.Thread(target=self._report, daemon=True)
        reporter.start()
        try:
            with ThreadPoolExecutor(AT_ONCE) as pool:
                jobs = [pool.submit(self._fetch_one, number) for number in range(len(self._files))]
                for job in as_completed(jobs):
                    try:
                        job.result()
                    except BaseException:
                        self._stop.set()
                        pool.shutdown(wait=False, cancel_futures=True)
                        self._leave(job.exception())
                        raise
        finally:
            self._stop.set()
            reporter.join()

    def _leave(self, failure: BaseException | None) -> None:
        """Say why, and end without waiting for the other files: their bytes are kept as they are."""
        if isinstance(failure, OSError):
            failure = disk.refusal(f"the model {self._request.name}", failure)
        if isinstance(failure, HyperLlamaError):
            self._say(Moved(completed=tuple(self._done)))
            self._say(Failure(kind=type(failure).__name__, message=failure.message, hint=failure.hint))
            os._exit(0)

    def _fetch_one(self, number: int) -> None:
        """Fetch a file as often as it takes, until it is checked and in its place."""
        file, part = self._files[number], self._origin.files[number]
        if _whole(self._work, part):
            return
        partial, attempts = self._incoming(part), 0
        while True:
            before = _size(partial)
            try:
                self._attempt(file, partial)
                break
            except hub_errors.InterruptedFetchError:
                attempts = 0 if _size(partial) > before else attempts + 1
                if attempts >= self._request.attempts:
                    raise
                if self._stop.wait(self._request.pause * 2 ** max(0, attempts - 1)):
                    raise
            except hub_errors.UnusableFileError:
                partial.unlink(missing_ok=True)
                raise
        found = _checksum(partial, part.check)
        if found != part.check:
            partial.unlink()
            raise hub_errors.wrong_content(f"{self._request.repository}/{file.path}", found, part.check)
        place = self._work / part.path
        place.parent.mkdir(parents=True, exist_ok=True)
        disk.sync(partial)
        disk.rename(partial, place)
        self._done[number] = file.size

    def _attempt(self, file: RemoteFile, partial: Path) -> None:
        from hyperllamad.store import hub  # noqa: PLC0415  # loaded by _pull already

        hub.fetch(self._request.repository, self._origin.commit, file, partial)

    def _report(self) -> None:
        said = tuple(self._done)
        while not self._stop.wait(_REPORT):
            self._measure()
            if (now := tuple(self._done)) != said:
                self._say(Moved(completed=now))
                said = now

    def _check_that_it_is_a_model(self) -> None:
        try:
            inspect.inspect(ModelName.parse(self._request.name), layout.locate(self._work))
        except LoadFailedError as failure:
            said = failure.message.replace(f"{self._work}/", "").replace(str(self._work), "it")
            hint = "it came as its publisher has it: look for another repository of the same model"
            raise PullFailedError(f"{self._request.repository} cannot be used: {said}", hint=hint) from failure


# -- files -------------------------------------------------------------------------------------------------------------


def _read_origin(directory: Path) -> Origin | None:
    try:
        return msgspec.json.decode((directory / ORIGIN).read_bytes(), type=Origin)
    except (OSError, msgspec.DecodeError):
        return None


def installed(store: Path) -> dict[str, Path]:
    """The files of all models that were pulled, by checksum: an older version, or the same under another name."""
    found = {}
    for origin in store.rglob(ORIGIN):
        directory = origin.parent
        if not directory.name.endswith((staging.PARTIAL, disk.DELETED)):
            for part in (_read_origin(directory) or Origin()).files:
                if _whole(directory, part):
                    found[part.check] = directory / part.path
    return found


def _whole(directory: Path, part: Part) -> bool:
    """Whether a checked file is there: only those have their own name in such a directory."""
    return _size(directory / part.path) == part.size and (directory / part.path).is_file()


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _check_of(file: RemoteFile) -> str:
    return f"sha256:{file.sha256}" if file.sha256 else f"git:{file.blob}"


def _checksum(path: Path, like: str) -> str:
    """The checksum of the kind that `like` is: of the content, or git's own, which is a sha1 with the size in front."""
    kind = like.partition(":")[0]
    total = hashlib.sha256() if kind == "sha256" else hashlib.sha1(f"blob {_size(path)}\0".encode())  # noqa: S324
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            total.update(block)
    return f"{kind}:{total.hexdigest()}"


def _shown(repository: str, file: RemoteFile) -> str:
    """64 hex digits that stand for the file in progress lines: small files have no sha256 on the hub."""
    return file.sha256 or hashlib.sha256(f"{repository}/{file.path}@{file.blob}".encode()).hexdigest()


if __name__ == "__main__":
    # Not sys.exit: the thread that reads standard input cannot be ended otherwise.
    os._exit(main())
