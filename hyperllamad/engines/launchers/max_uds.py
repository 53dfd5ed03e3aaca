"""Runs `max` with its API on a Unix socket: `python max_uds.py SOCKET serve --model ...`.

MAX has no option for it, so two names inside its server are replaced before the command line starts.  Executed by
file path with the python of an engine home: only the standard library and MAX may be imported here.
"""

import importlib
import sys
from collections.abc import Callable
from typing import Any

SERVER, COMMAND = "max._entrypoints.cli.serve.serve_api_and_model_worker", "max._entrypoints.pipelines"


def main() -> None:
    socket = sys.argv.pop(1)
    try:
        server: Any = importlib.import_module(SERVER)
        command = importlib.import_module(COMMAND).main
        configure = server.fastapi_config
        server.validate_port_is_free  # noqa: B018  # asked for its AttributeError
    except (ImportError, AttributeError) as failure:
        sys.exit(f"hyperllama launcher: this version of MAX cannot be put on a Unix socket: {failure}")
    server.fastapi_config = _on(socket, configure)
    server.validate_port_is_free = lambda port: port  # no port is opened, so none can be taken
    command()


def _on(socket: str, configure: Callable[..., Any]) -> Callable[..., Any]:
    def configured(*args: Any, **kwargs: Any) -> Any:
        config = configure(*args, **kwargs)
        config.uds = socket
        return config

    return configured


if __name__ == "__main__":
    main()
