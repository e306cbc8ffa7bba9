"""What the check finds in a data set that was broken on purpose."""

import numpy as np
import pytest
from PIL import Image

from medtextdiff.data import images, made_up
from medtextdiff.data.check import check, summary
from medtextdiff.data.errors import DataError
from medtextdiff.data.privacy import traces
from medtextdiff.data.sides import claimed_sides, contradiction
from medtextdiff.data.sources import detect, folders, manifest
from medtextdiff.types import Picture


def codes(findings):
    return {finding.code: finding for finding in findings}


def edit(path, old, new):
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")


def test_a_good_set_has_no_findings(disc_config):
    done = []
    assert check(disc_config.build(), progress=lambda at, total: done.append((at, total))) == []
    assert done[-1] == (8, 8)


def test_files_that_cannot_be_used(disc_config, tmp_path):
    (tmp_path / "images" / "disc_00.png").write_bytes(b"")
    (tmp_path / "masks" / "disc_01.png").write_bytes(b"x" * 100)
    images.write_mask(tmp_path / "masks" / "disc_02.png", np.ones((5, 6), np.int64), overwrite=True)
    images.write_mask(tmp_path / "masks" / "disc_03.png", np.zeros((32, 32), np.int64), overwrite=True)
    (tmp_path / "images" / "disc_04.png").unlink()
    (tmp_path / "masks" / "disc_05.png").unlink()
    found = codes(check(disc_config.build()))
    assert len(found["unreadable"].where) == 2
    assert found["sizes-differ"].where == ("disc_02: mask 6 x 5, image 32 x 32",)
    assert found["empty-mask"].where == ("disc_03",)
    assert "line 6" in found["missing-image"].where[0]
    assert "line 7" in found["missing-mask"].where[0]
    assert all(finding.how_to_mend for finding in found.values())


def test_masks_that_belong_to_no_image(disc_config, tmp_path):
    """All named in another way than their images, which looked like a set without masks."""
    lines = [line.split(",", 2) for line in (tmp_path / "notes.csv").read_text().splitlines()]
    (tmp_path / "notes.csv").write_text("".join(f"{image},{rest}\n" for image, _, rest in lines))
    for path in sorted((tmp_path / "masks").iterdir()):
        path.rename(path.with_stem(path.stem + "_mask"))
    found = codes(check(disc_config.build()))["mask-without-image"]
    assert len(found.where) == 8
    assert '"mask_suffix": "_mask"' in found.how_to_mend
    assert check(disc_config.replace(mask_suffix="_mask").build()) == []
    (tmp_path / "masks" / "disc_00_mask.png").rename(tmp_path / "masks" / "other.png")
    found = codes(check(disc_config.replace(mask_suffix="_mask").build()))["mask-without-image"]
    assert found.where == ("other.png",)
    assert "name them in a column `mask`" in found.how_to_mend


def test_splits_that_recipes_do_not_know(disc_config, tmp_path):
    edit(tmp_path / "notes.csv", ",train,", ",Training,")
    found = codes(check(disc_config.build()))
    assert "data.train_split" in found["no-split-train"].how_to_mend
    assert "no-split-val" not in found
    assert summary(disc_config.build()).startswith("Training: 6 records, 6 with a mask, 6 with a note; val: 2 records")


def test_notes_in_the_column_of_splits_are_not_repeated(disc_config, tmp_path):
    text = (tmp_path / "notes.csv").read_text().replace("image,mask,split,note", "image,mask,note,split")
    (tmp_path / "notes.csv").write_text(text)
    told = summary(disc_config.build()) + str(check(disc_config.build()))
    with pytest.raises(DataError, match="no split 'val'; Known: no name of a split") as caught:
        disc_config.build().records("val")
    assert "disc in the" not in told + str(caught.value)


def test_masks_with_two_codings(disc_config, tmp_path):
    mask = images.read_mask(tmp_path / "masks" / "disc_00.png")
    Image.fromarray((mask * 255).astype(np.uint8)).save(tmp_path / "masks" / "disc_00.png")
    assert check(disc_config.build()) == []  # 1-bit and 0/255 say the same
    Image.fromarray((mask * 3).astype(np.uint8)).save(tmp_path / "masks" / "disc_01.png")
    found = codes(check(disc_config.build()))
    assert found["mask-codings"].where == ("disc_00",)


