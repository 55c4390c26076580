"""Where the app can listen."""

from __future__ import annotations

import socket

import pytest

from lab.app.command import check_host
from lab.errors import InputError


def test_one_address_of_a_name_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where IPv6 is switched off, localhost may have an address of it all the same."""
    kind = (socket.AF_INET, socket.SOCK_STREAM, 6, "")
    elsewhere, ours = (*kind, ("192.0.2.1", 0)), (*kind, ("127.0.0.1", 0))
    monkeypatch.setattr(socket, "getaddrinfo", lambda *asked, **more: [elsewhere, ours])
    check_host("localhost")
    monkeypatch.setattr(socket, "getaddrinfo", lambda *asked, **more: [elsewhere])
    with pytest.raises(InputError, match="cannot be listened at"):
        check_host("localhost")
