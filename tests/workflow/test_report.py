"""The report: one file that shows everything in a browser without a network."""

from __future__ import annotations

import base64
import html
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.commands import ROOT
from tests.workflows import snakemake
from workflow.analysis.claims import verdict
from workflow.analysis.pages import overview
from workflow.analysis.pages.overview import axis_limit, write_overview
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
        if arguments == ["all"]:  # its last words: what the claims' table holds
            first, *_, last = done.stdout.splitlines()
            assert re.match(r"\d+ claims: .*not judged", first)
            assert last == "All claims: results/laptop/claims.csv"
    return own / "results/laptop"


def dom(page: Path, width: int = 1200) -> str:
    """Render ``page`` in a browser without network access or errors; return its DOM."""
    if BROWSER is None:
        pytest.skip("needs chromium: apt-get install chromium")
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=10000"]
    options += ["--enable-logging=stderr", f"--window-size={width},1000"]
    offline = "--host-resolver-rules=MAP * ~NOTFOUND"
    done = subprocess.run(
        [BROWSER, *options, offline, "--dump-dom", page.as_uri()],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    console = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    assert not [line for line in console if re.search(r"Uncaught|Error|ERR_", line)], console
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
    for part in ("Claims", "Figures", "Runs", "What was found at the scale laptop"):
        assert part in shown
    assert len(re.findall('<tr class="', shown)) == len(paper().levels)


def test_every_page_opens_in_a_browser(reported: Path) -> None:
    pages = sorted(reported.rglob("*.html"))
    assert {"overview", "claims", "runs", "fig1a"} <= {page.stem for page in pages}
    for page in pages:
        assert re.search("<h1|<img", dom(page, width=400)), page


def test_links_of_the_first_page_lead_to_pages_of_the_report_and_of_the_folder(
    reported: Path, tmp_path: Path
) -> None:
    first = (reported / "overview.html").read_text("utf-8")
    links = set(re.findall(r'<a href="(?!https)([^"]+)"', first))
    assert {"claims.html", "runs.html", "pages/fig1a.html", "pages/theory.html"} <= links
    assert [link for link in links if not (reported / link).is_file()] == []
    text = (reported / "report.html").read_text("utf-8")
    for link in links:
        click = f"document.querySelector('.found a[href=\"{link}\"]').click()"
        clicked = tmp_path / "clicked.html"
        script = f"<script>setTimeout(() => {click}, 1000)</script>"
        clicked.write_text(text + script, "utf-8")
        [shown] = re.findall(r'<iframe src="data:text/html;[^,]*base64,([^"]+)"', dom(clicked))
        assert base64.b64decode(shown) == (reported / link).read_bytes()


@pytest.mark.parametrize("scale", ["laptop", "photos", "workstation"])
def test_the_first_page_says_what_claims_csv_says(tmp_path: Path, scale: str) -> None:
    claims = pd.read_csv(ROOT / "results/reference" / scale / "claims.csv")
    image = ROOT / "results/reference/laptop/fig1a.png"
    out = tmp_path / "results" / "overview.html"
    out.parent.mkdir()
    write_overview(claims, {"fig1a": "fig1a"}, image, "A caption", out, links_runs=True)
    page = out.read_text("utf-8")
    tiles = {name: int(n) for n, name in re.findall(r"<li><b>(\d+)</b>([\w ]+)</li>", page)}
    assert tiles == claims["verdict"].value_counts().to_dict()
    assert set(claims["verdict"]) <= set(overview.VERDICTS) == set(verdict.VERDICTS)
    rows = re.findall(r'<tr class="(\w+)">(.*?)</tr>', page, flags=re.DOTALL)
    assert [family for family, _ in rows] == claims["family"].tolist()
    measured = claims[claims["effect"].notna()]
    limit = axis_limit(claims.to_dict("records"))
    ends = measured[["low", "high"]].div(measured["smallest"], axis=0)
    assert ends.abs().max(axis=None) <= limit
    for (_, row), (_, claim) in zip(rows, claims.iterrows(), strict=True):
        assert f"{claim['claim']}. {claim['says']}" in html.unescape(row)
        assert f"<td>{claim['verdict']}</td>" in row
        interval = re.search(r'class="interval" d="M([\d.]+) 11 H([\d.]+)"', row)
        assert (interval is None) == np.isnan(claim["effect"])
        if interval is not None:
            shown = [(float(x) - 160) / 148 for x in interval.groups()]
            expected = np.arcsinh(claim[["low", "high"]].astype(float) / claim["smallest"])
            assert shown == pytest.approx(list(expected / np.arcsinh(limit)), abs=1e-3)
            numbers = re.search(r'"numbers">(\S+) \[(\S+), (\S+)\]', row)
            assert numbers is not None
            values = [float(number) for number in numbers.groups()]
            assert values == pytest.approx(list(claim[["effect", "low", "high"]]), rel=5e-3)


def test_a_report_without_the_first_page_has_a_sentence_instead(own: Path) -> None:
    done = snakemake(own, "fig1a", "--report", "figure.html")
    assert done.returncode == 0, done.stderr
    assert "A reproduction of" in (own / "figure.html").read_text("utf-8")


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
