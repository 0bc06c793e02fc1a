"""The error a user can mend."""


class UserError(Exception):
    """One line that names the thing, its value and the remedy; tools print it and exit with 2."""
