"""The MONAI Label app of this folder.

    monailabel start_server --app monailabel_app --studies DIR

`--conf NAME VALUE` takes the names in `monailabel_app.lib.lifecycle.settings.SETTINGS`.
"""

from __future__ import annotations

import json
import logging
import sys
import tempfile
from pathlib import Path
from typing import Any

from monailabel.config import settings
from monailabel.interfaces.app import MONAILabelApp

# MONAI Label loads this file by its path, so the package is not importable without this.
_ROOT = str(Path(__file__).resolve().parents[1])
if _ROOT not in sys.path:
    sys.path.insert(0, _ROOT)

from monailabel_app.lib.access import Rules  # noqa: E402
from monailabel_app.lib.activelearning import strategies  # noqa: E402
from monailabel_app.lib.answering.features import StudyFeatures  # noqa: E402
from monailabel_app.lib.answering.models import ServedModels, models_of  # noqa: E402
from monailabel_app.lib.answering.service import RadFoundService  # noqa: E402
from monailabel_app.lib.infers import MODELS, RadFoundInfer  # noqa: E402
from monailabel_app.lib.infers.batch import RadFoundBatch  # noqa: E402
from monailabel_app.lib.lifecycle.background import hide_requests  # noqa: E402
from monailabel_app.lib.lifecycle.leftovers import remove_leftovers  # noqa: E402
from monailabel_app.lib.lifecycle.quiet import keep_log, quieten_monailabel  # noqa: E402
from monailabel_app.lib.lifecycle.settings import (  # noqa: E402
    check_conf,
    check_state_of_archive,
    readers_who_confirm,
)
from monailabel_app.lib.lifecycle.shutdown import at_shutdown  # noqa: E402
from monailabel_app.lib.pacs.connection import PacsConnection, records_path  # noqa: E402
from monailabel_app.lib.pacs.datastore import PacsDatastore  # noqa: E402
from monailabel_app.lib.pacs.records import PacsRecords  # noqa: E402
from monailabel_app.lib.pacs.reports import RecentAnswers  # noqa: E402
from monailabel_app.lib.pacs.settings import PacsSettings  # noqa: E402
from monailabel_app.lib.scoring import RadFoundScoring  # noqa: E402
from monailabel_app.lib.studies.datastore import StudyDatastore, uploads_path  # noqa: E402
from monailabel_app.lib.studies.sessions import StudySessions  # noqa: E402
from monailabel_app.lib.trainers import RadFoundTrainer, TrainingState  # noqa: E402
from radfound import __version__  # noqa: E402
from radfound.exceptions import NotFoundError, RequestError  # noqa: E402
from radfound.question import Answer  # noqa: E402
from radfound.records.answers import AnswerJournal, journal_path  # noqa: E402
from radfound.records.corrections import CorrectionLog, log_path  # noqa: E402
from radfound.records.durable import keep_private  # noqa: E402
from radfound.records.scores import ScoreBook, scores_path  # noqa: E402
from radfound.records.state import is_writable, state_folder  # noqa: E402
from radfound.teaching import Teaching  # noqa: E402
from radfound.teaching.decisions import Decisions, decisions_path  # noqa: E402

logger = logging.getLogger("monailabel_app")

_ANSWERS_TAG = "original"


