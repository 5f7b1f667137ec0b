"""The one exception that is a message to the user rather than a defect of the program."""


class UserError(Exception):
    """Bad input. The text is one line: it names the file, key or value and says what to do."""
