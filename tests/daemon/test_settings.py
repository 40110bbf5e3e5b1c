from daemon.config import Layer, keys, merge
from daemon.settings import Output, Settings


class TestFingerprint:
    def test_changes_with_every_setting_that_changes_the_result(self) -> None:
        other = {
            bool: lambda value: not value,
            int: lambda value: value + 1,
            float: lambda value: value + 1,
            str: lambda value: value + "x",
            tuple[str, ...]: lambda value: (*value, "x"),
        }
        plain = Settings().fingerprint()
        for key, field in keys():
            section, _, name = key.rpartition(".")
            table = getattr(Settings(), section) if section else Settings()
            value = getattr(table, name)
            change = other.get(field.annotation, lambda value: value[:-1])  # type: ignore[arg-type]
            changed_table = table.model_copy(update={name: change(value)})
            settings = (
                Settings().model_copy(update={section: changed_table}) if section else changed_table
            )
            no_matter = {"inbox", "prefetch", "cpu", "timeouts", "service", "metrics", "log"}
            same = section in no_matter or key in {
                "devices",
                "devices_required",
                "output.folder",
                "control.device",
                "models.offline",
                "propagation.processes",
                "propagation.device",
                "propagation.device_memory",
                "limits.max_pixels",
                "clips.on_truncated",
            }
            assert (settings.fingerprint() == plain) is same, key

    def test_does_not_depend_on_how_a_number_is_written(self) -> None:
        first = merge(Layer("a", {"constraints.optimization_spatial_weight": 100}))
        assert first.fingerprint() == Settings().fingerprint()

    def test_a_key_of_a_later_version_leaves_it_as_it_was(self) -> None:
        class LaterOutput(Output):
            sharpen: float = 0.0

        class LaterSettings(Settings):
            output: LaterOutput = LaterOutput()
            night: bool = False

        chosen = {"translation": {"seed": 4}, "output": {"crf": 20}}
        before = Settings.model_validate(chosen).fingerprint()
        later = LaterSettings.model_validate({**chosen, "output": LaterOutput(crf=20)})
        assert later.fingerprint() == before
        changed = later.model_copy(update={"output": LaterOutput(crf=20, sharpen=1.0)})
        assert changed.fingerprint() != before
