"""Sources' records: grouping, subsets, splits."""

import shlex
import unicodedata
from dataclasses import replace

import pytest

from medtextdiff.config import override
from medtextdiff.data import made_up, records
from medtextdiff.data.errors import DataError
from medtextdiff.data.records import Listing, Source
from medtextdiff.data.sources import detect, folders, lvit, manifest
from medtextdiff.recipes import segmentation
from medtextdiff.types import Record


def edit(path, old, new):
    path.write_text(path.read_text().replace(old, new))


def test_rows_of_one_image_are_its_notes(disc_config, tmp_path):
    with open(tmp_path / "notes.csv", "a") as table:
        table.write("disc_00.png,disc_00.png,train,Another view of it.\n")
    first = disc_config.build().records()[0]
    assert first.note == "A bright disc in the upper left."
    assert first.other_notes == ("Another view of it.",)


def test_rows_that_disagree_about_the_split(disc_config, tmp_path):
    with open(tmp_path / "notes.csv", "a") as table:
        table.write("disc_00.png,disc_00.png,val,Another.\n")
    with pytest.raises(DataError, match=r"different splits.*notes\.csv line 2"):
        disc_config.build().records()


def test_further_note_columns(disc_config, tmp_path):
    lines = (tmp_path / "notes.csv").read_text().splitlines()
    (tmp_path / "notes.csv").write_text("\n".join([lines[0] + ",short", *(line + ",disc" for line in lines[1:])]))
    settings = disc_config.replace(notes_columns=("note", "short"))
    assert settings.build().records()[0].other_notes == ("disc",)
    with pytest.raises(DataError, match="no column 'long'"):
        disc_config.replace(notes_columns=("note", "long")).build().records()


def test_an_image_in_two_splits_is_told_whatever_its_masks_and_ids(disc_config, tmp_path):
    rows = ["images/disc_00.png,masks/disc_00.png,train,a", "images/disc_00.png,masks/disc_01.png,val,b"]
    (tmp_path / "manifest.csv").write_text("\n".join(["image,mask,split,id", *rows]) + "\n")
    with pytest.raises(DataError, match="1 images have rows with different splits or patients"):
        manifest.Config(root=str(tmp_path / "manifest.csv")).build().records()


def test_images_named_by_their_whole_path_have_their_masks(disc_config, tmp_path):
    table = tmp_path / "notes.csv"
    lines = [line.split(",", 2) for line in table.read_text().splitlines()]
    rows = [f"{tmp_path / 'images' / image},{rest}" for image, _, rest in lines[1:]]
    table.write_text("\n".join([f"image,{lines[0][2]}", *rows]) + "\n")
    found = disc_config.build().records()
    assert len(found) == 8
    assert all(record.mask is not None for record in found)
    assert found[0].id == "disc_00"
    table.write_text(table.read_text() + f".,{lines[1][2]}\n")
    with pytest.raises(DataError, match="line 10: no image is named"):
        disc_config.build().records()


def test_images_without_a_row(disc_config, tmp_path):
    lines = (tmp_path / "notes.csv").read_text().splitlines()
    (tmp_path / "notes.csv").write_text("\n".join(lines[:-1]))
    with pytest.raises(DataError, match=r"disc_07\.png"):
        disc_config.build().records()
    assert len(disc_config.replace(unlisted="skip").build().records()) == 7


def test_a_gap_among_the_splits_is_not_taken_for_training(disc_config, tmp_path):
    edit(tmp_path / "notes.csv", "disc_07.png,val", "disc_07.png,")
    with pytest.raises(DataError, match=r"1 rows name no split, while others do \(notes\.csv line 9\)"):
        disc_config.build().records()
    (tmp_path / "manifest.csv").write_text("image,split\nimages/disc_00.png,train\nimages/disc_01.png,\n")
    with pytest.raises(DataError, match="1 rows name no split"):
        manifest.Config(root=str(tmp_path / "manifest.csv")).build().records()


def test_the_setting_that_a_message_names_can_be_given_to_train(disc_config, tmp_path):
    (tmp_path / "notes.csv").write_text("image,split,note\ndisc_00.png,train,\n")
    with pytest.raises(DataError, match="7 images have no row") as caught:
        disc_config.build().records()
    [setting] = [word for word in shlex.split(str(caught.value)) if word.startswith("data.source=")]
    run = override(segmentation.unet_monuseg(), [setting])
    assert [record.id for record in run.data.records("train")] == ["disc_00"]


def test_accents_have_one_spelling(disc_config, tmp_path):
    """A Mac writes an umlaut as a letter and dots, most others as one letter."""
    for folder in ("images", "masks"):
        (tmp_path / folder / "disc_00.png").rename(tmp_path / folder / unicodedata.normalize("NFC", "dïsc_00.png"))
    edit(tmp_path / "notes.csv", "disc_00.png", unicodedata.normalize("NFD", "dïsc_00.png"))
    listing = disc_config.build().listing()
    assert listing.findings == ()
    assert listing.records[0].image.is_file()
    assert listing.records[0].mask.is_file()


