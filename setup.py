import re
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent
VERSION = re.search(r"__version__ = '(.+)'", (ROOT / 'mmbiformer/__init__.py').read_text())[1]

# Its records of the matching, which the bootstrap needs, are private: try the next minor version
# before letting it in.
EVALUATION = 'faster-coco-eval>=1.8,<1.9'

setup(
    name='mmbiformer',
    version=VERSION,
    description='BiFormer (CVPR 2023) as a backbone of MMDetection, MMSegmentation and MMPretrain',
    long_description=(ROOT / 'README.md').read_text() if (ROOT / 'README.md').exists() else '',
    long_description_content_type='text/markdown',
    license='Apache-2.0',
    packages=find_packages(include=['mmbiformer', 'mmbiformer.*']),
    package_data={
        'mmbiformer.cpp': ['*.cpp', '*.h'],
        'mmbiformer.evaluation.report': ['*.j2'],
        'mmbiformer.visualization.explorer': ['*.j2', '*.css', '*.js'],
        'mmbiformer.run_report': ['*.j2'],
    },
    python_requires='>=3.10',
    install_requires=['torch>=2.4', 'einops>=0.7'],
    # Two families of distributions share the import names mmengine, mmcv, mmdet and mmseg, so
    # neither may be a hard requirement: an extra chooses. `onedl` is the maintained one.
    extras_require={
        'onedl': [
            'onedl-mmengine>=0.10.8,<1',
            'onedl-mmcv>=2.3,<3',
            'onedl-mmdetection>=3.5,<4',
            'onedl-mmsegmentation>=1.4,<2',
            EVALUATION,
        ],
        'openmmlab': [
            'mmengine>=0.10.4,<1',
            'mmcv>=2.0.0,<2.2',
            'mmdet>=3.1,<4',
            'mmsegmentation>=1.1,<2',
            'ftfy',
            'regex',
            EVALUATION,
        ],
        # Beside one of the families above, and a torchvision that fits the installed torch: left
        # to pip, the newest one would replace torch, which mmcv's ops are built against.
        'classification': ['onedl-mmpretrain>=1.3,<2'],
        # tools/size_ap.py and tools/segment_sizes.py on anyone's result files need no mm package.
        'evaluation': [
            *('matplotlib', 'prettytable', 'tqdm', 'jinja2', 'scipy', 'pillow', 'pycocotools'),
            *('opencv-python-headless', 'pyyaml'),
            EVALUATION,
        ],
        # Under AGPL-3.0; `mmbiformer.integrations.ultralytics` alone imports it. It changes much
        # within minor versions: try the next one before letting it in.
        'ultralytics': ['ultralytics>=8.3,<8.5'],
        # tools/predict.py --sliced. It changes much within minor versions: try the next one before
        # letting it in.
        'sahi': ['sahi>=0.12.8,<0.13'],
        'test': [
            *('pytest', 'pytest-xdist', 'hypothesis', 'triton>=3.6', 'ruff'),
            *('onnxscript>=0.7,<1', 'onnxruntime>=1.31,<2'),
        ],
    },
)
