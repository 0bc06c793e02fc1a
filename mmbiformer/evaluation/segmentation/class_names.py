"""Names of the classes of a segmentation data set."""

from pathlib import Path

from mmbiformer.errors import UserError
from mmbiformer.stack import require


def read_class_names(source: str) -> list[str]:
    """The class names of a data set that mmseg knows, or those of a text file, one per line.

    Raises:
        UserError: If it is neither, or mmseg is not there.
    """
    if Path(source).is_file():
        names = Path(source).read_text(encoding='utf-8').splitlines()
        names = [name.strip() for name in names if name.strip()]
        if not names:
            raise UserError(f"--classes '{source}' has no names: write one per line")
        return names
    require('mmengine', 'mmcv', 'mmseg')
    from mmseg.utils import get_classes

    try:
        return list(get_classes(source))
    except ValueError as error:
        raise UserError(
            f"--classes '{source}' is neither a file nor a data set of mmseg, such as ade20k or "
            'cityscapes'
        ) from error
