"""The work of `llmzip entropy`: every text scored by every model with every context. Prints nothing but problems."""

from __future__ import annotations

import dataclasses
import functools
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ...errors import ModelUnsupportedError, SettingsError
from ...inference.progress import in_bytes
from ...measures import entropy, surprisal
from ...measures.entropy import ModelFacts, TextFacts, Value
from ...models import layout
from ...models.choice import ModelChoice, model_for_compressing
from ...settings import USUAL_CONTEXT
from ...system.filenames import input_name
from ..command import read_text
from ..messages import Messages
from ..outcomes import Outcomes, shown_name
from .entropy_request import EntropyRequest

if TYPE_CHECKING:
    import numpy as np

    from ...inference.load import LoadedModel
    from ...measures.scoring import Scores
    from ...measures.surprisal import Units


@dataclass(frozen=True)
class Text:
    """A text in memory.

    Attributes:
        name: name of its file; None for the standard input.
        data: its bytes.
        facts: its lengths, and what zlib makes of it.
    """

    name: str | None
    data: bytes
    facts: TextFacts

    @property
    def shown(self) -> str:
        """The name that people read."""
        return shown_name(self.name)


@dataclass(frozen=True)
class Scored:
    """A text scored by a model with one context.

    Attributes:
        text: the text.
        model: the model.
        scores: bits of each token.
        row: the measures, by their keys in JSON.
    """

    text: Text
    model: LoadedModel
    scores: Scores
    row: dict[str, Value]

    @functools.cached_property
    def units(self) -> Units:
        """The text divided into characters, with their bits."""
        sizes = surprisal.token_sizes(self.scores.tokens, self.model.table.entries)
        return surprisal.units_of(self.text.data, sizes, self.scores.model_bits)


