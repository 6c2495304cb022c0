"""Writes the gRPC messages from wire/inference.proto. `make render` calls it.

The compiler comes in an environment of its own. Its version is old on purpose: code that it writes runs with protobuf 6.31 and later,
and code of a newer compiler would not run with the protobuf that the lock holds.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

COMPILER = "grpcio-tools==1.78.0"
SOURCE = Path(__file__).parent.parent / "images" / "serving" / "src"
PROTO = "perennial_serving/wire/inference.proto"


def render(target: Path = SOURCE) -> None:
    """Compile the messages, and their types for mypy, into `target`.

    Raises:
        CalledProcessError: the file is not valid, or the compiler cannot be had.
    """
    command = ["uv", "run", "-q", "--no-project", "--with", COMPILER, "python", "-m", "grpc_tools.protoc"]
    command += [f"--proto_path={SOURCE}", f"--python_out={target}", f"--pyi_out={target}", PROTO]
    subprocess.run(command, check=True)


if __name__ == "__main__":
    render()
