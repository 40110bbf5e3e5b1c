from fresco_core.options import TranslationOptions


def test_smoothing_steps_move_with_the_length_of_the_schedule():
    def smoothed(steps: int) -> list[int]:
        options = TranslationOptions(steps=steps)
        return [index for index in range(steps) if options.smooths(index)]

    assert smoothed(20) == [16, 17]
    assert smoothed(50) == [40, 41, 42, 43, 44]
    assert smoothed(10) == [8]
