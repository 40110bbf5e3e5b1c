"""A timeline as a picture: a row for every track, what it did and what it waited for; memory below.

Legend: R rows, B bins of time.
"""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from numpy.typing import NDArray

from daemon.timeline import NO_TRACK, Floats, Spans

_BINS = 2400
_MOST_ROWS = {"device": 64, "cpu": 32, "reader": 16}
_ROWS_OF_OTHERS = 16
_TITLES = {"device": "devices", "cpu": "CPU pool", "reader": "readers"}
_ORDER = ("device", "cpu", "reader")

_STAGE_COLOURS = {
    "prepare": "#4e79a7",
    "match": "#76b7b2",
    "translate": "#3d9a5f",
    "propagate": "#f2a03d",
    "publish": "#a06cb0",
}
_MORE_STAGES = ("#9c755f", "#b6992d", "#d37295", "#499894")
_CAUSE_COLOURS = {
    "no job": "#b8bdc4",
    "frames": "#1f4e89",
    "control maps": "#d62728",
    "flows": "#8c564b",
    "memory": "#7f3c8d",
    "core": "#e377c2",
    "loading": "#6b4423",
    "disk": "#111111",
}
_MORE_CAUSES = ("#17becf", "#bcbd22")
_BACKGROUND = (0.965, 0.965, 0.97)
# A row is so many lines of pixels: work fills all but the last, which parts it from the next row;
# waits are a band in the middle.
_ROW, _BAND = 9, slice(3, 5)


@dataclass(frozen=True)
class _Colours:
    """A colour for everything that occurs; ``legend`` in the order to be shown."""

    of: Sequence[NDArray[np.float64]]
    legend: Sequence[Patch]


def draw(spans: Spans, counters: Mapping[str, tuple[Floats, Floats]], text: Sequence[str]) -> bytes:
    """The picture, as PNG; ``text`` is shown above it."""
    ends = [
        spans.end.max(initial=0.0),
        *(times[-1] for times, _ in counters.values() if len(times)),
    ]
    total = max(float(max(ends)), 1e-3)
    edges_B = np.linspace(0.0, total, _BINS + 1)
    colours = _colours(spans)
    groups = _groups(spans)
    waits = sorted(set(spans.what[spans.track == NO_TRACK].tolist()))

    heights = [_height(kind, len(numbers)) for kind, numbers in groups]
    heights += [0.2 * len(waits)] if waits else []
    heights += [1.3] * len(counters)
    heading = 0.55 + 0.2 * len(text)
    figure = Figure(figsize=(15, heading + sum(heights) + 0.3 * len(heights) + 0.6), dpi=110)
    FigureCanvasAgg(figure)
    full = figure.get_figheight()
    grid = figure.add_gridspec(
        max(1, len(heights)),
        1,
        height_ratios=heights or [1],
        left=0.085,
        right=0.855,
        top=1 - heading / full,
        bottom=0.5 / full,
        hspace=0.3 * len(heights) / max(sum(heights), 1e-6),
    )
    cells = [figure.add_subplot(grid[row]) for row in range(len(heights))]
    rest = iter(cells)
    for (kind, numbers), axes in zip(groups, rest, strict=False):
        if len(numbers) > _MOST_ROWS.get(kind, _ROWS_OF_OTHERS):
            _area(axes, spans, kind, len(numbers), edges_B, colours)
        else:
            _rows(axes, spans, numbers, edges_B, colours)
        axes.set_title(_TITLES.get(kind, kind), loc="left", fontsize=9, pad=3)
    rest = iter(cells[len(groups) :])
    if waits:
        axes = next(rest)
        _waits(axes, spans, waits, edges_B, colours)
        axes.set_title("clips waiting", loc="left", fontsize=9, pad=3)
    for (name, (times, values)), axes in zip(counters.items(), rest, strict=False):
        _curve(axes, name, times, values, total)
    _time_axis(cells, total)
    for line, words in enumerate((_title(spans, total), *text)):
        figure.text(
            0.085,
            1 - (0.24 + 0.2 * line) / full,
            words,
            fontsize=12 if line == 0 else 9.5,
            weight="bold" if line == 0 else "normal",
        )
    if colours.legend:
        figure.legend(
            handles=list(colours.legend),
            loc="upper left",
            bbox_to_anchor=(0.862, 1 - heading / full),
            fontsize=9,
            frameon=False,
        )
    stream = io.BytesIO()
    figure.savefig(stream, format="png")
    return stream.getvalue()


