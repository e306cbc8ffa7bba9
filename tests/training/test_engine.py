"""The loop: what it learns does not depend on how its batches are cut, when it is stopped, or who called before."""

import json
import math

import numpy as np
import pytest
import tiny
import torch
from torch import nn

from medtextdiff.config import ConfigError, to_json
from medtextdiff.training import engine
from medtextdiff.training.errors import Interrupted, RunError, TrainingError

CONFIG = tiny.CONFIG


def fit(run_dir, config=CONFIG, model=None, loss=tiny.loss, data=None, validate=tiny.validate, **options):
    model = model if model is not None else tiny.Net()
    result = engine.fit(
        model,
        loss,
        tiny.Squares() if data is None else data,
        config,
        run_dir,
        validate=validate,
        device="cpu",
        **options,
    )
    return model, result


def lines(run_dir, *drop):
    """metrics.jsonl without what depends on the clock."""
    drop = {"seconds", "samples_per_second", *drop}
    rows = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in row.items() if name not in drop} for row in rows]


class StopError(Exception):
    pass


def stopping_at(n):
    def after_step(model, step):
        if step == n:
            raise StopError

    return after_step


def test_it_learns(tmp_path):
    config = CONFIG.replace(max_steps=40, validate_every=20, log_every=8, learning_rate=5e-2)
    _, result = fit(tmp_path, config)
    rows = [row for row in lines(tmp_path) if row["event"] == "train"]
    assert rows[-1]["loss"] < 0.8 * rows[0]["loss"]
    assert result.last_step == 40
    assert result.weights == "best"
    assert not result.stopped_early


def test_same_seed_same_bits_whatever_the_global_generators_say(tmp_path):
    first, _ = fit(tmp_path / "a")
    torch.rand(5)
    np.random.rand(3)
    before = torch.get_rng_state(), np.random.get_state()[1].tolist()
    second, _ = fit(tmp_path / "b")
    assert tiny.same(tiny.weights(first), tiny.weights(second))
    assert torch.equal(before[0], torch.get_rng_state())
    assert before[1] == np.random.get_state()[1].tolist()
    other, _ = fit(tmp_path / "c", CONFIG.replace(seed=1))
    assert not tiny.same(tiny.weights(first), tiny.weights(other))


@pytest.mark.parametrize("step", [1, 8, 13, 23])
def test_a_run_that_died_ends_as_if_it_had_not(tmp_path, step):
    whole, result = fit(tmp_path / "whole")
    with pytest.raises(StopError):
        fit(tmp_path / "died", after_step=stopping_at(step))
    resumed, again = fit(tmp_path / "died")
    assert tiny.same(tiny.weights(whole), tiny.weights(resumed))
    assert lines(tmp_path / "whole") == lines(tmp_path / "died")
    assert (result.best_step, result.best_metric) == (again.best_step, again.best_metric)


def test_resuming_a_finished_run_changes_nothing(tmp_path):
    model, result = fit(tmp_path)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.safetensors")}
    again, second = fit(tmp_path)
    assert tiny.same(tiny.weights(model), tiny.weights(again))
    assert (result.last_step, result.best_step) == (second.last_step, second.best_step)
    assert before == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.safetensors")}


def test_a_longer_run_goes_on_from_a_shorter_one(tmp_path):
    config = CONFIG.replace(schedule="constant", validate_every=100, ema_decay=None)
    fit(tmp_path / "run", config.replace(max_steps=10), validate=None)
    longer, result = fit(tmp_path / "run", config, validate=None)
    whole, _ = fit(tmp_path / "whole", config, validate=None)
    assert result.last_step == 24
    assert result.weights == "last"
    assert tiny.same(tiny.weights(longer), tiny.weights(whole))


def test_accumulation_equals_the_batch_at_once(tmp_path):
    models = [
        fit(tmp_path / str(parts), CONFIG.replace(accumulation=parts), tiny.Net(0.0, norm=False), tiny.plain_loss)[0]
        for parts in (1, 2, 4)
    ]
    first = tiny.weights(models[0])
    for model in models[1:]:
        for name, value in tiny.weights(model).items():
            torch.testing.assert_close(value, first[name], rtol=0, atol=1e-6)


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")  # fork, Python 3.12+
def test_workers_change_nothing(tmp_path):
    config = CONFIG.replace(max_steps=6)
    alone, _ = fit(tmp_path / "0", config)
    helped, _ = fit(tmp_path / "2", config.replace(workers=2))
    assert tiny.same(tiny.weights(alone), tiny.weights(helped))


