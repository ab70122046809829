"""The answer decoder: writes an answer token by token from the question's joint states (GGP section 2.3)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from umd.encoders.attention import KeysValues
from umd.encoders.bert import BertText
from umd.encoders.fusion import CoAttentionLayer
from umd.encoders.ggp import cross_attention_layers
from umd.heads.text_decoder import tied_decoder

CANDIDATES_AT_ONCE = 16
"""Of similar lengths, so that little is padded; and their logits over the vocabulary fit into memory."""


@dataclass(frozen=True, slots=True)
class Memory:
    """What the next tokens of B answers read, layer by layer.

    Attributes:
        question: of the question's states, the same for every token and for every answer.
        written: of the answer's tokens up to here.
        mask: (B, 1, 1, L) bool, True at real tokens of the question.
    """

    question: tuple[KeysValues, ...]
    written: tuple[KeysValues, ...]
    mask: Tensor

    def of(self, row: int, answers: int) -> Memory:
        """That of one of the B, for so many answers that go on in different ways."""

        def one(parts: Iterable[KeysValues]) -> tuple[KeysValues, ...]:
            rows = (KeysValues(part.key[row : row + 1], part.value[row : row + 1]) for part in parts)
            return tuple(part.expand(answers) for part in rows)

        return Memory(one(self.question), one(self.written), self.mask[row : row + 1])


class AnswerDecoder(nn.Module):
    """BERT's first layers made causal, each with a cross-attention to the question's states.

    Args:
        text: gives its embeddings and its layers, with whatever weights they have.
    """

    def __init__(self, text: BertText) -> None:
        super().__init__()
        self.embeddings = text.model.embeddings
        self.layers = cross_attention_layers(text)
        self.predict = tied_decoder(text)
        self.max_length = text.max_length
        self.first_position = text.model.config.max_position_embeddings - text.max_length

    def forward(self, input_ids: Tensor, states: Tensor, states_mask: Tensor) -> Tensor:
        """Features from which `predict` tells the next token; padding on the right changes none before it.

        Args:
            input_ids: (N, M) int64 tokens of an answer.
            states: (N, L, D) joint states of its question.
            states_mask: (N, L) bool, True at real tokens of the question.

        Returns:
            (N, M, D).
        """
        tokens: Tensor = self.embeddings(input_ids)
        for layer in self.layers:
            tokens = layer(tokens, None, states, states_mask, causal=True)
        return tokens

    def begin(self, start: Tensor, states: Tensor, states_mask: Tensor) -> tuple[Tensor, Memory]:
        """The first token's features, (B, 1, D), from (B, 1) ids, and the memory with which `go_on` goes on."""
        layers = cast(Iterable[CoAttentionLayer], self.layers)
        question = tuple(layer.cross_attention.keys_values(states) for layer in layers)
        return self.go_on(start, Memory(question, (), states_mask[:, None, None, :]))

    def go_on(self, input_ids: Tensor, memory: Memory) -> tuple[Tensor, Memory]:
        """As `forward` for the next N tokens of B answers, without dropout.

        Args:
            input_ids: (B, N) int64, behind those that were written.
            memory: what was read and written.

        Returns:
            (B, N, D), and the memory with these tokens.
        """
        new, before = input_ids.shape[1], memory.written[0].key.shape[2] if memory.written else 0
        readable = torch.ones(new, before + new, dtype=torch.bool, device=input_ids.device).tril(before)
        position = self.first_position + torch.arange(before, before + new, device=input_ids.device)
        tokens: Tensor = self.embeddings(input_ids, position_ids=position[None])
        written = []
        for depth, layer in enumerate(cast(Iterable[CoAttentionLayer], self.layers)):
            own, cross = layer.self_attention, layer.cross_attention
            seen = own.keys_values(tokens)
            written.append(memory.written[depth].followed_by(seen) if before else seen)
            tokens = own.read(tokens, own.queries(tokens), written[-1], None if new == 1 else readable)
            tokens = cross.read(tokens, cross.queries(tokens), memory.question[depth], memory.mask)
            tokens = layer.feed_forward(tokens)
        return tokens, Memory(memory.question, tuple(written), memory.mask)

    def log_likelihood(self, input_ids: Tensor, attention_mask: Tensor, states: Tensor, states_mask: Tensor) -> Tensor:
        """Each answer's log-likelihood: the sum over its tokens after the start token, the end token included.

        Args:
            input_ids: (N, M) int64 answers, start and end token included, padded on the right.
            attention_mask: (N, M) bool, True at real tokens.
            states: (N, L, D).
            states_mask: (N, L) bool.

        Returns:
            (N,) float32.
        """
        features = self(input_ids[:, :-1], states, states_mask)
        return self._summed(features, input_ids[:, 1:], attention_mask[:, 1:])

    @torch.no_grad()
    def rank(
        self, states: Tensor, states_mask: Tensor, candidates: Tensor, candidates_mask: Tensor, shortlist: int
    ) -> tuple[Tensor, Tensor]:
        """The likeliest S of A candidates, best first: those with the likeliest first tokens, by full likelihood.

        Args:
            states: (B, L, D).
            states_mask: (B, L) bool.
            candidates: (A, M) int64 answers, start and end token included, all with the same start token.
            candidates_mask: (A, M) bool, True at real tokens.
            shortlist: how many candidates S of a question are judged in full, at most A.

        Returns:
            (B, S) int64 numbers of the candidates and (B, S) their log-likelihoods.
        """
        features, memory = self.begin(candidates[:1, :1].expand(len(states), -1), states, states_mask)
        first = self.predict(features[:, 0]).float().log_softmax(1)[:, candidates[:, 1]]
        begun, chosen = first.topk(min(shortlist, len(candidates)), dim=1)
        lengths = candidates_mask.sum(1)
        numbers, likelihoods = [], []
        for number, row in enumerate(chosen):
            likelihood = begun[number].clone()
            for few in torch.split(lengths[row].argsort(), CANDIDATES_AT_ONCE):
                longest = int(lengths[row[few[-1]]])
                if longest > 2:  # the start token and the one behind it are counted
                    ids, real = candidates[row[few], :longest], candidates_mask[row[few], :longest]
                    likelihood[few] += self._rest(ids, real, memory.of(number, len(few)))
            likelihood, place = likelihood.sort(descending=True, stable=True)
            numbers.append(row[place])
            likelihoods.append(likelihood)
        return torch.stack(numbers), torch.stack(likelihoods)

    def _rest(self, ids: Tensor, real: Tensor, memory: Memory) -> Tensor:
        """Log-likelihoods, (N,), of all but the first two of (N, M) tokens, the start token being in memory."""
        features, _ = self.go_on(ids[:, 1:-1], memory)
        return self._summed(features, ids[:, 2:], real[:, 2:])

    def _summed(self, features: Tensor, following: Tensor, real: Tensor) -> Tensor:
        """The sum over real tokens of log-likelihoods, (N,): (N, M, D) features and the (N, M) tokens behind them."""
        logits = self.predict(features[real])
        tokens = -functional.cross_entropy(logits.float(), following[real], reduction="none")
        return torch.zeros_like(real, dtype=tokens.dtype).masked_scatter(real, tokens).sum(1)

    def scores(
        self, states: Tensor, states_mask: Tensor, candidates: Tensor, candidates_mask: Tensor, shortlist: int
    ) -> Tensor:
        """What `rank` tells, as (B, A) log-likelihoods, minus infinity for candidates that are not on the shortlist.

        All at once and without a branch, so that it can be traced: it holds logits for every token of B * S answers.
        Arguments as in `rank`.
        """
        pairs = states.shape[0]  # `len` would make a number of it, also in a trace
        start = candidates[:1, :1].expand(pairs, -1)
        first = self.predict(self(start, states, states_mask)[:, 0]).float().log_softmax(1)
        size = min(shortlist, len(candidates))
        chosen = first[:, candidates[:, 1]].topk(size, dim=1).indices
        ids, real = candidates[chosen].flatten(0, 1), candidates_mask[chosen].flatten(0, 1)
        many_states, many_masks = (each.repeat_interleave(size, dim=0) for each in (states, states_mask))
        logits = self.predict(self(ids[:, :-1], many_states, many_masks)).float()
        tokens = logits.log_softmax(2).gather(2, ids[:, 1:, None])[:, :, 0]
        likelihoods = (tokens * real[:, 1:]).sum(1).unflatten(0, (-1, size))
        scores: Tensor = likelihoods.new_full((pairs, len(candidates)), -torch.inf)
        return scores.scatter(1, chosen, likelihoods)

    @torch.no_grad()
    def generate(self, states: Tensor, states_mask: Tensor, start: int, end: int, max_length: int) -> list[list[int]]:
        """Write answers freely, always the likeliest next token.

        Args:
            states: (B, L, D).
            states_mask: (B, L) bool.
            start: id of the start token.
            end: id of the end token, at which an answer stops.
            max_length: most tokens of an answer, start and end token included.

        Returns:
            B answers as token ids, without start and end token.
        """
        written = torch.full((len(states), 1), start, device=states.device)
        ended = torch.zeros(len(states), dtype=torch.bool, device=states.device)
        features, memory = self.begin(written, states, states_mask)
        while True:
            following = self.predict(features[:, -1]).argmax(1)
            written = torch.cat([written, following[:, None]], dim=1)
            ended |= following == end
            if written.shape[1] == max_length or ended.all():
                break
            features, memory = self.go_on(following[:, None], memory)
        answers: list[list[int]] = written[:, 1:].tolist()
        return [answer[: answer.index(end)] if end in answer else answer for answer in answers]
