"""Names of the classes of a segmentation data set."""

from pathlib import Path

from mmbiformer.errors import UserError
from mmbiformer.stack import require

from ..class_names import read_names


def read_class_names(source: str) -> list[str]:
    """The class names of a data set that mmseg knows, or those of a file; see :func:`read_names`.

    Raises:
        UserError: If it is neither, or mmseg is not there.
    """
    if Path(source).is_file():
        return read_names(source)
    require('mmengine', 'mmcv', 'mmseg')
    from mmseg.utils import get_classes

    try:
        return list(get_classes(source))
    except ValueError as error:
        raise UserError(
            f"--classes '{source}' is neither a file nor a data set of mmseg, such as ade20k or "
            'cityscapes'
        ) from error
