"""At least forty damaged inputs, each met by the real command: ``python -m tests.faults.damaged``.

Words as arguments choose the cases that have one of them in their name. A new kind of input is a
module with a ``Kind`` in the list below.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

from tests.faults import forbidden
from tests.faults.betons import BETON
from tests.faults.cases import Case, Judge, write_table
from tests.faults.experiments_files import OF_EXPERIMENTS
from tests.faults.images import FOLDER, LISTED
from tests.faults.interrupted import INTERRUPTED
from tests.faults.prepared import PREPARED
from tests.faults.results import RESULTS
from tests.faults.settings_files import OF_A_RUN, OF_THE_WORKFLOW
from tests.faults.start_points import START_POINT
from tests.faults.tables import TABLES

KINDS = (
    BETON,
    PREPARED,
    LISTED,
    FOLDER,
    START_POINT,
    INTERRUPTED,
    OF_A_RUN,
    OF_THE_WORKFLOW,
    OF_EXPERIMENTS,
    RESULTS,
    TABLES,
    *forbidden.KINDS,
)
CASES: list[Case] = [case for kind in KINDS for case in kind.cases]


def main(words: list[str]) -> int:
    chosen = [c for c in CASES if not words or any(word in str(c) for word in words)]
    if os.geteuid() != 0:
        print("Only root can be another user; cases of what is forbidden are left out.")
        chosen = [c for c in chosen if not c.kind.needs_root]
    with tempfile.TemporaryDirectory() as folder:
        judge = Judge(Path(folder))
        verdicts = [judge(case) for case in chosen]
    write_table(verdicts)
    return any(verdict.complaints for verdict in verdicts)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