def test_bf16_trains_on_the_cpu_and_keeps_float32_weights(tmp_path):
    seen = set()

    def loss(model, batch, rng):
        seen.add(model.head(batch.images[:, :1].expand(-1, 4, -1, -1)).dtype)
        return tiny.loss(model, batch, rng)

    model, _ = fit(
        tmp_path / "bf16", CONFIG.replace(precision="bf16", max_steps=40, log_every=8, learning_rate=5e-2), loss=loss
    )
    rows = [row for row in lines(tmp_path / "bf16") if row["event"] == "train"]
    assert seen == {torch.bfloat16}
    assert rows[-1]["loss"] < 0.8 * rows[0]["loss"]
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    fit(tmp_path / "after", CONFIG.replace(max_steps=1))  # accelerate holds no precision back


def test_frozen_parts_stay_as_they_are_and_in_eval_mode(tmp_path):
    modes = []

    def loss(model, batch, rng):
        modes.append((model.training, model.head.training, model.backbone.training, model.backbone[1].training))
        return tiny.loss(model, batch, rng)

    model, _ = fit(tmp_path, loss=loss)
    assert set(modes) == {(True, True, False, False)}
    assert torch.equal(model.backbone[0].weight.cpu(), tiny.Net().backbone[0].weight)


def test_validation_sees_the_average_in_eval_mode_and_training_goes_on_with_the_live_weights(tmp_path):
    seen, live = [], []

    def validate(model):
        seen.append((model.training, torch.is_grad_enabled(), model.head[0].weight.clone()))
        return {"dice": 0.5}

    def after_step(model, step):
        live.append(model.head[0].weight.detach().clone())

    fit(tmp_path, CONFIG.replace(max_steps=16), validate=validate, after_step=after_step)
    assert [row[:2] for row in seen] == [(False, False)] * 2
    assert not torch.equal(seen[0][2], live[7])
    plain = []
    fit(
        tmp_path / "plain", CONFIG.replace(max_steps=16), after_step=lambda m, s: plain.append(m.head[0].weight.clone())
    )
    assert all(torch.equal(a, b) for a, b in zip(live, plain, strict=True))


def test_without_validation_the_model_ends_with_the_average(tmp_path):
    model, result = fit(tmp_path, validate=None)
    assert result.weights == "ema"
    assert result.best_step is None
    live, _ = fit(tmp_path / "live", CONFIG.replace(ema_decay=None), validate=None)
    assert not torch.equal(model.bias, live.bias)


def scripted(*values):
    """A validation that gives these values, then the last again, and notes the weights that it saw."""
    seen = []

    def validate(model):
        seen.append(model.bias.detach().clone())
        return {"dice": values[min(len(seen), len(values)) - 1]}

    return validate, seen


@pytest.mark.parametrize(
    ("mode", "values", "best"), [("max", (1, 3, 2), 2), ("min", (3, 1, 2), 2), ("max", (2, 2, 2), 1)]
)
def test_the_best_weights_are_kept_and_given_back(tmp_path, mode, values, best):
    validate, seen = scripted(*values)
    model, result = fit(tmp_path, CONFIG.replace(monitor_mode=mode), validate=validate)
    assert result.best_step == 8 * best
    assert result.weights == "best"
    assert torch.equal(model.bias, seen[best - 1])
    names = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    assert names == [f"best_{8 * best:06d}", "step_000024"]


def test_early_stop(tmp_path):
    validate, seen = scripted(1, 2, 0, 0, 0)
    config = CONFIG.replace(max_steps=100, validate_every=2, patience=2)
    _, result = fit(tmp_path, config, validate=validate)
    assert (result.last_step, result.best_step, result.stopped_early) == (8, 4, True)
    _, again = fit(tmp_path, config, validate=validate)
    assert again.last_step == 8
    assert len(seen) == 4
    _, more = fit(tmp_path, config.replace(patience=3), validate=validate)
    assert more.last_step == 10


def test_the_norm_before_clipping_is_logged(tmp_path):
    config = CONFIG.replace(max_steps=3, clip_norm=0.5, log_every=1)
    fit(tmp_path, config, loss=lambda model, batch, rng: {"loss": 1e3 * model.bias[0].sum()}, validate=None)
    assert [row["grad_norm"] for row in lines(tmp_path)] == [1e3] * 3


