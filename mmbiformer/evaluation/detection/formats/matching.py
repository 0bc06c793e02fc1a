"""Which image and which category of the ground truth a result means.

Frameworks name images by their files and number classes their own way. A name or a number that may
mean two things is never guessed: the error says what decides.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from mmbiformer.errors import UserError

from ..coco_files import GroundTruth
from ..coco_records import name_record, positions_of

SUFFIXES = {'.jpg', '.jpeg', '.png', '.bmp', '.tif', '.tiff', '.webp', '.jp2', '.mpo', '.avif'}
# Of the 80 classes that COCO annotates, among the 91 that it planned.
COCO_IDS = [x for x in range(1, 91) if x not in (12, 26, 29, 30, 45, 66, 68, 69, 71, 83)]
# What class numbers can be: category ids of the ground truth; places among the classes; COCO's ids
# of the 80 classes in their order.
READINGS = ('ids', 'from-0', 'from-1', 'coco')


@dataclass
class Found:
    """What the reader of a format returns.

    Attributes:
        records (list): D of COCO's result format, whose category_id is still the file's number.
        readings (Sequence[str]): What these numbers may be; of ``READINGS``.
        names (list[str] | None): D, what messages call the records, where not by position.
        notices (list[str]): What was left out, in sentences.
    """

    records: list
    readings: Sequence[str]
    names: list[str] | None = None
    notices: list[str] = field(default_factory=list)


class ImageNames:
    """The images of a ground truth by what results, from ``path``, may call them."""

    def __init__(self, ground_truth: GroundTruth, path: str) -> None:
        self.ground_truth, self.path = ground_truth, path
        # By file; by path without ending; by ends of that path, joined by '/' or, as Ultralytics
        # makes one name of a path, by '_', of which the last may be a whole number.
        files, stems, tails = self._levels = [defaultdict(list) for _ in range(3)]
        for image in ground_truth.images:
            if isinstance(name := image.get('file_name'), str):
                parts = stem_of(name).split('/')
                files[name].append(image)
                stems['/'.join(parts)].append(image)
                for end in {sep.join(parts[i:]) for i in range(len(parts)) for sep in '/_'}:
                    tails[end].append(image)
                if parts[-1].isdecimal():
                    tails[int(parts[-1])].append(image)

    def find(self, name: str | int) -> dict | None:
        """The image of that file name, path without ending or number; None for none."""
        files, stems, tails = self._levels
        stem = stem_of(name) if isinstance(name, str) else name
        found = files.get(name) or stems.get(stem) or tails.get(stem) or [None]
        if len(found) > 1:
            raise UserError(
                f"the image {name!r} of '{self.path}' may be '{found[0]['file_name']}' or "
                f"'{found[1]['file_name']}' of '{self.ground_truth.path}': name images by paths"
            )
        return found[0]

    @property
    def has_names(self) -> bool:
        """Whether the ground truth names any file."""
        return bool(self._levels[0])

    def has_ids(self, records: list) -> bool:
        """Whether each record has an image_id of the ground truth."""
        try:
            return {x['image_id'] for x in records} <= set(self.ground_truth.image_ids)
        except (KeyError, TypeError):
            return False

    def ids_of(self, records: list, key: str) -> list:
        """Ids of the images that records name by ``key``, each of them; else an error."""
        for position, record in enumerate(records):
            if not isinstance(record, dict) or key not in record:
                raise UserError(f'{name_record(record, position, self.path)} has no {key}')
        names = {x[key] for x in records if isinstance(x[key], str | int)}
        found = {x: image['id'] for x in names if (image := self.find(x))}
        positions_of(records, key, list(found), self.path, self.ground_truth.path)
        return [found[x[key]] for x in records]


def stem_of(name: str) -> str:
    """The path without the ending of an image file, with '/' between its parts."""
    path = PurePosixPath(name.replace('\\', '/'))
    return str(path.with_suffix('') if path.suffix.lower() in SUFFIXES else path)


def categories_of(
    found: Found, images: ImageNames, class_names: Sequence[str] | None, reading: str | None
) -> list:
    """The category id of each record, by what the user says of class numbers or what alone fits.

    ``class_names`` are in the order of the places, by default those of the ground truth by
    ascending id, where ids are 1 to K or COCO's; ``reading`` is one of ``READINGS``.

    Raises:
        UserError: If a number is of no class, or may be of two.
        ValueError: If ``reading`` is none.
    """
    if reading not in (None, *READINGS):
        raise ValueError(f"class_numbers '{reading}': give one of {', '.join(READINGS)}, or None")
    truth, path = images.ground_truth, images.path
    numbers = [x.get('category_id') for x in found.records]
    names = found.names or [name_record(x, i, path) for i, x in enumerate(found.records)]
    for number, name in zip(numbers, names, strict=True):
        if type(number) not in (int, str):
            raise UserError(f'{name} has the class {number!r}, not a whole number')
    readings = [reading] if reading else found.readings
    tables = {x: _table(x, truth, class_names) for x in readings}
    fitting = {}
    occurring = set(numbers)
    for way, table in tables.items():
        if occurring <= table.keys():
            fitting.setdefault(tuple(table[x] for x in occurring), way)
    ways = ' or '.join(fitting.values() or tables)
    if not fitting:
        table = tables[readings[0]]
        bad = [i for i, x in enumerate(numbers) if x not in table]
        raise UserError(
            f'{names[bad[0]]} has the class {numbers[bad[0]]!r}, which is not in '
            f"'{truth.path}' ({len(bad):,} of {len(numbers):,}, read as {ways}): is it of another "
            'data set? Else --classes and --class-numbers say what numbers mean'
        )
    has_places = truth.category_ids in (list(range(1, len(truth.category_ids) + 1)), COCO_IDS)
    is_clear = ways == 'ids' or has_places or class_names or reading
    if numbers and not (len(fitting) == 1 and is_clear):
        raise UserError(
            f"classes of '{path}' fit the categories of '{truth.path}' as {ways}, which is not "
            'clear: --classes names the classes in order, --class-numbers says what numbers are'
        )
    return [tables[ways][x] for x in numbers]


def _table(reading: str, truth: GroundTruth, class_names: Sequence[str] | None) -> dict:
    """class number -> category id."""
    places = ids = truth.category_ids
    if reading == 'ids':
        return {x: x for x in ids}
    if class_names:
        by_name = dict(zip(truth.category_names, ids, strict=True))
        if len(by_name) < len(ids) or len(set(class_names)) < len(class_names):
            raise UserError('--classes cannot tell classes of one name apart: rename one')
        places = [by_name.get(x) for x in class_names]
    first = int(reading == 'from-1')
    numbers = COCO_IDS if reading == 'coco' else range(first, first + len(places))
    pairs = zip(numbers, places, strict=True) if len(numbers) == len(places) else ()
    return {x: category for x, category in pairs if category is not None}
