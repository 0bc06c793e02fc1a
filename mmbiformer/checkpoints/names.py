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
