"""Names of parameters and buffers in the files of each family's authors, and ours: data alone."""

import re
from dataclasses import dataclass

from mmbiformer.layers.routing_attention import OFFICIAL_NAMES

Renames = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Names:
    """How the files of a family name what our backbone has.

    Attributes:
        to_ours (tuple): (pattern, replacement) pairs, applied in order to a name without a prefix;
            from official names and from those of earlier versions. A name of ours stays as it is.
        to_official (tuple): The same from our names to the official ones.
        classifier (str): Pattern of what files of classifiers have besides the backbone.
    """

    to_ours: Renames
    to_official: Renames
    classifier: str

    def ours(self, name: str) -> str:
        """Our name of a parameter or buffer."""
        return _rename(name, self.to_ours)

    def official(self, name: str) -> str:
        """The official name of a parameter or buffer of ours."""
        return _rename(name, self.to_official)


def _rename(name: str, renames: Renames) -> str:
    for pattern, replacement in renames:
        name = re.sub(pattern, replacement, name)
    return name


BIFORMER = Names(
    to_ours=(
        (r'^extra_norms\.(\d)\.', r'norm\1.'),
        (r'\.pos_embed\.', '.conv_position.'),
        *(
            (rf'\.attn\.{re.escape(official)}\.', f'.attn.{ours}.')
            for official, ours in OFFICIAL_NAMES.items()
        ),
        (r'\.mlp\.0\.', '.mlp.fc1.'),
        (r'\.mlp\.[23]\.', '.mlp.fc2.'),  # 3 in official files, 2 in ours before MLP had names
    ),
    to_official=(
        (r'^norm(\d)\.', r'extra_norms.\1.'),
        (r'\.conv_position\.', '.pos_embed.'),
        # Official models have full attention in the last stage alone, under the names of ours.
        (r'^(stages\.[012]\..*\.attn\.)qkv\.', r'\1qkv.qkv.'),
        (r'^(stages\.[012]\..*\.attn\.)proj\.', r'\1wo.'),
        (r'\.attn\.lce\.', '.attn.lepe.'),
        (r'\.mlp\.fc1\.', '.mlp.0.'),
        (r'\.mlp\.fc2\.', '.mlp.3.'),
    ),
    classifier=r'^(norm|head)\.',
)

BIFORMER_STL = Names(
    to_ours=((r'^(stages\.\d)\.blocks\.', r'\1.'), *BIFORMER.to_ours),
    to_official=(
        *((ours, official) for ours, official in BIFORMER.to_official if 'mlp' not in ours),
        (r'\.mlp\.fc1\.', '.mlp.0.'),
        (r'\.mlp\.fc2\.', '.mlp.2.'),
        (r'^(stages\.\d)\.', r'\1.blocks.'),
    ),
    classifier=BIFORMER.classifier,
)

# CloFormer's strided block ends a stage officially, and begins the next one here. All published
# architectures have as many blocks.
_STRIDED = {'layers.0.blocks.1': 1, 'layers.1.blocks.1': 2, 'layers.2.blocks.5': 3}
_STEM = {
    **{f'conv{i + 1}.conv.{j}': 3 * i + j for i in range(4) for j in range(2)},
    'conv5': 12,
    'layernorm': 13,
}
CLOFORMER = Names(
    to_ours=(
        *(
            (rf'^patch_embed\.{re.escape(x)}\.', f'downsample_layers.0.{i}.')
            for x, i in _STEM.items()
        ),
        *((rf'^{re.escape(x)}\.', f'downsample_layers.{i}.') for x, i in _STRIDED.items()),
        (r'^layers\.(\d)\.blocks\.', r'stages.\1.'),
        (r'\.act_blocks\.(\d)\.act_block\.', r'.gates.\1.'),
        (r'\.downsample\.2\.', '.project.'),
        (r'\.mlp\.dwconv\.', '.mlp.conv.'),
    ),
    to_official=(
        *((rf'^downsample_layers\.0\.{i}\.', f'patch_embed.{x}.') for x, i in _STEM.items()),
        *((rf'^downsample_layers\.{i}\.', f'{x}.') for x, i in _STRIDED.items()),
        (r'^stages\.(\d)\.', r'layers.\1.blocks.'),
        (r'\.gates\.(\d)\.', r'.act_blocks.\1.act_block.'),
        (r'\.project\.', '.downsample.2.'),
        (r'\.mlp\.conv\.', '.mlp.dwconv.'),
    ),
    classifier=r'^(norm|head)\.',
)
