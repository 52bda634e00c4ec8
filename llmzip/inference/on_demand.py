"""The model of an archive, loaded when a frame first needs it, and torch no sooner; knows no frames or files."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..format.headers import CarriedModel, Header
from ..format.plan import RowPlan
from ..models.choice import ModelChoice, model_for_compressing
from ..settings import CompressSettings, EngineSettings
from ..system import forks

if TYPE_CHECKING:
    from .load import Kernels, LoadedModel


class ModelOnDemand:
    """A model that is loaded when it is first needed, on every device that frames are shared out to.

    Several threads may use it at once. What it has loaded stays in the memory as long as `load.load` keeps it, so there
    is nothing to close.

    Args:
        choice: the model.
        settings: where it runs.
        prompt: a text that every row has read before; empty for none.

    Attributes:
        prompt: that text.
    """

    def __init__(self, choice: ModelChoice, settings: EngineSettings, prompt: bytes = b"") -> None:
        self._choice, self._settings, self.prompt = choice, settings, prompt
        self._devices: list[EngineSettings] | None = None
        self._loaded: dict[int, LoadedModel] = {}
        self._carried: CarriedModel | None = None
        self._lock = forks.Lock()

    @classmethod
    def of(cls, settings: CompressSettings) -> ModelOnDemand:
        """Returns the model that settings name, with their engine and prompt.

        Raises:
            ModelError, SettingsError: as `choice.model_for_compressing`.
        """
        return cls(model_for_compressing(settings), settings.engine, settings.prompt)

    @property
    def name(self) -> str:
        """Name of the model, for messages."""
        return self._choice.name

    @property
    def loaded(self) -> LoadedModel | None:
        """The model on the first device that has it; None before it is loaded."""
        with self._lock:
            return self._loaded[min(self._loaded)] if self._loaded else None

    @property
    def kernels(self) -> Kernels | None:
        """What computes the model; None before it is loaded."""
        loaded = self.loaded
        return None if loaded is None else loaded.kernels

    @property
    def tokenizer_note(self) -> str:
        """What the model's tokenizer lacks; empty for nothing, and before the model is loaded."""
        loaded = self.loaded
        return "" if loaded is None else loaded.tokenizer_note

    def load(self, frame: int = 0) -> LoadedModel:
        """Returns the model for a frame, loading it first; frames are dealt to the devices in turn.

        Args:
            frame: its number.

        Raises:
            ModelError, TokenizerError, EngineError, ResourceError: as `load.load`.
        """
        from . import load

        with self._lock:
            if self._devices is None:
                self._devices = load.all_devices(self._settings)
            place = frame % len(self._devices)
            forks.settle_torch()
            if place not in self._loaded:
                self._loaded[place] = load.load(self._choice, self._devices[place])
            return self._loaded[place]

    def archive_header(self, *, by_record: bool = False) -> Header:
        """Returns what an archive of this model begins with; loads a model whose digests must be written.

        Args:
            by_record: name an embedded model by its digests, too.

        Raises:
            what `load` raises.
        """
        embedded = self._choice.embedded
        if embedded is not None and not self.prompt and not by_record:
            return Header(embedded.code)
        return self.load().header(self.prompt, by_record=by_record)

    def carried(self) -> CarriedModel:
        """Returns the model as a file carries it; loads it.

        Raises:
            what `load` and `load.carried_model` raise.
        """
        from . import load

        loaded = self.load()
        with self._lock:
            if self._carried is None:
                self._carried = load.carried_model(self._choice, loaded)
            return self._carried

    def frames_at_once(self, plan: RowPlan, *, mixed: bool) -> int:
        """Returns how many frames like one may be worked on side by side, 1 or more; loads nothing.

        It is 1 before the model is loaded, as its needs are not known yet, and with a prompt, as what has read the
        prompt serves one frame at a time.

        Args:
            plan: the rows of the frame.
            mixed: whether the frame's method is mixed.
        """
        loaded = self.loaded
        if loaded is None or self._devices is None or self.prompt:
            return 1
        from . import capacity

        return capacity.frames_at_once(loaded.engine, plan, mixed, len(self._devices))
