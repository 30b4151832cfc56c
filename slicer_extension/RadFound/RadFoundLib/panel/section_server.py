"""The section Server: address, token, state, and consent to send images."""

from typing import Any, Optional

import qt
import slicer

from ..controls.widgets import chosen_in, fill, guarded, show
from ..net.address import Address
from ..net.errors import ClientError
from ..translation import _
from .render import model_words, short_name, title_words

_ICONS = {
    "away": "state-away",
    "connecting": "state-waiting",
    "connected": "state-connected",
    "lost": "state-lost",
    "refused": "state-refused",
}


class ServerSection:
    """Address, token, state and consent."""

    def __init__(self, panel: Any):
        self._panel, self._ui, self._session = panel, panel.ui, panel.session
        self._asked_by = ""  # origin of the server that the token field is shown for
        self._may_be_overheard: set = set()
        self._complaint = ""  # about the address in the field; stays until it is changed
        self._was_connected = False
        ui = self._ui
        self.fill_addresses()
        ui.connectButton.connect("clicked()", guarded(self._on_connect))
        ui.addressBox.lineEdit().connect("returnPressed()", guarded(self._connect))
        ui.tokenEdit.connect("returnPressed()", guarded(self._connect))
        ui.addressBox.connect("editTextChanged(QString)", guarded(self._on_address))
        ui.certificateButton.connect("clicked()", guarded(self._choose_certificate))
        ui.consentBox.connect("toggled(bool)", guarded(self._on_consent))
        show(False, ui.tokenLabel, ui.tokenEdit)

    def heard(self, topic: str) -> None:
        """Show what changed."""
        if topic == "server":
            self._show_state()

    def fill_addresses(self) -> None:
        """List the servers used before."""
        self._ui.addressBox.clear()
        self._ui.addressBox.addItems(self._panel.settings.addresses())
        self._ui.addressBox.currentIndex = 0

    def give_consent(self) -> None:
        """Allow images to be sent to this server."""
        self._ui.consentBox.checked = True

    @property
    def model(self) -> Optional[str]:
        """The model that the reader chose among several; None for the server's own choice."""
        return chosen_in(self._ui.modelBox) if self._session.models else None

    def _on_connect(self) -> None:
        if self._offers_to_connect():
            self._connect()
        else:
            self._complaint = ""
            self._session.disconnect()

    def _offers_to_connect(self) -> bool:
        """Whether the button connects: to a server that is not the present one, or not there."""
        if self._session.state in ("away", "refused"):
            return True
        try:
            return str(Address.parse(self._ui.addressBox.currentText)) != self._session.address
        except ClientError:
            return True

    def _on_address(self, _text: str) -> None:
        self._complaint = ""
        self._show_words()

    def _connect(self) -> None:
        self._complaint = ""
        try:
            place = Address.parse(self._ui.addressBox.currentText)
            token = self._token_for(place)
            if token and not self._may_send_token(place):
                raise ClientError(_("Not connected: nothing was sent."), "request")
            self._session.connect(str(place), token)
        except ClientError as error:
            self._complaint = error.message
            self._show_words()

    def _token_for(self, place: Address) -> str:
        """Return the token of a server; clear the field if it was entered for another server."""
        ui = self._ui
        if place.origin != self._asked_by:
            ui.tokenEdit.text = ""
            show(False, ui.tokenLabel, ui.tokenEdit)
        return ui.tokenEdit.text.strip() or self._session.tokens.get(place.origin, "")

    def _may_send_token(self, place: Address) -> bool:
        """Ask, once for each server, before a token is sent without encryption."""
        if place.is_private or place.origin in self._may_be_overheard:
            return True
        question = _(
            "The connection to {address} is not encrypted: others on the network can read the "
            "token and use it. Send it anyway?"
        )
        if not slicer.util.confirmYesNoDisplay(question.format(address=place.origin), "RadFound"):
            return False
        self._may_be_overheard.add(place.origin)
        return True

    def _show_state(self) -> None:
        ui, session = self._ui, self._session
        state = session.state
        if state == "connected" and not self._was_connected:
            self._remember()
        if state == "refused":
            self._asked_by = session.client.origin
            show(True, ui.tokenLabel, ui.tokenEdit)
            ui.tokenEdit.setFocus()
        self._show_words()
        self._show_models()
        self._fold(state)
        show(not session.is_certificate_trusted and state != "connected", ui.certificateButton)
        ui.serverSection.text = title_words(
            _("Server: {model}").format(model=short_name(self._model()))
            if state == "connected"
            else _("Server: lost")
            if state == "lost"
            else _("Server")
        )
        self._show_consent()

    def _show_words(self) -> None:
        ui = self._ui
        ui.stateLabel.text = self._complaint or self._words()
        ui.connectButton.text = _("Connect") if self._offers_to_connect() else _("Disconnect")
        self._show_icon("lost" if self._complaint else self._session.state)

    def _fold(self, state: str) -> None:
        """Fold the section once all is said in it, and open it when something is wrong."""
        if state == "connected" and not self._was_connected and self._session.has_consent:
            self._ui.serverSection.collapsed = True
        elif state in ("lost", "refused", "away"):
            self._ui.serverSection.collapsed = False
        self._was_connected = state == "connected"

    def _show_models(self) -> None:
        ui, models = self._ui, self._session.models
        fill(ui.modelBox, [(name, name) for name in models], chosen_in(ui.modelBox))
        show(bool(models), ui.modelLabel, ui.modelBox)

    def _choose_certificate(self) -> None:
        """Trust a file of certificates for this server, and connect again."""
        session, settings = self._session, self._panel.settings
        path = qt.QFileDialog.getOpenFileName(
            slicer.util.mainWindow(),
            _("Choose a certificate"),
            "",
            _("Certificates (*.pem *.crt *.cer)"),
        )
        if path and session.client is not None:
            session.ca_files = {**session.ca_files, session.client.origin: path}
            settings.set_ca_files(session.ca_files)
            session.connect(session.address)

    def _remember(self) -> None:
        """Put the address first in the list once the server has answered."""
        ui, settings, address = self._ui, self._panel.settings, self._session.address
        if ui.addressBox.currentText == address and settings.addresses()[0] == address:
            return
        settings.add_address(address)
        self.fill_addresses()

    def _words(self) -> str:
        session = self._session
        if session.state == "connecting":
            return _("Connecting to {address} …").format(address=session.address)
        if session.state == "connected":
            words = _("connected: {model}").format(model=self._model())
            if not session.client.is_private:
                words += _(". The connection is not encrypted: others on the network can read it.")
            return words
        if session.state == "away":
            return _("Not connected. Enter the address of a RadFound server.")
        if session.state == "lost":
            again = _("Trying again every few seconds; your corrections are kept.")
            return f"{session.trouble} {again}"
        return session.trouble

    def _model(self) -> str:
        info = self._session.info
        return model_words({"name": info.checkpoint, "adapter": info.adapter} if info else {})

    def _show_icon(self, state: str) -> None:
        size = self._ui.stateLabel.fontMetrics().height()
        self._ui.stateIcon.setPixmap(self._panel.icon(_ICONS[state]).pixmap(size, size))

    def _show_consent(self) -> None:
        ui, session = self._ui, self._session
        is_known = session.client is not None and session.state not in ("away", "connecting")
        show(is_known, ui.consentBox)
        blocked = ui.consentBox.blockSignals(True)
        ui.consentBox.checked = session.has_consent
        ui.consentBox.blockSignals(blocked)

    def _on_consent(self, is_given: bool) -> None:
        session = self._session
        if not session.address:
            return
        others = session.consents - {session.address}
        session.consents = others | {session.address} if is_given else others
        self._panel.settings.set_consents(session.consents)
        self._panel.tell("transfer")
