import random

import pytest

from daemon.activity import SLOT, SLOTS, BusyTime


class TestBusyTime:
    def test_is_what_lies_within(self) -> None:
        busy = BusyTime()
        busy.add(1, 3)
        busy.add(10, 40)
        assert busy.since(0, 50) == pytest.approx(32)
        assert busy.since(20, 50) == pytest.approx(20)
        assert busy.since(40, 50) == 0
        assert busy.total == 32

    def test_within_a_slot_it_is_spread_evenly(self) -> None:
        busy = BusyTime()
        busy.add(0, SLOT / 2)
        assert busy.since(SLOT / 2, SLOT) == pytest.approx(SLOT / 4)

    def test_what_is_long_ago_is_forgotten_and_its_place_used_again(self) -> None:
        busy = BusyTime()
        busy.add(0, 300)
        assert busy.since(0, 300) == pytest.approx(300)
        assert busy.since(400 - 300, 400) == pytest.approx(200)
        assert busy.since(1e6 - 300, 1e6) == 0
        busy.add(1e6 + 10, 1e6 + 20)
        assert busy.since(1e6, 1e6 + 30) == pytest.approx(10)
        assert busy.total == 310

    def test_a_span_of_days(self) -> None:
        busy = BusyTime()
        busy.add(0, 1e6)
        assert busy.since(1e6 - 300, 1e6) == pytest.approx(300)

    def test_what_comes_late_is_not_taken_for_new(self) -> None:
        busy = BusyTime()
        busy.add(1000, 1010)
        busy.add(1, 2)  # its slot is another's by now
        busy.add(990, 1000)
        assert busy.since(800, 1010) == pytest.approx(20)

    def test_is_what_adding_up_the_spans_gives(self) -> None:
        chance, busy, spans, now = random.Random(4), BusyTime(), [], 0.0
        for _ in range(500):
            begin = now + chance.random() * 2
            now = begin + chance.random() * 9
            spans.append((begin, now))
            busy.add(begin, now)
            last = chance.choice([SLOT, 60, 300])
            first = max(0.0, now - last) // SLOT * SLOT  # where slots begin it is exact
            if (now // SLOT) - (first // SLOT) < SLOTS:
                exact = sum(max(0, min(e, now) - max(b, first)) for b, e in spans)
                assert busy.since(first, now) == pytest.approx(exact)
