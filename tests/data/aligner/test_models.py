"""The parts of the aligner: features, mixtures, chains of states, Viterbi."""

from __future__ import annotations

from itertools import pairwise, product

import pytest
import torch
from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal

from valle.data.aligner.models import (
    ANY,
    AT_EDGE,
    AT_PUNCTUATION,
    BETWEEN_WORDS,
    BOUNDARIES,
    DIM,
    NOWHERE,
    ChainBuilder,
    Chains,
    Mixtures,
    PhoneInventory,
    best_paths,
    cepstra,
)


@pytest.mark.parametrize("rate", [16000, 24000])
def test_features_are_normalised_and_know_the_time(rate):
    torch.manual_seed(0)
    wav = 0.01 * torch.randn(rate)
    wav[rate // 2 :] *= 30  # from 0.5 s on
    features = cepstra(wav, rate)
    assert features.shape == (100, DIM)
    assert torch.allclose(features[:, :13].mean(0), torch.zeros(13), atol=1e-4)
    assert (features[:49, 0] < 0).all()
    assert (features[51:, 0] > 0).all()


def test_features_of_silence_and_of_nothing():
    assert cepstra(torch.zeros(3200), 16000).isfinite().all()
    assert cepstra(torch.zeros(100), 16000).shape == (0, DIM)


def random_mixtures(k: int, m: int, d: int) -> Mixtures:
    return Mixtures(torch.randn(k, m).log_softmax(1), torch.randn(k, m, d), torch.rand(k, m, d) + 0.5)


def test_log_likelihood_is_that_of_torch_distributions():
    torch.manual_seed(0)
    mixtures, x = random_mixtures(5, 3, 4), torch.randn(50, 4)
    reference = MixtureSameFamily(
        Categorical(logits=mixtures.log_weights), Independent(Normal(mixtures.means, mixtures.variances.sqrt()), 1)
    )
    assert torch.allclose(mixtures.log_likelihood(x), reference.log_prob(x[:, None]), atol=1e-4)


def test_reestimation_raises_the_likelihood_and_finds_the_clusters():
    torch.manual_seed(0)
    centres = torch.tensor([[-3.0, 0.0], [3.0, 1.0]])
    x = torch.cat([centres[i % 2] + 0.3 * torch.randn(1, 2) for i in range(800)])
    states = torch.zeros(800, dtype=torch.long)
    mixtures = Mixtures.flat(2, x).split(torch.tensor([800, 0]))
    assert mixtures.log_weights[1].isfinite().sum() == 1, "a state without frames is not split"
    likelihoods = []
    for _ in range(12):
        likelihoods.append(float(mixtures.log_likelihood(x)[:, 0].mean()))
        mixtures = mixtures.reestimated(x, states)
    assert all(b >= a - 1e-4 for a, b in pairwise(likelihoods))
    found = mixtures.means[0][mixtures.means[0][:, 0].argsort()]
    assert torch.allclose(found, centres, atol=0.1)


def test_phones_share_models_across_stress_and_fall_back_to_what_is_similar():
    inventory = PhoneInventory.of(["ˈɑː", "ˌɑː", "t", "t", "oʊ", "oʊ", "b", "iː", "iː"], min_count=2)
    assert set(inventory.names[2:]) == {"ɑː", "t", "oʊ", "iː"}
    model = inventory.model_of
    assert model("ɑː") == model("ˈɑː") == model("ɑ") == model("ɑːɹ")
    assert model("tʃ") == model("t")
    assert model("i") == model("iː")
    assert model("b") == model("<unk>") == ANY


def test_chains_have_a_silence_for_each_run_of_boundary_tokens():
    vocab = ["<pad>", " ", ",", "t", "ə"]
    build = ChainBuilder(PhoneInventory.of(["t", "ə"], 1), vocab, BOUNDARIES)
    chain = build([1, 3, 2, 1, 4, 1, 3, 2])
    assert chain.owners.tolist() == [0] * 3 + [1] * 3 + [2] * 3 + [4] * 2 + [5] * 3 + [6] * 3 + [7] * 3
    begun = [p for p in chain.pauses_begun.tolist() if p != NOWHERE]
    assert begun == [AT_EDGE, AT_PUNCTUATION, BETWEEN_WORDS, AT_EDGE]
    assert [p for p in chain.pauses_skipped.tolist() if p != NOWHERE] == begun[:3]


def log_random(*shape: int) -> torch.Tensor:
    """Random log-probabilities, about a third of them impossible."""
    return torch.where(torch.rand(shape) < 0.3, -torch.inf, torch.randn(shape))


def test_viterbi_finds_what_trying_every_path_finds():
    torch.manual_seed(0)
    lengths, n_states, reach = [5, 5, 4, 1], 4, 2
    chains = Chains(torch.randint(0, 3, (4, n_states)), *(log_random(4, n_states) for _ in range(5)), jump_length=reach)
    emissions = torch.randn(4, 5, 3)
    paths, totals = best_paths(emissions, torch.tensor(lengths), chains)
    for b, length in enumerate(lengths):

        def total(path, b=b):
            score = chains.start[b, path[0]] + chains.final[b, path[-1]]
            score += sum(emissions[b, t, chains.emitters[b, s]] for t, s in enumerate(path))
            ways = {0: chains.stay, 1: chains.enter, reach: chains.jump}
            for before, after in pairwise(path):
                score += ways[after - before][b, after] if after - before in ways else -torch.inf
            return float(score)

        best = max(product(range(n_states), repeat=length), key=total)
        assert float(totals[b]) == pytest.approx(total(best), abs=1e-5)
        if total(best) > -torch.inf:
            assert tuple(paths[b, :length].tolist()) == best
    assert totals.isfinite().any()
