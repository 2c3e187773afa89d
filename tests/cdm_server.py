"""Runs a real `cdm-server` for the other test scripts: in a temporary directory, on free ports, ended by its process id."""

import json
import os
import subprocess
import sys
import tempfile
import threading
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TOKEN = "an-administrator-of-the-scripts-0123456789"
# The default configuration.
AS_USUAL = ""
# Fast pods and jobs, and limits that one fast client does not reach.
EAGER = """
[local]
pod_start_ms = 20
progress_deadline_ms = 1500
job_ms = 5

[limits]
rate = 100000
burst = 100000
failures = 100000
"""


def target() -> Path:
    """Returns the target directory of cargo."""
    asked = ["cargo", "metadata", "--format-version", "1", "--no-deps"]
    answer = subprocess.run(asked, cwd=ROOT, check=True, capture_output=True, text=True)
    return Path(json.loads(answer.stdout)["target_directory"])


def build() -> Path:
    """Returns the path of the server, with `cdm` next to it: from CDM_TEST_BINARIES if set, otherwise built now."""
    if built := os.environ.get("CDM_TEST_BINARIES"):
        return Path(built) / "cdm-server"
    packages = ["-p", "cdm-http", "-p", "cdm-cli", "--bin", "cdm-server", "--bin", "cdm"]
    subprocess.run(["cargo", "build", "--quiet", *packages], cwd=ROOT, check=True)
    return target() / "debug" / "cdm-server"


class Server:
    """A running server with its addresses and its log."""

    def __init__(self, process: subprocess.Popen, log: Path):
        self.log = log
        self.url = self.router = ""
        seen = []
        while not (self.url and self.router):
            line = process.stderr.readline()
            if not line:
                sys.exit("the server ended before it listened:\n" + "".join(seen))
            seen.append(line)
            fields = json.loads(line).get("fields", {}) if line.startswith("{") else {}
            if "address" in fields:
                self.url = "http://" + fields["address"]
            if "router" in fields:
                self.router = "http://" + fields["router"]
        self.drain = threading.Thread(target=self._keep, args=(process, seen), daemon=True)
        self.drain.start()

    def _keep(self, process, seen):
        with self.log.open("w") as log:
            log.writelines(seen)
            log.writelines(process.stderr)


@contextmanager
def running(configuration: str):
    """Runs a server until the end of the block. It must exit with 0 on SIGTERM."""
    binary = build()
    with tempfile.TemporaryDirectory(prefix="cdm-") as directory:
        config = Path(directory) / "cdm.toml"
        config.write_text(configuration)
        environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("CDM_")},
            "CDM_LISTEN": "127.0.0.1:0",
            "CDM_ROUTER_LISTEN": "127.0.0.1:0",
            "CDM_DATA_DIR": str(Path(directory) / "data"),
            "CDM_ADMIN_TOKEN": TOKEN,
            "CDM_LOG_FORMAT": "json",
        }
        process = subprocess.Popen(
            [binary, "--config", config], env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )
        try:
            server = Server(process, target() / "cdm-server.log")
            yield server
            process.terminate()
            if process.wait(timeout=60) != 0:
                sys.exit(f"the server ended with {process.returncode}; its log is {server.log}")
            server.drain.join(timeout=60)
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
