"""Names of classes, in the order of the numbers that label files give them."""

from pathlib import Path

from mmbiformer.errors import UserError


def read_names(path: str | Path) -> list[str]:
    """The class names of a text file, one per line, or of an Ultralytics data YAML.

    Raises:
        UserError: If the file has no names, or cannot be read.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding='utf-8-sig')
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"--classes '{path}' cannot be read: {error}") from error
    if path.suffix.lower() in ('.yaml', '.yml'):
        return _names_of(text, path)
    names = [name.strip() for name in text.splitlines() if name.strip()]
    if not names:
        raise UserError(f"--classes '{path}' has no names: write one per line")
    return names


def _names_of(text: str, path: Path) -> list[str]:
    import yaml

    try:
        content = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise UserError(f"--classes '{path}' is not valid YAML: {error}") from error
    names = content.get('names') if isinstance(content, dict) else None
    if isinstance(names, list):
        names = dict(enumerate(names))
    if not isinstance(names, dict) or not names or set(names) != set(range(len(names))):
        raise UserError(
            f"--classes '{path}' has no names: a data YAML lists them under 'names', or numbers "
            'them there from 0 on'
        )
    return [str(names[i]) for i in range(len(names))]
