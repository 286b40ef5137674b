"""Servers that a stress test can start, stop and restart: `mlflow server` and PostgreSQL."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

STARTS_S = 90.0
"""The seconds to wait for a server to start."""


def free_port() -> int:
    """Return a free TCP port on the local host."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class MlflowServer:
    """An `mlflow server` on a free port, which also receives and stores the artifacts of runs."""

    def __init__(self, folder: Path, backend: str | None = None) -> None:
        """Choose a port, without starting the server; see `start`.

        Args:
            folder: The folder for artifacts, log and database.
            backend: The URI of the database; None takes `mlflow.db` in the folder.
        """
        self.folder, self.port = folder, free_port()
        self.backend = backend or f"sqlite:///{folder / 'mlflow.db'}"
        self.address = f"http://127.0.0.1:{self.port}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the server and return when it answers.

        Raises:
            RuntimeError: The server did not start in time.
        """
        command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(self.port)]
        command += ["--artifacts-destination", str(self.folder / "kept"), "--workers", "1"]
        with (self.folder / "server.log").open("a") as log:
            self._process = subprocess.Popen(
                command,
                cwd=self.folder,
                env=os.environ | {"MLFLOW_BACKEND_STORE_URI": self.backend, "MLFLOW_TRACKING_URI": ""},
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        deadline = time.monotonic() + STARTS_S
        while time.monotonic() < deadline:
            try:
                urllib.request.urlopen(f"{self.address}/health", timeout=1).close()
                return
            except OSError:
                if self._process.poll() is not None:
                    break
                time.sleep(0.1)
        raise RuntimeError(f"mlflow server did not start: {(self.folder / 'server.log').read_text()[-2000:]}")

    def stop(self) -> None:
        """Kill the server, as a crash would."""
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None


class PostgreSQL:
    """A PostgreSQL server with its data in a temporary folder."""

    def __init__(self) -> None:
        """Create the folder and choose a port, without starting the server; see `start`.

        Raises:
            RuntimeError: PostgreSQL is not installed.
        """
        folder = binaries()
        if folder is None:
            raise RuntimeError("initdb and postgres are not installed")
        self._binaries, self.port = folder, free_port()
        self.folder = Path(tempfile.mkdtemp(prefix="alue-bench-postgresql-"))
        # PostgreSQL refuses to run as root.
        self._user = "nobody" if os.geteuid() == 0 else None
        if self._user:
            shutil.chown(self.folder, self._user)
        self.uri = f"postgresql+psycopg2://alue:secret-of-a-test@127.0.0.1:{self.port}/postgres"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the server, creating its database if necessary, and return when it answers.

        Raises:
            RuntimeError: The server did not start in time.
        """
        data = self.folder / "data"
        if not data.exists():
            secret = self.folder / "password"
            secret.write_text("secret-of-a-test\n")
            if self._user:
                shutil.chown(secret, self._user)
            self._run("initdb", "-D", data, "-U", "alue", "-A", "scram-sha-256", f"--pwfile={secret}", "--no-sync")
        options = [
            "-D",
            data,
            "-p",
            self.port,
            "-k",
            self.folder,
            "-c",
            "listen_addresses=127.0.0.1",
            "-c",
            "fsync=off",
        ]
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [str(self._binaries / "postgres"), *map(str, options)],
                cwd=self.folder, user=self._user, stdout=log, stderr=log,
            )  # fmt: skip
        deadline = time.monotonic() + STARTS_S
        while time.monotonic() < deadline and self._process.poll() is None:
            ready = [str(self._binaries / "pg_isready"), "-h", "127.0.0.1", "-p", str(self.port)]
            if subprocess.run(ready, capture_output=True, check=False).returncode == 0:
                return
            time.sleep(0.1)
        raise RuntimeError(f"PostgreSQL did not start: {(self.folder / 'log').read_text()[-2000:]}")

    def stop(self) -> None:
        """Stop the server without waiting for its clients."""
        if self._process is not None:
            self._process.send_signal(signal.SIGINT)  # PostgreSQL's "fast" mode: connections are cut
            self._process.wait()
            self._process = None

    def _run(self, name: str, *arguments: object) -> None:
        command = [str(self._binaries / name), *map(str, arguments)]
        done = subprocess.run(command, cwd=self.folder, user=self._user, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"{name} failed: {done.stderr}")


def binaries() -> Path | None:
    """Return the folder with the programs of the newest installed PostgreSQL, or None if it is not installed."""
    places = [Path(initdb).resolve().parent] if (initdb := shutil.which("initdb")) else []
    places += sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: path.parent.name, reverse=True)
    return next((place for place in places if (place / "initdb").exists() and (place / "postgres").exists()), None)


@contextmanager
def running_mlflow(folder: Path, backend: str | None = None) -> Iterator[MlflowServer]:
    """Run an MLflow server while the context is open; see `MlflowServer` for the arguments."""
    server = MlflowServer(folder, backend)
    try:
        server.start()
        yield server
    finally:
        server.stop()


@contextmanager
def running_postgresql() -> Iterator[PostgreSQL]:
    """Run a PostgreSQL server while the context is open, and remove its data afterwards."""
    server = PostgreSQL()
    try:
        server.start()
        yield server
    finally:
        server.stop()
        shutil.rmtree(server.folder, ignore_errors=True)
