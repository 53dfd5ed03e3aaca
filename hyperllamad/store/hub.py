"""The model hub through huggingface_hub: what a repository holds, and a file of it from where the last attempt ended.

The only file that knows the client, which takes 60 MB of memory: import it in a process of its own (store/fetch.py).
Its failures become our errors here, told by their class names: the client's versions differ in what they raise.

Files are fetched with its http_get into our own partial files, because its higher functions do not go on with a file
that another process has begun (from 1.0 on), and without Xet, which keeps its partial data where we cannot check it.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path

import huggingface_hub
from huggingface_hub import constants
from huggingface_hub.file_download import http_get
from huggingface_hub.utils import build_hf_headers

from hyperllamad.core.errors import HyperLlamaError, PullFailedError, RepositoryNotFoundError
from hyperllamad.store import disk
from hyperllamad.store.choosing import RemoteFile

LIBRARY = "hyperllama"  # in the User-Agent
CHUNK = 256 << 10  # bytes that may get lost with a connection; the client's own 10 MB would make resuming pointless
_TEXT = 1 << 20  # bytes; smaller files may be sent compressed, so that half of one is of no use
_SECRET = re.compile(r"hf_\w+|https?://\S+")

constants.DOWNLOAD_CHUNK_SIZE = CHUNK


class InterruptedFetchError(PullFailedError):
    """The connection broke or stalled: trying again may help."""


class UnusableFileError(PullFailedError):
    """What came is not the file: it is thrown away."""


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
            headers = build_hf_headers(library_name=LIBRARY)
            http_get(
                url, sink, resume_size=kept, headers=headers, expected_size=file.size, displayed_filename=file.path
            )
    if partial.stat().st_size != file.size:
        raise _wrong_size(f"{repository}/{file.path}", partial.stat().st_size, file.size)


def _wrong_size(what: str, found: int, expected: int) -> UnusableFileError:
    hint = "pull again; if it stays so, the repository or a mirror in between is damaged"
    return UnusableFileError(f"{what} came with {found} bytes instead of {expected}", hint=hint)


# -- failures --------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _explained(what: str) -> Iterator[None]:
    """Turn what the client raises into errors with a sentence about `what`, which begins with the repository."""
    try:
        yield
    except HyperLlamaError:
        raise
    except Exception as failure:
        raise _translated(what, failure) from failure


def _translated(what: str, failure: Exception) -> HyperLlamaError:
    names = {kind.__name__ for kind in type(failure).__mro__}
    repository = "/".join(what.split("/")[:2])
    if "GatedRepoError" in names:
        return PullFailedError(
            f"{repository} is gated: its publisher wants its terms accepted first",
            hint=f"accept them at {constants.ENDPOINT}/{repository} and set HF_TOKEN to a token of your account",
        )
    if names & {"RevisionNotFoundError", "RemoteEntryNotFoundError", "EntryNotFoundError"}:
        return RepositoryNotFoundError(f"{what} does not exist on the hub", hint="check the spelling")
    if "RepositoryNotFoundError" in names or "HFValidationError" in names:
        hint = "check the spelling; for a private repository set HF_TOKEN to a token that may read it"
        return RepositoryNotFoundError(f"the hub has no repository {repository}", hint=hint)
    status = getattr(getattr(failure, "response", None), "status_code", None)
    if status is not None:
        return _of_status(what, int(status))
    return _of_connection(what, failure, names)


def _of_status(what: str, status: int) -> HyperLlamaError:
    hub = constants.ENDPOINT
    if status == 404:
        return RepositoryNotFoundError(f"{what} does not exist on the hub", hint="check the spelling")
    if status == 416:
        return UnusableFileError(f"{what}: the hub has less of it than it says", hint="pull again")
    if status == 401:
        return PullFailedError(f"{hub} does not accept the token (401)", hint="check HF_TOKEN, or unset it")
    if status == 403:
        hint = "set HF_TOKEN to a token that may read it, and accept the terms on its page"
        return PullFailedError(f"{hub} refuses access to {what} (403)", hint=hint)
    if status == 407:
        return PullFailedError("the proxy wants a name and a password (407)", hint="put them into HTTPS_PROXY")
    if status == 429:
        hint = "wait some minutes; with HF_TOKEN set the limit is higher"
        return PullFailedError(f"{hub} says that there were too many requests (429)", hint=hint)
    if status >= 500:
        return InterruptedFetchError(f"{hub} has a fault of its own ({status})", hint="try again later")
    return PullFailedError(f"{hub} answered {status} for {what}", hint="check HF_ENDPOINT")


def _of_connection(what: str, failure: Exception, names: set[str]) -> HyperLlamaError:
    hub = constants.ENDPOINT
    if "OfflineModeIsEnabled" in names:
        return PullFailedError("HF_HUB_OFFLINE is set, so that nothing is fetched", hint="unset it to pull models")
    if isinstance(failure, OSError) and failure.errno in {28, 122}:
        return disk.refusal(what, failure)
    if "ProxyError" in names:
        return PullFailedError("the proxy could not be used", hint="check HTTPS_PROXY and NO_PROXY")
    if "SSLError" in names or "CERTIFICATE" in str(failure):
        return PullFailedError(
            f"the certificate of {hub} could not be verified", hint="check the clock and SSL_CERT_FILE"
        )
    if names & {"ConnectError", "ConnectTimeout", "ConnectionError", "UnsupportedProtocol"}:
        hint = "check the network, HTTPS_PROXY and HF_ENDPOINT"
        return InterruptedFetchError(f"{hub} cannot be reached", hint=hint)
    if names & {"TimeoutException", "Timeout", "ReadTimeout"}:
        return InterruptedFetchError(f"{hub} sent nothing for too long ({what})", hint="pull again to go on")
    if names & {"TransportError", "RequestException", "ProtocolError"}:
        return InterruptedFetchError(f"the connection to {hub} broke ({what})", hint="pull again to go on")
    if "Consistency check failed" in str(failure):
        return UnusableFileError(f"{what} came with another size than the hub says", hint="pull again")
    if isinstance(failure, OSError) and failure.errno:
        return disk.refusal(what, failure)
    said = _SECRET.sub("...", str(failure).split("\n")[0])[:200]
    return PullFailedError(f"{what} could not be fetched: {said}", hint="pull again to go on")
