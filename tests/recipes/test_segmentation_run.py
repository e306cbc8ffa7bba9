"""The run of a segmenter: how it reads other data than its own."""

import shutil

import pytest

from medtextdiff.data.errors import DataError
from medtextdiff.data.sources import folders, lvit, manifest, targets
from medtextdiff.recipes.segmentation_run import Data


def test_another_folder_of_masks_changes_nothing_else_of_the_source(tmp_path):
    folders.Config.tiny(tmp_path / "own")
    other = shutil.copytree(tmp_path / "own", tmp_path / "other")
    shutil.copytree(other / "masks", other / "masks_lesion")
    table = other / "notes.csv"
    head, *rows = table.read_text().splitlines()
    rows = [f"{row},finding {k},person {k // 2}" for k, row in enumerate(rows)]
    table.write_text("\n".join([f"{head},finding,person", *rows]) + "\n")
    source = folders.Config(root=str(tmp_path / "own"), notes_columns=("finding",), patient_column="person")
    record = Data(source=source).at(other, "masks_lesion").build().records()[0]
    assert record.mask.parent == other / "masks_lesion"
    assert (record.note, record.patient) == ("finding 0", "person 0")
    found = Data().at(other, "masks_lesion").build().records()[0]
    assert found.mask.parent == other / "masks_lesion"


@pytest.mark.parametrize(("layout", "known"), [(lvit, 1), (lvit, 0), (manifest, 1), (manifest, 0), (targets, 1)])
def test_a_layout_that_knows_its_masks_takes_no_other_folder(layout, known, tmp_path):
    tmp_path.joinpath("set").mkdir()
    source = layout.Config.tiny(tmp_path / "set")
    with pytest.raises(DataError, match="leave out --masks masks_lesion"):
        Data(source=source if known else None).at(source.root, "masks_lesion")