def test_clipping_scales_the_gradient(tmp_path):
    from medtextdiff.training.device import accelerator_for, release
    from medtextdiff.training.update import Updater

    model = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(model.weight)
    sgd = torch.optim.SGD(model.parameters(), lr=1.0)
    sgd.param_groups[0]["base_lr"] = 1.0
    accelerator = accelerator_for("float32", 1, tmp_path, False, "cpu")
    updater = Updater(
        model,
        lambda m, b, r: {"loss": 8.0 * m.weight.sum()},
        sgd,
        accelerator,
        seed=0,
        clip_norm=0.5,
        channels_last=False,
    )
    outcome = updater(0, iter([None]), rate=0.5, stop=False, clock=lambda: 3.0)
    release(accelerator)
    assert (outcome.norm, outcome.seconds) == (8.0, 3.0)
    assert model.weight.item() == pytest.approx(-0.25, rel=1e-5)


def test_metrics_say_everything(tmp_path):
    fit(tmp_path, CONFIG.replace(max_steps=10, validate_every=10))
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [(row["event"], row["step"]) for row in rows] == [
        ("train", 3),
        ("train", 6),
        ("train", 9),
        ("train", 10),
        ("validation", 10),
    ]
    first = rows[0]
    assert set(first) == {
        "event", "step", "loss", "half", "grad_norm", "seconds", "samples_per_second", "epoch", "lr",
    }  # fmt: skip
    assert first["half"] == pytest.approx(first["loss"] / 2)
    assert first["epoch"] == pytest.approx(3 * 4 / 10)
    assert first["lr"] == pytest.approx(1e-2 * 3 / 4)  # warm-up, third of four
    assert first["samples_per_second"] > 0
    assert rows[-1]["dice"] == pytest.approx(rows[-1]["dice"])
    assert rows[-1]["best"] is True


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_loss_that_is_no_number_stops_and_keeps_the_checkpoint(tmp_path, bad):
    def loss(model, batch, rng):
        calls.append(1)
        return {"loss": model.bias.sum() * (bad if len(calls) > 12 else 1.0)}

    calls = []
    with pytest.raises(TrainingError, match="step 13") as caught:
        fit(tmp_path, CONFIG.replace(max_steps=20), loss=loss, validate=None)
    assert caught.value.step == 13
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step_000010"]
    assert not (tmp_path / ".lock").exists()


def test_a_gradient_that_is_no_number_stops(tmp_path):
    def loss(model, batch, rng):
        return {"loss": (model.bias.sum() * 0.0).sqrt()}  # 0 * inf

    with pytest.raises(TrainingError, match="gradient of step 1"):
        fit(tmp_path, loss=loss, validate=None)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("learning_rate", 1e-3),
        ("batch_size", 2),
        ("seed", 5),
        ("ema_decay", None),
        ("precision", "bf16"),
        ("lr_scale", {"head": 0.5}),
        ("monitor", "other"),
    ],
)
def test_resuming_with_another_config_is_refused(tmp_path, field, value):
    fit(tmp_path, CONFIG.replace(max_steps=5))
    with pytest.raises(RunError, match=field):
        fit(tmp_path, CONFIG.replace(**{field: value}))


def test_a_run_goes_on_under_a_version_with_more_settings(tmp_path, monkeypatch):
    def without(value):  # as a version wrote it that had no clip_norm
        told = to_json(value)
        return {name: told[name] for name in told if name != "clip_norm"} if isinstance(told, dict) else told

    with monkeypatch.context() as patch:
        patch.setattr("medtextdiff.config.to_json", without)
        fit(tmp_path, CONFIG.replace(max_steps=5))
    with pytest.raises(RunError, match=r"trained with clip_norm=1\.0, now it is 2\.0"):
        fit(tmp_path, CONFIG.replace(clip_norm=2.0))
    _, result = fit(tmp_path, CONFIG)
    assert result.last_step == 24


def test_resuming_with_other_data_is_refused(tmp_path):
    fit(tmp_path, CONFIG.replace(max_steps=5))
    with pytest.raises(RunError, match="10 samples, now there are 11"):
        fit(tmp_path, data=tiny.Squares(11))


