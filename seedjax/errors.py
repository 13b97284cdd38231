"""The one exception that means "what you gave me is at fault".

The command line prints an `InputError` as a single line and leaves with exit code 2;
any other exception is a defect of ours, shows its traceback and leaves with exit code
1.
"""


class InputError(ValueError):
    """A fault in the caller's input. The message says what was got, what was wanted and
    how to mend it, on one line."""