def test_palette_masks_among_0_and_255(disc_config, tmp_path):
    mask = images.read_mask(tmp_path / "masks" / "disc_00.png")
    Image.fromarray((mask * 255).astype(np.uint8)).save(tmp_path / "masks" / "disc_00.png")
    images.write_mask(tmp_path / "masks" / "disc_01.png", mask.T * 2, overwrite=True)
    assert codes(check(disc_config.build()))["mask-codings"].where == ("disc_00",)


def test_masks_whose_marks_are_not_counted(disc_config, tmp_path):
    for number, places in enumerate(((0, 255), (0, 1, 255), (255,))):
        mask = np.resize(places, (32, 32)).astype(np.int64)
        images.write_mask(tmp_path / "masks" / f"disc_0{number}.png", mask, overwrite=True)
    found = codes(check(disc_config.build()))
    assert found["mask-marks-nothing"].where == ("disc_00",)
    assert found["mask-all-ignored"].where == ("disc_02",)
    assert found.keys() == {"mask-marks-nothing", "mask-all-ignored"}
    Image.fromarray((np.eye(32) * 255).astype(np.uint8)).save(tmp_path / "masks" / "disc_00.png")
    assert codes(check(disc_config.build())).keys() == {"mask-all-ignored"}


def test_blurred_masks(disc_config, tmp_path):
    levels = np.linspace(0, 255, 32 * 32).reshape(32, 32).astype(np.uint8)
    Image.fromarray(levels).save(tmp_path / "masks" / "disc_00.png")
    assert codes(check(disc_config.build()))["mask-levels"].where == ("disc_00",)


def test_copies_across_splits(disc_config, tmp_path):
    (tmp_path / "images" / "disc_07.png").write_bytes((tmp_path / "images" / "disc_03.png").read_bytes())
    picture = images.read(tmp_path / "images" / "disc_02.png")
    near = Picture(np.clip(picture.pixels * 0.9 + 0.02, 0, 1).astype(np.float32))
    images.write_picture(tmp_path / "images" / "disc_06.png", near, overwrite=True)
    found = codes(check(disc_config.build()))
    assert found["same-image-in-two-splits"].where == ("disc_03 = disc_07",)
    assert found["same-image-in-two-splits"].severity == "error"
    assert found["near-image-in-two-splits"].where == ("disc_02 ~ disc_06",)


def test_several_masks_of_an_image_are_no_copies(disc_config, tmp_path):
    with open(tmp_path / "notes.csv", "a") as table:
        table.write("disc_00.png,disc_04.png,train,Another thing.\n")
    assert check(disc_config.build()) == []


def test_a_patient_in_two_splits(tmp_path):
    settings = manifest.Config.tiny(tmp_path)
    edit(tmp_path / "manifest.jsonl", '"patient": "disc_07"', '"patient": "disc_00"')
    found = codes(check(settings.build()))
    assert found["patient-in-two-splits"].where == ("disc_00", "disc_07")


def test_a_patient_column_in_the_table_of_notes(tmp_path):
    folders.Config.tiny(tmp_path)
    lines = (tmp_path / "notes.csv").read_text().splitlines()
    named = [f"{line},{'p' if number else 'patient'}" for number, line in enumerate(lines)]
    (tmp_path / "notes.csv").write_text("\n".join(named) + "\n")
    assert len(codes(check(detect(tmp_path).build()))["patient-in-two-splits"].where) == 8


def test_notes_on_the_wrong_side_and_too_long(disc_config, tmp_path):
    edit(
        tmp_path / "notes.csv", "disc_00.png,train,A bright disc in the upper left.", "disc_00.png,train,In the right."
    )
    found = codes(check(disc_config.build(), max_words=6))
    assert found["note-side"].where == ("disc_00",)
    assert len(found["note-too-long"].where) == 7
    turned = codes(check(disc_config.replace(side="patient").build()))
    assert len(turned["note-side"].where) == 7
    assert codes(check(disc_config.build(), max_words=3, count_words=lambda note: 0)).keys() == {"note-side"}