def test_without_a_table_every_image_is_a_record(disc_config, tmp_path):
    (tmp_path / "notes.csv").unlink()
    with pytest.raises(DataError, match=r"no notes\.csv"):
        disc_config.build().records()
    found = detect(tmp_path).build().records("train")
    assert len(found) == 8
    assert all(record.mask is not None and record.note == "" for record in found)


def test_a_table_of_tabs_is_found_beside_the_images(disc_config, tmp_path):
    lines = (tmp_path / "notes.csv").read_text().splitlines()
    (tmp_path / "notes.csv").unlink()
    (tmp_path / "notes.tsv").write_text("\n".join(line.replace(",", "\t", 3) for line in lines) + "\n")
    found = detect(tmp_path).build().records()
    assert {record.split for record in found} == {"train", "val"}
    assert all(record.note for record in found)


def test_mask_folder_that_is_not_there(disc_config, tmp_path):
    (tmp_path / "masks").rename(tmp_path / "masks_lesion")
    with pytest.raises(DataError, match=r'there is masks_lesion: --masks .*"mask_folder": "masks_lesion"'):
        disc_config.build().records()
    assert disc_config.replace(mask_folder="masks_lesion").build().records()[0].mask
    assert disc_config.replace(mask_folder=None).build().records()[0].mask is None
    (tmp_path / "masks_lesion" / "disc_00.png").unlink()
    loose = disc_config.replace(mask_folder="masks_lesion", missing_masks="none")
    assert [record.mask is None for record in loose.build().records()] == [True] + [False] * 7


def test_a_long_note_where_a_file_should_be_named_is_not_told(disc_config, tmp_path):
    with open(tmp_path / "notes.csv", "a") as table:
        table.write(f"{'Secret words. ' * 30},disc_01.png,train,disc_00.png\n")
    with pytest.raises(DataError, match="not the name of an image") as told:
        disc_config.build().records()
    assert "Secret" not in str(told.value)


def test_several_masks_of_an_image_are_several_records(disc_config, tmp_path):
    with open(tmp_path / "notes.csv", "a") as table:
        table.write("disc_00.png,disc_01.png,train,Another thing.\n")
    ids = [record.id for record in disc_config.build().records()]
    assert ids[0] == "disc_00__disc_00"
    assert ids[-1] == "disc_00__disc_01"


@pytest.mark.parametrize(("naming", "image_suffix", "prefix"), [("png", ".jpg", ""), ("mask_", ".png", "mask_")])
def test_lvit_finds_how_masks_are_named(tmp_path, naming, image_suffix, prefix):
    settings = lvit.Config.tiny(tmp_path)
    for path in list(tmp_path.glob("*_Folder/img/*")):
        if image_suffix == ".jpg":
            path.rename(path.with_suffix(".jpg"))
    for path in list(tmp_path.glob("*_Folder/labelcol/*")):
        path.rename(path.with_name(prefix + path.name))
    found = settings.build().records()
    assert found[0].mask.name == f"{prefix}disc_00.png"
    assert [r.mask for r in settings.replace(naming=naming).build().records()] == [r.mask for r in found]
    with pytest.raises(DataError, match="mask that is not there"):
        settings.replace(naming="same").build().records()


def test_lvit_one_table_for_two_splits_and_rows_missing(tmp_path):
    settings = lvit.Config.tiny(tmp_path)
    (tmp_path / "Val_Folder" / "Val_text.xlsx").unlink()
    (tmp_path / "Train_Folder" / "Train_text.xlsx").rename(tmp_path / "Train_Folder" / "Train_Val_text.xlsx")
    assert len(settings.build().records("val")) == 4
    made_up.write(tmp_path / "more", num=5)
    for kind, name in (("images", "img"), ("masks", "labelcol")):
        (tmp_path / "more" / kind / "disc_04.png").rename(tmp_path / "Val_Folder" / name / "disc_04.png")
    with pytest.raises(DataError, match=r"no row in Train_Val_text\.xlsx.*disc_04"):
        settings.build().records()
    assert settings.replace(missing_notes="empty").build().records("val")[-1].note == ""


def test_manifest_misspelt_column(tmp_path):
    settings = manifest.Config.tiny(tmp_path)
    edit(tmp_path / "manifest.jsonl", '"patient"', '"pateint"')
    with pytest.raises(DataError, match="did you mean 'patient'"):
        settings.build().records()


def test_a_patient_in_two_splits_is_refused(tmp_path):
    settings = manifest.Config.tiny(tmp_path)
    edit(tmp_path / "manifest.jsonl", '"patient": "disc_07"', '"patient": "disc_00"')
    with pytest.raises(DataError, match="1 patients have images in two splits"):
        settings.build().records()


