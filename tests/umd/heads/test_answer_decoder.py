"""What the answer decoder remembers, against reading everything anew."""

from __future__ import annotations

import pytest
import torch

from umd.encoders.ggp import build_bert
from umd.heads.answer_decoder import AnswerDecoder

START, END, CANDIDATES = 3, 4, 40


@pytest.mark.parametrize("kind", ["tiny_bert", "tiny_roberta"])  # which number their positions in different ways
@torch.no_grad()
def test_ranking_and_writing_from_memory_are_those_of_whole_answers(kind: str) -> None:
    torch.manual_seed(0)
    decoder = AnswerDecoder(build_bert(kind, None, {"width": 32, "heads": 2, "vocab_size": 60}, 2)).double().eval()
    for parameter in decoder.parameters():
        if parameter.ndim > 1:
            parameter.normal_(std=0.3)
    states, mask = torch.randn(3, 7, 32).double(), torch.arange(7) < torch.tensor([7, 4, 5])[:, None]
    lengths = torch.randint(2, 8, (CANDIDATES,))
    ids = torch.randint(5, 60, (CANDIDATES, 7)).index_fill(1, torch.tensor(0), START)
    real = torch.arange(7) < lengths[:, None]
    ids = ids.masked_fill(torch.arange(7) >= lengths[:, None] - 1, END)

    numbers, found = decoder.rank(states, mask, ids, real, shortlist=30)
    at_once = decoder.scores(states, mask, ids, real, shortlist=30)
    for row in range(3):
        many = states[row].expand(CANDIDATES, -1, -1), mask[row].expand(CANDIDATES, -1)
        expected = decoder.log_likelihood(ids, real, *many)[numbers[row]]
        torch.testing.assert_close(found[row].double(), expected.double(), rtol=0, atol=1e-5)
        torch.testing.assert_close(at_once[row, numbers[row]].double(), expected.double(), rtol=0, atol=1e-5)

    anew = torch.full((3, 1), START)
    for _ in range(8):
        following = decoder.predict(decoder(anew, states, mask)[:, -1]).argmax(1)
        anew = torch.cat([anew, following[:, None]], dim=1)
    written = decoder.generate(states, mask, START, END, max_length=9)
    assert written == [row[: row.index(END)] if END in row else row for row in anew[:, 1:].tolist()]
