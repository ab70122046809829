"""The answer decoder: writes an answer token by token from the question's joint states (GGP section 2.3)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from umd.encoders.bert import BertText
from umd.encoders.ggp import cross_attention_layers
from umd.heads.text_decoder import tied_decoder


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
        real = attention_mask[:, 1:]
        logits = self.predict(features[real])
        tokens = -functional.cross_entropy(logits.float(), input_ids[:, 1:][real], reduction="none")
        return torch.zeros_like(real, dtype=tokens.dtype).masked_scatter(real, tokens).sum(1)

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
        start = candidates[:1, :1].expand(len(states), -1)
        first = self.predict(self(start, states, states_mask)[:, 0]).float().log_softmax(1)
        chosen = first[:, candidates[:, 1]].topk(min(shortlist, len(candidates)), dim=1).indices
        numbers, likelihoods = [], []
        # One question at a time: logits over the vocabulary for all at once would not fit.
        for row, state, mask in zip(chosen, states, states_mask, strict=True):
            length = int(candidates_mask[row].sum(1).max())
            likelihood, place = self.log_likelihood(
                candidates[row, :length],
                candidates_mask[row, :length],
                state.expand(len(row), -1, -1),
                mask.expand(len(row), -1),
            ).sort(descending=True, stable=True)
            numbers.append(row[place])
            likelihoods.append(likelihood)
        return torch.stack(numbers), torch.stack(likelihoods)

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
        while written.shape[1] < max_length and not ended.all():
            following = self.predict(self(written, states, states_mask)[:, -1]).argmax(1)
            written = torch.cat([written, following[:, None]], dim=1)
            ended |= following == end
        answers: list[list[int]] = written[:, 1:].tolist()
        return [answer[: answer.index(end)] if end in answer else answer for answer in answers]
