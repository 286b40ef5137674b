"""A guard process, which runs a server, and ends it and all its child processes as soon as the guard's parent dies.

    python -m alue_bench.cli.server_guard COMMAND ARGUMENT ...

The parent starts the guard as the leader of a session, with a pipe as standard input. When the parent dies, even by
SIGKILL, the system closes the pipe, and the guard ends its process group. The guard imports no large package, because
it stays in memory as long as the server runs.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from contextlib import suppress

GRACE_S = 5.0
"""The time in seconds that the server gets to close its connections before it is killed."""


def main() -> int:
    """Run the command, and return its exit code if it ends before the parent dies."""
    # SIGTERM must not end the guard before the server. A handler, unlike SIG_IGN, is not inherited by the server.
    signal.signal(signal.SIGTERM, lambda signum, frame: None)
    server = subprocess.Popen(sys.argv[1:], stdin=subprocess.DEVNULL)
    threading.Thread(target=_end_with_parent, args=(server,), name="parent watch", daemon=True).start()
    return server.wait()


def _end_with_parent(server: subprocess.Popen[bytes]) -> None:
    while os.read(0, 1):  # blocks until the parent's end of the pipe is closed; nothing is ever written
        pass
    os.killpg(0, signal.SIGTERM)
    with suppress(subprocess.TimeoutExpired):
        server.wait(GRACE_S)
    os.killpg(0, signal.SIGKILL)  # remaining child processes of the server, and this process


if __name__ == "__main__":
    sys.exit(main())
