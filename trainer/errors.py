"""The one exception that users see."""

import re

# Of a URL: all between :// and @, but for the @ in a path, with a port before it or none.
CREDENTIALS = re.compile(r"(?<=://)[^\s/?#@:]*(:(?!\d{1,5}/)\S*)?@")

EXIT_STATUS = 2


class UserError(Exception):
    """Something a user can mend: one line that names the setting or file and the fix.

    The command line prints it as ``error: …`` and exits with status 2; anything else that
    escapes is a bug of ours and keeps its traceback. No password of a URL gets into the line.
    """

    def __init__(self, message: str) -> None:
        super().__init__(CREDENTIALS.sub("…@", " ".join(message.split())))


class DivergedError(UserError):
    """Losses or parameters that are not finite, the first time after ``step`` steps."""

    def __init__(self, message: str, step: int) -> None:
        super().__init__(message)
        self.step = step
