"""Moving the traffic by hand does not wait for a ledger that does not answer."""

from __future__ import annotations

import socket
import time
from pathlib import Path

import pytest

from perennial_cli import moving
from perennial_spec.platform import Platform


def test_a_controller_that_is_silent_holds_up_nothing_and_is_told_of(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    token = tmp_path / "token"
    token.write_text("secret")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        platform = Platform(controller_url=url, token_file=str(token))
        began = time.monotonic()
        moving.note(platform, lambda ledger: ledger.note_promotion("flights", "seen enough", "ann", "2", "1"))
        took = time.monotonic() - began
    assert moving.NOTE_SECONDS <= took < moving.NOTE_SECONDS + 2
    assert "the ledger does not know of this" in capsys.readouterr().err
