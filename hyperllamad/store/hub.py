"""The model hub through huggingface_hub: what a repository holds, and a file of it from where the last attempt ended.

The only file that knows the client, which takes 20 MB of memory: import it in a process of its own (store/fetching.py).
What it raises becomes an error of ours in store/hub_errors.py.

Files are fetched with its http_get into our own partial files, because its higher functions do not go on with a file
that another process has begun (from 1.0 on), and without Xet, which keeps its partial data where we cannot check it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import huggingface_hub
from huggingface_hub import constants
from huggingface_hub.file_download import http_get
from huggingface_hub.utils._headers import build_hf_headers

from hyperllamad.core.errors import HyperLlamaError
from hyperllamad.store import hub_errors
from hyperllamad.store.choosing import RemoteFile

LIBRARY = "hyperllama"  # in the User-Agent
CHUNK = 256 << 10  # bytes that may get lost with a connection; the client's own 10 MB would make resuming pointless
_TEXT = 1 << 20  # bytes; smaller files may be sent compressed, so that half of one is of no use

constants.DOWNLOAD_CHUNK_SIZE = CHUNK


def listing(repository: str, revision: str) -> tuple[str, tuple[RemoteFile, ...]]:
    """The commit that `revision` means, and all files of it.  Raises RepositoryNotFoundError, PullFailedError."""
    with _explained(repository):
        info = huggingface_hub.HfApi(library_name=LIBRARY).model_info(
            repository, revision=revision, files_metadata=True, timeout=constants.HF_HUB_DOWNLOAD_TIMEOUT
        )
    files = [
        RemoteFile(it.rfilename, it.size or 0, it.blob_id or "", it.lfs.sha256 if it.lfs else "")
        for it in info.siblings or ()
        if not Path(it.rfilename).is_absolute() and ".." not in Path(it.rfilename).parts
    ]
    return info.sha or revision, tuple(files)


def fetch(repository: str, commit: str, file: RemoteFile, partial: Path) -> None:
    """Bring `partial` to the file's full size, from where it ends.

    Raises InterruptedFetchError, UnusableFileError, DiskFullError, RepositoryNotFoundError, PullFailedError.
    """
    kept = partial.stat().st_size if partial.exists() else 0
    if kept > file.size or (file.size < _TEXT and not file.sha256):
        partial.unlink(missing_ok=True)
        kept = 0
    url = huggingface_hub.hf_hub_url(repository, file.path, revision=commit)
    with _explained(f"{repository}/{file.path}"):
        partial.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("ab") as sink:
            http_get(
                url,
                sink,
                resume_size=kept,
                headers=build_hf_headers(library_name=LIBRARY),
                expected_size=file.size,
                displayed_filename=file.path,
                _nb_retries=0,  # our caller tries again, and sees whether that is of any use
            )
    if partial.stat().st_size != file.size:
        raise hub_errors.wrong_size(f"{repository}/{file.path}", partial.stat().st_size, file.size)


@contextlib.contextmanager
def _explained(what: str) -> Iterator[None]:
    """Turn what the client raises into errors with a sentence about `what`, which begins with the repository."""
    try:
        yield
    except HyperLlamaError:
        raise
    except Exception as failure:
        raise hub_errors.translated(what, constants.ENDPOINT, failure) from failure
