"""The one exception that users see."""


class UserError(Exception):
    """Something a user can mend: one line that names the setting or file and the fix.

    The command line prints it as ``error: …`` and exits with status 2; anything else that
    escapes is a bug of ours and keeps its traceback.
    """

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(message.split()))
