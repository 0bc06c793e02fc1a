"""What a classifier takes for what."""

from collections.abc import Iterable, Mapping, Sequence

from torch import Tensor

from mmbiformer.tables import format_table


def confusion_text(results: Iterable[Mapping[str, Tensor]], classes: Sequence[str]) -> str:
    """A table with a row for each class: how many of its images were found to be which class.

    Args:
        results (Iterable[Mapping]): ``gt_label`` and ``pred_label`` of each image, one label each,
            as ``tools/test.py --out`` writes them.
        classes (Sequence[str]): Their names, in the order of the labels.
    """
    counts = [[0] * len(classes) for _ in classes]
    for result in results:
        counts[result['gt_label'].item()][result['pred_label'].item()] += 1
    rows = [
        (name, *(str(count) if count else '' for count in row))
        for name, row in zip(classes, counts, strict=True)
    ]
    return format_table(('found as', *classes), rows)
