"""t-SNE of pooled features: by class (UMD, Figure 7), and of both modalities (UMD, Figure 8)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from umd.metrics.picture import WIDTH, Picture, mark_style
from umd.reproduce.figures.cells import results
from umd.reproduce.plan import Plan
from umd.reproduce.steps import Workspace

POINTS: Final = 2000
"""Points of a panel at most."""

NEIGHBOURS: Final = 10
CLASSES: Final = 15
"""Classes that are told apart; the others are grey dots."""

_SEED: Final = 0
_PERPLEXITY: Final = 30

Points = NDArray[np.floating[Any]]


def chosen(count: int, most: int) -> NDArray[np.int64]:
    """Positions of the samples that are drawn: all, or `most` of them by a draw that depends on nothing but `count`."""
    if count <= most:
        return np.arange(count)
    return np.sort(np.random.default_rng(_SEED).choice(count, most, replace=False))


def flat(features: Points) -> Points:
    """(N, 2) t-SNE of (N, D), by Euclidean distance, from their principal components."""
    from sklearn.manifold import TSNE

    perplexity = min(_PERPLEXITY, (len(features) - 1) / 3)
    method = TSNE(n_components=2, init="pca", random_state=_SEED, perplexity=perplexity)
    embedded: Points = method.fit_transform(features)
    return embedded


def neighbour_share(features: Points, labels: NDArray[Any]) -> tuple[float, float]:
    """How often a feature's nearest neighbours have its label.

    Args:
        features: (N, D).
        labels: (N,).

    Returns:
        The share among the 10 nearest neighbours (fewer where there are fewer features) in per cent, and what it
        would be if labels had nothing to do with features.
    """
    from sklearn.neighbors import NearestNeighbors

    nearest = NearestNeighbors(n_neighbors=min(NEIGHBOURS, len(features) - 1)).fit(features)
    neighbours = nearest.kneighbors(return_distance=False)
    share = 100 * float((labels[neighbours] == labels[:, None]).mean())
    pairs = sum(count * (count - 1) for count in Counter(labels.tolist()).values())
    return share, 100 * pairs / (len(labels) * (len(labels) - 1))


def silhouette(features: Points, labels: NDArray[Any]) -> float | None:
    """Mean silhouette of the classes by Euclidean distance, -1..1; None where there is nothing to separate."""
    from sklearn.metrics import silhouette_score

    classes = len(set(labels.tolist()))
    return float(silhouette_score(features, labels)) if 2 <= classes < len(labels) else None


def modality_gap(image: Points, text: Points) -> float:
    """Distance of the two centroids over the root mean square distance of a feature to its modality's centroid."""
    centres = image.mean(axis=0), text.mean(axis=0)
    spread = np.mean([((image - centres[0]) ** 2).sum(axis=1).mean(), ((text - centres[1]) ** 2).sum(axis=1).mean()])
    return float(np.linalg.norm(centres[0] - centres[1]) / np.sqrt(spread))


def by_class(plan: Plan, workspace: Workspace) -> Picture | None:
    """A panel for each row: z = [z_T ; z_I] of the test samples, marked by their class."""
    panels, notes = _panels(plan, workspace)
    if not panels:
        return None
    contents = [content for line in panels for _, content in line]
    shown = [label for label, _ in Counter(np.concatenate([one["label"] for one in contents]).tolist()).most_common()]
    told = sorted(shown[:CLASSES])
    figure, axes = _grid(panels, 2.85)
    handles: dict[str, Any] = {}
    for axis, title, content in axes:
        drawn = chosen(len(content["label"]), POINTS)
        joint = np.concatenate([content[name][drawn] for name in ("text", "image") if name in content], axis=1)
        labels = content["label"][drawn]
        points = flat(joint)
        for number, label in [(None, "other classes"), *enumerate(told)]:
            members = labels == label if number is not None else ~np.isin(labels, told)
            if members.any():
                handles[label] = _scatter(axis, points[members], number, len(points))
        clear = silhouette(joint, labels)
        share, chance = neighbour_share(joint, labels)
        lines = [title, *([f"silhouette {clear:z.2f}"] if clear is not None else [])]
        lines.append(f"{NEIGHBOURS}-NN purity {share:.0f} % (chance {chance:.0f} %)")
        axis.set_title("\n".join(lines), loc="left")
    names = [name for name in [*told, "other classes"] if name in handles]
    notes = [
        f"{_drawn(contents, 1)} Pooled features of text and image after fine-tuning, concatenated. Numbers are of "
        "the features themselves by Euclidean distance, not of the picture: silhouette of the classes (-1 to 1), and "
        f"purity, the share of a sample's {NEIGHBOURS} nearest neighbours that are of its class.",
        _about(plan),
        *notes,
    ]
    return Picture(figure, tuple(notes), {name: handles[name] for name in names})