class TextScorer:
    """Scores texts. What fails becomes an outcome and does not stop the rest.

    Args:
        request: what the user asked for.
        messages: what the user reads.
        outcomes: takes the failures.
    """

    def __init__(self, request: EntropyRequest, messages: Messages, outcomes: Outcomes) -> None:
        self._request = request
        self._messages = messages
        self._outcomes = outcomes

    def run(self) -> Iterator[Scored]:
        """Yields the scores of each text, by model, text and context."""
        texts = self._texts()
        for name in self._request.models if texts else ():
            with self._outcomes.of_run(model=name):
                choice = model_for_compressing(dataclasses.replace(self._request.settings, model=name))
                model = self._load(choice)
                yield from self._scored(texts, model, self._model_facts(model, choice))

    def _texts(self) -> list[Text]:
        """Reads the texts once: several models may need them, and the standard input can be read only once."""
        texts = []
        for name in map(input_name, self._request.files):
            with self._outcomes.of_file(name):
                data = read_text(name, "entropy", "measure")
                text = Text(name, data, TextFacts.of(data))
                texts.append(text)
                if text.facts.num_characters is None:
                    self._note(text, "is not valid UTF-8, so there are bits per byte but none per character")
        return texts

    def _note(self, text: Text, remark: str) -> None:
        self._messages.notice(f"{text.shown}: {remark}")

    # -- models

    def _load(self, choice: ModelChoice) -> LoadedModel:
        """Loads a model with the longest context that is asked for and available."""
        from ...inference.load import load  # here, so that --help is quick

        engine = self._request.settings.engine
        has_fixed_context = choice.embedded is not None or (choice.folder / layout.INT8).exists()
        longer = [n for n in self._request.contexts or () if n > USUAL_CONTEXT and not has_fixed_context]
        for context in sorted(longer, reverse=True):
            try:
                return load(dataclasses.replace(choice, context=context), engine)
            except ModelUnsupportedError:  # perhaps only with this context
                continue
        return load(choice, engine)

    def _model_facts(self, model: LoadedModel, choice: ModelChoice) -> ModelFacts:
        """Returns the sizes of a model."""
        engine = model.engine
        stored = choice.folder / layout.INT8
        is_int8 = self._request.settings.arithmetic == "exact" and stored.exists()
        size_bytes = stored.stat().st_size if is_int8 else engine.weights_bytes
        return ModelFacts(engine.num_parameters, size_bytes, engine.flops_per_token(entropy.CAPACITY_TOKENS))

    def _usable_contexts(self, model: LoadedModel) -> list[int]:
        """Returns the contexts that the model and the stride allow."""
        largest, stride = model.engine.context, self._request.stride
        usable = []
        for context in self._request.contexts or (largest,):
            with self._outcomes.of_run(model=model.name, context=context):
                if context > largest:
                    raise SettingsError(f"model {model.name} takes {largest:,} tokens, fewer than --context {context}")
                if stride is not None and stride > context:
                    raise SettingsError(f"--stride {stride} is more than the context of {context:,}")
                usable.append(context)
        return usable

    # -- scores

    def _scored(self, texts: list[Text], model: LoadedModel, facts: ModelFacts) -> Iterator[Scored]:
        """Yields the scores of each text by one model."""
        contexts = self._usable_contexts(model)
        for text in texts if contexts else ():
            with self._outcomes.of_file(text.name, model=model.name):
                tokens = model.tokenizer.encode(text.data)
                self._note_short(text, len(tokens), model, contexts)
                pieces = self._piece_measures(text, model, facts)
                yield from self._rows(text, tokens, model, facts, contexts=contexts, pieces=pieces)

    def _rows(
        self,
        text: Text,
        tokens: np.ndarray,
        model: LoadedModel,
        facts: ModelFacts,
        *,
        contexts: list[int],
        pieces: dict[str, Value],
    ) -> Iterator[Scored]:
        """Yields the scores of one text by one model, by context.

        Args:
            text: the text.
            tokens: (n,) its tokens.
            model: the model.
            facts: sizes of the model.
            contexts: context sizes in tokens.
            pieces: measures of the text's pieces, which belong to each row.
        """
        for context in contexts:
            with self._outcomes.of_file(text.name, model=model.name, context=context):
                started = time.perf_counter()
                scores = self._score(text, tokens, model, context)
                measured = entropy.measures(scores, text.facts, facts)
                seconds = round(time.perf_counter() - started, 6)
                row = {"model": model.name, "engine": self._request.settings.arithmetic, **measured}
                yield Scored(text, model, scores, {**row, "elapsed_seconds": seconds, **pieces})

    def _score(self, text: Text, tokens: np.ndarray, model: LoadedModel, context: int) -> Scores:
        from ...measures.scoring import Scorer

        table = model.table
        with self._messages.progress(text.shown, text.facts.num_bytes) as advance:
            progress = in_bytes(advance, table.num_bytes)
            alternatives = self._request.num_alternatives
            stride = self._request.stride
            scorer = Scorer(model, context, stride, ranks=True, alternatives=alternatives, progress=progress)
            return scorer.score(tokens)

    def _note_short(self, text: Text, num_tokens: int, model: LoadedModel, contexts: list[int]) -> None:
        """Says if a text is shorter than a context that was asked for."""
        larger = [str(context) for context in contexts if context > num_tokens]
        if self._request.contexts and larger:
            self._note(
                text,
                f"has {num_tokens:,} tokens with the model {model.name}, fewer than a context of {', '.join(larger)}: "
                "all of it is seen at once",
            )

    def _piece_measures(self, text: Text, model: LoadedModel, facts: ModelFacts) -> dict[str, Value]:
        """Returns the measures of --piece-bytes."""
        size = self._request.piece_bytes
        if size is None:
            return {}
        from ...measures.scoring import Scorer

        data = text.data
        pieces = [model.tokenizer.encode(data[start : start + size]) for start in range(0, len(data), size)]
        return entropy.piece_measures(Scorer(model).score_many(pieces), size, text.facts, facts)
