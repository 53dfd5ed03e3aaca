"""Which web pages may talk to this server: Ollama's rules (spec section 1.3), before any routing.

A request without Origin, or from the server's own pages, passes untouched; an origin that is not allowed gets 403 and
nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from hyperllamad.front.asgi import App, Headers, Message, Receive, Scope, Send, answer_empty, header

_HOSTS = ("localhost", "127.0.0.1", "0.0.0.0")  # noqa: S104  names in a list, nothing is bound
BUILT_IN = (
    *(f"{scheme}://{host}{port}" for host in _HOSTS for scheme in ("http", "https") for port in ("", ":*")),
    "app://*",
    "file://*",
    "tauri://*",
    "vscode-webview://*",
    "vscode-file://*",
)

_ALLOWED_HEADERS = (
    b"Authorization,Content-Type,User-Agent,Accept,X-Requested-With,Openai-Beta,X-Stainless-Arch,X-Stainless-Async,"
    b"X-Stainless-Custom-Poll-Interval,X-Stainless-Helper-Method,X-Stainless-Lang,X-Stainless-Os,"
    b"X-Stainless-Package-Version,X-Stainless-Poll-Helper,X-Stainless-Retry-Count,X-Stainless-Runtime,"
    b"X-Stainless-Runtime-Version,X-Stainless-Timeout"
)
_PREFLIGHT = (
    (b"access-control-allow-methods", b"GET,POST,PUT,PATCH,DELETE,HEAD,OPTIONS"),
    (b"access-control-allow-headers", _ALLOWED_HEADERS),
    (b"access-control-max-age", b"43200"),
)
_PREFLIGHT_VARY = ((b"vary", b"Access-Control-Request-Method"), (b"vary", b"Access-Control-Request-Headers"))


class Origins:
    """The origins that may ask: entries are compared case-sensitively, one `*` in an entry stands for anything."""

    def __init__(self, stated: Sequence[str]) -> None:
        self.all = "*" in stated
        entries = [entry.partition("*") for entry in (*stated, *BUILT_IN)]
        self._exact = frozenset(start for start, star, _ in entries if not star)
        self._around = [(start, end) for start, star, end in entries if star]

    def allow(self, origin: str) -> bool:
        if self.all or origin in self._exact:
            return True
        return any(
            len(origin) >= len(start) + len(end) and origin.startswith(start) and origin.endswith(end)
            for start, end in self._around
        )

    def headers(self, origin: str) -> Headers:
        """What an allowed origin's response carries."""
        if self.all:
            return ((b"access-control-allow-origin", b"*"),)
        return ((b"access-control-allow-origin", origin.encode("latin-1")), (b"vary", b"Origin"))


class Cors:
    """The layer.  `allow_header` gives the Allow header of a path's route, for the answers made here."""

    def __init__(self, inner: App, origins: Origins, allow_header: Callable[[str, str], Headers]) -> None:
        self._inner = inner
        self._origins = origins
        self._allow_header = allow_header

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or (origin := header(scope, b"origin")) is None or not origin:
            return await self._inner(scope, receive, send)
        host = header(scope, b"host") or ""
        if origin in {f"http://{host}", f"https://{host}"}:
            return await self._inner(scope, receive, send)
        allow = self._allow_header(scope["path"], scope["method"])
        if not self._origins.allow(origin):
            return await answer_empty(send, 403, allow)
        extra = list(self._origins.headers(origin))
        if scope["method"] == "OPTIONS":
            vary = () if self._origins.all else _PREFLIGHT_VARY
            return await answer_empty(send, 204, [*allow, *extra, *vary, *_PREFLIGHT])

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *extra]
            await send(message)

        return await self._inner(scope, receive, with_headers)
