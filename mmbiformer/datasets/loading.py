"""A loading step of pipelines that names the file it cannot load, and ends the run or skips it."""

import logging
import multiprocessing
import os
import zlib

from mmcv.transforms import BaseTransform
from mmengine.logging import print_log
from mmengine.registry import TRANSFORMS as ALL_TRANSFORMS

from mmbiformer.errors import UserError
from mmbiformer.registry import TRANSFORMS

from .image_files import IGNORED, deep_problem, file_problem, size_problem


@TRANSFORMS.register_module()
class LoadChecked(BaseTransform):
    """A loading step of any mm package, and checks of what it loaded.

    A file that is missing, empty, cut off, no image or of another size than its record, and a
    label map of another size than its image or with values beyond the classes, end the run by
    name. In training, some may be left out instead: the data set puts other images in their
    places, as mm's do where a pipeline gives None, and the log counts them.

    Args:
        step (dict): What loads, as ``dict(type='LoadImageFromFile')``.
        num_classes (int): Of label maps. Defaults to 0, for none to check.
        max_skipped (int): How many images a process may leave out of a data set; one that comes
            again in a later epoch counts once. Defaults to 0.
    """

    def __init__(self, step: dict, num_classes: int = 0, max_skipped: int = 0) -> None:
        super().__init__()
        self.step = ALL_TRANSFORMS.build(step)
        self.num_classes = num_classes
        # Checksums of paths and 0 where none is yet, in memory that a loader's workers share.
        self.skipped = multiprocessing.Array('q', max_skipped)

    def transform(self, results: dict) -> dict | None:
        """Load as the step does; None for an image that is left out.

        Raises:
            UserError: If something cannot be loaded, and no more may be left out.
        """
        before = set(results)
        path = results.get('img_path')
        if 'img' in before:
            path = results.get('seg_map_path') or path
        try:
            loaded = self.step(results)
            problem = self._find_problem(loaded, before, path)
        except Exception as error:  # of many kinds, by package, format and file backend
            reason = ' '.join(f'{type(error).__name__}: {error}'.split())[:200]
            problem = file_problem(str(path)) or f'cannot be loaded ({reason})'
        return loaded if problem is None else self._leave_out(str(path), problem)

    def _find_problem(self, loaded: dict | None, before: set, path: str) -> str | None:
        if loaded is None:
            return 'cannot be loaded'
        new = loaded.keys() - before
        if 'img' in new:
            record, size = (loaded.get('height'), loaded.get('width')), loaded['img'].shape[:2]
            if all(type(x) is int for x in record) and record != size:
                return size_problem(size, record)
            return file_problem(path) if os.path.isfile(path) else None  # else on a server
        if 'gt_seg_map' in new and self.num_classes:
            labels, size = loaded['gt_seg_map'], loaded['ori_shape'][:2]
            if labels.shape != size:
                return size_problem(labels.shape, size, whose='image')
            wrong = (labels >= self.num_classes) & (labels != IGNORED)
            if wrong.any():
                return f'has labels beyond its {self.num_classes} classes'
            on_disk = os.path.isfile(path)
            return (file_problem(path) or deep_problem(path)) if on_disk else None
        return None

    def _leave_out(self, path: str, problem: str) -> None:
        key = zlib.crc32(path.encode(errors='replace')) + 1
        with self.skipped.get_lock():
            known = list(self.skipped)
            if key in known:
                return
            if 0 not in known:
                raise UserError(
                    f"'{path}' {problem}: restore it or remove its record, after a look at all by "
                    f'tools/check_data.py; max_skipped={len(known)} of the config says how many '
                    'such images training may leave out'
                )
            number = known.index(0)
            self.skipped[number] = key
        print_log(
            f"left out '{path}', {number + 1} of at most {len(known)} images: it {problem}",
            logger='current',
            level=logging.WARNING,
        )
