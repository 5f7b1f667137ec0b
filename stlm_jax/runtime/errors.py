"""The one exception that is a message to the user rather than a defect of the program."""


class UserError(Exception):
    """Bad input. The text is one line: it names the file, key or value and says what to do."""


def first_line(error: BaseException) -> str:
    """What a library's exception says, on one line; its type where it says nothing."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
