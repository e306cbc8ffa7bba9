"""A stopped run of the whole machinery, consistency's teacher included, ends with the bits of an undisturbed one."""

import json
import signal
from pathlib import Path

import pytest
from safetensors.torch import load_file

from medtextdiff import api
from medtextdiff.config import override
from medtextdiff.recipes import segmentation
from medtextdiff.recipes.segmentation_run import Run
from medtextdiff.segmentation import consistency
from medtextdiff.training.errors import Interrupted


def test_a_stopped_consistency_run_ends_with_the_same_bits(
    data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = segmentation.fasttextdiff_tiny().replace(consistency=consistency.Config(ramp_up=2, threshold=0.5))
    run = override(run, [f"data.root={data_dir}", "data.augmentation.noise=0.1", 'data.subset=["case0"]'])
    api.train(run, out=tmp_path / "whole")
    lock = json.loads((tmp_path / "whole" / "lock.json").read_text())
    assert list(lock["data"]) == ["case0"]
    assert sum(name.startswith("without labels") for name in lock["also"]) > 1
    report = api.evaluate(tmp_path / "whole", data=data_dir, out=tmp_path / "unseen", split="train", unseen=True)
    assert "dice" in report

    real = Run.job

    def stopping(self: Run) -> object:
        job = real(self)
        update = job.after_step
        assert update is not None

        def after_step(model: object, step: int) -> None:
            update(model, step)  # type: ignore[arg-type]
            if step == 2 and not (tmp_path / "stopped").exists():
                (tmp_path / "stopped").touch()
                signal.raise_signal(signal.SIGTERM)

        job.after_step = after_step
        return job

    monkeypatch.setattr(Run, "job", stopping)
    with pytest.raises(Interrupted):
        api.train(run, out=tmp_path / "parts")
    api.train(run, out=tmp_path / "parts")
    for part in ("head/model.safetensors", "denoiser/diffusion_pytorch_model.safetensors"):
        whole, parts = load_file(tmp_path / "whole" / part), load_file(tmp_path / "parts" / part)
        assert all((whole[name] == parts[name]).all() for name in whole)
