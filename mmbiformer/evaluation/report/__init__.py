"""Reports as text, CSV, pictures and HTML, made from the plain data of an evaluation alone."""