def test_no_note_text_in_any_finding(disc_config, tmp_path):
    old = "disc_00.png,train,A bright disc in the upper left."
    edit(tmp_path / "notes.csv", old, 'disc_00.png,train,"Dr. Grimm saw it on 12.03.2019, MRN 4471234."')
    findings = check(disc_config.build())
    found = codes(findings)
    assert found["looks-like-name"].where == ("disc_00: column 1",)
    assert found["looks-like-date"].where == ("disc_00: column 21",)
    assert found["looks-like-id"].where == ("disc_00: column 33",)
    assert not any(word in str(findings) for word in ("Grimm", "2019", "4471234"))


def test_without_masks_or_notes(tmp_path):
    made_up.write(tmp_path)
    (tmp_path / "masks" / "disc_01.png").unlink()
    found = codes(check(detect(tmp_path).build()))
    assert found["no-mask"].where == ("disc_01",)
    assert found["no-mask"].severity == "warning"
    assert len(found["no-note"].where) == 8
    bare = codes(check(folders.Config(root=str(tmp_path), notes=None, mask_folder=None).build()))
    assert bare["no-mask-at-all"].severity == "info"


def test_errors_come_first(disc_config, tmp_path):
    (tmp_path / "images" / "disc_00.png").write_bytes(b"")
    findings = check(disc_config.build(), max_words=1)
    assert [finding.severity for finding in findings] == ["error", "warning"]


def test_nothing_to_check(tmp_path):
    (tmp_path / "images").mkdir()
    with pytest.raises(DataError, match="no images found"):
        check(detect(tmp_path).build())


@pytest.mark.parametrize(
    ("note", "sides"),
    [
        ("Unilateral pulmonary infection, one infected areas, left lung and middle right lung.", {"right"}),
        ("Unilateral pulmonary infection, one infected area, all left lung.", {"left"}),
        (
            "Bilateral pulmonary infection, two infected areas,lower left lung and upper midlle right lung.",
            {"left", "right"},
        ),
        ("No pulmonary infection, no infected area.", set()),
        ("The nuclei density in the upper right is high.", {"right"}),
        ("Two tumors at the top, top left in the image.", None),
        ("one polyp, located in top left, right of the image", None),
        ("one polyp, located in center of the image", None),
        ("Bilateral effusion, more on the left", None),
        ("", None),
        ("left " + "word " * 40, None),
    ],
)
def test_what_a_note_claims(note, sides):
    claimed = claimed_sides(note)
    assert (None if claimed is None else set(claimed)) == sides


def test_contradictions_follow_the_convention():
    mask = np.zeros((10, 20), np.int64)
    mask[4:6, 2:6] = 1
    assert contradiction("a lesion on the left", mask, "viewer") is None
    assert contradiction("a lesion on the left", mask, "patient") == "side"
    assert (
        contradiction("Bilateral pulmonary infection, all left lung and all right lung.", mask, "viewer") == "one-sided"
    )
    mask[4:6, 12:15] = 1  # more on the left, but not all
    assert contradiction("a lesion on the right", mask, "viewer") is None


@pytest.mark.parametrize(
    ("note", "kinds"),
    [
        ("seen on January 28, 2020 and 12th March", ["date", "date"]),
        ("2020-01-31 or 07/03/2020 or 3.4.21", ["date", "date", "date"]),
        ("Patient ID 19, Mrs. Weber, tel 030 1234567", ["id", "name", "contact"]),
        ("write to a.b@clinic.org, SSN 123-45-6789", ["contact", "id"]),
        ("Dr. Müller, Dr.Özdemir, Prof. Łukasz Nowak, DR. SMITH", ["name"] * 4),
        ("Name: MÜLLER. Telephone: 555-123-4567", ["name", "contact"]),
        ("MR Angiography, DR Chest, no MS Lesions", []),
        ("A 45-year-old man, 38.5 C, SpO2 88 %, 120/80, T2 1.5 mm, 3 x 4 cm, L4-5, 11-20mm", []),
        ("Day 6 after onset; may 3 nodules; segment 7; grade 2.3.1", []),
    ],
)
def test_what_looks_like_a_person(note, kinds):
    assert [trace.kind for trace in traces(note)] == kinds
