"""Ultralytics without network and without traces in the user's settings."""

import importlib.util
import os
import sys
import tempfile
from pathlib import Path

_SITE = Path(__file__).parents[1] / 'helpers/subprocess_site'
_SETTINGS = tempfile.TemporaryDirectory()

if importlib.util.find_spec('ultralytics') is not None:
    # Read when Ultralytics is imported, here and in the processes that tests start.
    os.environ.update(
        YOLO_OFFLINE='1',
        YOLO_AUTOINSTALL='false',
        YOLO_CONFIG_DIR=_SETTINGS.name,
        PYTHONPATH=os.pathsep.join(filter(None, [str(_SITE), os.environ.get('PYTHONPATH')])),
    )
    sys.path.insert(0, str(_SITE))
    importlib.import_module('sitecustomize')
