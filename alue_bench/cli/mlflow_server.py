"""A child process that runs MLflow's server: starting it, waiting for it, and ending it with all its descendants."""

from __future__ import annotations

import errno
import http.client
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from types import TracebackType
from typing import Self

from alue_bench.cli.server_guard import GRACE_S
from alue_bench.contract.errors import UnavailableError, UsageError
from alue_bench.messages.suggestion import command_line

STARTUP_TIMEOUT_S = 180.0
"""The largest number of seconds to wait until the server answers: importing MLflow can take minutes."""
POLL_INTERVAL_S = 0.2
"""The time in seconds between two checks of whether the server answers."""
WILDCARD_HOSTS = {"0.0.0.0": "127.0.0.1", "::": "::1"}
"""Hosts that stand for all addresses of a machine, each with the host that a browser on this machine can open."""


class MlflowServer:
    """A context manager that runs `mlflow server` on an MLflow store.

    MLflow's job runners, which serve language-model evaluation, stay off unless an environment variable enables them.
    """

    def __init__(self, uri: str, host: str, port: int) -> None:
        """Prepare a server for the MLflow store at `uri`; entering the context starts the server."""
        self._uri, self._host, self._port = uri, host, port
        self._guard: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        """The URL of the server for a browser on this machine."""
        host = self._reachable_host
        return f"http://{f'[{host}]' if ':' in host else host}:{self._port}"

    @property
    def _reachable_host(self) -> str:
        return WILDCARD_HOSTS.get(self._host, self._host)

    def __enter__(self) -> Self:
        """Start the server."""
        from alue_bench.tracking.connection import mlflow_uri

        command = [sys.executable, "-m", "alue_bench.cli.server_guard", sys.executable, "-m", "mlflow", "server"]
        command += ["--host", self._host, "--port", str(self._port), "--workers", "1"]
        # The tracking URI is not an argument, because every user of the machine can see the arguments.
        environment = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"} | os.environ
        environment |= {"MLFLOW_BACKEND_STORE_URI": mlflow_uri(self._uri)}
        self._guard = subprocess.Popen(  # messages go to descriptor 2, even if sys.stderr was replaced
            command, stdin=subprocess.PIPE, stdout=2, env=environment, start_new_session=True
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the process group of the server, with all its child processes, and wait until the server has ended."""
        guard = self._started
        assert guard.stdin is not None
        guard.stdin.close()
        with suppress(subprocess.TimeoutExpired):
            guard.wait(2 * GRACE_S)
        with suppress(ProcessLookupError, PermissionError):  # the group has already ended
            os.killpg(guard.pid, signal.SIGKILL)
        guard.wait()

    @property
    def _started(self) -> subprocess.Popen[bytes]:
        if self._guard is None:
            raise RuntimeError("the server is not started yet")
        return self._guard

    def wait_until_ready(self) -> None:
        """Wait until the server answers. Raise UnavailableError if it ends before it answers, or takes too long."""
        deadline = time.monotonic() + STARTUP_TIMEOUT_S
        while time.monotonic() < deadline:
            code = self._started.poll()
            if code is not None:
                raise UnavailableError(
                    f"MLflow's server ended with exit code {code} before it answered; its own messages are above"
                )
            if self._is_answering():
                return
            time.sleep(POLL_INTERVAL_S)
        raise UnavailableError(
            f"MLflow's server has not answered at {self.address} for {STARTUP_TIMEOUT_S:.0f} seconds and was ended; "
            "its own messages are above"
        )

    def _is_answering(self) -> bool:
        connection = http.client.HTTPConnection(self._reachable_host, self._port, timeout=5.0)
        try:
            connection.request("GET", "/health")
            return connection.getresponse().status == http.HTTPStatus.OK
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    def wait(self) -> int:
        """Wait until the server ends by itself, and return its exit code."""
        return self._started.wait()


def check_address(host: str, port: int, options: Mapping[str, object]) -> None:
    """Check that a server can listen on a host and port of this machine.

    Args:
        host: The host name or address.
        port: The port number.
        options: The options that the user gave to `alue-bench ui`, for suggesting the same command with another port.

    Raises:
        UsageError: The host is not an address of this machine, another process uses the port, or the port is reserved
            for the system. If only the port is unusable, the message has a command with a free port.
    """
    problem = _binding_problem(host, port)
    if problem is None:
        return
    reasons = {errno.EADDRINUSE: "is taken by another process", errno.EACCES: "is reserved for system services"}
    if problem.errno in reasons:
        again = command_line("ui", options={**options, "port": _free_port(host)})
        raise UsageError(f"port {port} of {host} {reasons[problem.errno]}; use a free one: {again}")
    raise UsageError(
        f"--host {host} is not an address of this machine ({problem.strerror}); leave it out to use 127.0.0.1"
    )


def _binding_problem(host: str, port: int) -> OSError | None:
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind) as probe:
            if os.name == "posix":  # like the server: a port in state TIME_WAIT can be used
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        return error
    return None


def _free_port(host: str) -> int:
    """Return the number of a free port, chosen by the operating system."""
    family, kind, _, _, address = socket.getaddrinfo(host, 0, type=socket.SOCK_STREAM)[0]
    with socket.socket(family, kind) as probe:
        probe.bind(address)
        return int(probe.getsockname()[1])
