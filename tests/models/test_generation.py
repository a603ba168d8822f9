"""Generation: with a cache as without, greedy as Hugging Face, each row for itself."""

import lightning
import pytest
import torch

from datamodules.batches import TokenBatch
from lit_models import LitGPT
from lit_models.decoding.sampling import Ending, Sampling, complete, generate, pad_prompts
from lit_models.gpt import GPT, DecoderConfig
from lit_models.weights.hugging_face import save_pretrained

V, C, D, L, H = 23, 17, 20, 2, 5


@pytest.fixture
def net():
    config = DecoderConfig(context_length=C, d_model=D, num_layers=L, num_heads=H)
    net = GPT(V, config).eval()
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter, std=0.4)
    return net


def prompts_of(*lengths):
    return pad_prompts([torch.randint(V, (length,)).tolist() for length in lengths])


# 5 tokens fit the context of 17 beside the longest prompt, 30 slide over it.
@pytest.mark.parametrize("num_tokens", [5, 30])
@pytest.mark.parametrize("sampling", [Sampling(0.0), Sampling(1.3, top_k=7, top_p=0.9, seed=3)])
def test_cached_equals_uncached(net, num_tokens, sampling):
    prompts, mask = prompts_of(7, 3, 11)
    cached = generate(net, prompts, num_tokens, mask, sampling)
    plain = generate(net, prompts, num_tokens, mask, sampling, use_cache=False)
    assert torch.equal(cached, plain)
    assert cached.shape == (3, num_tokens)


def test_a_row_does_not_depend_on_the_others(net):
    prompts, mask = prompts_of(7, 3, 11)
    sampling = Sampling(1.1, seed=5)
    together = generate(net, prompts, 20, mask, sampling)
    for row, length in enumerate((7, 3, 11)):
        alone = prompts[row : row + 1, -length:]
        text = generate(net, alone, 20, None, sampling, rows=torch.tensor([row]))
        assert torch.equal(text[0], together[row])


def test_each_token_sees_the_last_context(net):
    prompt = torch.randint(V, (2, 4))
    text = generate(net, prompt, 40, None, Sampling(0.0))
    tokens = torch.cat([prompt, text], dim=1)
    for end in range(4, 44):
        logits = net(tokens[:, max(0, end - C) : end])[:, -1]
        assert torch.equal(tokens[:, end], logits.argmax(-1))


def test_greedy_equals_hugging_face(net, tmp_path):
    transformers = pytest.importorskip("transformers")
    save_pretrained(net, tmp_path)
    theirs = transformers.GPT2LMHeadModel.from_pretrained(tmp_path).eval()
    theirs.generation_config.eos_token_id = None
    prompts, mask = prompts_of(5, 2, 7)
    expected = theirs.generate(
        prompts,
        attention_mask=mask.long(),
        max_new_tokens=10,
        do_sample=False,
        pad_token_id=0,
        use_cache=True,
    )
    text = generate(net, prompts, 10, mask, Sampling(0.0))
    assert torch.equal(text, expected[:, 7:])


def test_filters_equal_hugging_face():
    processors = pytest.importorskip("transformers.generation.logits_process")
    logits = torch.randn(200, V) * 3
    for options, theirs in (
        ({"temperature": 0.7}, [processors.TemperatureLogitsWarper(0.7)]),
        ({"top_k": 5}, [processors.TopKLogitsWarper(5)]),
        ({"top_p": 0.8}, [processors.TopPLogitsWarper(0.8)]),
        (
            {"temperature": 2.0, "top_k": 9, "top_p": 0.6},
            [
                processors.TemperatureLogitsWarper(2.0),
                processors.TopKLogitsWarper(9),
                processors.TopPLogitsWarper(0.6),
            ],
        ),
    ):
        expected = logits
        for warp in theirs:
            expected = warp(None, expected)
        found = Sampling(**options).probabilities(logits)
        torch.testing.assert_close(found, expected.softmax(-1))


def test_frequencies_are_the_probabilities():
    logits = torch.randn(1, V)
    sampling = Sampling(1.5, top_k=6)
    draws = torch.rand(200_000)
    tokens = sampling.choose(logits.expand(len(draws), V), draws)
    frequency = torch.bincount(tokens, minlength=V) / len(draws)
    expected = sampling.probabilities(logits)[0]
    assert (frequency[expected == 0] == 0).all()
    error = (expected * (1 - expected) / len(draws)).sqrt()
    assert ((frequency - expected).abs() <= 5 * error).all()


