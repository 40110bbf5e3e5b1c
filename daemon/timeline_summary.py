"""A timeline in a few sentences: how busy devices and cores were, what held the rest up."""

from daemon.timeline import NO_TRACK, Spans, translation

# What would help where devices wait for something.
_REMEDIES = {
    "control maps": 'more cores or control.device = "gpu" would help',
    "core": "more cores would help",
    "flows": "more cores would help",
    "disk": "the disk of the output folder is full or slow",
    "frames": "more cores or a larger prefetch.windows would help",
    "memory": "a larger prefetch.memory would help",
    "no job": "at the beginning, at the end or in between none was ready",
    "loading": "processes were started, or started again",
}
# Shares of the time below which nothing was held up, and above which something was busy.
_LITTLE, _MOST = 0.03, 0.95
# Seconds of work after the last translation, as a share of the whole, that are worth a word.
_TAIL = 0.1
# Share of the cores that are busy in it where more of them would help.
_SHARED = 0.5


def summary(spans: Spans) -> list[str]:
    """Sentences for people, each one line; none where nothing was translated."""
    first, last = translation(spans)
    if last <= first:
        return []
    tail = _tail(spans, last)
    devices, pool = _devices(spans, first, last, not tail), _pool(spans, first, last)
    return [line for line in (*devices, *pool, tail) if line]


def _devices(spans: Spans, first: float, last: float, to_the_end: bool) -> list[str]:
    numbers = [i for i, track in enumerate(spans.tracks) if track.kind == "device"]
    if not numbers:
        return []
    names = [spans.tracks[i].name for i in numbers]
    call = "GPUs" if all(name.startswith("cuda") for name in names) else "devices"
    call = call if len(names) > 1 else names[0]
    work = spans.of("device", work=True)
    shares = [
        spans.seconds(work & (spans.track == i), first, last) / (last - first) for i in numbers
    ]
    busy = sum(shares) / len(shares)
    line = f"from first to last translation {call} worked {_percent(busy)} of the time"
    propagated = work & spans.of("device", "propagate")
    if propagated.any():
        total = spans.seconds(propagated, first, last) / (len(numbers) * (last - first))
        line += f", {_percent(total)} at propagating"
    if len(names) > 1:
        each = (f"{n} {_percent(share)}" for n, share in zip(names, shares, strict=True))
        line += f" ({', '.join(each)})"
    if 1 - busy < _LITTLE:
        # Where others go on after them, it was not the devices.
        verdict = f"{call} held the rest up: more devices would be faster"
        return [line, verdict] if to_the_end else [line]
    total = len(numbers) * (last - first)
    waits = {
        what.name: spans.seconds(spans.of("device", what.name, work=False), first, last) / total
        for what in spans.whats
        if not what.is_work
    }
    # A device that neither works nor waits has no clip.
    waits["no job"] = waits.get("no job", 0.0) + max(0.0, 1 - busy - sum(waits.values()))
    cause, share = max(waits.items(), key=lambda item: item[1])
    remedy = _REMEDIES.get(cause, "the trace shows when")
    waited = f"{call} waited {_percent(1 - busy)} of the time, {_percent(share)} for "
    return [line, f"{waited}{'a clip' if cause == 'no job' else _named(cause)}: {remedy}"]


def _pool(spans: Spans, first: float, last: float) -> list[str]:
    count = sum(track.kind == "cpu" for track in spans.tracks)
    if not count:
        return []
    total = count * (last - first)
    busy = spans.seconds(spans.of("cpu", work=True), first, last) / total
    line = f"the CPU pool was busy {_percent(busy)} meanwhile"
    if busy < _MOST:
        return [line]
    stages = {
        what.name: spans.seconds(spans.of("cpu", what.name, work=True), first, last) / total
        for what in spans.whats
        if what.is_work
    }
    stage, share = max(stages.items(), key=lambda item: item[1])
    return [f"{line} ({stage} {_percent(share)}) and held the rest up: more cores would help"]


def _tail(spans: Spans, last: float) -> str:
    work = spans.of(work=True) & (spans.track != NO_TRACK)
    begin, end = float(spans.begin[work].min()), float(spans.end[work].max())
    if end - last < _TAIL * (end - begin):
        return ""
    line = f"work went on for {end - last:.0f} s after the last translation"
    count = sum(track.kind == "cpu" for track in spans.tracks)
    busy = spans.seconds(spans.of("cpu", work=True), last, end)
    # Where most cores were idle it was one clip's last frames, or the first call of something.
    helps = count and busy > _SHARED * count * (end - last)
    return f"{line}: more cores would help" if helps else line


def _named(cause: str) -> str:
    return {"core": "a core", "loading": "models"}.get(cause, cause)


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"
