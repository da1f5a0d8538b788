"""Start Snakemake in forks of a process that has done its imports, which are half of a dry run.

Run as a script, this file is that process: it reads one call per line and prints its exit status.
It imports nothing of this project, whose copies the tests give to Snakemake.
"""

from __future__ import annotations

import atexit
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

# What a dry run of the rules imports, too
IMPORTED = (
    "snakemake.report.html_reporter",
    "docutils.core",
    "pydantic",
    "requests",
    "tqdm",
    "yte",
)
# Decided when Python or its libraries start
INTERPRETER = ("PYTHON", "LC_", "LANG", "LD_", "OMP_", "OPENBLAS_", "MKL_")


def fork(
    words: Sequence[str], cwd: Path, environment: Mapping[str, str]
) -> subprocess.CompletedProcess[str] | None:
    """Run ``snakemake`` in a fork; None where ``environment`` needs a Python of its own."""
    server, started_with = _server(environment)
    if _of_interpreter(environment) != started_with:
        return None
    assert server.stdin is not None and server.stdout is not None
    with tempfile.TemporaryDirectory() as folder:
        said = [Path(folder, name) for name in ("out", "err")]
        call = [list(words), str(cwd), dict(environment), *map(str, said)]
        server.stdin.write(json.dumps(call) + "\n")
        server.stdin.flush()
        status = int(server.stdout.readline())
        return subprocess.CompletedProcess(list(words), status, *(f.read_text() for f in said))


_servers: list[tuple[subprocess.Popen[str], dict[str, str]]] = []


def _server(environment: Mapping[str, str]) -> tuple[subprocess.Popen[str], dict[str, str]]:
    """Return the server, started with the environment of the first call, and what it began with."""
    if not _servers:
        words = [sys.executable, __file__]
        server = subprocess.Popen(
            words, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        atexit.register(server.communicate)  # the server ends with its input
        _servers.append((server, _of_interpreter(environment)))
    return _servers[0]


def _of_interpreter(environment: Mapping[str, str]) -> dict[str, str]:
    return {name: environment[name] for name in environment if name.startswith(INTERPRETER)}


def _serve() -> None:
    import importlib

    script = str(Path(sys.executable).parent / "snakemake")
    sys.path[0] = str(Path(script).parent)  # as where the script itself is run
    from snakemake.cli import main

    for name in IMPORTED:
        importlib.import_module(name)
    for line in sys.stdin:
        if child := os.fork():
            print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
            continue
        words, cwd, environment, *said = json.loads(line)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        for descriptor, path in enumerate(said, 1):
            os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND), descriptor)
        os.chdir(cwd)
        os.environ.clear()
        os.environ.update(environment)
        sys.argv = [script, *words]
        sys.exit(main())


if __name__ == "__main__":
    _serve()
