"""What every source must do; a new file in `data/sources` is tested here unasked. It writes its layout with `tiny`."""

import importlib
import json
import pkgutil

import pytest

from medtextdiff import config
from medtextdiff.data import sources
from medtextdiff.data.errors import DataError
from medtextdiff.data.images import read, read_mask
from medtextdiff.data.records import Source

NAMES = [module.name for module in pkgutil.iter_modules(sources.__path__)]


@pytest.fixture(params=NAMES)
def settings(request, tmp_path):
    module = importlib.import_module(f"medtextdiff.data.sources.{request.param}")
    return module.Config.tiny(tmp_path)


def test_config_survives_json(settings):
    assert config.from_json(json.loads(json.dumps(config.to_json(settings)))) == settings


def test_side_is_the_viewers_unless_said(settings):
    assert settings.build().side == "viewer"
    assert settings.replace(side="patient").build().side == "patient"


def test_builds_without_touching_the_disk(settings):
    assert isinstance(settings.replace(root="/nowhere/at/all").build(), Source)


def test_records_come_in_the_same_order_with_distinct_ids(settings):
    records = settings.build().records()
    assert records == settings.build().records()
    assert len({record.id for record in records}) == len(records) > 3


def test_splits_part_the_records(settings):
    source = settings.build()
    train, val = source.records("train"), source.records("val")
    assert train
    assert val
    assert sorted(r.id for r in train + val) == sorted(r.id for r in source.records())
    assert {record.split for record in train} == {"train"}


def test_unknown_split_names_the_known(settings):
    with pytest.raises(DataError, match="did you mean 'train'"):
        settings.build().records("trian")


def test_a_root_that_is_not_there_is_named(settings):
    with pytest.raises(DataError, match="nowhere"):
        settings.replace(root="/nowhere/at/all").build().records()


def test_files_exist_and_masks_fit(settings):
    for record in settings.build().records():
        pixels = read(record.image).pixels
        if record.mask is not None:  # sets for synthesis have none
            assert pixels.shape[:2] == read_mask(record.mask).shape
        assert record.note.startswith("A bright disc")


def test_detect_finds_this_layout(settings):
    if "targets" in type(settings).model_fields:
        pytest.skip("how a note asks for each target must be said")
    found = sources.detect(settings.root, side=settings.side)
    assert type(found) is type(settings)
    assert found.build().records() == settings.build().records()


def test_a_missing_image_is_named_with_its_row(settings):
    victim = settings.build().records()[0].image
    victim.unlink()
    listing = settings.build().listing()
    if all(finding.severity != "error" for finding in listing.findings):  # the folder is the list
        assert victim not in [record.image for record in listing.records]
        return
    with pytest.raises(DataError, match=victim.name):
        settings.build().records()


def test_a_missing_mask_is_named(settings):
    if "targets" in type(settings).model_fields:
        pytest.skip("a mask that is not there was not drawn")
    victim = settings.build().records()[1].mask
    if victim is None:
        pytest.skip("a set for synthesis, without masks")
    victim.unlink()
    with pytest.raises(DataError, match=victim.name):
        settings.build().records()
