"""What is measured: one case per row, grouped by what may be compared with each other."""

from argparse import Namespace
from dataclasses import dataclass
from math import ceil

from mmbiformer.errors import UserError
from mmbiformer.ops import BACKENDS

from .ablation_rows import ROWS as ABLATION_ROWS
from .families import FAMILY_OF, arch_title

OFFICIAL = 'official-style'
RIVALS = ('swin-t', 'resnet-50', 'mobilenet-v2')
OFFICIAL_STYLE = f'-{OFFICIAL}'
CLOFORMERS = tuple(
    f'cloformer-{arch}{style}' for arch in ('xxs', 'xs', 's') for style in (OFFICIAL_STYLE, '')
)
# Rows that are measured where they are named alone. Of CloFormer the one of BiFormer-T's size is
# measured without that.
_NAMED_ALONE = 'flex', *(row for row in CLOFORMERS if row != 'cloformer-s')
# Rows of level plugin: a detector as it is, and with routed attention plugged in, each also as
# public tutorials have it, which is the official style.
PLAIN = 'yolox-s'
PLUGGED_IN = ('bra-p3', 'bra-p3-p4-p5')
TUTORIAL_STYLE = '-tutorial-style'
MODES = ('inference', 'training')
# Levels that are about one model, whatever --arch says -> what titles call it.
FIXED_MODELS = {'plugin': 'YOLOX-s', 'ablation': "Swin-T's layout, S={}"}
# Image size -> S of the shipped configs and of the paper.
SHIPPED_FACTORS = {(224, 224): 7, (512, 512): 8, (800, 1344): 16}
SHIPPED_TASKS = {7: 'classification', 8: 'segmentation', 16: 'detection'}
STRIDES = (4, 8, 16, 32)
# The paper's rule S ~ (HW)^(1/3), through the S that it takes for segmentation.
ANCHOR_FACTOR, ANCHOR_PIXELS = 8, 512 * 512

Size = tuple[int, int]


@dataclass(frozen=True)
class Case:
    """One row: a model at a size in a mode. Can be pickled.

    Attributes:
        level (str): 'op', 'backbone', 'detector', 'plugin' or 'ablation'.
        model (str): A row of the level, see :func:`known_models`.
        mode (str): 'inference' or 'training': forward and backward, no optimizer.
        size (tuple): Height and width of the image.
        stage (int, optional): The stage whose routed attention is measured, at level 'op'.
        configs (str, optional): Folder of the shipped configs, for detectors.
        deterministic (bool): Whether PyTorch is told to use deterministic algorithms alone.
        compiled (bool): Whether ``torch.compile`` compiles the model.
        graph (bool): Whether the step is recorded as a CUDA graph and repeated.
    """

    level: str
    model: str
    mode: str
    arch: str
    size: Size
    partition_factor: int
    batch_size: int
    device: str
    precision: str
    stage: int | None = None
    configs: str | None = None
    deterministic: bool = False
    compiled: bool = False
    graph: bool = False

    @property
    def row(self) -> str:
        """What the row of a table is called."""
        how = {'compiled': self.compiled, 'CUDA graph': self.graph}
        return ', '.join([self.model, *(name for name, is_so in how.items() if is_so)])

    @property
    def title(self) -> str:
        """What the cases of one group share."""
        place = f', attention of stage {self.stage + 1}' if self.level == 'op' else ''
        model = f'{arch_title(self.arch)} with S={self.partition_factor}'
        if self.level in FIXED_MODELS:
            model = FIXED_MODELS[self.level].format(self.partition_factor)
        algorithms = ', deterministic algorithms' if self.deterministic else ''
        return (
            f'{self.level}{place}, {self.mode}, {size_name(self.size)}, '
            f'{model}, batch {self.batch_size}, {self.precision}{algorithms}'
        )


def size_name(size: Size) -> str:
    return f'{size[0]}x{size[1]}'


def scaled_factor(arch: str, size: Size) -> int:
    """S by the paper's rule: proportional to (HW)^(1/3), 8 at 512 x 512; enough for top-k."""
    scale = (size[0] * size[1] / ANCHOR_PIXELS) ** (1 / 3)
    return max(smallest_factor(arch), round(ANCHOR_FACTOR * scale))


def smallest_factor(arch: str) -> int:
    """The smallest S with as many regions as the largest top-k asks for."""
    return ceil(max(topk for topk in FAMILY_OF[arch].topks if topk is not None) ** 0.5)


def default_factor(arch: str, size: Size) -> int:
    """S of the shipped config of that size, else by the paper's rule."""
    return SHIPPED_FACTORS.get(size) or scaled_factor(arch, size)


def map_size(size: Size, stage: int) -> Size:
    """Height and width of a stage's map."""
    return ceil(size[0] / STRIDES[stage]), ceil(size[1] / STRIDES[stage])


def known_models(level: str) -> tuple[str, ...]:
    """The rows that a level may have, the yardstick first."""
    if level == 'plugin':
        return PLAIN, *(f'{row}{style}' for row in PLUGGED_IN for style in (TUTORIAL_STYLE, ''))
    if level == 'ablation':
        return ABLATION_ROWS
    rows = OFFICIAL, *BACKENDS
    if level == 'op':
        return rows
    # mmdet has no RetinaNet on MobileNetV2.
    rivals = [row for row in RIVALS if level == 'backbone' or row != 'mobilenet-v2']
    return *rows, *rivals, *CLOFORMERS


def groups_of(options: Namespace, configs: str) -> list[list[Case]]:
    """The groups that the command line asks for: cases of one group are measured in turns.

    Args:
        options (Namespace): Checked, of a level that has rows.
        configs (str): Folder of the shipped configs.

    Raises:
        UserError: If the level does not have such a row.
    """
    level, models, arch = options.level, options.models, options.arch
    known = known_models(level)
    for model in models or ():
        if model not in known:
            raise UserError(
                f"--models: level '{level}' has no '{model}': choose from {', '.join(known)}"
            )
    stages = [None]
    if level == 'op':
        stages = [stage for stage, topk in enumerate(FAMILY_OF[arch].topks) if topk is not None]
    if models is None:
        models = [model for model in known if model not in _NAMED_ALONE]
    chosen = [model for model in known if model in models]
    factors = {x: options.partition_factor or default_factor(arch, x) for x in options.size}
    shared = options.batch_size, options.device, options.precision
    last = configs, options.deterministic
    # As it is, then each of what is asked for alone, then both together.
    ways = [
        (compiled, graph)
        for graph in (False, True)[: 1 + options.cuda_graph]
        for compiled in (False, True)[: 1 + options.compile]
    ]
    return [
        [
            Case(level, model, mode, arch, size, factors[size], *shared, stage, *last, *way)
            for model in chosen
            for way in ways
        ]
        for size in options.size
        for mode in options.mode
        for stage in stages
    ]
