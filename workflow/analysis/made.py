"""Read the CSV files that this project's commands made."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from trainer.errors import UserError
from trainer.files.atomic import reading


def read_csv(path: Path, fix: str) -> pd.DataFrame:
    """Read ``path``. Raises UserError, which ends in ``fix``, where it is missing or damaged."""
    with reading(path, fix):
        try:
            return pd.read_csv(path)
        except ValueError as error:
            raise UserError(f"{path}: damaged ({error}); {fix}") from None