def coverage(begin_N: Floats, end_N: Floats, edges_B: Floats) -> Floats:
    """How many of the spans there are in each bin of time, on average: float64 (B,)."""
    times = np.concatenate([begin_N, end_N])
    change = np.concatenate([np.ones(len(begin_N)), -np.ones(len(end_N))])
    order = np.argsort(times, kind="stable")
    times, level = times[order], np.cumsum(change[order])
    if not len(times):
        return np.zeros(len(edges_B) - 1)
    seconds = np.concatenate([[0.0], np.cumsum(level[:-1] * np.diff(times))])
    return np.asarray(np.diff(np.interp(edges_B, times, seconds)) / np.diff(edges_B), np.float64)


def _title(spans: Spans, total: float) -> str:
    from daemon.progress import duration

    work = spans.of(work=True)
    clips = len(set(spans.job[work].tolist()) - {0})
    windows = len(
        set(zip(spans.job[chosen].tolist(), spans.window[chosen].tolist(), strict=True))
        if (chosen := spans.of(name="translate", work=True)).any()
        else ()
    )
    return f"{clips} clips, {windows} windows translated in {duration(total)}"


def _groups(spans: Spans) -> list[tuple[str, list[int]]]:
    groups: dict[str, list[int]] = {kind: [] for kind in _ORDER}
    for number, track in enumerate(spans.tracks):
        groups.setdefault(track.kind, []).append(number)
    return [(kind, numbers) for kind, numbers in groups.items() if numbers]


def _height(kind: str, count: int) -> float:
    if count > _MOST_ROWS.get(kind, _ROWS_OF_OTHERS):
        return 2.6
    return max(0.3, count * (0.3 if kind == "device" else 0.17))


def _colours(spans: Spans) -> _Colours:
    from matplotlib.colors import to_rgb

    stages, causes = iter(_MORE_STAGES * 9), iter(_MORE_CAUSES * 9)
    of, patches = [], []
    for what in spans.whats:
        known = _STAGE_COLOURS if what.is_work else _CAUSE_COLOURS
        name = known.get(what.name) or next(stages if what.is_work else causes)
        of.append(np.array(to_rgb(name)))
        label = what.name if what.is_work else f"waits: {what.name}"
        place = list(known).index(what.name) if what.name in known else len(known)
        patches.append(((not what.is_work, place), Patch(color=name, label=label)))
    return _Colours(of, [patch for _, patch in sorted(patches, key=lambda item: item[0])])


def _rows(
    axes: Axes, spans: Spans, numbers: Sequence[int], edges_B: Floats, colours: _Colours
) -> None:
    """Every bin is coloured by what its track did, mixed by share."""
    image = np.ones((len(numbers) * _ROW, len(edges_B) - 1, 3))
    for row, number in enumerate(numbers):
        lines = image[row * _ROW : (row + 1) * _ROW - 1]
        lines[:] = _BACKGROUND
        mine = spans.track == number
        for is_work in (True, False):  # waits are painted over idle ground
            place = lines if is_work else lines[_BAND]
            for what, kind in enumerate(spans.whats):
                chosen = mine & (spans.what == what)
                if kind.is_work == is_work and chosen.any():
                    share_B = coverage(spans.begin[chosen], spans.end[chosen], edges_B)
                    paint = np.minimum(share_B, 1)[:, None]
                    place += paint * (colours.of[what] - (_BACKGROUND if is_work else place))
    axes.imshow(
        np.clip(image, 0, 1),
        aspect="auto",
        interpolation="antialiased",
        extent=(0, edges_B[-1], len(numbers), 0),
    )
    axes.set_yticks(np.arange(len(numbers)) + 0.45, [spans.tracks[i].name for i in numbers])
    axes.tick_params(axis="y", length=0, labelsize=8 if len(numbers) <= 16 else 7)
    _no_frame(axes)


