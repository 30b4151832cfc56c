"""The panel: its sections, the chosen study and answer, and the timer."""

import os
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Optional

import qt

from ..controls.keys import Keys
from ..net.errors import ClientError
from ..scene import places, scene
from ..session.conversation import Conversation, Turn
from ..session.session import Session
from ..session.settings import Settings
from ..session.study import Part, Study
from ..translation import _
from .render import is_folded
from .section_ask import AskSection
from .section_correct import CorrectSection
from .section_day import DaySection
from .section_evidence import EvidenceSection
from .section_keep import KeepSection
from .section_sentences import SentencesSection
from .section_server import ServerSection
from .section_study import StudySection
from .section_teach import TeachSection
from .section_wordings import WordingsSection

_PULSE_MS = 20
_PULSES_A_LOOK = 25


class Panel:
    """State that the sections share.

    Parameters
    ----------
    ui : object
        The widgets of RadFound.ui, by name.
    session : Session
    resources : str
        The folder of icons.
    """

    def __init__(self, ui: Any, session: Session, resources: str):
        self.ui = ui
        self.session = session
        self.settings = Settings()
        session.consents = self.settings.consents()
        session.ca_files = self.settings.ca_files()
        session.reader = self.settings.reader()
        self.volume: Any = None
        self.views: Sequence = ()
        self.turn: Optional[Turn] = None
        self._resources = resources
        self._origins: dict = {}
        self._newest: Optional[Turn] = None
        self.server = ServerSection(self)
        self.study_section = StudySection(self)
        self.ask_section = AskSection(self)
        self.evidence = EvidenceSection(self)
        self.sentences = SentencesSection(self)
        self.correct = CorrectSection(self)
        self.keep = KeepSection(self)
        self.day = DaySection(self)
        self.teach = TeachSection(self)
        self.wordings = WordingsSection(self)
        self._sections = (
            self.server,
            self.study_section,
            self.ask_section,
            self.evidence,
            self.sentences,
            self.correct,
            self.keep,
            self.day,
            self.teach,
            self.wordings,
        )
        self.keys = Keys(self)
        session.listen(self.tell)
        self.tell("server", "study", "turn", "transfer", "corrections", "training", "adapters")
        self.tell("wordings")
        self._pulses = 0
        self._timer = qt.QTimer()
        self._timer.interval = _PULSE_MS
        self._timer.connect("timeout()", self._pulse)
        self._timer.start()

    def close(self) -> None:
        """Stop the timer and the session."""
        self._timer.stop()
        self.session.close()

    def tell(self, *topics: str) -> None:
        """Notify every section of changes.

        Topics: those of `Session.listen`, "study", "chosen" (another answer was chosen) and
        "draft" (a sentence of its report was changed).
        """
        for topic in topics:
            if topic == "turn":
                self._choose_turn()
            for section in self._sections:
                section.heard(topic)

    def _pulse(self) -> None:
        self.session.poll()
        self.ask_section.show_new_text()
        self._pulses = (self._pulses + 1) % _PULSES_A_LOOK
        if not self._pulses:
            self.study_section.show_volume()  # voxels may arrive after the volume is chosen
            self.ask_section.show_known()
            self.ask_section.follow_theme()

    # The study --------------------------------------------------------------------------------

    def set_volumes(self, volume: Any, views: Sequence) -> None:
        """Choose the volume to ask about, and further views of the same study."""
        views = [view for view in views if view is not volume]
        if volume is self.volume and list(views) == list(self.views):
            return
        self.volume, self.views = volume, views
        self.turn = None
        self.session.refresh_corrections(self._known_images())
        self.tell("study", "turn")

    @property
    def key(self) -> tuple:
        """Key of the study's conversation: node ids, since names need not be unique."""
        return tuple(node.GetID() for node in self._nodes())

    @property
    def conversation(self) -> Conversation:
        """The conversation about the chosen study."""
        return self.session.conversation(self.key)

    def study(self) -> Study:
        """Return the chosen study with the chosen part; ClientError "request" if unreadable."""
        study = self.whole_study()
        region, where = self.study_section.region()
        prior = self.study_section.prior_words()
        where = "; ".join(words for words in (where, prior) if words)
        node = self.study_section.prior_node
        return replace(
            study,
            region=region,
            where=where,
            prior=self.study_section.prior,
            prior_part=self._part(node) if node is not None else None,
        )

    def ask_about(self, node: Any, task: str, question: Optional[str]) -> Turn:
        """Ask about another whole volume of the scene, apart from the chosen one."""
        study = Study((node.GetID(),), (self._part(node),))
        return self.session.ask(study, task, question, with_history=False)

    def whole_study(self) -> Study:
        """Return the whole chosen study; ClientError "request" if unreadable."""
        if self.volume is None:
            raise ClientError(_("Choose a volume first, in the section Study."), "request")
        return Study(self.key, tuple(self._part(node) for node in self._nodes()))

    def place_roi(self, node: Any) -> None:
        """Move a new box to the intersection of the slice views."""
        if self.volume is not None and places.is_box(node):
            scene.place_roi(self.volume, node)

    def remember_origin(self, volume: Any, image: str) -> None:
        """Record that a volume came from the server, so that it need not be uploaded."""
        self._origins[volume.GetID()] = (self.session.address, image, scene.state_of(volume))

    def loaded(self, image: str) -> Any:
        """Return the volume of the scene that is this image of the server, unchanged; or None."""
        for node in scene.volumes():
            try:
                study = Study((node.GetID(),), (self._part(node),))
            except ClientError:
                continue
            if image in self.session.images_of(study):
                return node
        return None

    def forget_nodes(self) -> None:
        """Forget all nodes and conversations; called when the scene is closed."""
        self._origins.clear()
        self.turn = None
        self.session.forget_all()

    def _nodes(self) -> list:
        return [self.volume, *self.views] if self.volume is not None else []

    def _part(self, node: Any) -> Part:
        state = (node.GetID(), *scene.state_of(node))
        address, image, original = self._origins.get(node.GetID(), ("", "", None))
        if image and address == self.session.address and original == scene.state_of(node):
            return Part(node.GetName(), state, image=image)
        return Part(node.GetName(), state, scene.content_of(node))

    def _known_images(self) -> tuple:
        try:
            return self.session.images_of(self.whole_study())
        except ClientError:
            return ()

    # The chosen answer ------------------------------------------------------------------------

    def choose(self, turn: Optional[Turn]) -> None:
        """Choose the answer to correct and to show evidence for."""
        if turn is not self.turn:
            self.turn = turn
            self.tell("chosen")

    def is_folded(self, turn: Turn) -> bool:
        """Whether an answer is hidden because the model is not sure."""
        return is_folded(turn, self.settings.fold_below())

    def unfold(self, turn: Turn) -> None:
        """Show what is folded of a turn: an unsure answer, or the model's text of a corrected one."""
        turn.is_unfolded = True
        self.tell("turn", "chosen")

    def _choose_turn(self) -> None:
        """Choose the newest answer; fetch the study's corrections after the first one."""
        answered = self.conversation.answered()
        newest = answered[-1] if answered else None
        if newest is None:
            self.choose(None)
        elif newest is not self._newest:
            self.choose(newest)
            if set(newest.answer["images"]) - set(self.session.corrections_of):
                self.session.refresh_corrections(newest.answer["images"])
        elif self.turn not in answered:
            self.choose(newest)
        self._newest = newest

    # Icons ------------------------------------------------------------------------------------

    def icon(self, name: str) -> Any:
        """Return one of the module's icons."""
        return qt.QIcon(os.path.join(self._resources, "Icons", name + ".svg"))
