import numpy as np
import pytest
import torch

from medtextdiff.text import packed_attention, packing


@pytest.mark.parametrize("longest", [1, 7, 100])
def test_pieces_are_whole_documents_or_equal_parts(longest):
    lengths = np.random.default_rng(0).integers(1, 60, 200)
    pieces = packing.cut(lengths, longest)
    covered = np.concatenate([np.arange(s, s + n) for s, n in zip(pieces.starts, pieces.lengths, strict=True)])
    assert (covered == np.arange(lengths.sum())).all()
    assert pieces.lengths.min() > 0
    assert pieces.lengths.max() <= longest
    assert set(np.cumsum(lengths)) <= set(np.cumsum(pieces.lengths))  # no piece holds parts of two documents


def test_rows_hold_each_piece_once_and_are_almost_full():
    lengths = np.minimum(np.random.default_rng(0).lognormal(4, 1, 20_000).astype(int) + 3, 1024)
    rows = packing.pack(lengths, 1024, seed=0)
    assert sorted(np.concatenate(rows).tolist()) == list(range(len(lengths)))
    sums = np.array([lengths[row].sum() for row in rows])
    assert sums.max() <= 1024
    assert sums.mean() > 0.99 * 1024
    again, other = packing.pack(lengths, 1024, seed=0), packing.pack(lengths, 1024, seed=1)
    assert all((a == b).all() for a, b in zip(rows, again, strict=True))
    assert any(len(a) != len(b) or (a != b).any() for a, b in zip(rows, other, strict=False))


@pytest.mark.parametrize("reach", [None, 3, 64])
def test_attention_along_a_plan_is_attention_with_a_mask(reach):
    generator = torch.Generator().manual_seed(0)
    lengths = np.array([1, 300, 2, 130, 129, 128, 7, 7, 60, 65, 66])
    num = int(lengths.sum())
    q, k, v = torch.randn(3, num, 2, 4, generator=generator)
    way = packed_attention.plan(lengths, torch.device("cpu"), reach)
    found = packed_attention.attend(q, k, v, way)
    document = np.repeat(np.arange(len(lengths)), lengths)
    place = np.arange(num)
    near = np.abs(place[:, None] - place) <= (num if reach is None else reach)
    mask = torch.from_numpy((document[:, None] == document) & near)
    heads = [part.transpose(0, 1)[None] for part in (q, k, v)]
    expected = torch.nn.functional.scaled_dot_product_attention(*heads, attn_mask=mask)[0].transpose(0, 1)
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 0.03)])
@pytest.mark.parametrize("reach", [None, 3])
def test_short_documents_have_torchs_attention_and_gradients(dtype, tolerance, reach):
    """Written out for them: the reference is torch's own in float32, of the same rounded inputs."""
    generator = torch.Generator().manual_seed(0)
    lengths = np.array([40, 3, 17, 40, 1])
    given = [torch.randn(int(lengths.sum()), 2, 16, generator=generator).to(dtype) for _ in range(3)]
    weight = torch.randn(int(lengths.sum()), 2, 16, generator=generator)
    number = np.repeat(np.arange(len(lengths)), lengths)
    place = np.arange(len(number))
    near = np.abs(place[:, None] - place) <= (len(number) if reach is None else reach)
    mask = torch.from_numpy((number[:, None] == number) & near)

    def run(parts, attention):
        inputs = [part.detach().clone().requires_grad_() for part in parts]
        found = attention(*inputs).float()
        (found * weight).sum().backward()
        return [found.detach(), *(part.grad.float() for part in inputs)]

    def reference(q, k, v):
        heads = [part.transpose(0, 1)[None] for part in (q, k, v)]
        return torch.nn.functional.scaled_dot_product_attention(*heads, attn_mask=mask)[0].transpose(0, 1)

    way = packed_attention.plan(lengths, torch.device("cpu"), reach)
    ours = run(given, lambda q, k, v: packed_attention.attend(q, k, v, way))
    theirs = run([part.float() for part in given], reference)
    for mine, other in zip(ours, theirs, strict=True):
        assert (mine - other).abs().max() <= tolerance * other.abs().max()


def test_the_work_does_not_grow_with_the_square_of_the_row():
    lengths = np.full(256, 32)
    way = packed_attention.plan(lengths, torch.device("cpu"))
    assert (
        sum(group.queries.shape[0] * group.queries.shape[1] * group.keys.shape[1] for group in way.groups)
        == 256 * 32**2
    )
    long = packed_attention.plan(np.array([8192]), torch.device("cpu"), reach=64)
    work = sum(group.queries.shape[0] * group.queries.shape[1] * group.keys.shape[1] for group in long.groups)
    assert work <= 8192 * 256


def test_another_kind_of_model_is_refused():
    from types import SimpleNamespace

    from medtextdiff.text.errors import TextError

    model = SimpleNamespace(config=SimpleNamespace(model_type="gpt2"))
    with pytest.raises(TextError, match="'gpt2' cannot read packed documents"):
        packed_attention.states(model, torch.zeros(3, dtype=torch.long), torch.tensor([3]))
