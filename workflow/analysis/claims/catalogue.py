"""List the rows of claims.csv: what is measured on each experiment, and what is pooled."""

from __future__ import annotations

from workflow.analysis.claims import effects
from workflow.analysis.claims.measure import Claim
from workflow.analysis.claims.theory_claim import TheoryClaim
from workflow.analysis.claims.verdict import ERROR_RATE, Row


def switch_claim(letter: str, data: str) -> Claim:
    return Claim(
        name=f"1{letter}",
        statement=f"Post-local SGD reaches higher test accuracy than SGD after the switch ({data})",
        experiment=f"fig1{letter}",
        effect=effects.gain_at_the_end,
        measure="accuracy at the end minus SGD's",
    )


def small_rate_claim(letter: str, data: str) -> Claim:
    return Claim(
        name=f"1{letter}, small η",
        statement=f"A gain remains when all end with the same small η and H = 1 ({data})",
        experiment=f"fig1{letter}",
        effect=effects.gain_after_cooldown,
        measure="accuracy after the cool-down minus SGD's",
        after_cooldown=True,
    )


def rate_and_time_claims(letter: str, data: str) -> tuple[Claim, ...]:
    figure = f"fig2{letter}"
    return (
        Claim(
            name=f"2{letter}, rate",
            statement=f"The gain needs a small learning rate ({data})",
            experiment=figure,
            effect=effects.gain_of_a_small_rate,
            measure="gain over SGD with small η minus with large η",
        ),
        Claim(
            name=f"2{letter}, time",
            statement=f"The gain needs long enough training ({data})",
            experiment=figure,
            effect=effects.gain_of_time,
            measure="gain over SGD at the end minus at the first evaluation",
        ),
    )


def local_steps_claims(letter: str, data: str) -> tuple[Claim, ...]:
    figure = f"fig2{letter}"
    return (
        Claim(
            name=f"3{letter}, rise",
            statement=f"Accuracy improves with H up to a point ({data})",
            experiment=figure,
            effect=effects.rise_with_h,
            doublings=effects.doublings_up_to,
            measure="slope of the accuracy over log₂ H, 1 to H",
            unit="points per doubling",
        ),
        Claim(
            name=f"3{letter}, fall",
            statement=f"Beyond that point a larger H is worse ({data})",
            experiment=figure,
            effect=effects.fall_beyond,
            measure="accuracy minus that of the largest H",
        ),
        Claim(
            name=f"3{letter}, 1/η",
            statement=f"The gain needs H = Ω(1/η) ({data})",
            experiment=figure,
            effect=effects.gain_of_long_rounds,
            measure="accuracy of 1/η ≤ H minus that of 1 < H < 1/η",
        ),
    )


def label_noise_claims(letter: str) -> tuple[Claim, ...]:
    figure = f"fig7{letter}"
    return (
        Claim(
            name=f"6{letter}, accuracy",
            statement="Under label noise Local SGD has higher accuracy at equal steps",
            experiment=figure,
            effect=effects.gain_throughout,
            measure="accuracy minus SGD's, mean over evaluations",
        ),
        Claim(
            name=f"6{letter}, sharpness",
            statement="Under label noise Local SGD has lower sharpness at equal steps",
            experiment=figure,
            effect=effects.flatter_throughout,
            quantity="sharpness",
            measure="ln(trace of SGD's Hessian ÷ its own), mean over evaluations",
            unit="",
        ),
    )


CLAIMS = (
    switch_claim("a", "CIFAR-10"),
    switch_claim("b", "ImageNet"),
    small_rate_claim("a", "CIFAR-10"),
    small_rate_claim("b", "ImageNet"),
    *rate_and_time_claims("b", "CIFAR-10"),
    *rate_and_time_claims("c", "ImageNet"),
    Claim(
        name="2d",
        statement=(
            "With a large learning rate from random initialisation there is no gain (ImageNet)"
        ),
        experiment="fig2d",
        effect=effects.gain_at_the_end,
        measure="gain over SGD at the end; the claim is that it is below the smallest effect",
        no_gain=True,
    ),
    *local_steps_claims("e", "CIFAR-10"),
    *local_steps_claims("f", "ImageNet"),
    Claim(
        name="4",
        statement="Starting from random initialisation works too, with small η and enough time",
        experiment="fig2a",
        effect=effects.gain_at_the_end,
        measure="accuracy at the end minus SGD's",
    ),
    Claim(
        name="5",
        statement="At fixed B_loc a larger K improves accuracy: less diffusion, same drift",
        experiment="fig3a",
        effect=effects.rise_with_k,
        doublings=effects.doublings_of_k,
        measure="slope of the accuracy over log₂ K",
        unit="points per doubling",
        compares="num_clients",
    ),
    *label_noise_claims("a"),
    *label_noise_claims("b"),
    Claim(
        name="7, order",
        statement="Sharpness decays faster with larger H, as 1 + (K − 1)ψ orders it",
        experiment="fig7a",
        effect=effects.flatter_with_h,
        quantity="sharpness",
        doublings=effects.doublings_of_h,
        measure="minus the slope of ln(trace of the Hessian) over log₂ H, all H",
        unit="per doubling",
    ),
)
THEORY = TheoryClaim(name="7, factor")

POOLED = {
    "1": ("Post-local SGD reaches higher test accuracy than SGD after the switch", "1a", "1b"),
    "2": ("The gain needs a small learning rate", "2b, rate", "2c, rate"),
    "3": ("Accuracy improves with H up to a point", "3e, rise", "3f, rise"),
    "6": (
        "Under label noise Local SGD has higher accuracy at equal steps",
        "6a, accuracy",
        "6b, accuracy",
    ),
}
PRIMARY = {*POOLED, "4", "5", "7, order"}
CONTROLS = {claim.name for claim in CLAIMS if claim.after_cooldown}
PANELS = {*(claim.name for claim in CLAIMS), THEORY.name} - PRIMARY - CONTROLS
# Half of the error rate to each family of the paper's claims, in equal parts, whatever of it can be
# judged; the controls, which the paper does not have, get as much again.
LEVELS = {
    **{name: ERROR_RATE / 2 / len(family) for family in (PRIMARY, PANELS) for name in family},
    **{name: ERROR_RATE / len(CONTROLS) for name in CONTROLS},
}


def _rows() -> list[Row]:
    """Order the rows: a pooled one before the first of its panels."""
    rows: list[Row] = []
    by_name = {claim.name: claim for claim in CLAIMS}
    first = {panels[0]: (name, says, panels) for name, (says, *panels) in POOLED.items()}
    for claim in CLAIMS:
        if claim.name in first:
            name, says, panels = first[claim.name]
            rows.append(_row(name, says, *(by_name[panel] for panel in panels)))
        rows.append(_row(claim.name, claim.statement, claim))
    return rows


def _row(name: str, says: str, *claims: Claim) -> Row:
    return Row(name, says, claims, family(name), LEVELS[name])


def family(name: str) -> str:
    return "primary" if name in PRIMARY else "controls" if name in CONTROLS else "panels"


ROWS = _rows()
