"""The section Teach: fine-tuning on corrections, and the active adapter."""

import time
from typing import Any, Optional

from ..controls.widgets import chosen_in, fill, guarded, show
from ..translation import _
from .render import training_words

BASE = ""
_FLAGS = 255  # Qt::UserRole - 1, where an item of a combo box keeps its flags


class TeachSection:
    """Start, watch and stop a training; choose the active adapter."""

    def __init__(self, panel: Any):
        self._panel, self._ui, self._session = panel, panel.ui, panel.session
        self._chosen: Optional[str] = None  # by the reader, among the server's models
        self._began: Optional[float] = None  # when the training was first seen, in seconds
        ui = self._ui
        ui.trainButton.connect("clicked()", guarded(self._train))
        ui.stopTrainingButton.connect("clicked()", guarded(self._stop))
        ui.activateButton.connect("clicked()", guarded(self._activate))
        ui.rollBackButton.connect("clicked()", guarded(self._roll_back))
        ui.adapterBox.connect("currentIndexChanged(int)", guarded(lambda _index: self._enable()))
        ui.learnerBox.connect("activated(int)", guarded(self._on_learner))
        ui.modelBox.connect("currentIndexChanged(int)", guarded(lambda _i: self._show_learners()))
        ui.checksButton.connect("toggled(bool)", guarded(lambda _shown: self._show_training()))
        ui.trainButton.setIcon(panel.icon("teach"))

    def heard(self, topic: str) -> None:
        """Show what changed."""
        if topic == "server":
            self._show_learners()
        if topic in ("server", "corrections", "adapters"):
            self._show_new()
        if topic in ("server", "training"):
            self._show_training()
        if topic in ("server", "adapters"):
            self._show_adapters()
        if topic in ("server", "training", "adapters", "corrections"):
            self._enable()

    def _show_learners(self) -> None:
        """Offer the server's models; the answering one is taught unless the reader chooses another."""
        ui, session = self._ui, self._session
        if session.state in ("away", "connecting"):
            self._chosen = None
        reasons, models = session.reasons_not_to_learn, session.models
        able = [name for name in models if not reasons.get(name)]
        wanted = (self._chosen, self._panel.server.model, *able, *models)
        learner = next((name for name in wanted if name in (able or models)), None)
        items = [
            (_("{model} (cannot learn: {why})").format(model=name, why=reasons[name]), name)
            if reasons.get(name)
            else (name, name)
            for name in models
        ]
        fill(ui.learnerBox, items, learner)
        for index, name in enumerate(models):
            if name not in able:
                ui.learnerBox.setItemData(index, 0, _FLAGS)
        show(bool(models), ui.learnerLabel, ui.learnerBox)
        session.teach_model(learner)

    def _on_learner(self, _index: int) -> None:
        self._chosen = chosen_in(self._ui.learnerBox)
        self._show_learners()
        self._enable()

    def _reason(self) -> str:
        """Return why the model to be taught cannot learn; empty if it can."""
        session = self._session
        name = session.learner or (session.info.checkpoint if session.info else "")
        why = session.reasons_not_to_learn.get(name)
        return _("{model} cannot learn here: it {why}.").format(model=name, why=why) if why else ""

    def _show_new(self) -> None:
        if self._session.state != "connected":
            text = _("Connect to a server to teach it.")
        elif self._reason():
            text = self._reason()
        else:
            count = len(self._session.corrections_to_learn())
            text = _("Corrections to learn from: {count}.").format(count=count)
            if self._session.adapters["adapters"]:
                new = self._session.new_corrections()
                text = _("Corrections to learn from: {count}, {new} new since the last training.")
                text = text.format(count=count, new=new)
        self._ui.newText.text = text

    def _show_training(self) -> None:
        ui, session = self._ui, self._session
        status = session.training
        show(session.state == "connected" and session.is_training, ui.trainingBar)
        self._show_progress(status)
        is_known = session.state == "connected" and status is not None and status.state != "idle"
        ui.trainingText.text = training_words(status, ui.checksButton.checked)
        show(is_known and bool(status.checks), ui.checksButton)
        show(is_known, ui.trainingText)

    def _show_progress(self, status: Any) -> None:
        """Show the share of time that has passed: the steps are those of one phase among several."""
        bar, now = self._ui.trainingBar, time.monotonic()
        self._began = (self._began or now) if self._session.is_training else None
        if self._began is None or status is None or status.seconds_left is None:
            bar.maximum = 0  # busy
            return
        passed_s = now - self._began
        bar.maximum = 100
        bar.value = int(100 * passed_s / max(passed_s + status.seconds_left, 1.0))

    def _show_adapters(self) -> None:
        ui, adapters = self._ui, self._session.adapters
        rows = [(_("Base model"), BASE)]
        rows += [(_adapter_words(row), str(row["id"])) for row in reversed(adapters["adapters"])]
        active = adapters.get("active") or BASE
        items = [
            (_("{adapter} — active").format(adapter=text), data) if data == active else (text, data)
            for text, data in rows
        ]
        fill(ui.adapterBox, items, active)
        is_connected = self._session.state == "connected"
        show(is_connected, ui.adapterLabel, ui.adapterBox, ui.activateButton, ui.rollBackButton)

    def _enable(self) -> None:
        ui, session = self._ui, self._session
        is_connected = session.state == "connected"
        can_learn = is_connected and not self._reason()
        ui.trainButton.enabled = (
            can_learn and not session.is_training and bool(session.corrections_to_learn())
        )
        ui.stopTrainingButton.enabled = is_connected and session.is_training
        show(is_connected, ui.trainButton, ui.stopTrainingButton)
        active = session.adapters.get("active") or BASE
        ui.activateButton.enabled = is_connected and chosen_in(ui.adapterBox) != active
        ui.rollBackButton.enabled = is_connected and bool(session.adapters["adapters"])
        if not is_connected or session.is_training:
            self._say("")

    def _say(self, text: str) -> None:
        self._ui.teachMessage.text = text
        show(bool(text), self._ui.teachMessage)

    def _train(self) -> None:
        self._say("")
        self._session.train(self._say)

    def _stop(self) -> None:
        self._session.stop_training(self._say)

    def _activate(self) -> None:
        self._say("")
        self._session.activate(chosen_in(self._ui.adapterBox) or None, self._say)

    def _roll_back(self) -> None:
        self._say("")
        self._session.roll_back(self._say)


def _adapter_words(adapter: Any) -> str:
    metrics = (adapter.get("manifest") or {}).get("metrics") or {}
    count = metrics.get("corrections")
    if isinstance(count, (int, float)):
        return _("{adapter}, from {count} corrections").format(
            adapter=adapter["id"], count=round(count)
        )
    return str(adapter["id"])