def _area(
    axes: Axes, spans: Spans, kind: str, count: int, edges_B: Floats, colours: _Colours
) -> None:
    """How many of a kind were busy, by stage."""
    middle_B = (edges_B[1:] + edges_B[:-1]) / 2
    layers, shades = [], []
    for what, about in enumerate(spans.whats):
        chosen = spans.of(kind) & (spans.what == what)
        if about.is_work and chosen.any():
            layers.append(coverage(spans.begin[chosen], spans.end[chosen], edges_B))
            shades.append(tuple(colours.of[what]))
    if layers:
        axes.stackplot(middle_B, *layers, colors=shades, linewidth=0)
    axes.axhline(count, color="#888888", linewidth=0.8)
    axes.set_ylim(0, count * 1.03)
    axes.set_ylabel(f"busy of {count}", fontsize=8)
    axes.tick_params(axis="y", labelsize=8)
    _no_frame(axes)


def _waits(
    axes: Axes, spans: Spans, waits: Sequence[int], edges_B: Floats, colours: _Colours
) -> None:
    image = np.ones((len(waits) * _ROW, len(edges_B) - 1, 3))
    for row, what in enumerate(waits):
        chosen = (spans.track == NO_TRACK) & (spans.what == what)
        share_B = coverage(spans.begin[chosen], spans.end[chosen], edges_B)
        paint = np.minimum(share_B, 1)[:, None]
        lines = image[row * _ROW : (row + 1) * _ROW - 1]
        lines[:] = _BACKGROUND + paint * (colours.of[what] - _BACKGROUND)
    axes.imshow(
        np.clip(image, 0, 1),
        aspect="auto",
        interpolation="antialiased",
        extent=(0, edges_B[-1], len(waits), 0),
    )
    labels = [f"for {spans.whats[what].name}" for what in waits]
    axes.set_yticks(np.arange(len(waits)) + 0.45, labels, fontsize=8)
    axes.tick_params(axis="y", length=0)
    _no_frame(axes)


def _curve(axes: Axes, name: str, times: Floats, values: Floats, total: float) -> None:
    peak = float(values.max(initial=0.0))
    unit, divisor = ("GiB", 2**30) if peak >= 2**30 else ("MiB", 2**20)
    if peak < 2**20:
        unit, divisor = "", 1
    steps = np.append(times, total), np.append(values, values[-1:]) / divisor
    axes.fill_between(*steps, step="post", color="#7f3c8d", alpha=0.25, linewidth=0)
    axes.step(*steps, where="post", color="#7f3c8d", linewidth=0.9)
    axes.set_ylim(0, max(peak / divisor * 1.1, 1e-9))
    axes.set_ylabel(unit, fontsize=8)
    axes.tick_params(axis="y", labelsize=8)
    axes.set_title(
        f"{name}, at most {peak / divisor:.3g} {unit}".rstrip(), loc="left", fontsize=9, pad=3
    )
    _no_frame(axes)


def _time_axis(cells: Sequence[Axes], total: float) -> None:
    divisor, unit = (1.0, "s") if total < 300 else (60.0, "min") if total < 18000 else (3600.0, "h")
    step = _nice(total / divisor / 12)
    ticks = np.arange(0, total / divisor + step / 1000, step)
    for axes in cells:
        axes.set_xlim(0, total)
        axes.set_xticks(ticks * divisor, [f"{tick:g}" for tick in ticks.round(6)])
        last = axes is cells[-1]
        axes.tick_params(axis="x", labelsize=8, labelbottom=last, length=3 if last else 0)
        if last:
            axes.set_xlabel(unit, fontsize=9, labelpad=1)


def _nice(step: float) -> float:
    magnitude = 10.0 ** np.floor(np.log10(step))
    return float(next(m for m in (1, 2, 5, 10) if m * magnitude >= step) * magnitude)


def _no_frame(axes: Axes) -> None:
    for side in ("top", "right", "left", "bottom"):
        axes.spines[side].set_visible(False)
