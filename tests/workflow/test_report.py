"""The report: one file that shows everything in a browser without a network."""

from __future__ import annotations

import base64
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.workflows import snakemake
from workflow.analysis.theory.figure import BATCHES, CLIENTS
from workflow.analysis.theory.simulation import DIFFUSION, DRIFT
from workflow.paper import paper

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "chrome"))), None)


def simulated() -> pd.DataFrame:
    """Make up a table like that of the simulation, which would take a minute."""
    draw = np.random.default_rng(0)
    rows = [
        {
            "model": model,
            "quantity": quantity,
            "num_clients": k,
            "local_steps": h,
            "argument": 0.01 * h,
            "batch": batch,
            "replicas": 50,
            "measured": draw.normal(1, 0.01),
            "slow_sde": 1.0,
            "exact": 1.0,
            "sgd_limit": 1.0,
            "k_fold_limit": float(k),
        }
        for model, quantity in (("valley", DRIFT), ("circle", DRIFT), ("circle", DIFFUSION))
        for k in CLIENTS
        for h in (1, 20)
        for batch in range(BATCHES)
    ]
    return pd.DataFrame(rows)


@pytest.fixture(scope="module")
def reported(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Copy the finished project; run `snakemake all` and make its report there."""
    own = shutil.copytree(finished, tmp_path_factory.mktemp("reported") / "own")
    simulated().to_csv(own / "results/laptop/tables/theory.csv", index=False)
    for arguments in (["all"], ["all", "--report", "results/laptop/report.html"]):
        done = snakemake(own, *arguments)
        assert done.returncode == 0, done.stdout + done.stderr
    return own / "results/laptop"


def dom(page: Path) -> str:
    """Render ``page`` in a browser without network access; return its DOM."""
    if BROWSER is None:
        pytest.skip("needs chromium: apt-get install chromium")
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=10000"]
    offline = "--host-resolver-rules=MAP * ~NOTFOUND"
    done = subprocess.run(
        [BROWSER, *options, offline, "--dump-dom", page.as_uri()],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    return done.stdout


def test_the_claims_say_what_is_judged_and_what_is_not(reported: Path) -> None:
    claims = pd.read_csv(reported / "claims.csv").set_index("claim")
    assert set(claims.index) == set(paper().levels)
    assert claims.loc["1a", "n"] == 2
    assert claims.loc["1a", "verdict"] != "not judged"
    assert claims.loc["7, factor", "verdict"] == "supported"
    assert claims.loc["6a, accuracy", "note"] == "this scale has no such experiment"


def test_the_runs_page_tells_what_was_run(reported: Path) -> None:
    runs = pd.read_csv(reported / "runs.csv")
    assert runs.groupby("role")["run"].count().to_dict() == {"phase 1": 2, "phase 2": 4}
    assert (runs["seconds"] > 0).all()
    assert set(runs["experiments"]) == {"fig1a"}
    page = (reported / "runs.html").read_text("utf-8")
    assert all(run in page for run in runs["run"])


def test_the_report_opens_in_a_browser_without_a_network(reported: Path) -> None:
    shown = re.sub(r"<script.*?</script>", "", dom(reported / "report.html"), flags=re.DOTALL)
    for part in ("Claims", "Figures", "Runs", "A reproduction of"):
        assert part in shown


def test_the_report_holds_every_figure_and_page(reported: Path) -> None:
    report = (reported / "report.html").read_text("utf-8")
    for name in ("fig1a", "slowtime", "communication", "theory", "claims", "runs"):
        assert f"{name}.html" in report


def test_a_figures_page_shows_it_whole_with_its_caption(reported: Path) -> None:
    page = (reported / "pages" / "fig1a.html").read_text("utf-8")
    encoded = re.search(r'src="data:image/png;base64,([^"]+)"', page)
    assert encoded is not None
    assert base64.b64decode(encoded[1]) == (reported / "figures" / "fig1a.png").read_bytes()
    assert "after the switch, CIFAR-10" in re.sub("<img.*?>", "", page)
