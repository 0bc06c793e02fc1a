"""Files about the routing in an image: pictures and numbers."""

import json
from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure

from mmbiformer.files import whole_or_absent

from .look import Look, PlacedMap
from .pictures import draw_in_degrees, draw_query

FORMATS = 'png', 'pdf'
DPI = 130


def save_figure(figure: Figure, path: Path) -> Path:
    """Write a picture whole, in the format that its name ends with."""
    with whole_or_absent(path) as unfinished:
        figure.savefig(unfinished, dpi=DPI, format=path.suffix[1:], bbox_inches='tight')
    return path


def last_of_each_size(maps: Sequence[PlacedMap]) -> list[PlacedMap]:
    """The last map of each size: of a backbone, one of each stage that routes."""
    return list({placed.routed.size: placed for placed in maps}.values())


def write_routing(
    look: Look,
    maps: Sequence[PlacedMap],
    queries: Sequence[tuple[float, float]],
    out_dir: Path,
    name: str,
) -> list[Path]:
    """Write pictures of each query, of how often regions are chosen, and a JSON file of both.

    Args:
        look (Look): The image.
        maps (Sequence[PlacedMap]): Those of its maps that are shown.
        queries (Sequence[tuple[float, float]]): x and y of pixels of the image.
        out_dir (Path): Made where it is missing.
        name (str): With which the names of the files begin.

    Returns:
        list[Path]: What was written.

    Raises:
        UserError: If the image has no such pixel, or the model does not see it.
    """
    figures = {f'{name}_query_{x:g}_{y:g}': draw_query(look, maps, x, y) for x, y in queries}
    figures[f'{name}_chosen'] = draw_in_degrees(look, maps)
    out_dir.mkdir(parents=True, exist_ok=True)
    paths = [
        save_figure(figure, out_dir / f'{stem}.{kind}')
        for stem, figure in figures.items()
        for kind in FORMATS
    ]
    paths.append(out_dir / f'{name}_routing.json')
    with whole_or_absent(paths[-1]) as unfinished:
        unfinished.write_text(json.dumps(describe(look, maps, queries), indent=1))
    return paths


def describe(
    look: Look, maps: Sequence[PlacedMap], queries: Sequence[tuple[float, float]]
) -> dict:
    """What the pictures show, in numbers; boxes are left, top, right, bottom in image pixels."""
    height, width = look.image.shape[:2]
    return dict(
        image=dict(width=width, height=height),
        modules=[
            dict(
                name=placed.name,
                tokens=dict(height=placed.routed.size[0], width=placed.routed.size[1]),
                partition_factor=placed.routed.partition_factor,
                topk=placed.routed.indices.shape[-1],
                chosen_by=placed.in_degree().tolist(),
                queries=[_describe_query(placed, x, y) for x, y in queries],
            )
            for placed in maps
        ],
    )


def _describe_query(placed: PlacedMap, x: float, y: float) -> dict:
    row, column = placed.token_at(x, y)
    routed = placed.routed
    region = routed.region_of(row, column)
    weights, padding = routed.attention(row, column)
    shares = weights.mean(0)
    h, w = routed.partition.region
    regions = []
    for number in routed.indices[0, region].tolist():
        i, j = divmod(number, routed.partition_factor)
        pooled = shares.shape != routed.size
        share = None if pooled else shares[i * h : (i + 1) * h, j * w : (j + 1) * w].sum().item()
        regions.append(
            dict(
                region=number,
                box=placed.box_of(number),
                affinity=routed.affinity[0, region, number].item(),
                attention=share,
            )
        )
    return dict(
        x=x,
        y=y,
        token=dict(row=row, column=column),
        region=dict(region=region, box=placed.box_of(region)),
        routes_to=regions,
        attention_on_padding=padding.mean().item(),
    )
