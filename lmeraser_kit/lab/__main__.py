"""`make class`: the page "press Forget" in a browser, and reference models for its attack, made beside it.

python -m lmeraser_kit.lab [--port PORT] [--no-browser]
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

from lmeraser_kit import checks
from lmeraser_kit.experiments.extras import need

need("class", __name__, repository=True)

from lmeraser_kit.experiments.results import PROJECT

NOTEBOOK = PROJECT / "notebooks" / "press_forget.ipynb"
WITHOUT_WINDOW = 600  # seconds: nobody is connected while a new window's notebook runs, which may train the backbone
BEFORE_REFERENCES = 30  # seconds in which the first page opens, undisturbed
# No message counts as use of a kernel: the page says every other second that it is there, to whomever.
UNTRACKED = (
    *("comm_msg", "comm_open", "comm_close", "comm_info_request", "comm_info_reply", "execute_request"),
    *("execute_input", "execute_result", "stream", "display_data", "update_display_data", "clear_output", "error"),
    *("status", "kernel_info_request", "kernel_info_reply", "shutdown_request", "shutdown_reply"),
)


def voila(notebook: Path, port: int, without_window: int = WITHOUT_WINDOW) -> list[str]:
    """The command that serves a notebook.

    Args:
        notebook: The notebook.
        port: Where it is served.
        without_window: Seconds after its start from which a kernel to which no window is connected is ended. Voila
            itself ends the kernel of a window that is closed, but not of one whose browser or tablet has died.
    """
    culling = {"cull_idle_timeout": without_window, "cull_interval": max(without_window // 10, 1)}
    options = [f"--MappingKernelManager.{name}={value}" for name, value in culling.items()]
    options += [f"--MappingKernelManager.untracked_message_types={kind}" for kind in UNTRACKED]
    return [sys.executable, "-m", "voila", str(notebook), f"--port={port}", "--show_tracebacks=True", *options]


def references(after: int) -> list[str]:
    """The command that makes reference models, some seconds later: the page goes first."""
    return ["sh", "-c", f'sleep {after}; exec nice "$0" -m lmeraser_kit.lab.references', sys.executable]


def a_port(text: str) -> int:
    """A port, for argparse."""
    try:
        return checks.whole("the port", int(text) if text.isdecimal() else text, 1, 65_535)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def end_group(leader: subprocess.Popen) -> None:
    """End a process that leads a session, and what it has started, such as joblib's workers."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(leader.pid, signal.SIGTERM)
    with contextlib.suppress(subprocess.TimeoutExpired):
        leader.wait(5)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(leader.pid, signal.SIGKILL)
    leader.wait()


def main(arguments: list[str] | None = None) -> int:
    """Serve the page until Ctrl-C. Returns the server's exit status."""
    parser = argparse.ArgumentParser(prog="python -m lmeraser_kit.lab", description=__doc__.splitlines()[0])
    parser.add_argument("--port", type=a_port, default=8866, help="where the page is served")
    parser.add_argument("--no-browser", action="store_true", help="do not open a browser")
    given = parser.parse_args(arguments)
    with socket.socket() as probe:
        if not probe.connect_ex(("localhost", given.port)):
            print(f"Port {given.port} is taken: choose another one, make class PORT={given.port + 1}", file=sys.stderr)
            return 2
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # ends the others, too
    print(f"The page: http://localhost:{given.port} (Ctrl-C ends it). Reference models are made beside it.", flush=True)
    server = subprocess.Popen(voila(NOTEBOOK, given.port) + ["--no-browser"] * given.no_browser)
    making = subprocess.Popen(references(BEFORE_REFERENCES), stderr=subprocess.DEVNULL, start_new_session=True)
    try:
        return server.wait()
    except KeyboardInterrupt:
        return 0
    finally:
        server.terminate()
        end_group(making)
        server.wait()


if __name__ == "__main__":
    sys.exit(main())
