"""Reading and writing images and masks."""

import os

import numpy as np
import pytest
import tifffile
from PIL import Image

from medtextdiff.data import atomic, images
from medtextdiff.data.errors import DataError, ImageError, OutputExists
from medtextdiff.types import Picture

GREY = np.arange(48, dtype=np.uint8).reshape(6, 8) * 5
RGB = np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)


def save(path, array, **options):
    Image.fromarray(array).save(path, **options)
    return path


@pytest.mark.parametrize("suffix", [".png", ".tif", ".bmp"])
def test_grey_and_rgb_are_exact(tmp_path, suffix):
    grey = images.read(save(tmp_path / f"g{suffix}", GREY)).pixels
    colour = images.read(save(tmp_path / f"c{suffix}", RGB)).pixels
    assert grey.dtype == np.float32
    np.testing.assert_allclose(grey[:, :, 0], GREY / 255, atol=1e-7)
    np.testing.assert_allclose(colour, RGB / 255, atol=1e-7)


def test_rgb_order_is_red_first(tmp_path):
    red = np.zeros((4, 4, 3), np.uint8)
    red[..., 0] = 255
    assert images.read(save(tmp_path / "r.png", red)).pixels[0, 0].tolist() == [1, 0, 0]


def test_jpeg_is_close(tmp_path):
    smooth = np.repeat(GREY[:, :, None], 3, axis=2)
    assert abs(images.read(save(tmp_path / "s.jpg", smooth, quality=95)).pixels - smooth / 255).max() < 0.05


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_16_bit_grey_keeps_its_depth(tmp_path, suffix):
    deep = (np.arange(48).reshape(6, 8) * 1394).astype(np.uint16)
    picture = images.read(save(tmp_path / f"d{suffix}", deep))
    np.testing.assert_allclose(picture.pixels[:, :, 0], deep / 65535, atol=1e-7)
    assert picture.header["bits"] == 16


def test_16_bit_rgb_tiff_keeps_its_depth(tmp_path):
    deep = RGB.astype(np.uint16) * 256 + 7
    tifffile.imwrite(tmp_path / "d.tif", deep, photometric="rgb")
    np.testing.assert_allclose(images.read(tmp_path / "d.tif").pixels, deep / 65535, atol=1e-7)


def test_white_is_zero_tiff_is_turned_over(tmp_path):
    for dtype in (np.uint8, np.uint16):
        tifffile.imwrite(tmp_path / "w.tif", np.zeros((4, 4), dtype), photometric="miniswhite")
        assert (images.read(tmp_path / "w.tif").pixels == 1).all()


def test_one_bit_and_palette(tmp_path):
    bits = GREY > 100
    assert set(np.unique(images.read(save(tmp_path / "b.png", bits)).pixels)) == {0, 1}
    image = Image.fromarray((GREY > 100).astype(np.uint8))
    image.putpalette([255, 0, 0, 0, 255, 0])
    image.save(tmp_path / "p.png")
    assert images.read(tmp_path / "p.png").pixels[0, 0].tolist() == [1, 0, 0]


def test_opacity_is_composited_over_black(tmp_path):
    rgba = np.dstack([RGB, np.full((6, 8), 255, np.uint8)])
    rgba[0, 0, 3] = 0
    pixels = images.read(save(tmp_path / "a.png", rgba)).pixels
    assert pixels.shape == (6, 8, 3)
    assert pixels[0, 0].tolist() == [0, 0, 0]
    np.testing.assert_allclose(pixels[1:], RGB[1:] / 255, atol=1e-6)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", [".png", ".tif", ".jpg"])
def test_exif_orientation_is_applied_as_pillow_does(tmp_path, orientation, suffix):
    from PIL import ImageOps

    picture = Image.fromarray(np.kron(GREY, np.ones((8, 8), np.uint8)))
    exif = Image.Exif()
    exif[0x0112] = orientation
    picture.save(tmp_path / f"o{suffix}", exif=exif)
    reference = "o.jpg" if suffix == ".jpg" else "o.png"
    picture.save(tmp_path / reference, exif=exif)
    with Image.open(tmp_path / reference) as again:
        expected = np.asarray(ImageOps.exif_transpose(again)) / 255
    np.testing.assert_allclose(images.read(tmp_path / f"o{suffix}").pixels[:, :, 0], expected, atol=1e-6)


