"""Rollouts: the right law, the right end, and a function of model, prompt and seed alone."""

from __future__ import annotations

import copy
import itertools
import math
import random
from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

import more_r1.models.decode as decoding
import more_r1.models.sampling as sampling
from more_r1.models.forest import Forest, logprobs
from more_r1.models.load import Backbone
from more_r1.models.sampling import Rollout, Sampling, rollout_seed, sample
from more_r1.models.tiny import build_tiny
from more_r1.reasoning.prompt import Picture, Prompt

WORDS = ["<answer>", "</answer>", *(f"w{i}" for i in range(20))]
VISION = ("<|image_pad|>", "<|vision_start|>", "<|vision_end|>", "<|video_pad|>")
LIMIT = 16


@pytest.fixture(scope="module")
def tiny() -> Backbone:
    return build_tiny(WORDS, 0)


@pytest.fixture
def eager(tiny: Backbone) -> Iterator[Backbone]:
    """One token in sixteen ends a completion, so that rows finish at different steps."""
    config = tiny.model.generation_config
    before = config.eos_token_id
    config.eos_token_id = list(range(0, 300, 16))
    yield tiny
    config.eos_token_id = before


@pytest.fixture(scope="module")
def prompts(tmp_path_factory: pytest.TempPathFactory) -> list[Prompt]:
    """Two documents of two and three pairs, ragged, with pictures."""
    folder, rng = tmp_path_factory.mktemp("pictures"), random.Random(3)
    found = []
    for document in range(2):
        pixels = np.random.default_rng(document).integers(0, 256, (84, 84 + 28 * document, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{document}.png")
        picture = Picture(folder / f"{document}.png", None, 112 * 112)
        for _ in range(2 + document):
            own = " ".join(f"w{rng.randrange(20)}" for _ in range(rng.randint(1, 6)))
            found.append(Prompt((("w1 w2\n",), (picture, "w3\n"), (own,))))
    return found


def seeds_of(prompts: Sequence[Prompt], size: int = 4) -> list[list[int]]:
    return [[rollout_seed(0, 1, number, index) for index in range(size)] for number in range(len(prompts))]


def assert_same(found: Sequence[Sequence[Rollout]], wanted: Sequence[Sequence[Rollout]]) -> None:
    for mine, theirs in zip(itertools.chain(*found), itertools.chain(*wanted), strict=True):
        assert (mine.ids, mine.text, mine.ended) == (theirs.ids, theirs.text, theirs.ended)
        assert mine.logprobs == pytest.approx(theirs.logprobs, abs=1e-5)


@pytest.mark.parametrize("how", [Sampling(), Sampling(temperature=0.7, top_p=0.8)])
def test_company_changes_nothing(
    eager: Backbone, prompts: list[Prompt], how: Sampling, monkeypatch: pytest.MonkeyPatch
) -> None:
    seeds = seeds_of(prompts)
    told: list[int] = []
    together = sample(eager, prompts, seeds, how, LIMIT, told.append)
    flat = [rollout for group in together for rollout in group]
    assert told == list(range(1, len(flat) + 1))
    assert len({len(rollout.ids) for rollout in flat}) > 5 and len({rollout.ids for rollout in flat}) == len(flat)
    # Alone, one rollout at a time.
    assert_same(
        [[sample(eager, [p], [[s]], how, LIMIT)[0][0] for s in g] for p, g in zip(prompts, seeds, strict=True)], together
    )
    # In another order, of prompts and of rollouts.
    order = [3, 0, 4, 2, 1]
    turned = sample(eager, [prompts[i] for i in order], [seeds[i][::-1] for i in order], how, LIMIT)
    assert_same([group[::-1] for group in turned], [together[i] for i in order])
    for tokens in (1, 400):
        monkeypatch.setattr(decoding, "BATCH_TOKENS", tokens)
        assert_same(sample(eager, prompts, seeds, how, LIMIT), together)


def test_a_longer_limit_goes_on_with_what_there_is(eager: Backbone, prompts: list[Prompt]) -> None:
    short, long = (sample(eager, prompts, seeds_of(prompts), Sampling(), limit) for limit in (6, LIMIT))
    for one, other in zip(itertools.chain(*short), itertools.chain(*long), strict=True):
        assert one.ids == other.ids[:6]
        assert one.ended is (len(other.ids) <= 6 and other.ended)


@pytest.mark.parametrize("how", [Sampling(), Sampling(temperature=0.6), Sampling(temperature=1.5, top_p=0.7)])
def test_logprobs_are_the_forests(eager: Backbone, prompts: list[Prompt], how: Sampling) -> None:
    """Those of the model at the temperature, whatever top_p and the ban on pictures took away."""
    drawn = sample(eager, prompts, seeds_of(prompts), how, LIMIT)
    flat = [(eager.encoder.prompt(prompt), rollout) for prompt, group in zip(prompts, drawn, strict=True) for rollout in group]
    with torch.no_grad():
        forest = Forest.build([(segments, rollout.ids) for segments, rollout in flat], eager.encoder)
        wanted = logprobs(eager.model, forest, temperature=how.temperature)
    for (_, rollout), tokens in zip(flat, wanted, strict=True):
        assert len(rollout.logprobs) == len(rollout.ids)
        assert list(rollout.logprobs) == pytest.approx(tokens.tolist(), abs=1e-5)


def law(backbone: Backbone, prompt: Prompt, how: Sampling) -> Tensor:
    """The probability of each token to come first, [vocabulary], without the sampler's own code."""
    segments = backbone.encoder.prompt(prompt)
    vocabulary = len(backbone.encoder.tokenizer)
    forest = Forest.build([(segments, (id,)) for id in range(vocabulary)], backbone.encoder)
    with torch.no_grad():
        weights = torch.cat(logprobs(backbone.model, forest, temperature=how.temperature)).double().exp()
    weights[vision_ids(backbone)] = 0
    weights /= weights.sum()
    nucleus, held = set(), 0.0
    for id in sorted(range(vocabulary), key=lambda id: -float(weights[id])):
        if held >= how.top_p:
            break
        nucleus.add(id)
        held += float(weights[id])
    weights[[id for id in range(vocabulary) if id not in nucleus]] = 0
    return weights / weights.sum()


def vision_ids(backbone: Backbone) -> list[int]:
    return [int(backbone.encoder.tokenizer.convert_tokens_to_ids(token)) for token in VISION]


@pytest.mark.parametrize(
    ("how", "support"),
    [
        (Sampling(), (250, 400)),
        (Sampling(temperature=0.4), (250, 400)),
        (Sampling(temperature=0.4, top_p=0.5), (5, 100)),
        (Sampling(temperature=0.1, top_p=1e-6), (1, 1)),
    ],
)
def test_the_law_of_the_draws(tiny: Backbone, prompts: list[Prompt], how: Sampling, support: tuple[int, int]) -> None:
    wanted = law(tiny, prompts[0], how)
    assert support[0] <= int((wanted > 0).sum()) <= support[1]
    draws = 6000
    (rollouts,) = sample(tiny, prompts[:1], [[rollout_seed(9, 0, "law", i) for i in range(draws)]], how, 1)
    counts = Counter(rollout.ids[0] for rollout in rollouts)
    assert all(wanted[id] > 0 for id in counts), "drawn outside of the nucleus"
    # Chi-square; tokens that are expected less than ten times make one class.
    rare = [id for id in range(len(wanted)) if wanted[id] * draws < 10]
    classes = [[id] for id in range(len(wanted)) if wanted[id] * draws >= 10] + ([rare] if rare else [])
    statistic, freedom = 0.0, -1
    for ids in classes:
        expected = float(wanted[ids].sum()) * draws
        if expected:
            statistic += (sum(counts[id] for id in ids) - expected) ** 2 / expected
            freedom += 1
    assert statistic < freedom + 4 * math.sqrt(2 * freedom) + 1e-9, (
        f"chi-square {statistic:.0f} at {freedom} degrees of freedom"
    )


def test_each_token_is_a_draw_of_its_own(tiny: Backbone, prompts: list[Prompt]) -> None:
    """One number for a whole completion would pass for the right law of its first token."""
    (rollouts,) = sample(tiny, prompts[:1], [[rollout_seed(1, 0, "", i) for i in range(50)]], Sampling(), 8)
    assert all(len(set(rollout.ids)) >= len(rollout.ids) - 2 for rollout in rollouts)


def test_pictures_are_never_drawn(tiny: Backbone, prompts: list[Prompt]) -> None:
    model = copy.deepcopy(tiny.model)
    with torch.no_grad():
        # A model that wants nothing so much as to write image tokens.
        model.model.language_model.embed_tokens.weight[vision_ids(tiny)] *= 50
    painter = Backbone(model, tiny.encoder, tiny.form)
    for how in (Sampling(), Sampling(top_p=0.5)):
        drawn = [rollout for group in sample(painter, prompts, seeds_of(prompts, 8), how, 8) for rollout in group]
        assert not {id for rollout in drawn for id in rollout.ids} & set(vision_ids(tiny))
        # It did want to: what was drawn instead was unlikely to it.
        unlikely = [logprob < math.log(0.01) for rollout in drawn for logprob in rollout.logprobs]
        assert sum(unlikely) > len(unlikely) / 4
        assert all(math.isfinite(logprob) for rollout in drawn for logprob in rollout.logprobs)


def test_each_end(tiny: Backbone, prompts: list[Prompt]) -> None:
    encoder = tiny.encoder
    seeds = [[rollout_seed(2, 0, number, i) for i in range(60)] for number in range(len(prompts))]
    kinds: Counter[str] = Counter()
    for rollout in itertools.chain(*sample(tiny, prompts, seeds, Sampling(), LIMIT)):
        assert rollout.text == encoder.decode([id for id in rollout.ids if id != encoder.eos_id])
        assert encoder.eos_id not in rollout.ids[:-1] and "</answer>" not in encoder.decode(rollout.ids[:-1])
        if rollout.ids[-1] == encoder.eos_id:
            kinds["end of sequence"] += 1
        elif rollout.text.endswith("</answer>"):
            kinds["answer"] += 1
        else:
            kinds["cut"] += 1
            assert len(rollout.ids) == LIMIT
        assert rollout.ended is (rollout.ids[-1] == encoder.eos_id or rollout.text.endswith("</answer>"))
    assert min(kinds[kind] for kind in ("end of sequence", "answer", "cut")) >= 3


def scripted(monkeypatch: pytest.MonkeyPatch, backbone: Backbone, script: Sequence[int], limit: int) -> Rollout:
    """What comes of a model that writes just this."""
    tokens = iter(script)
    monkeypatch.setattr(sampling, "draw", lambda scores, top_p, numbers: torch.tensor([next(tokens)] * len(scores)))
    return sample(backbone, [Prompt((("w1",),))], [[7]], Sampling(), limit)[0][0]


@pytest.mark.parametrize(
    ("before", "kept", "ended"),
    [
        ("w1 <answer>none", "w1 <answer>none</answer>", True),
        ("", "</answer>", True),
        ("</answe>", "</answe></answer>", True),
        ("<answer> w1 w2 w3 w4 w5 w6 w7 w8 w9 w1 w2", "<answer> w1 w2 w3 w4 w5 w6 w7 w8", False),
    ],
)
@pytest.mark.parametrize("by", ["token", "letter"])
def test_ends_at_the_answer_however_it_is_spelled(
    tiny: Backbone, monkeypatch: pytest.MonkeyPatch, before: str, kept: str, ended: bool, by: str
) -> None:
    tokenizer = tiny.encoder.tokenizer
    ids = tokenizer(before, add_special_tokens=False)["input_ids"]
    letters = tokenizer.convert_tokens_to_ids(list("</answer>"))
    mark = tokenizer(" </answer>", add_special_tokens=False)["input_ids"] if by == "token" else letters
    limit = 40 if ended else 9
    rollout = scripted(monkeypatch, tiny, [*ids, *mark, *ids, *ids, *ids, *ids, *ids], limit)
    assert rollout.text.replace(" </answer>", "</answer>") == kept
    assert rollout.ended is ended
    assert rollout.ids == tuple([*ids, *mark][:limit])


def test_an_end_in_the_last_place_is_an_end(tiny: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    ids = [*tiny.encoder.tokenizer("w1 w2", add_special_tokens=False)["input_ids"], tiny.encoder.eos_id]
    assert scripted(monkeypatch, tiny, ids, 3).ended
    assert scripted(monkeypatch, tiny, ids, 3).text == "w1 w2"
    cut = scripted(monkeypatch, tiny, ids, 2)
    assert not cut.ended and cut.text == "w1 w2"


def test_each_rollout_has_a_seed_of_its_own() -> None:
    keys = [("a", "b", (1, 2)), ("a", "b", (12, 2)), ("ab", "", (1, 2)), ("b", "a", (1, 2))]
    asked = list(itertools.product((0, 1, 11), (0, 1, 11), keys, (0, 1, 11)))
    seeds = [rollout_seed(*arguments) for arguments in asked]
    assert len(set(seeds)) == len(asked)
    assert seeds == [rollout_seed(*arguments) for arguments in asked]
    assert all(0 <= seed < 2**64 for seed in seeds) and max(seeds) > 2**63


def test_nothing_asked(tiny: Backbone, prompts: list[Prompt]) -> None:
    assert sample(tiny, [], [], Sampling(), 5) == []
    assert sample(tiny, prompts[:2], [[], [3]], Sampling(), 5)[0] == []
    with pytest.raises(ValueError, match="max_new_tokens"):
        sample(tiny, prompts, seeds_of(prompts), Sampling(), 0)