def by_modality(plan: Plan, workspace: Workspace) -> Picture | None:
    """A panel for each row: z_I and z_T of the test samples in one space."""
    panels, notes = _panels(plan, workspace)
    if not panels:
        return None
    figure, axes = _grid(panels, 4.0)
    handles: dict[str, Any] = {}
    for axis, title, content in axes:
        drawn = chosen(len(content["label"]), POINTS // 2)
        image, text = content["image"][drawn], content["text"][drawn]
        both = np.concatenate([image, text])
        modality = np.repeat(["image feature", "text feature"], len(drawn))
        points = flat(both)
        for name, number in (("image feature", 2), ("text feature", 1)):
            handles[name] = _scatter(axis, points[modality == name], number, len(points))
        own, chance = neighbour_share(both, modality)
        axis.set_title(
            f"{title}\n{NEIGHBOURS}-NN mixing {100 - own:.0f} % (fully mixed {100 - chance:.0f} %)\n"
            f"modality gap {modality_gap(image, text):.2f}",
            loc="left",
        )
    contents = [content for line in panels for _, content in line]
    notes = [
        f"{_drawn(contents, 2)} The paper shows three dimensions. Numbers are of the pooled features themselves by "
        f"Euclidean distance, not of the picture: mixing, the share of a feature's {NEIGHBOURS} nearest neighbours "
        "that are of the other modality, and the gap, the distance of the modalities' centroids over the features' "
        "root mean square distance to their own.",
        _about(plan),
        *notes,
    ]
    return Picture(figure, tuple(notes), handles)


Panel = tuple[str, dict[str, NDArray[Any]]]


def _panels(plan: Plan, workspace: Workspace) -> tuple[list[list[Panel]], list[str]]:
    """A line of panels for each data set: title and features."""
    benchmarks, notes = results(plan, workspace)
    titled = len(benchmarks) > 1
    lines = [
        [
            (cell.row.title + (f", {benchmark.title}" if titled else ""), _read(workspace.folder(cell.step)))
            for cell in cells
        ]
        for benchmark, cells in benchmarks
    ]
    return lines, notes


def _read(folder: Path) -> dict[str, NDArray[Any]]:
    with np.load(folder / "features.npz") as content:
        return dict(content)


def _grid(panels: Sequence[Sequence[Panel]], height: float) -> tuple[Figure, list[tuple[Axes, str, dict[str, Any]]]]:
    """A figure with an empty panel for each, in lines."""
    columns = max(map(len, panels))
    figure = Figure((WIDTH, height * len(panels)), layout="constrained")
    axes = figure.subplots(len(panels), columns, squeeze=False)
    found = []
    for line, row in zip(panels, axes, strict=True):
        for axis in row[len(line) :]:
            axis.set_axis_off()
        for axis, (title, content) in zip(row, line, strict=False):
            axis.set_box_aspect(1)
            axis.set_aspect("equal", adjustable="datalim")  # t-SNE is about distances
            axis.set_xticks([])
            axis.set_yticks([])
            axis.spines[:].set(visible=True, color="0.7")
            found.append((axis, title, content))
    return figure, found


def _scatter(axis: Axes, points: Points, number: int | None, total: int) -> Line2D:
    """Draw points of one kind (None: of no kind that is told apart), and return its mark for the legend."""
    size = float(np.clip(70 / np.sqrt(total), 2, 4))
    style = {"marker": ".", "color": "0.75"} if number is None else mark_style(number)
    # Empty marks are transparent here, or they would hide what is beneath them.
    if style.get("markerfacecolor") == "white":
        style["markerfacecolor"] = "none"
    style |= {"linestyle": "", "markeredgewidth": 0.6}
    axis.plot(points[:, 0], points[:, 1], markersize=size, **style)
    return Line2D([], [], markersize=4.5, **style)


def _drawn(contents: Sequence[dict[str, NDArray[Any]]], each: int) -> str:
    """How many samples are drawn, of how many, and how."""
    counts = {len(content["label"]) for content in contents}
    most = POINTS // each
    drawn = " and ".join(f"{min(count, most)} of {count}" if count > most else str(count) for count in sorted(counts))
    perplexity = min(_PERPLEXITY, (each * min(*counts, most) - 1) / 3)
    return f"t-SNE of {drawn} test samples (perplexity {perplexity:.0f}, from principal components, seed {_SEED})."


def _about(plan: Plan) -> str:
    titles = dict.fromkeys(cell.benchmark.title for cell in plan.cells)
    return f"Data: {', '.join(titles)}. Training seed {plan.cells[0].benchmark.seed}."
