"""The one exception that users see."""


class UserError(Exception):
    """Something a user can mend: one line that names the setting or file and the fix.

    The command line prints it as ``error: …`` and exits with status 2; anything else that
    escapes is a bug of ours and keeps its traceback.
    """

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(message.split()))


class DivergedError(UserError):
    """Losses or parameters that are not finite, the first time after ``step`` steps."""

    def __init__(self, message: str, step: int) -> None:
        super().__init__(message)
        self.step = step
