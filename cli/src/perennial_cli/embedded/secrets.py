"""Passwords and tokens of the embedded platform: generated once, files of mode 0600, never on a command line."""

from __future__ import annotations

import base64
import json
import secrets
from dataclasses import dataclass
from pathlib import Path

from perennial_cli.embedded.home import Home, write_private

AIRFLOW_USER = "admin"


@dataclass(frozen=True)
class Secrets:
    """Values where an environment variable carries them, files where the reader takes a file."""

    postgres_password: str
    postgres_password_file: Path
    postgres_passfile: Path
    """The password as PostgreSQL's own clients read it."""
    airflow_jwt: str
    airflow_fernet: str
    airflow_session: str
    airflow_passwords_file: Path
    """As Airflow's simple auth manager reads it: user to password."""
    airflow_credentials_file: Path
    """As clients read it: JSON with username and password."""
    token_file: Path
    """The bearer token of the controller."""

    def __repr__(self) -> str:
        return "Secrets(...)"


def ensure_secrets(home: Home) -> Secrets:
    """Read the secrets of a state folder; make those that are missing."""
    folder = home.secrets
    password = _once(folder / "airflow-password", secrets.token_urlsafe(18))
    passwords_file = folder / "airflow-passwords.json"
    credentials_file = folder / "airflow-credentials.json"
    write_private(passwords_file, json.dumps({AIRFLOW_USER: password}) + "\n")
    write_private(credentials_file, json.dumps({"username": AIRFLOW_USER, "password": password}) + "\n")
    _once(folder / "controller-token", secrets.token_urlsafe(32))
    postgres_password = _once(folder / "postgres-password", secrets.token_urlsafe(24))
    write_private(folder / "postgres-passfile", f"*:*:*:*:{postgres_password}\n")
    return Secrets(
        postgres_password=postgres_password,
        postgres_password_file=folder / "postgres-password",
        postgres_passfile=folder / "postgres-passfile",
        airflow_jwt=_once(folder / "airflow-jwt", secrets.token_urlsafe(48)),
        airflow_fernet=_once(folder / "airflow-fernet", base64.urlsafe_b64encode(secrets.token_bytes(32)).decode()),
        airflow_session=_once(folder / "airflow-session", secrets.token_urlsafe(32)),
        airflow_passwords_file=passwords_file,
        airflow_credentials_file=credentials_file,
        token_file=folder / "controller-token",
    )


def _once(file: Path, fresh: str) -> str:
    if not file.exists():
        write_private(file, fresh)
    return file.read_text().strip()
