"""Which model a client means: one rule for every dialect.  Knows names and the catalog, no request."""

from __future__ import annotations

from hyperllamad.core.errors import BadRequestError, HyperLlamaError, ModelNotFoundError
from hyperllamad.core.models import Model
from hyperllamad.front.ports import Catalog

REMOTE_MODEL = "remote model is unavailable"


class CloudDisabledError(HyperLlamaError):
    """The name means a model in Ollama's cloud; this server runs models here only."""

    code = "cloud_disabled"
    status = 403

    def __init__(self, what: str) -> None:
        super().__init__(f"ollama cloud is disabled: {what}")


class NotFoundError(HyperLlamaError):
    """Something is not here, in the words that a route has for it."""

    code = "model_not_found"
    status = 404


def find(catalog: Catalog, text: str, *, remote: str = REMOTE_MODEL) -> Model:
    """The model a client means by `text`; raises InvalidNameError, ModelNotFoundError, CloudDisabledError.

    `m:local` insists on a model of this machine, `m:cloud` and `m:tag-cloud` mean one that is not.
    """
    name, _, tag = text.strip().rpartition(":")
    local, cloud = tag == "local" and name, (tag == "cloud" or tag.endswith("-cloud")) and name
    if (local and name.endswith((":cloud", "-cloud"))) or (cloud and name.endswith(":local")):
        raise BadRequestError(f'use either :local or :cloud, not both: "{text}"')
    if cloud:
        raise CloudDisabledError(remote)
    if not local:
        return catalog.resolve(text)
    try:
        return catalog.resolve(name)
    except ModelNotFoundError:
        raise ModelNotFoundError(text) from None
