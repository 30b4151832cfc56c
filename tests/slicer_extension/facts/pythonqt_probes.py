"""Small uses of Qt through the module that is handed in; what came of each, by name."""


def run(qt):
    """Return (name, answer) for each probe; an exception is answered with its type's name."""
    answers = []

    def probe(name, act):
        try:
            answers.append((name, act()))
        except Exception as error:
            answers.append((name, "EXC " + type(error).__name__))

    _buttons(qt, probe)
    button = _signals(qt, probe)
    combo = _combo(qt, probe)
    _texts(qt, probe)
    _layout(qt, probe, button, combo)
    _numbers(qt, probe)
    _timer(qt, probe)
    _table(qt, probe)
    _names(qt, probe, button)
    _rest(qt, probe, button)
    return answers


def _buttons(qt, probe):
    button = qt.QPushButton("hi")
    probe("text", lambda: button.text)
    button.text = "x"
    button.enabled = False
    probe("enabled", lambda: button.enabled)


def _signals(qt, probe):
    button = qt.QPushButton("x")
    button.setEnabled(True)
    button.setText("s")
    probe("set", lambda: (button.text, button.enabled, button.isEnabled()))
    hits = []
    button.connect("clicked(bool)", lambda checked: hits.append(checked))
    button.connect("clicked()", lambda: hits.append("n"))
    button.clicked.connect(lambda checked: hits.append(("s", checked)))
    button.click()
    probe("hits", lambda: sorted(map(str, hits)))

    def set_unknown():
        button.nosuch = 1

    probe("setunknown", set_unknown)
    probe("getunknown", lambda: button.nosuch)
    probe("text()", lambda: button.text())
    return button


def _combo(qt, probe):
    combo = qt.QComboBox()
    combo.addItem("a", "ua")
    combo.addItem("b", "ub")
    combo.currentIndex = 1
    probe("combo", lambda: (combo.currentText, combo.count, combo.itemData(0), combo.findText("b")))
    probe("currentData", lambda: combo.currentData)
    hits = []
    combo.connect("currentIndexChanged(int)", lambda index: hits.append(index))
    combo.currentIndex = 0
    probe("cic", lambda: hits)
    return combo


def _texts(qt, probe):
    browser = qt.QTextBrowser()
    browser.html = "<b>q</b>"
    browser.append("z")
    probe("plain", lambda: browser.plainText)
    browser.openLinks = False
    probe("ol", lambda: browser.openLinks)
    edit = qt.QPlainTextEdit()
    edit.plainText = "abc"
    edit.readOnly = True
    edit.placeholderText = "p"
    probe("pe", lambda: (edit.plainText, edit.toPlainText(), edit.readOnly))


def _layout(qt, probe, button, combo):
    widget = qt.QWidget()
    layout = qt.QVBoxLayout(widget)
    layout.addWidget(button)
    layout.addWidget(combo)
    probe("kids", lambda: len(widget.findChildren(qt.QPushButton)))
    probe("par", lambda: button.parent() is widget or button.parent() == widget)
    probe("layout", lambda: layout.count())
    widget.visible = False
    probe("vis", lambda: (widget.visible, widget.isVisible()))
    # The real one and ours delete what a widget that is gone had held.
    button.setParent(None)
    combo.setParent(None)


def _numbers(qt, probe):
    bar = qt.QProgressBar()
    bar.maximum = 10
    bar.value = 3
    probe("pb", lambda: (bar.value, bar.maximum))
    box = qt.QSpinBox()
    box.value = 7
    probe("sb", lambda: box.value)
    check = qt.QCheckBox()
    check.checked = True
    probe("ck", lambda: check.checked)


def _timer(qt, probe):
    timer = qt.QTimer()
    timer.interval = 5
    timer.setSingleShot(True)
    probe("tm", lambda: (timer.interval, timer.isSingleShot(), timer.active))

    def set_single_shot():
        timer.singleShot = True

    probe("tm.singleShot=", set_single_shot)


def _table(qt, probe):
    table = qt.QTableWidget()
    table.rowCount = 2
    table.columnCount = 1
    probe("tb", lambda: (table.rowCount, table.columnCount))
    table.setItem(0, 0, qt.QTableWidgetItem("x"))
    probe("ti", lambda: table.item(0, 0).text())


def _names(qt, probe, button):
    button.objectName = "ob"
    probe("on", lambda: button.objectName)
    button.setProperty("dyn", "v")
    probe("dyn", lambda: button.property("dyn"))
    probe("cn", lambda: button.className())
    group = qt.QGroupBox("t")
    group.title = "u"
    group.checkable = True
    probe("gb", lambda: (group.title, group.checkable))


def _rest(qt, probe, button):
    line = qt.QLineEdit()
    hits = []
    line.connect("textChanged(QString)", lambda text: hits.append(text))
    line.text = "yo"
    probe("le", lambda: (hits, line.text))
    line.echoMode = qt.QLineEdit.Password
    probe("em", lambda: _number(line.echoMode))
    probe("align", lambda: _number(qt.Qt.AlignLeft))
    tabs = qt.QTabWidget()
    tabs.addTab(qt.QWidget(), "A")
    probe("tw", lambda: (tabs.count, tabs.tabText(0), tabs.currentIndex))
    probe("signalsBlocked", lambda: (button.blockSignals(True), button.signalsBlocked()))
    probe("app", lambda: qt.QApplication.instance() is not None)


def _number(enumerator):
    return int(getattr(enumerator, "value", enumerator))
