import csv
import importlib.util
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "cross_validate_notes.py"


def test_folds_hold_each_image_once_and_leave_the_rest_of_the_table_as_it_is(tmp_path):
    spec = importlib.util.spec_from_file_location("cross_validate_notes", SCRIPT)
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    data = tmp_path / "data"
    for name in ("images", "masks"):
        (data / name).mkdir(parents=True)
    names = [f"slice {number}.png" for number in range(13)]
    lines = ["image,split,note", *(f"{name},train,note of {name}" for name in names)]
    (data / "notes.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    held_out = []
    for number in range(5):
        script.deal(data, tmp_path / str(number), number, 5)
        script.deal(data, tmp_path / str(number), number, 5)  # a run that goes on deals again
        with open(tmp_path / str(number) / "notes.csv", encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        assert [row["image"] for row in rows] == names
        assert all(row["note"] == f"note of {row['image']}" for row in rows)
        held_out += [row["image"] for row in rows if row["split"] == "val"]
        assert (tmp_path / str(number) / "images").samefile(data / "images")
    assert sorted(held_out) == sorted(names)
