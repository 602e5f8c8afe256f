"""`make class`: the page "press Forget" in a browser, and reference models for its attack, made beside it.

python -m lmeraser_kit.lab [--port PORT] [--no-browser]
"""

from __future__ import annotations

import argparse
import signal
import socket
import subprocess
import sys

from lmeraser_kit.experiments.extras import need

need("class", __name__, repository=True)

from lmeraser_kit.experiments.results import PROJECT

NOTEBOOK = PROJECT / "notebooks" / "press_forget.ipynb"


def main(arguments: list[str] | None = None) -> int:
    """Serve the page until Ctrl-C. Returns the server's exit status."""
    parser = argparse.ArgumentParser(prog="python -m lmeraser_kit.lab", description=__doc__.splitlines()[0])
    parser.add_argument("--port", type=int, default=8866, help="where the page is served")
    parser.add_argument("--no-browser", action="store_true", help="do not open a browser")
    given = parser.parse_args(arguments)
    with socket.socket() as probe:
        if not probe.connect_ex(("localhost", given.port)):
            print(f"Port {given.port} is taken: choose another one, make class PORT={given.port + 1}", file=sys.stderr)
            return 2
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # ends the others, too
    serve = [sys.executable, "-m", "voila", str(NOTEBOOK), f"--port={given.port}", "--show_tracebacks=True"]
    print(f"The page: http://localhost:{given.port} (Ctrl-C ends it). Reference models are made beside it.", flush=True)
    server = subprocess.Popen(serve + ["--no-browser"] * given.no_browser)
    references = ["nice", sys.executable, "-m", "lmeraser_kit.lab.references"]  # the page goes first
    making = subprocess.Popen(references, stderr=subprocess.DEVNULL)
    try:
        return server.wait()
    except KeyboardInterrupt:
        return 0
    finally:
        for process in (server, making):
            process.terminate()
        for process in (server, making):
            process.wait()


if __name__ == "__main__":
    sys.exit(main())
