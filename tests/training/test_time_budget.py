"""A run that ends by the clock: it finishes its schedule, is validated and saved, and goes on where it was stopped."""

import itertools
import json
import signal

import pytest
import tiny

from medtextdiff.training import engine, means, run, schedule
from medtextdiff.training.errors import Interrupted

CONFIG = tiny.CONFIG.replace(max_steps=10**6, max_minutes=1, warmup_steps=4, schedule="linear", validate_every=10**6)


@pytest.fixture
def clock(monkeypatch):
    """Each look at the clock takes half a second; so a step takes at least that."""
    ticks = itertools.count(start=100.0, step=0.5)
    monkeypatch.setattr(run.time, "monotonic", lambda: next(ticks))


def fit(run_dir, config=CONFIG, **options):
    return engine.fit(
        tiny.Net(), tiny.loss, tiny.Squares(), config, run_dir, validate=tiny.validate, device="cpu", **options
    )


def rows(run_dir, event):
    lines = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    return [line for line in lines if line["event"] == event]


def test_it_ends_by_the_clock_validated_saved_and_with_its_rate_down(tmp_path, clock):
    result = fit(tmp_path)
    assert 20 < result.last_step <= 120
    assert 60 <= result.seconds < 70
    assert not result.stopped_early
    assert [row["step"] for row in rows(tmp_path, "validation")] == [result.last_step]
    train = rows(tmp_path, "train")
    assert train[-1]["step"] == result.last_step
    rates = [row["lr"] for row in train]
    assert max(rates) > 0.8 * CONFIG.learning_rate
    assert rates[-1] < 0.05 * CONFIG.learning_rate
    assert rates[2:] == sorted(rates[2:], reverse=True)


def test_time_counts_over_all_sessions(tmp_path, clock):
    def stop(model, step):
        if step == 10 and not (tmp_path / "stopped").exists():
            (tmp_path / "stopped").touch()
            signal.raise_signal(signal.SIGTERM)

    with pytest.raises(Interrupted):
        fit(tmp_path / "run", after_step=stop)
    first = json.loads(next((tmp_path / "run").rglob("state.json")).read_text())["state"]["seconds"]
    result = fit(tmp_path / "run", after_step=stop)
    assert first > 4
    assert 60 <= result.seconds < 70
    assert fit(tmp_path / "run").last_step == result.last_step  # nothing left to do


def test_steps_still_end_a_run_that_has_time(tmp_path, clock):
    result = fit(tmp_path, CONFIG.replace(max_steps=6, max_minutes=100))
    assert result.last_step == 6


def test_the_rate_follows_steps_or_time_whichever_is_further():
    def factor(step, elapsed):
        return schedule.factor(step, max_steps=110, warmup_steps=10, shape="linear", min_ratio=0.0, elapsed=elapsed)

    assert factor(60, 0.0) == 0.5
    assert factor(60, 0.25) == 0.5
    assert factor(60, 0.75) == 0.25
    assert factor(60, 2.0) == 0.0
    assert factor(4, 0.01) == 0.5


def test_what_a_loss_counts_becomes_a_speed():
    window = means.add(
        means.add(means.empty(1.0), {"loss": 1.0, "num_tokens": 100.0}, 1.0), {"loss": 1.0, "num_tokens": 300.0}, 1.0
    )
    seen = means.summary(window, 3.0, 8, parts=4)
    assert seen["num_tokens"] == 200
    assert seen["tokens_per_second"] == 800  # 2 steps of 4 parts of 200 tokens in 2 seconds
