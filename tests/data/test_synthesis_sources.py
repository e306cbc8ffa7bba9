"""The official layouts of sets for synthesis."""

import pytest

from medtextdiff.data.errors import DataError
from medtextdiff.data.sources import detect, medvqa_gi, rocov2


def edit(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def test_medvqa_splits_by_image(tmp_path):
    settings = medvqa_gi.Config.tiny(tmp_path)
    records = settings.build().records()
    assert len({record.image for record in records}) == len(records) == 8
    assert all(len(record.other_notes) == 1 for record in records)
    assert 0 < sum(record.split == "val" for record in records) < 5
    splits = {record.id: record.split for record in records}
    (tmp_path / "images" / "disc_00.png").unlink()
    table = tmp_path / medvqa_gi.TABLE
    table.write_text("\n".join(line for line in table.read_text().splitlines() if "disc_00" not in line) + "\n")
    assert {r.id: r.split for r in settings.build().records()}.items() <= splits.items()  # no other image moves
    other = settings.replace(split_seed=1, val_share=0.5).build().records()
    assert {r.id for r in other if r.split == "val"} != {name for name, split in splits.items() if split == "val"}


def test_medvqa_paraphrases_are_further_prompts(tmp_path):
    settings = medvqa_gi.Config.tiny(tmp_path)
    table = tmp_path / medvqa_gi.TABLE
    lines = table.read_text().splitlines()
    table.write_text("\n".join(["Prompt;Filename;Paraphrase", *(f"{line};A light disc." for line in lines[1:])]))
    assert settings.build().records()[0].other_notes[-1] == "A bright disc, number 0"
    assert "A light disc." in settings.build().records()[0].other_notes


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("disc_03.png", "disc_99.png", "line 8"),
        ("Prompt;Filename", "Prompts;Filename", "Prompt"),
        ("Prompt;Filename", "Prompt,Filename", "Prompt"),
        ("disc_02.png\n", "\n", "line 6: no image is named"),
    ],
)
def test_medvqa_bad_tables(tmp_path, old, new, says):
    settings = medvqa_gi.Config.tiny(tmp_path)
    edit(tmp_path / medvqa_gi.TABLE, old, new)
    with pytest.raises(DataError, match=says) as caught:
        settings.build().records()
    assert "bright" not in str(caught.value)


def test_a_table_of_ours_goes_first(tmp_path):
    medvqa_gi.Config.tiny(tmp_path)
    (tmp_path / "notes.csv").write_text("image,note\n" + "".join(f"disc_{k:02d}.png,disc\n" for k in range(8)))
    assert detect(tmp_path).kind().endswith("folders")


def test_roco_concepts_become_a_note(tmp_path):
    settings = rocov2.Config.tiny(tmp_path)
    assert not settings.build().records()[0].other_notes
    named = settings.replace(concepts=True).build().records()[0]
    assert named.other_notes == ("Disc, Noise",)
    assert rocov2.Config(root="x").side == "patient"


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda root: (root / "train_images").rename(root / "train"), "unpack train_images.zip"),
        (lambda root: edit(root / "train_captions.csv", "ID,Caption", "ID,Text"), "no column 'Caption'"),
        (lambda root: edit(root / "valid_captions.csv", "_000002", "_000009"), "line 4"),
        (lambda root: (root / "cui_mapping.csv").unlink(), "cui_mapping.csv does not exist"),
    ],
)
def test_roco_bad_layouts(tmp_path, spoil, says):
    settings = rocov2.Config.tiny(tmp_path).replace(concepts=True)
    spoil(tmp_path)
    with pytest.raises(DataError, match=says):
        settings.build().records()
