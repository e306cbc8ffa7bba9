"""Configs: to JSON and back, `--set`, and what may not be named."""

import pytest
from pydantic import SerializeAsAny

from medtextdiff import config
from medtextdiff.config import ConfigError, from_json, map_strings, override, to_json
from medtextdiff.segmentation import losses
from medtextdiff.segmentation.fusion import cross_attention, none


class Inner(config.Config):
    extra: losses.Config = losses.Config()


class Outer(config.Config):
    inner: Inner = Inner()
    fusion: config.Config = cross_attention.Config()
    sizes: tuple[int, ...] = (1, 2)
    rate: float | None = 0.5
    name: str = "x"
    names: tuple[str, ...] = ()
    extra: losses.Config | None = None
    part: SerializeAsAny[config.Config] | None = None


def test_round_trip_keeps_types_and_values() -> None:
    value = losses.Config()
    written = to_json(value)
    assert written["kind"] == "medtextdiff.segmentation.losses"
    assert from_json(written) == value


def test_override_sets_plain_values_checked_by_type() -> None:
    changed = override(Outer(), ["sizes=3,4,5", "rate=null", "name=12", "names=one"])
    assert changed == Outer(sizes=(3, 4, 5), rate=None, name="12", names=("one",))
    for numbers in ("007, 12", '["007", 12]'):
        assert override(Outer(), [f"names={numbers}"]).names == ("007", "12")
    assert override(Outer(), ["names=[12]"]).names == ("12",)


def test_override_swaps_a_part_for_its_sibling() -> None:
    assert override(Outer(), ["fusion=none"]) == Outer(fusion=none.Config())


def test_override_takes_the_settings_of_a_part_as_json() -> None:
    chosen = losses.Config(dice_weight=0.25)
    first = override(Outer(), ['extra={"dice_weight": 0.5, "smooth": 2}'])
    assert first.extra == losses.Config(dice_weight=0.5, smooth=2)
    assert override(first, ['extra={"dice_weight": 0.25}']).extra == chosen.replace(smooth=2)  # the others stay
    nested = override(Outer(), ["inner.extra.smooth=3", 'inner={"extra": {"dice_weight": 0.25}}'])
    assert nested.inner.extra == chosen.replace(smooth=3)
    assert override(first, ["extra=null"]) == Outer()
    kind = '{"kind": "medtextdiff.segmentation.losses", "dice_weight": 0.25}'
    assert override(Outer(), [f"part={kind}", f"fusion={kind}"]) == Outer(part=chosen, fusion=chosen)


@pytest.mark.parametrize(
    ("assignment", "says"),
    [
        ("fusionn=none", "did you mean 'fusion'"),
        ("fusion=crossattention", "did you mean 'cross_attention'"),
        ("rate=fast", "'rate' cannot be 'fast'"),
        ("rate", "takes name=value"),
        ("rate.x=1", "holds a plain value"),
        ("extra.smooth=2", "'extra' is null here; set it whole, --set 'extra="),
        ('fusion={"num_haeds": 4}', "did you mean 'num_heads'"),
        ('fusion={"kind": "os.path"}', "outside medtextdiff"),
        ('extra={"smooth": "much"}', "'extra' cannot be"),
    ],
)
def test_override_says_what_is_wrong(assignment: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        override(Outer(), [assignment])


@pytest.mark.parametrize("kind", ["os.path", "subprocess", "medtextdiffx.evil", "torch.nn"])
def test_a_kind_outside_the_package_is_refused(kind: str) -> None:
    with pytest.raises(ConfigError, match="outside medtextdiff"):
        from_json({"kind": kind})


def test_unknown_parts_and_fields_are_refused() -> None:
    with pytest.raises(ConfigError, match="no such part"):
        from_json({"kind": "medtextdiff.segmentation.fusion.nothing_like_it"})
    with pytest.raises(ConfigError, match="did you mean 'dice_weight'"):
        from_json({"kind": "medtextdiff.segmentation.losses", "dice_wieght": 1})


def test_map_strings_reaches_nested_strings_only() -> None:
    changed = map_strings(Outer(name="./a"), lambda text: text.replace("./", "/run/"))
    assert changed == Outer(name="/run/a")
