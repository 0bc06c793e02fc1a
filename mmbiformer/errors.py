"""The error a user can mend."""


class UserError(ValueError):
    """One line that names the thing, its value and the remedy; tools print it and exit with 2."""
