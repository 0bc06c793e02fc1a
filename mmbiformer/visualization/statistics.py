"""How a model routes over many images: how far, how evenly, and to what from small objects."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from .look import Box, PlacedMap

# Small objects are those below this side, the root of the box's area, in pixels (as in COCO).
SMALL = 32
# Of distances, from none to that of opposite corners of the image.
BINS = 24


@dataclass
class ModuleStatistics:
    """What one routed attention does over images, each of which is added once.

    Attributes:
        name (str): Of the module.
        distances (Tensor): How many routed pairs of regions are how far apart, from centre to
            centre, int64 (BINS, ).
        any_distances (Tensor): The same of all pairs, as routing at random would give it.
        entropies (list[float]): Of each image, of which regions are chosen, in bits.
        most_entropies (list[float]): What these would be if all were chosen alike.
        to_itself (list[float]): Of each image, the share of regions that route to themselves.
        from_small, from_background (list[int]): Of the regions that those with a small object
            route to, and those without any object, how many have an object, and how many there
            are.
    """

    name: str
    distances: Tensor = field(default_factory=lambda: torch.zeros(BINS, dtype=torch.int64))
    any_distances: Tensor = field(default_factory=lambda: torch.zeros(BINS, dtype=torch.int64))
    entropies: list[float] = field(default_factory=list)
    most_entropies: list[float] = field(default_factory=list)
    to_itself: list[float] = field(default_factory=list)
    from_small: list[int] = field(default_factory=lambda: [0, 0])
    from_background: list[int] = field(default_factory=lambda: [0, 0])

    def add(self, placed: PlacedMap, objects: Sequence[Box] | None = None) -> None:
        """Count an image.

        Args:
            placed (PlacedMap): Of the module.
            objects (Sequence[Box], optional): Left, top, right and bottom in pixels of the image.
        """
        routed = placed.routed
        s, (rows, columns) = routed.partition_factor, routed.partition.real_shape
        real = torch.arange(s * s).view(s, s)[:rows, :columns].flatten()
        chosen = routed.indices[0].cpu()[real]
        boxes = _visible_boxes(placed)
        self.distances += _histogram(placed, boxes, real, chosen)
        self.any_distances += _histogram(placed, boxes, real, real.expand(len(real), -1))
        shares = torch.bincount(chosen.flatten()).double() / chosen.numel()
        shares = shares[shares > 0]
        self.entropies.append(-(shares * shares.log2()).sum().item())
        self.most_entropies.append(math.log2(len(real)))
        self.to_itself.append((chosen == real[:, None]).any(1).double().mean().item())
        if objects:
            self._add_objects(boxes, real, chosen, torch.tensor(objects, dtype=torch.float64))

    def _add_objects(self, boxes: Tensor, real: Tensor, chosen: Tensor, objects: Tensor) -> None:
        first, last = boxes[:, None, :2], boxes[:, None, 2:]
        overlaps = (first < objects[:, 2:]) & (objects[:, :2] < last)
        has_any = overlaps.all(-1).any(1)
        middles = (objects[:, :2] + objects[:, 2:]) / 2
        is_small = (objects[:, 2:] - objects[:, :2]).prod(1) < SMALL**2
        holds = ((first <= middles) & (middles < last)).all(-1)
        for counts, queries in (
            (self.from_small, (holds & is_small).any(1)),
            (self.from_background, ~has_any),
        ):
            hit = has_any[chosen[queries[real]]]
            counts[0] += hit.sum().item()
            counts[1] += hit.numel()

    def summary(self) -> dict:
        """In numbers; distances are shares of the distance between opposite corners."""
        middles = (torch.arange(BINS) + 0.5) / BINS

        def mean(counts: Tensor) -> float:
            return ((middles * counts).sum() / counts.sum()).item()

        def share(counts: list[int]) -> float | None:
            return counts[0] / counts[1] if counts[1] else None

        return dict(
            name=self.name,
            images=len(self.entropies),
            distance=mean(self.distances),
            distance_at_random=mean(self.any_distances),
            entropy=sum(self.entropies) / len(self.entropies),
            entropy_at_most=sum(self.most_entropies) / len(self.most_entropies),
            routes_to_itself=sum(self.to_itself) / len(self.to_itself),
            objects_chosen_from_small_objects=share(self.from_small),
            objects_chosen_from_background=share(self.from_background),
            distances=self.distances.tolist(),
            any_distances=self.any_distances.tolist(),
        )


def _visible_boxes(placed: PlacedMap) -> Tensor:
    """Left, top, right and bottom of what the image has of each region, (R, 4)."""
    height, width = placed.image_size
    boxes = [placed.box_of(i) for i in range(placed.routed.partition_factor**2)]
    limits = torch.tensor([width, height, width, height], dtype=torch.float64)
    return torch.tensor(boxes, dtype=torch.float64).clamp(min=0).minimum(limits)


def _histogram(placed: PlacedMap, boxes: Tensor, queries: Tensor, chosen: Tensor) -> Tensor:
    """Distances of pairs of regions, (Q, ) and (Q, K), as counts of bins."""
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2
    shares = (centres[queries][:, None] - centres[chosen]).norm(dim=-1)
    shares = shares / math.hypot(*placed.image_size)
    return torch.bincount((BINS * shares).long().clamp(max=BINS - 1).flatten(), minlength=BINS)
