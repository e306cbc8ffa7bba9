"""Real processes: killed, signalled, locked out, and two at once under torchrun."""

import os
import re
import signal
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest
import tiny
import torch

from medtextdiff.training import engine
from medtextdiff.training.errors import RunError

SCRIPT = Path(tiny.__file__)
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="module")
def start():
    """Start the job in a process of its own; whatever is left of it at the end is killed."""
    with ExitStack() as stack:

        def begin(run_dir, kind="slow"):
            command = [sys.executable, str(SCRIPT), str(run_dir), kind]
            process = subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT
            )
            stack.enter_context(process)
            stack.callback(process.kill)
            return process

        yield begin


def wait_for_step(process, step):
    for line in process.stdout:
        if line.strip() == str(step):
            return
    pytest.fail(process.stderr.read())


def final(run_dir, rank=0):
    return torch.load(run_dir / f"final_{rank}.pt", weights_only=True)


def fit(run_dir):
    model = tiny.Net()
    engine.fit(model, tiny.loss, tiny.Squares(), tiny.CONFIG, run_dir, validate=tiny.validate, device="cpu")
    return tiny.weights(model)


def test_killed_in_mid_epoch_and_resumed_is_bit_equal(start, tmp_path, capsys):
    run_dir = tmp_path / "killed"
    process = start(run_dir, "hanging")
    wait_for_step(process, 12)  # epochs have 2.5 steps, checkpoints come every 5
    with pytest.raises(RunError, match=f"process {process.pid} is writing this run"):
        fit(run_dir)
    process.send_signal(signal.SIGKILL)
    process.wait(60)
    assert (run_dir / ".lock").exists()
    resumed = fit(run_dir)
    said = capsys.readouterr().err
    assert f"taking over the lock of process {process.pid}" in said
    assert "resuming from step 10" in said
    assert not (run_dir / ".lock").exists()
    assert tiny.same(resumed, fit(tmp_path / "whole"))


def test_terminated_saves_and_resumes_bit_equal(start, tmp_path, capsys):
    run_dir = tmp_path / "terminated"
    process = start(run_dir, "slow")
    wait_for_step(process, 6)
    process.send_signal(signal.SIGTERM)
    out, said = process.communicate(timeout=60)
    assert process.returncode == 75, said
    stopped = int(re.match("interrupted ([0-9]+): stopped by SIGTERM", out.splitlines()[-1])[1])
    assert 7 <= stopped < 24
    resumed = fit(run_dir)
    assert f"resuming from step {stopped}" in capsys.readouterr().err
    assert tiny.same(resumed, fit(tmp_path / "whole"))


def torchrun(run_dir, kind):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    done = subprocess.run(
        [*command, str(SCRIPT), str(run_dir), kind], capture_output=True, text=True, env=ENVIRONMENT, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done


def test_two_processes_equal_one_with_twice_the_batch(tmp_path):
    torchrun(tmp_path / "two", "distributed")
    tiny.main(tmp_path / "one", "distributed")
    one, two = final(tmp_path / "one"), final(tmp_path / "two")
    assert tiny.same(two, final(tmp_path / "two", 1))
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, rtol=0, atol=1e-6)
    rows = [(tmp_path / name / "metrics.jsonl").read_text().count("\n") for name in ("one", "two")]
    assert rows == [2, 2]  # the second process writes nothing


@pytest.mark.slow
def test_two_processes_validate_save_and_resume(tmp_path):
    torchrun(tmp_path / "two", "quick")
    said = torchrun(tmp_path / "two", "quick").stderr
    assert said.count("resuming from step 24") == 1
    assert tiny.same(final(tmp_path / "two"), final(tmp_path / "two", 1))
