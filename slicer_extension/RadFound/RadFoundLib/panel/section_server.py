"""The section Server: address, token, state, and consent to send images."""

from typing import Any

import slicer

from ..net.address import Address
from ..net.errors import ClientError
from ..translation import _
from .render import model_words
from .widgets import show

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
        ui = self._ui
        self.fill_addresses()
        ui.connectButton.connect("clicked()", self._on_connect)
        ui.addressBox.lineEdit().connect("returnPressed()", self._connect)
        ui.tokenEdit.connect("returnPressed()", self._connect)
        ui.consentBox.connect("toggled(bool)", self._on_consent)
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

    def _on_connect(self) -> None:
        if self._session.state in ("away", "lost", "refused"):
            self._connect()
        else:
            self._session.disconnect()

    def _connect(self) -> None:
        try:
            place = Address.parse(self._ui.addressBox.currentText)
            token = self._token_for(place)
            if token and not self._may_send_token(place):
                raise ClientError(_("Not connected: nothing was sent."), "request")
            self._session.connect(str(place), token)
        except ClientError as error:
            self._ui.stateLabel.text = error.message
            self._show_icon("lost")

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
        if state == "connected":
            self._remember()
        if state == "refused":
            self._asked_by = session.client.origin
            show(True, ui.tokenLabel, ui.tokenEdit)
            ui.tokenEdit.setFocus()
        ui.stateLabel.text = self._words()
        ui.connectButton.text = (
            _("Connect") if state in ("away", "lost", "refused") else _("Disconnect")
        )
        ui.serverSection.text = (
            _("Server: {model}").format(model=self._model())
            if state == "connected"
            else _("Server: lost")
            if state == "lost"
            else _("Server")
        )
        self._show_icon(state)
        self._show_consent()

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
            return _("Not connected. `make serve` on this computer starts a server.")
        if session.state == "lost":
            again = _("Trying again every few seconds; your corrections are kept.")
            return f"{session.trouble} {again}"
        return session.trouble

    def _model(self) -> str:
        info, active = self._session.info, self._session.adapters.get("active")
        return model_words({"name": info.checkpoint if info else "?", "adapter": active})

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
        self._panel.tell("sending")