def test_what_does_not_change_the_numbers_may_change(tmp_path):
    fit(tmp_path, CONFIG.replace(max_steps=5))
    free = {"checkpoint_every": 7, "validate_every": 6, "log_every": 5, "patience": 9}
    _, result = fit(tmp_path, CONFIG.replace(**free))
    assert result.last_step == 24


def test_begin_is_called_only_for_a_run_that_may_go_on(tmp_path):
    called = []

    def begin():
        assert (tmp_path / ".lock").exists()
        called.append(1)

    fit(tmp_path, CONFIG.replace(max_steps=2), begin=begin)
    with pytest.raises(RunError):
        fit(tmp_path, CONFIG.replace(seed=9), begin=begin)
    assert called == [1]


def test_a_run_is_not_begun_twice_unasked(tmp_path):
    fit(tmp_path, CONFIG.replace(max_steps=5))
    with pytest.raises(RunError, match="holds a run already"):
        fit(tmp_path, resume=False)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch_size": 3, "accumulation": 2}, "choose a multiple of 2"),
        ({"lr_scale": {"haed": 0.1}}, "did you mean 'head'"),
        ({"precision": "fp16"}, "needs a CUDA GPU"),
        ({"monitor": "dise"}, "did you mean 'dice'"),
    ],
)
def test_a_config_that_cannot_be_run_says_why(tmp_path, changes, message):
    with pytest.raises(ConfigError, match=message):
        fit(tmp_path, CONFIG.replace(**changes))


def test_bad_jobs_say_why(tmp_path):
    with pytest.raises(ConfigError, match="no training sample"):
        fit(tmp_path, data=tiny.Squares(0))
    with pytest.raises(ConfigError, match="nothing to train"):
        fit(tmp_path, model=tiny.Net().requires_grad_(False))
    with pytest.raises(ConfigError, match="no device 'gpu'"):
        engine.fit(tiny.Net(), tiny.loss, tiny.Squares(), CONFIG, tmp_path, device="gpu")
    with pytest.raises(TypeError, match="dict of scalar tensors"):
        fit(tmp_path, loss=lambda model, batch, rng: {"losses": model.bias.sum()})
    with pytest.raises(TrainingError, match="dice at step 8 is nan"):
        fit(tmp_path, validate=lambda model: {"dice": math.nan})


def test_lr_scale_slows_a_component(tmp_path):
    start = tiny.Net().head[4].weight
    moved = []
    for name, scale in (("full", {}), ("slow", {"head": 0.1}), ("part", {"head": 0.1, "head.4": 1.0})):
        config = CONFIG.replace(max_steps=1, lr_scale=scale, weight_decay=0.0, warmup_steps=0, ema_decay=None)
        model, _ = fit(tmp_path / name, config, validate=None)
        moved.append((model.head[4].weight - start).abs().mean().item())
    assert moved[1] == pytest.approx(0.1 * moved[0], rel=1e-3)
    assert moved[2] == pytest.approx(moved[0], rel=1e-3)


def test_tensorboard_writes_events(tmp_path):
    fit(tmp_path, CONFIG.replace(max_steps=3, tensorboard=True))
    assert list((tmp_path / "tensorboard").rglob("events.out.tfevents*"))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:`torch.jit.script_method`:DeprecationWarning")
def test_compile_keeps_names(tmp_path):
    """The model's own name space is not wrapped: what is saved loads without compiling."""
    fit(tmp_path, CONFIG.replace(max_steps=2, compile=True), validate=None)
    assert fit(tmp_path, CONFIG.replace(max_steps=4), validate=None)[1].last_step == 4


def test_interruption_finishes_the_step_saves_and_resumes(tmp_path):
    import os
    import signal

    def after_step(model, step):
        if step == 7:
            os.kill(os.getpid(), signal.SIGTERM)

    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    with pytest.raises(Interrupted, match="SIGTERM after step 8") as caught:
        fit(tmp_path / "run", after_step=after_step)
    assert caught.value.step == 8
    assert before == (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT))
    assert (tmp_path / "run" / "checkpoints" / "step_000008").is_dir()
    resumed, _ = fit(tmp_path / "run")
    whole, _ = fit(tmp_path / "whole")
    assert tiny.same(tiny.weights(resumed), tiny.weights(whole))
    assert lines(tmp_path / "run") == lines(tmp_path / "whole")