class RadFoundApp(MONAILabelApp):
    """RadFound as a MONAI Label app.

    Parameters
    ----------
    app_dir, studies : str
    conf : dict of str to str
        Values by the names of `SETTINGS`.

    Raises
    ------
    RequestError
        If a name or value of `conf` is unknown.
    """

    def __init__(self, app_dir: str, studies: str, conf: dict[str, str]):
        quieten_monailabel()
        check_conf(conf)
        self._rules = Rules.of(conf)
        self._models = models_of(conf)
        self._confirm = readers_who_confirm(conf)
        self._is_local = not studies.startswith(("http://", "https://"))
        if not self._is_local:
            check_state_of_archive(conf)
        self._state = state_folder(Path(studies), conf.get("state", ""))
        keep_private(self._own_files)
        keep_log(self._own_files / "logs" / f"server-{settings.MONAI_LABEL_SERVER_PORT}.log")
        hide_requests()
        self._service: RadFoundService | None = None
        self._pacs: PacsConnection | None = None
        super().__init__(
            app_dir=app_dir,
            studies=studies,
            conf=conf,
            name="RadFound",
            description="Captions, answers and reports about radiology studies. Not a medical device.",
            version=__version__,
        )
        self.service.studies.sessions = self.sessions()
        # Automatic scoring would load a second model at every start and every choice of a study;
        # `POST /scoring/radfound` scores on request.
        self._auto_update_scoring = False

    @property
    def service(self) -> RadFoundService:
        """The service behind the routes."""
        if self._service is None:
            journal = self._journal()
            scores = ScoreBook(scores_path(self._state))
            journal.recover()
            scores.recover()
            log = CorrectionLog(log_path(self._state))
            features = StudyFeatures(self._own_files / "features")
            self._service = RadFoundService(
                self.datastore(),
                log,
                ServedModels(
                    self._models,
                    self._state,
                    self.conf.get("device") or None,
                    self.conf.get("free_text") == "yes",
                ),
                journal,
                scores,
                teaching=Teaching(
                    log,
                    Decisions(decisions_path(self._state)),
                    features=features.vector,
                    fields=features.fields,
                    chances=features.chances,
                    confirm=self._confirm,
                ),
                features=features,
            )
        return self._service

    def _journal(self) -> AnswerJournal:
        if self._is_local:
            return AnswerJournal(journal_path(self._state))
        return RecentAnswers(journal_path(self._state), PacsRecords(records_path(self._state)))

    @property
    def pacs(self) -> PacsConnection | None:
        """Outbox and watcher; None without an archive, and in background processes."""
        return self._pacs

    def _open_archive(self) -> None:
        """Begin to deliver reports and to draft new studies."""
        journal = self.service.journal
        assert isinstance(journal, RecentAnswers)

        def draft(study_uid: str) -> Answer:
            return self.service.answer(self.service.inquire("report", {}, image=study_uid))

        def explain(answer: Answer) -> Any:
            inquiry = self.service.inquire(answer.task, {}, image=answer.images[0])
            if inquiry.parts is None or inquiry.parts.series != answer.series:
                raise RequestError(
                    "evidence: the study has changed since; ask for the report again"
                )
            return self.service.models.engine_of(answer.model).evidence(inquiry.study, answer)

        self._pacs = PacsConnection(self.datastore(), journal, self._state, draft, explain)
        self._pacs.start()
        at_shutdown(self._pacs.close)

    @property
    def teaching(self) -> Teaching:
        """What corrections teach before any training."""
        assert self.service.teaching is not None
        return self.service.teaching

    @property
    def _own_files(self) -> Path:
        return log_path(self._state).parent

    @property
    def trainers(self) -> dict[str, RadFoundTrainer]:
        """The trainers by name."""
        return self._trainers

    @property
    def scoring_methods(self) -> dict[str, RadFoundScoring]:
        """The scoring methods by name."""
        return self._scoring_methods

    def _pacs_settings(self) -> PacsSettings:
        named = {
            "MONAI_LABEL_DICOMWEB_USERNAME": settings.MONAI_LABEL_DICOMWEB_USERNAME,
            "MONAI_LABEL_DICOMWEB_PASSWORD": settings.MONAI_LABEL_DICOMWEB_PASSWORD,
            "MONAI_LABEL_QIDO_PREFIX": settings.MONAI_LABEL_QIDO_PREFIX or "",
            "MONAI_LABEL_WADO_PREFIX": settings.MONAI_LABEL_WADO_PREFIX or "",
            "MONAI_LABEL_STOW_PREFIX": settings.MONAI_LABEL_STOW_PREFIX or "",
        }
        return PacsSettings.of(self.studies, self.conf, named)

    def init_datastore(self) -> Any:
        """Open the folder of studies, or the archive."""
        if not self._is_local:
            return PacsDatastore(self._state, uploads_path(self._state), self._pacs_settings())
        return StudyDatastore(
            self.studies,
            uploads_path(self._state),
            state=None if is_writable(Path(self.studies)) else str(self._state),
            auto_reload=settings.MONAI_LABEL_DATASTORE_AUTO_RELOAD,
            read_only=settings.MONAI_LABEL_DATASTORE_READ_ONLY,
        )

    def init_infers(self) -> dict[str, RadFoundInfer]:
        """Return the three models."""
        return {name: RadFoundInfer(task, self.service) for name, task in MODELS.items()}

    def init_trainers(self) -> dict[str, RadFoundTrainer]:
        """Return the trainer."""
        state = TrainingState(self._own_files / "training.json")
        return {"radfound": RadFoundTrainer(self.service, state)}

    def init_strategies(self) -> dict[str, Any]:
        """Return the strategies that choose the next study."""
        return strategies(self.service)

    def init_scoring_methods(self) -> dict[str, Any]:
        """Return the scoring method for unread studies."""
        return {"radfound": RadFoundScoring(self.service)}

    def init_batch_infer(self) -> RadFoundBatch:
        """Return the batch inference task."""
        return RadFoundBatch()

    def infer(self, request: dict[str, Any], datastore: Any = None) -> dict[str, Any]:
        """Answer about an image of the datastore; MONAI Label's own method would open any path."""
        task = self._infers.get(request.get("model") or "")
        if task is None:
            raise NotFoundError(f"model: expected {' or '.join(self._infers)}")
        _, answer = task(request)
        label = None
        if request.get("save_label"):
            label = self._save_answer(request, answer, datastore or self.datastore())
        return {"label": label, "tag": _ANSWERS_TAG, "file": None, "params": answer}

    def _save_answer(self, request: dict[str, Any], answer: dict[str, Any], datastore: Any) -> str:
        """Save a batch answer as the image's label."""
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "answer.json"
            file.write_text(json.dumps(answer), encoding="utf-8")
            tag = request.get("label_tag") or _ANSWERS_TAG
            info = {"model": request["model"]}
            return str(datastore.save_label(request["image"], str(file), tag, info))

    def on_init_complete(self) -> None:
        """Add the routes once MONAI Label's server has been made."""
        from monailabel.app import app

        from monailabel_app.lib.routes import Folders, install_routes

        super().on_init_complete()
        remove_leftovers(Path(self.app_dir), self._own_files)
        folders = Folders(
            {
                "python": sys.prefix,
                "code": _ROOT,
                "app": self.app_dir,
                "state": self._state,
                "sessions": settings.MONAI_LABEL_SESSION_PATH
                or Path.home() / ".cache/monailabel/sessions",
                **({"studies": self.studies} if self._is_local else {}),
            }
        )
        install_routes(app, self._rules, self.service.metrics, folders, is_local=self._is_local)
        at_shutdown(self.service.close)
        # A log of many thousand corrections takes seconds to load, which no question should wait for.
        self.service.readers.submit(self.teaching.memory.rows)
        if not self._is_local:
            self._open_archive()
        logger.info("RadFound %s with %s", __version__, self.service.models.default)

    def _load_sessions(self, load: bool = False) -> StudySessions | None:
        if not load:
            return None
        return StudySessions(settings.MONAI_LABEL_SESSION_PATH, settings.MONAI_LABEL_SESSION_EXPIRY)