def test_16_bit_colour_tiff_is_turned_too(tmp_path):
    deep = RGB.astype(np.uint16) * 256
    tifffile.imwrite(tmp_path / "t.tif", deep, photometric="rgb", extratags=[(274, "H", 1, 6, True)])
    np.testing.assert_allclose(images.read(tmp_path / "t.tif").pixels, np.rot90(deep, -1) / 65535, atol=1e-7)


def test_deep_tiffs_that_pillow_has_no_mode_for_are_turned_too(tmp_path):
    turned = [(274, "H", 1, 6, True)]
    tifffile.imwrite(tmp_path / "f.tif", GREY.astype(np.float64) / 255, extratags=turned)
    np.testing.assert_allclose(images.read(tmp_path / "f.tif").pixels[:, :, 0], np.rot90(GREY, -1) / 255, atol=1e-6)


@pytest.mark.parametrize(("extra", "factor"), [("UNASSALPHA", 0.5), ("ASSOCALPHA", 1.0), ("UNSPECIFIED", 1.0)])
def test_only_opacity_that_is_not_multiplied_in_is_applied(tmp_path, extra, factor):
    deep = np.concatenate([RGB.astype(np.uint16) * 257, np.full((6, 8, 1), 32768, np.uint16)], axis=2)
    tifffile.imwrite(tmp_path / "a.tif", deep, photometric="rgb", extrasamples=[extra])
    np.testing.assert_allclose(images.read(tmp_path / "a.tif").pixels, factor * RGB / 255, atol=1e-4)


@pytest.mark.parametrize("mode", ["P", "L", "RGB"])
def test_colours_that_a_png_calls_transparent_are_black(tmp_path, mode):
    image = Image.fromarray(np.array([[0, 1], [1, 0]], np.uint8) * 200).convert(mode)
    image.save(tmp_path / "t.png", transparency=(200, 200, 200) if mode == "RGB" else image.getpixel((1, 0)))
    assert images.read(tmp_path / "t.png").pixels.max() == 0
    if mode != "RGB":
        assert images.read_mask(tmp_path / "t.png").max() > 0  # a mask's numbers stay


def test_volumes_and_signed_bytes_are_refused(tmp_path):
    tifffile.imwrite(tmp_path / "v.tif", np.full((3, 32, 32), 9, np.uint16), photometric="minisblack", volumetric=True)
    with pytest.raises(ImageError, match="a volume of 3 slices"):
        images.read(tmp_path / "v.tif")
    tifffile.imwrite(tmp_path / "s.tif", np.full((4, 4), -1, np.int8), photometric="minisblack")
    with pytest.raises(ImageError, match="without a known white"):
        images.read(tmp_path / "s.tif")
    with pytest.raises(ImageError, match="negative values"):
        images.read_mask(tmp_path / "s.tif")


def test_a_float_mask_of_0_and_1_holds_class_ids(tmp_path):
    for top in (1, 2):
        tifffile.imwrite(tmp_path / "m.tif", (MASK.clip(0, 1) * top).astype(np.float32))
        ids, coding = images.read_coded_mask(tmp_path / "m.tif")
        assert (ids.max(), coding) == (top, "labels")


def test_float_tiff(tmp_path):
    path = tmp_path / "f.tif"
    tifffile.imwrite(path, GREY.astype(np.float32) / 255)
    np.testing.assert_allclose(images.read(path).pixels[:, :, 0], GREY / 255, atol=1e-7)
    for bad, words in ((np.nan, "NaN"), (np.inf, "NaN or infinite"), (3.5, "window them to")):
        array = GREY.astype(np.float32) / 255
        array[0, 0] = bad
        tifffile.imwrite(path, array)
        with pytest.raises(ImageError, match=words):
            images.read(path)


