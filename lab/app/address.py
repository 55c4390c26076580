"""The app's address: Gradio fails on a ``page`` that it does not know, so it never sees one."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qsl, urlencode


class FirstPage:
    """ASGI middleware: the app's one address opens whatever ``?page=`` says; `lab.app.links` names it."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Pass a request on, without ``page`` where it asks for the app itself."""
        if scope["type"] == "http" and scope["path"] == "/" and b"page" in scope["query_string"]:
            given = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
            kept = urlencode([(name, value) for name, value in given if name != "page"])
            scope = {**scope, "query_string": kept.encode("latin-1")}
        await self.app(scope, receive, send)
