"""The rest of the public contract: what the commands say, and what they say to bad input."""

import subprocess
import sys
from pathlib import Path

import pytest

from medtextdiff import api
from tests.jobs.conftest import RECIPE, call

COMMANDS = (
    "segment",
    "train",
    "recipes",
    "show",
    "models",
    "evaluate",
    "sensitivity",
    "probe",
    "compare",
    "evaluate-synthesis",
    "rate",
    "export",
    "features",
    "data",
    "convert",
    "generate",
    "import-published",
)


def test_help_names_every_command() -> None:
    result = call("--help")
    assert result.exit_code == 0
    assert all(name in result.output for name in COMMANDS)


def test_help_and_import_load_no_torch() -> None:
    code = (
        "import sys, medtextdiff, medtextdiff.cli\n"
        "from typer.testing import CliRunner\n"
        "assert CliRunner().invoke(medtextdiff.cli.app, ['--help']).exit_code == 0\n"
        "print([name for name in ('torch', 'transformers', 'diffusers', 'monai') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_recipes_are_listed_and_shown() -> None:
    listed = call("recipes").output
    assert "segmentation.fasttextdiff_monuseg" in listed
    assert "diffusion.ddpm_small" in listed
    shown = call("show", "segmentation.fasttextdiff_monuseg", "--set", "model.head.width=32")
    assert shown.exit_code == 0, shown.output
    assert '"width": 32' in shown.output


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("train", "segmentation.fasttextdif_monuseg", "-o", "x"), "did you mean 'segmentation.fasttextdiff_monuseg'"),
        (("show", "segmentation.unet_monuseg", "--set", "training.max_step=1"), "did you mean 'max_steps'"),
        (("segment", "no.png", "--model", "nuclei-smal", "-o", "x"), "no model or run folder 'nuclei-smal'"),
        (("train", "segmentation.unet_monuseg", "-o", "x"), "--set data.root=DIR"),
        (("show", "segmentation.unet_monuseg", "--set", f"training.seed={10**27}"), "'training.seed' cannot be"),
        (("data", "check", "nowhere"), "does not exist"),
        (("convert", "adm", "nowhere.pt", "-o", "x"), "nowhere.pt"),
    ],
)
def test_a_mistake_gets_one_clear_line(
    words: tuple[str, ...], says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = call(*words)
    assert result.exit_code == 2
    assert says in result.output
    assert len(result.output.strip().splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_notes_that_are_cut_are_told_by_training_and_by_evaluation(data_dir: Path, tmp_path: Path) -> None:
    table = data_dir / "notes.csv"
    table.write_text(table.read_text().replace("One disc", "One disc " + "and so on " * 60))
    words = ["train", RECIPE, "--set", f"data.root={data_dir}", "--set", "model.text.positions=64"]
    trained = call(*words, "--set", "training.max_steps=1", "-o", tmp_path / "run")
    assert trained.exit_code == 0, trained.output
    scored = call("evaluate", tmp_path / "run", "--data", data_dir, "-o", tmp_path / "report")
    assert "notes longer than the text encoder takes:" in trained.stderr
    assert "notes longer than the text encoder takes: 2; tokens cut:" in scored.output


def test_models_are_listed_with_their_cards() -> None:
    listed = call("models").output
    [line] = [line for line in listed.splitlines() if line.endswith("nuclei-small/MODEL_CARD.md")]
    assert Path(line.removeprefix("  card: ")).is_file()
    assert listed.count("licence: ") == len(api.models())


def test_data_check_speaks_of_what_is_wrong(data_dir: Path) -> None:
    fine = call("data", "check", data_dir)
    assert fine.exit_code == 0, fine.output
    assert "read as 'folders'; train: 4 records, 4 with a mask, 4 with a note; val: 2 records" in fine.output
    (data_dir / "masks" / "case0.png").unlink()
    broken = call("data", "check", data_dir)
    assert broken.exit_code == 1
    assert "case0" in broken.output


@pytest.mark.parametrize("words", [["segmnt"], ["segment"], ["segment", "a.png", "--nope"], ["bench", "--runs", "x"]])
def test_a_wrong_call_is_one_line(words, monkeypatch, capsys):
    from medtextdiff import cli

    monkeypatch.setattr("sys.argv", ["medtextdiff", *words])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert told.startswith("error: ")


def test_debugging_shows_the_error_and_runs_the_command_once(tmp_path, monkeypatch):
    """A training that was stopped once began again, for the error was let through to be raised a second time."""
    from medtextdiff import api, cli

    calls = []

    def fails(run: Path, **options: object) -> None:
        calls.append(run)
        raise ValueError("as it must")

    monkeypatch.setattr(api, "data_check", fails)
    monkeypatch.setenv("MEDTEXTDIFF_DEBUG", "1")
    monkeypatch.setattr(sys, "argv", ["medtextdiff", "data", "check", str(tmp_path)])
    with pytest.raises(ValueError, match="as it must"):
        cli.main()
    assert len(calls) == 1
