"""What the hub's client raises, as errors of ours with a sentence and advice.  Knows the client by names only.

By names, because its versions raise classes of different HTTP libraries (requests before 1.0, httpx since).
"""

from __future__ import annotations

import os
import re

from hyperllamad.core.errors import HyperLlamaError, PullFailedError, RepositoryNotFoundError
from hyperllamad.store import disk

_SECRET = re.compile(r"hf_\w+|https?://\S+")  # tokens, and addresses that may be signed
_AGAIN = "pull again to go on"


class InterruptedFetchError(PullFailedError):
    """The connection broke or stalled: trying again may help."""


class UnusableFileError(PullFailedError):
    """What came is not the file: it is thrown away."""


_Said = tuple[type[HyperLlamaError], str, str]  # the class, the sentence, the hint

# In the order in which they are looked for: the first class that the failure is, counts.
_BY_CLASS: tuple[tuple[set[str], _Said], ...] = (
    (
        {"GatedRepoError"},
        (
            PullFailedError,
            "{repository} is gated: its publisher wants its terms accepted first",
            "accept them at {hub}/{repository} and set HF_TOKEN to a token of your account",
        ),
    ),
    (
        {"RevisionNotFoundError", "EntryNotFoundError"},
        (RepositoryNotFoundError, "{what} does not exist on the hub", "check the spelling"),
    ),
    (
        {"RepositoryNotFoundError", "HFValidationError"},
        (
            RepositoryNotFoundError,
            "the hub has no repository {repository}",
            "check the spelling; for a private repository set HF_TOKEN to a token that may read it",
        ),
    ),
    (
        {"OfflineModeIsEnabled"},
        (PullFailedError, "HF_HUB_OFFLINE is set, so that nothing is fetched", "unset it to pull models"),
    ),
    (
        {"ProxyError"},
        (InterruptedFetchError, "the proxy could not be used", "check HTTPS_PROXY and NO_PROXY"),
    ),
    (
        {"SSLError"},
        (PullFailedError, "the certificate of {hub} could not be verified", "check the clock and SSL_CERT_FILE"),
    ),
    (
        {"ConnectError", "ConnectTimeout", "ConnectionError"},
        (InterruptedFetchError, "{hub} cannot be reached", "check the network, HTTPS_PROXY and HF_ENDPOINT"),
    ),
    (
        {"TimeoutException", "Timeout"},
        (InterruptedFetchError, "{hub} sent nothing for too long ({what})", _AGAIN),
    ),
    (
        {"TransportError", "ChunkedEncodingError", "ProtocolError"},
        (InterruptedFetchError, "the connection to {hub} broke ({what})", _AGAIN),
    ),
)

_BY_STATUS: dict[int, _Said] = {
    401: (PullFailedError, "{hub} does not accept the token (401)", "check HF_TOKEN, or unset it"),
    403: (
        PullFailedError,
        "{hub} refuses access to {what} (403)",
        "set HF_TOKEN to a token that may read it, and accept the terms on its page",
    ),
    404: (RepositoryNotFoundError, "{what} does not exist on the hub", "check the spelling"),
    407: (PullFailedError, "the proxy wants a name and a password (407)", "put them into HTTPS_PROXY"),
    416: (UnusableFileError, "the hub has less of {what} than it says", "pull again"),
    429: (
        PullFailedError,
        "{hub} says that there were too many requests (429)",
        "wait some minutes; with HF_TOKEN set the limit is higher",
    ),
}
_FAULT: _Said = (InterruptedFetchError, "{hub} has a fault of its own ({status})", "try again later")
_OTHER: _Said = (PullFailedError, "{hub} answered {status} for {what}", "check HF_ENDPOINT")


def translated(what: str, hub: str, failure: Exception) -> HyperLlamaError:
    """The error for what the client raised about `what`, "org/repo" or "org/repo/file"; `hub` is its address."""
    names = {kind.__name__ for kind in type(failure).__mro__}
    status = getattr(getattr(failure, "response", None), "status_code", None)
    number = failure.errno if isinstance(failure, OSError) else None
    said = next((said for classes, said in _BY_CLASS if classes & names), None)
    if said is None and status is not None:
        said = _BY_STATUS.get(int(status), _FAULT if int(status) >= 500 else _OTHER)
    if said is None and number is not None:
        return disk.refusal(what, OSError(number, os.strerror(number)))
    if said is None:
        return _unknown(what, failure)
    kind, sentence, hint = said
    if "CERTIFICATE_VERIFY_FAILED" in str(failure):
        kind, sentence, hint = next(said for classes, said in _BY_CLASS if "SSLError" in classes)
    filled = {"what": what, "repository": "/".join(what.split("/")[:2]), "hub": hub, "status": status}
    return kind(sentence.format(**filled), hint=hint.format(**filled))


def _unknown(what: str, failure: Exception) -> HyperLlamaError:
    if "Consistency check failed" in str(failure):
        return UnusableFileError(f"{what} came with another size than the hub says", hint="pull again")
    said = _SECRET.sub("...", str(failure).split("\n", maxsplit=1)[0])[:200]
    return PullFailedError(f"{what} could not be fetched: {said or type(failure).__name__}", hint=_AGAIN)


def wrong_size(what: str, found: int, expected: int) -> UnusableFileError:
    """The error for a file that ended early, or did not end where it should."""
    hint = "pull again; if it stays so, the repository or a mirror in between is damaged"
    return UnusableFileError(f"{what} came with {found} bytes instead of {expected}", hint=hint)


def wrong_content(what: str, found: str, expected: str) -> UnusableFileError:
    """The error for a file of the right size with other bytes, in the beginning of Ollama's words."""
    sentence = f"digest mismatch, file must be downloaded again: want {expected}, got {found} ({what})"
    return UnusableFileError(sentence, hint="pull again; what came was thrown away")
