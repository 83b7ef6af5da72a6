"""Our sampler against transformers' own processors, in the order in which transformers itself puts them."""

from types import SimpleNamespace

import numpy as np
import pytest

from router.sampling import NO_RULES, Sampler
from router.types import Sampling

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

VOCAB = 48
END = 5
PROMPT = (3, 3, 9, 20)
ANSWER = (7, 9, 7)

CASES = {
    "temperature": Sampling(temperature=0.6),
    "top_k": Sampling(temperature=1.0, top_k=7),
    "top_k of one": Sampling(temperature=1.0, top_k=1),
    "top_k beyond the vocabulary": Sampling(temperature=1.0, top_k=500),
    "top_p": Sampling(temperature=1.0, top_p=0.8),
    "a tiny top_p": Sampling(temperature=1.0, top_p=1e-6),
    "min_p": Sampling(temperature=1.0, min_p=0.1),
    "repetition penalty": Sampling(temperature=1.0, repetition_penalty=1.7),
    "a penalty that rewards": Sampling(temperature=1.0, repetition_penalty=0.5),
    "bias": Sampling(temperature=1.0, logit_bias=((1, 4.0), (7, -6.0), (9, 2.5))),
    "min_tokens": Sampling(temperature=1.0, min_tokens=4, max_tokens=9),
    "min_tokens reached": Sampling(temperature=1.0, min_tokens=3, max_tokens=9),
    "top_k, top_p": Sampling(temperature=1.5, top_k=12, top_p=0.7),
    "all": Sampling(1.3, 20, 0.9, 0.05, 1.4, logit_bias=((1, 4.0), (7, 3.0)), min_tokens=4, max_tokens=9),
}


def rows(step=0.0):
    for seed in range(6):
        row = np.random.default_rng(seed).normal(0, 3, VOCAB)
        row[END] = row.max() + 1  # so that a missing ban shows
        yield (np.round(row / step) * step if step else row).astype(np.float32)


class Generating(transformers.GenerationMixin):
    """A decoder that ``generate`` could be asked of, as far as its processors go."""

    config = SimpleNamespace(is_encoder_decoder=False)

    def processors(self, config, prompt=PROMPT):
        self._prepare_special_tokens(config, device="cpu")
        return self._get_logits_processor(
            config,
            input_ids_seq_length=len(prompt),
            encoder_input_ids=torch.tensor([prompt]),
            device="cpu",
        )


def processors(sampling):
    """What ``generate`` would build; transformers decides the order."""
    config = transformers.GenerationConfig(
        do_sample=True,
        temperature=float(sampling.temperature),
        top_k=sampling.top_k or 0,
        top_p=sampling.top_p or 1.0,
        min_p=sampling.min_p,
        repetition_penalty=sampling.repetition_penalty or 1.0,
        sequence_bias={(token,): float(bias) for token, bias in sampling.logit_bias or ()} or None,
        min_new_tokens=sampling.min_tokens,
        eos_token_id=END,
    )
    return Generating().processors(config)


def theirs(row, sampling, turn=list):
    """Probabilities under transformers' processors, after ``turn`` has had its way with their order."""
    return shares(row, turn(processors(sampling)), PROMPT + ANSWER)


def shares(row, chain, ids):
    """Probabilities after the processors of ``chain``, where ``ids`` came before."""
    ids, values = torch.tensor([ids]), torch.tensor(row)[None]
    for processor in chain:
        uncut = values if type(processor).__name__ in ("TopPLogitsWarper", "TopHLogitsWarper") else None
        values = processor(ids, values)
        if uncut is not None:
            values = lowest_stay(uncut[0], values[0])[None]
    return values[0].double().softmax(-1).numpy()


def lowest_stay(uncut, cut):
    """``cut`` with the lower ids left of equals at its edge: torch's sort lets any of them stay."""
    edge = cut[cut > -torch.inf].min()
    equals = (uncut == edge).nonzero()[:, 0]
    kept = int((cut == edge).sum())
    cut = cut.clone()
    cut[equals[:kept]], cut[equals[kept:]] = edge, -torch.inf
    return cut


def ours(row, sampling, point, rules=NO_RULES, prompt=PROMPT, answer=ANSWER):
    """The token at ``point`` of [0, 1), after the prompt and the answer so far."""
    points = iter([0.5] * len(answer) + [point])
    sampler = Sampler(sampling, np.array(prompt), frozenset({END}), points.__next__, rules)
    for token in answer:
        only = np.full(VOCAB, -np.inf, dtype=np.float32)
        only[token] = 0.0
        assert sampler.pick(only) == token
    return sampler.pick(row)


def agrees(row, sampling, share, *rest):
    """Whether our sampler gives every token of ``share`` its stretch of [0, 1), to a hundred-thousandth."""
    sums, slack = np.cumsum(share), 1e-5
    for token in np.flatnonzero(share):
        low, high = sums[token] - share[token], sums[token]
        points = [(low + high) / 2] if high - low < 4 * slack else [low + slack, high - slack]
        if high - low > 1e-6 and any(ours(row, sampling, point, *rest) != token for point in points):
            return False
    return True


@pytest.mark.parametrize("sampling", CASES.values(), ids=CASES)
@pytest.mark.parametrize("step", [0.0, 1.0], ids=["apart", "ties"])
def test_the_distribution_is_that_of_transformers(sampling, step):
    for row in rows(step):
        assert agrees(row, sampling, theirs(row, sampling))


def test_transformers_order_is_the_documented_one():
    names = [type(processor).__name__ for processor in processors(CASES["all"])]
    assert names == [
        "SequenceBiasLogitsProcessor",
        "RepetitionPenaltyLogitsProcessor",
        "MinNewTokensLengthLogitsProcessor",
        "TemperatureLogitsWarper",
        "TopKLogitsWarper",
        "TopPLogitsWarper",
        "MinPLogitsWarper",
    ]


# Bias and penalty, temperature and top_p, top_k and top_p, top_p and min_p: the pairs that do not commute
@pytest.mark.parametrize(("a", "b"), [(0, 1), (3, 5), (4, 5), (5, 6)])
def test_two_processors_swapped_would_be_noticed(a, b):
    def turn(chain):
        chain = list(chain)
        chain[a], chain[b] = chain[b], chain[a]
        return chain

    sampling = CASES["all"]
    assert not all(agrees(row, sampling, theirs(row, sampling, turn)) for row in rows())


@pytest.mark.parametrize(
    "other",
    [
        Sampling(temperature=1.0, top_k=8),
        Sampling(temperature=1.0, top_k=6),
        Sampling(temperature=1.001, top_k=7),
    ],
)
def test_an_off_by_one_would_be_noticed(other):
    assert not any(agrees(row, CASES["top_k"], theirs(row, other)) for row in rows())
