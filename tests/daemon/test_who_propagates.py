"""The rule, by figures: who has what to do decides, not who is quicker."""

import math

import pytest

from daemon.who_propagates import (
    LAST,
    SEGMENTS,
    SPARE,
    Rate,
    Rates,
    core_begins,
    device_takes,
    devices_need,
    filled,
)


class TestRate:
    def test_begins_with_what_is_assumed(self) -> None:
        assert Rate(0.5).seconds(4) == 2

    def test_is_what_was_measured(self) -> None:
        rate = Rate(100.0)
        for _ in range(2):
            rate.measured(6.0, 2)
        assert rate.seconds(10) == 30

    def test_one_that_was_held_up_counts_for_nothing(self) -> None:
        rate = Rate(1.0)
        rate.measured(500.0, 1)  # the first call compiles
        assert rate.seconds(1) == 1
        rate.measured(2.0, 1)
        rate.measured(2.0, 1)
        assert rate.seconds(1) == 2

    def test_follows_what_changes(self) -> None:
        rate = Rate(1.0)
        for _ in range(LAST):
            rate.measured(9.0, 1)
        for _ in range(LAST // 2 + 1):
            rate.measured(3.0, 1)
        assert rate.seconds(1) == 3

    def test_nothing_done_is_no_measurement(self) -> None:
        rate = Rate(1.0)
        rate.measured(5.0, 0)
        assert rate.seconds(1) == 1


def test_few_segments_take_a_device_nearly_as_long_as_many() -> None:
    assert filled([4.0]) == 4 * (1 + SPARE)
    assert filled([4.0] * 6) == 4 * (6 + SPARE)
    rates = Rates(device=Rate(1.0))
    assert rates.group([4.0] * 6) == 4 * (6 + SPARE)
    assert rates.group([2.0, 4.0]) == 6 + 4 * SPARE
    assert rates.windows(2 * SEGMENTS * 4.0) == 2 * rates.group([4.0] * SEGMENTS)
    assert rates.group([]) == 0


class TestFreeCores:
    """Two cores' work a device's second."""

    rates = Rates(translate=Rate(3.0), around=Rate(6.0))

    @pytest.mark.parametrize(
        ("cores", "devices", "free"), [(3, 0, 3), (3, 1, 1), (16, 1, 14), (16, 8, 0), (4, 8, 0)]
    )
    def test_those_that_feed_devices_are_not(self, cores: int, devices: int, free: int) -> None:
        assert self.rates.free_cores(cores, devices) == free

    def test_few_of_them_feed_a_slow_device(self) -> None:
        slow = Rates(translate=Rate(60.0), around=Rate(6.0))
        assert slow.free_cores(3, 1) == 3


class TestDeviceTakes:
    def test_with_nothing_to_translate_what_it_is_done_with_sooner(self) -> None:
        assert device_takes(group=0.5, pool=0.0, core=5.0, window=None)
        assert device_takes(group=9.0, pool=5.0, core=5.0, window=None)
        assert not device_takes(group=11.0, pool=5.0, core=5.0, window=None)

    def test_translates_first_while_cores_keep_up(self) -> None:
        assert not device_takes(group=0.5, pool=2.0, core=5.0, window=2.0)

    def test_propagates_first_while_cores_have_enough_to_do_meanwhile(self) -> None:
        assert device_takes(group=0.5, pool=2.6, core=5.0, window=2.0)


class TestCoreBegins:
    def test_while_devices_have_more_to_do(self) -> None:
        assert core_begins(5.0, 6.0)
        assert core_begins(5.0, math.inf)

    def test_leaves_it_where_devices_are_done_before(self) -> None:
        assert not core_begins(5.0, 2.0)

    def test_somebody_does_it(self) -> None:
        """Where a device with nothing to translate takes nothing, cores begin it."""
        for group in (0.1, 1.0, 5.0, 20.0):
            for core in (0.1, 1.0, 5.0, 20.0):
                for pool in (0.0, 3.0, 50.0):
                    taken = device_takes(group, pool, core, None)
                    assert taken or core_begins(core, devices_need([], group, [], 1))


class TestDevicesNeed:
    def test_all_of_it_shared(self) -> None:
        assert devices_need([4.0, 6.0], 10.0, [], 2) == 10

    def test_a_clip_has_one_device(self) -> None:
        assert devices_need([9.0, 1.0], 2.0, [], 8) == 9

    def test_with_what_is_in_work(self) -> None:
        assert devices_need([], 0.0, [(5.0, 2.0)], 1) == 3

    def test_what_is_late_takes_as_long_again(self) -> None:
        assert devices_need([], 0.0, [(5.0, 40.0)], 1) == 40

    @pytest.mark.parametrize("count", [1, 8])
    def test_nothing_to_do(self, count: int) -> None:
        assert devices_need([], 0.0, [], count) == 0
