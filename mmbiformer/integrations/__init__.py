"""Other frameworks: one module each, imported by the users of that framework alone."""
