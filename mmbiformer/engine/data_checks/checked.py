"""What a check of one data set hands on."""

from dataclasses import dataclass, field

from .files import File
from .findings import Finding


@dataclass
class Checked:
    """What was found without opening images.

    Attributes:
        place (str): The annotation file or folder.
        classes (list[str], optional): Names, in the order of labels.
        findings (list[Finding]): Errors and what is worth saying.
        files (list[File]): Images to open.
        counts (dict): How many there are of what.
        split (str): 'train', 'val' or 'test'.
    """

    place: str
    classes: list[str] | None = None
    findings: list[Finding] = field(default_factory=list)
    files: list[File] = field(default_factory=list)
    counts: dict = field(default_factory=dict)
    split: str = ''