def bad_files(tmp_path):
    good = save(tmp_path / "good.png", np.random.default_rng(0).integers(0, 255, (64, 64), dtype=np.uint8))
    data = good.read_bytes()
    save(tmp_path / "good.jpg", RGB.repeat(20, 0).repeat(20, 1))
    jpeg = (tmp_path / "good.jpg").read_bytes()
    tifffile.imwrite(tmp_path / "pages.tif", np.zeros((3, 8, 8), np.uint8), photometric="minisblack")
    tifffile.imwrite(tmp_path / "good.tif", np.zeros((64, 64, 3), np.uint16), photometric="rgb")
    tiff = (tmp_path / "good.tif").read_bytes()
    Image.fromarray(RGB).save(tmp_path / "picture.gif")
    contents = {
        "empty.png": b"",
        "cut.png": data[: len(data) // 2],
        "stub.png": data[:20],
        "cut.jpg": jpeg[: len(jpeg) // 2],
        "cut.tif": tiff[: len(tiff) // 2],
        "stub.tif": tiff[:12],
        "text.png": b"this is no image",
        "volume.nii.gz": b"\x1f\x8b" + bytes(50),
        "zeros.png": bytes(500),
    }
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    return {
        "gone.png": "does not exist",
        "folder.png": "is not a file",
        "empty.png": "empty",
        "cut.png": "damaged",
        "stub.png": "damaged|not a PNG",
        "cut.jpg": "damaged",
        "cut.tif": "damaged",
        "stub.tif": "damaged|not a PNG",
        "text.png": "not a PNG, JPEG, TIFF or BMP",
        "volume.nii.gz": "NIfTI",
        "zeros.png": "not a PNG",
        "picture.gif": "not a PNG",
        "pages.tif": "3 pages",
    }


@pytest.mark.parametrize("reader", [images.read, images.read_mask])
def test_bad_files_are_named_in_one_line(tmp_path, reader):
    (tmp_path / "folder.png").mkdir()
    for name, words in bad_files(tmp_path).items():
        with pytest.raises(ImageError, match=words) as caught:
            reader(tmp_path / name)
        assert name in str(caught.value)
        assert "\n" not in str(caught.value)


def test_every_cut_of_a_file_is_an_image_error(tmp_path):
    for suffix in (".png", ".jpg", ".tif", ".bmp"):
        data = save(tmp_path / f"whole{suffix}", RGB.repeat(4, 0)).read_bytes()
        for end in range(1, len(data) - 20, max(1, len(data) // 25)):
            path = tmp_path / f"cut{suffix}"
            path.write_bytes(data[:end])
            with pytest.raises(ImageError):
                images.read(path)


def test_huge_images_are_refused_before_decoding(tmp_path):
    import struct
    import zlib

    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0)
    bomb = (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    )
    (tmp_path / "bomb.png").write_bytes(bomb)
    with pytest.raises(ImageError, match="60000 x 60000 pixels"):
        images.read(tmp_path / "bomb.png")
    with pytest.raises(ImageError, match="8 x 6"):
        images.read(save(tmp_path / "s.png", GREY), max_pixels=47)


MASK = np.array([[0, 1, 1], [0, 0, 1]])


@pytest.mark.parametrize(
    ("stored", "ids"),
    [
        (MASK.astype(bool), MASK),
        ((MASK * 255).astype(np.uint8), MASK),
        ((MASK * 65535).astype(np.uint16), MASK),
        (MASK.astype(np.uint8), MASK),
        ((MASK * 3).astype(np.uint8), MASK * 3),
        ((MASK * 300).astype(np.uint16), MASK * 300),
        (np.array([[0, 1, 255]], np.uint8), [[0, 1, 255]]),
        (np.zeros((2, 2), np.uint8), np.zeros((2, 2))),
        (np.full((2, 2), 255, np.uint8), np.ones((2, 2))),
        (np.repeat((MASK * 255).astype(np.uint8)[:, :, None], 3, axis=2), MASK),
        (np.dstack([(MASK * 255).astype(np.uint8)] * 3 + [np.full((2, 3), 255, np.uint8)]), MASK),
    ],
)
def test_masks_become_class_ids(tmp_path, stored, ids):
    mask = images.read_mask(save(tmp_path / "m.png", stored))
    assert mask.dtype == np.int64
    np.testing.assert_array_equal(mask, ids)


def test_palette_masks_give_their_index_even_255(tmp_path):
    image = Image.fromarray(np.array([[0, 1, 255], [2, 0, 255]], np.uint8))
    image.putpalette(list(range(256)) * 3)
    image.save(tmp_path / "p.png")
    np.testing.assert_array_equal(images.read_mask(tmp_path / "p.png"), [[0, 1, 255], [2, 0, 255]])


@pytest.mark.parametrize("dtype", [np.uint16, np.int32, np.uint32, np.float32, np.float64])
def test_masks_of_0_and_255_mean_the_same_at_any_depth(tmp_path, dtype):
    tifffile.imwrite(tmp_path / "m.tif", (MASK * 255).astype(dtype))
    mask, coding = images.read_coded_mask(tmp_path / "m.tif")
    assert (mask.tolist(), coding) == (MASK.tolist(), "0/255")
    tifffile.imwrite(tmp_path / "m.tif", np.array([[0, 1, 255]]).astype(dtype))
    assert images.read_mask(tmp_path / "m.tif").tolist() == [[0, 1, 255]]
    tifffile.imwrite(tmp_path / "m.tif", np.full((2, 2), 255).astype(dtype))
    assert images.read_coded_mask(tmp_path / "m.tif")[1] == "labels"  # it may as well be one that is not counted


def test_16_bit_png_masks_of_0_and_255(tmp_path):
    assert images.read_mask(save(tmp_path / "m.png", (MASK * 255).astype(np.uint16))).tolist() == MASK.tolist()


def test_a_palette_of_greys_is_grey_and_one_of_colours_is_not(tmp_path):
    image = Image.fromarray((MASK * 255).astype(np.uint8)).convert("P")
    image.save(tmp_path / "p.png")
    mask, coding = images.read_coded_mask(tmp_path / "p.png")
    assert (mask.tolist(), coding) == (MASK.tolist(), "0/255")
    images.write_mask(tmp_path / "own.png", MASK * 255)
    assert images.read_coded_mask(tmp_path / "own.png")[1] == "palette"
    assert images.read_mask(tmp_path / "own.png").tolist() == (MASK * 255).tolist()
    image.putpalette([0, 0, 0, *([255, 0, 0] * 254), 200, 200, 200])
    image.save(tmp_path / "c.png")
    assert images.read_mask(tmp_path / "c.png").max() == 255


def test_two_bit_grey_masks_are_ids_not_stretched_levels(tmp_path):
    import struct
    import zlib

    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    rows = b"\x00\b\x1b".replace(b"\b", b"")  # filter 0, then pixels 0 1 2 3
    data = chunk(b"IHDR", struct.pack(">IIBBBBB", 4, 1, 2, 0, 0, 0, 0)) + chunk(b"IDAT", zlib.compress(rows))
    (tmp_path / "m.png").write_bytes(b"\x89PNG\r\n\x1a\n" + data + chunk(b"IEND", b""))
    assert images.read_mask(tmp_path / "m.png").tolist() == [[0, 1, 2, 3]]


@pytest.mark.parametrize("dtype", [np.uint32, np.int32, np.float32])
def test_wide_tiff_masks(tmp_path, dtype):
    tifffile.imwrite(tmp_path / "m.tif", (MASK * 2).astype(dtype))
    np.testing.assert_array_equal(images.read_mask(tmp_path / "m.tif"), MASK * 2)


def test_masks_that_are_no_masks(tmp_path):
    with pytest.raises(ImageError, match="in colour"):
        images.read_mask(save(tmp_path / "c.png", RGB))
    with pytest.raises(ImageError, match="JPEG with in-between"):
        images.read_mask(save(tmp_path / "j.jpg", GREY.repeat(8, 0)))
    with pytest.raises(ImageError, match="transparent"):
        images.read_mask(save(tmp_path / "a.png", np.dstack([RGB, RGB[:, :, :1]])))
    tifffile.imwrite(tmp_path / "f.tif", GREY.astype(np.float32) / 255)
    with pytest.raises(ImageError, match="fractions"):
        images.read_mask(tmp_path / "f.tif")
    tifffile.imwrite(tmp_path / "n.tif", -MASK.astype(np.int32))
    with pytest.raises(ImageError, match="negative"):
        images.read_mask(tmp_path / "n.tif")


@pytest.mark.parametrize("ids", [[0, 1], [0, 1, 2], [0, 1, 255], [0, 255], [0, 400], [1], [0]])
def test_masks_survive_writing(tmp_path, ids):
    mask = np.random.default_rng(1).choice(ids, (7, 9)).astype(np.int64)
    images.write_mask(tmp_path / "m.png", mask)
    np.testing.assert_array_equal(images.read_mask(tmp_path / "m.png"), mask)


def test_binary_masks_look_black_and_white(tmp_path):
    images.write_mask(tmp_path / "m.png", MASK)
    with Image.open(tmp_path / "m.png") as image:
        assert set(image.convert("L").tobytes()) == {0, 255}


def test_probabilities_survive_to_16_bits(tmp_path):
    probs = np.linspace(0, 1, 48, dtype=np.float32).reshape(6, 8)
    images.write_probabilities(tmp_path / "p.png", probs)
    assert abs(images.read(tmp_path / "p.png").pixels[:, :, 0] - probs).max() <= 0.5 / 65535 + 1e-7
    for bad in (np.nan, 1.01, -0.01):
        with pytest.raises(ImageError, match="within"):
            images.write_probabilities(tmp_path / "q.png", probs + np.float32(bad))
    assert not (tmp_path / "q.png").exists()


def test_overlay_marks_each_class_in_its_own_colour(tmp_path):
    mask = np.zeros((20, 20), np.int64)
    mask[2:8, 2:8], mask[12:18, 12:18], mask[0, 19] = 1, 2, 255
    picture = Picture(np.full((20, 20, 1), 0.5, np.float32))
    shown = images.overlay(picture, mask)
    assert (shown[10, 10] == 128).all()
    assert (shown[0, 19] == 128).all()  # IGNORE is not shown
    assert len({tuple(shown[2, 2]), tuple(shown[4, 4]), tuple(shown[12, 12]), (128, 128, 128)}) == 4
    images.write_overlay(tmp_path / "o.png", picture, mask)
    with pytest.raises(ImageError, match="must agree"):
        images.write_overlay(tmp_path / "o2.png", picture, mask[:10])
    assert not (tmp_path / "o2.png").exists()


def test_existing_outputs_are_kept(tmp_path):
    path = tmp_path / "m.png"
    images.write_mask(path, MASK)
    before = path.read_bytes()
    with pytest.raises(OutputExists, match=r"m\.png exists"):
        images.write_mask(path, 1 - MASK)
    assert path.read_bytes() == before
    images.write_mask(path, 1 - MASK, overwrite=True)
    np.testing.assert_array_equal(images.read_mask(path), 1 - MASK)
    assert os.listdir(tmp_path) == ["m.png"]


def test_a_failed_write_leaves_no_trace(tmp_path):
    def fail_midway(path):
        with atomic.whole_file(path, overwrite=True) as file:
            file.write(b"half")
            raise OSError(28, "No space left on device")

    (tmp_path / "old.png").write_bytes(b"old")
    with pytest.raises(ImageError, match="No space left"):
        fail_midway(tmp_path / "old.png")
    assert (tmp_path / "old.png").read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["old.png"]
    with pytest.raises(ImageError, match="does not exist"):
        images.write_mask(tmp_path / "no" / "m.png", MASK)
    with pytest.raises(ImageError, match=r"end in \.png"):
        images.write_mask(tmp_path / "m.jpg", MASK)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_a_full_disk_is_one_clear_line(tmp_path, monkeypatch):
    monkeypatch.setattr("builtins.open", lambda path, mode="r", _open=open: _open("/dev/full", "wb"))
    with pytest.raises(ImageError, match="No space left on device"):
        images.write_mask(tmp_path / "m.png", MASK)


def names(folder):
    return [path.relative_to(folder).as_posix() for path in images.list_images(folder)]


def test_images_are_listed_by_name_without_hidden_ones(tmp_path):
    for name in ("b/2.png", "b/a.TIF", "a.png", "b.jpg", ".hidden/c.png", "b/.d.png", "b/notes.csv", "z.png/1.bmp"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert names(tmp_path) == ["a.png", "b/2.png", "b/a.TIF", "b.jpg", "z.png/1.bmp"]
    assert images.list_images(tmp_path / "missing") == []


def test_links_to_folders_are_followed_and_loops_end(tmp_path):
    for name in ("disk/ward/1.png", "disk/2.png", "set/images/3.png", "set/masks/3.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    folder = tmp_path / "set" / "images"
    links = {"linked": tmp_path / "disk", "itself": folder, "around": tmp_path / "set", "gone": tmp_path / "nowhere"}
    for name, target in links.items():
        (folder / name).symlink_to(target)
    (tmp_path / "disk" / "back").symlink_to(folder)
    (folder / "round").symlink_to("round")
    assert names(folder) == ["3.png", "linked/2.png", "linked/ward/1.png"]
    (tmp_path / "elsewhere").symlink_to(folder)
    assert names(tmp_path / "elsewhere") == ["3.png", "linked/2.png", "linked/ward/1.png"]


def test_content_hash(tmp_path):
    a, b = save(tmp_path / "a.png", GREY), save(tmp_path / "b.png", GREY)
    assert images.content_hash(a) == images.content_hash(b) != images.content_hash(save(tmp_path / "c.png", RGB))
    with pytest.raises(DataError, match="cannot be read"):
        images.content_hash(tmp_path / "gone.png")