def test_extreme_draws_give_tokens_of_positive_probability():
    logits = torch.tensor([[0.0, 1.0, 0.0, -torch.inf]]).expand(3, 4)
    tokens = Sampling().choose(logits, torch.tensor([0.0, 1 - 2**-24, 0.5]))
    assert tokens.tolist()[:2] == [0, 2]


def test_seeds():
    model = LitGPT(V, C, D, L, H).eval()
    prompt = torch.randint(V, (3, 4))
    first, again = model.generate(prompt, 12, seed=1), model.generate(prompt, 12, seed=1)
    assert torch.equal(first, again)
    assert not torch.equal(first, model.generate(prompt, 12, seed=2))
    same = model.generate(prompt[:1].repeat(2, 1), 12, seed=1)
    assert not torch.equal(same[0], same[1])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": -1.0}, "temperature must not be negative, got -1.0"),
        ({"top_k": 0}, "top_k must be at least 1, got 0"),
        ({"top_p": 1.5}, r"top_p must lie in \(0, 1\], got 1.5"),
    ],
)
def test_wrong_options(net, options, message):
    with pytest.raises(ValueError, match=message):
        generate(net, torch.zeros(1, 2, dtype=torch.long), 3, None, Sampling(**options))


def test_empty_prompts_are_refused(net):
    tokens, mask = torch.zeros(2, 3, dtype=torch.long), torch.ones(2, 3, dtype=torch.bool)
    mask[1] = False
    with pytest.raises(ValueError, match="every prompt needs at least one token"):
        generate(net, tokens, 3, mask)


def test_rows_end_for_a_reason_and_the_others_are_unmoved(net):
    prompts, mask = pad_prompts([[1, 2, 3], [4], [5, 6], [7, 8, 9, 1]])
    sampling = Sampling(1.2, seed=4)
    whole = generate(net, prompts, 25, mask, sampling)
    end = int(whole[0, 3])
    ending = Ending(end, lambda tokens: tokens[-2:] == whole[1, 5:7].tolist())
    for use_cache in (True, False):
        done = complete(net, prompts, 25, mask, sampling, None, ending, use_cache)
        for row in range(4):
            length = int(done.lengths[row])
            assert torch.equal(done.tokens[row, :length], whole[row, :length])
            assert (done.tokens[row, length:] == 0).all()
            ends = (whole[row] == end).nonzero()
            if done.reasons[row] == 1:
                assert length == int(ends[0]) + 1
            elif done.reasons[row] == 0:
                assert length == 25
                assert len(ends) == 0
        assert done.reasons[0] == 1
        assert done.reasons[1] in (1, 2)
    late = complete(net, prompts, 25, mask, sampling, None, ending._replace(min_tokens=9))
    assert int(late.lengths.min()) >= 9
    assert not (late.tokens[:, :8] == end).any()


def test_repetition_penalty_is_hugging_faces(net):
    processors = pytest.importorskip("transformers.generation.logits_process")
    logits, tokens = torch.randn(3, V), torch.randint(V, (3, 6))
    expected = processors.RepetitionPenaltyLogitsProcessor(1.7)(tokens, logits.clone())
    torch.testing.assert_close(
        Sampling(repetition_penalty=1.7).penalise(logits, tokens, None), expected
    )
    mask = torch.ones_like(tokens, dtype=torch.bool)
    mask[0, :3] = False
    alone = Sampling(repetition_penalty=1.7).penalise(logits[:1], tokens[:1, 3:], None)
    both = Sampling(repetition_penalty=1.7).penalise(logits, tokens, mask)
    torch.testing.assert_close(both[:1], alone)


@pytest.mark.parametrize(
    "options", [{"num_new_tokens": 0}, {"min_new_tokens": 99}, {"repetition_penalty": 0.0}]
)
def test_lengths_and_penalties_out_of_range(options):
    with pytest.raises(ValueError, match="must"):
        LitGPT(V, C, D, L, H, **options)


def test_rows_of_any_loader_are_counted():
    model = LitGPT(V, C, D, L, H, num_new_tokens=7).eval()
    tokens = torch.ones(5, 2, dtype=torch.long)
    trainer = lightning.Trainer(
        logger=False, barebones=True, accelerator="cpu", enable_progress_bar=False
    )

    def collate(rows):
        return TokenBatch(torch.stack(rows), torch.stack(rows))

    loader = torch.utils.data.DataLoader(tokens, 2, collate_fn=collate)
    found = torch.cat([out["completion"] for out in trainer.predict(model, loader)])
    assert torch.equal(found, model.generate(tokens, 7))
