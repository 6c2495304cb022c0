"""What a server does not import, and what feature code may import all the same."""

from __future__ import annotations

import subprocess
import sys

_CODE = """
import sys
from perennial_serving.lean import import_libraries
import_libraries()
import perennial_serving.http_server, perennial_serving.server
print(sorted({"rich", "pygments", "a2wsgi", "watchfiles"} & set(sys.modules)))
import rich.console
print(rich.console.__name__)
"""


def test_command_lines_of_libraries_are_not_imported_and_stay_importable() -> None:
    done = subprocess.run([sys.executable, "-c", _CODE], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["[]", "rich.console"]