def with_patients(folder, column, names):
    """The made-up set with a further column in its table."""
    folders.Config.tiny(folder)
    lines = (folder / "notes.csv").read_text().splitlines()
    named = [f"{line},{name}" for line, name in zip(lines, [column, *names], strict=True)]
    (folder / "notes.csv").write_text("\n".join(named) + "\n")


def test_a_patient_column_beside_the_notes_is_read_unasked(tmp_path):
    with_patients(tmp_path, "patient", ["p1", "p1", "", "p3", "p4", "p5", "p6", "p7"])
    patients = [record.patient for record in detect(tmp_path).build().records()]
    assert patients == ["p1", "p1", None, "p3", "p4", "p5", "p6", "p7"]
    with_patients(tmp_path, "patient", ["p1"] * 8)
    with pytest.raises(DataError, match="1 patients have images in two splits"):
        detect(tmp_path).build().records()
    none = folders.Config(root=str(tmp_path), patient_column=None)  # as runs of before say it
    assert {record.patient for record in none.build().records()} == {None}


def test_another_patient_column_must_be_there(tmp_path):
    with_patients(tmp_path, "person", ["p1"] * 6 + ["p2"] * 2)
    settings = folders.Config(root=str(tmp_path), patient_column="person")
    assert {record.patient for record in settings.build().records("val")} == {"p2"}
    with pytest.raises(DataError, match=r"no column 'case'; its columns are: image, mask, split, note, person"):
        settings.replace(patient_column="case").build().records()


def test_an_id_given_twice_is_refused():
    twice = Source("made up", lambda: Listing((Record("a"), Record("a"))))
    with pytest.raises(DataError, match="two records"):
        twice.records()


def test_ids_grow_only_where_names_clash(tmp_path):
    for folder in ("a", "b"):
        made_up.write(tmp_path / "images" / folder, num=1)
    (tmp_path / "images" / "a" / "images" / "other.png").write_bytes(b"x")
    found = folders.Config(root=str(tmp_path), notes=None, mask_folder=None).build().records()
    assert [record.id for record in found] == [
        "a__images__disc_00",
        "other",
        "a__masks__disc_00",
        "b__images__disc_00",
        "b__masks__disc_00",
    ]


def test_nothing_fits(tmp_path):
    with pytest.raises(DataError, match="fits no known layout; it needs images/"):
        detect(tmp_path)
    with pytest.raises(DataError, match="does not exist"):
        detect(tmp_path / "gone")


def test_subset_keeps_order_and_names_the_unknown(disc_records):
    chosen = records.subset(disc_records, ["disc_05", "disc_02"])
    assert [record.id for record in chosen] == ["disc_02", "disc_05"]
    with pytest.raises(DataError, match="did you mean 'disc_05'"):
        records.subset(disc_records, ["disc_5"])
    with pytest.raises(DataError, match="twice"):
        records.subset(disc_records, ["disc_05", "disc_05"])


def test_filters(disc_records):
    bare = records.unlabelled([*disc_records, disc_records[0]])
    assert len(bare) == 8
    assert all(record.mask is None and record.note == "" for record in bare)
    assert records.with_masks(bare) == []
    assert records.with_notes([*bare, disc_records[0]]) == [disc_records[0]]


def test_splitting_never_parts_a_patient_and_is_stable():
    people = [Record(f"{p}-{i}", patient=f"p{p}") for p in range(200) for i in range(3)]
    made = records.split_records(people, {"train": 0.8, "val": 0.2}, seed=1)
    for person in range(200):
        assert len({record.split for record in made if record.patient == f"p{person}"}) == 1
    assert 0.7 < sum(record.split == "train" for record in made) / len(made) < 0.9
    assert records.split_records(people[:90], {"train": 0.8, "val": 0.2}, seed=1) == made[:90]
    assert records.split_records(people, {"train": 0.8, "val": 0.2}, seed=2) != made
    with pytest.raises(DataError, match="sum to 1"):
        records.split_records(people, {"train": 0.8, "val": 0.3})


def test_records_of_a_broken_source_can_still_be_listed(disc_config, tmp_path):
    (tmp_path / "images" / "disc_03.png").unlink()
    listing = disc_config.build().listing()
    assert len(listing.records) == 7
    assert [finding.code for finding in listing.findings] == ["missing-image"]
    assert "line 5" in listing.findings[0].where[0]


def test_text_alone(tmp_path):
    (tmp_path / "notes.csv").write_text("image,split,note\na.png,train,One.\nb.png,val,Two.\n")
    found = folders.Config(root=str(tmp_path), images=None).build().records()
    assert found == [Record("a", "One.", split="train"), replace(Record("b", "Two."), split="val")]


def test_a_layout_without_a_choice_of_masks_says_so(tmp_path):
    lvit.Config.tiny(tmp_path)
    with pytest.raises(DataError, match="is read as 'lvit', which has no choice of --masks"):
        detect(tmp_path, mask_folder="masks_lesion")
