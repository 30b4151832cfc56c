// Adds the RadFound panel to OHIF, which loads this file at run time (`extensions` in app-config.js).

const PANEL = "radfound.panelModule.radfound";
const WIDTH = "23.75rem"; // OHIF's 280 pixels are narrow for a report
const UID = /^[\d.]{1,64}$/;

// A React element: OHIF does not share its React with a file that it was not built with.
const element = (type, props, ref = null) => ({ $$typeof: Symbol.for("react.element"), type, key: null, ref, props, _owner: null });

// The page of questions in a frame, about the study of the active viewport.
class Frame {
  constructor({ servicesManager, commandsManager }) {
    this.services = servicesManager.services;
    this.commands = commandsManager;
  }

  // React calls it with the panel's place when the panel opens, and with null when it closes.
  place = (place) => {
    if (place) this.#open(place);
    else this.#close();
  };

  #open(place) {
    this.element = place;
    this.#widen(place.parentElement);
    const { viewportGridService: grid } = this.services;
    const follow = () => this.#show(this.#activeStudy());
    const events = [grid.EVENTS.ACTIVE_VIEWPORT_ID_CHANGED, grid.EVENTS.GRID_STATE_CHANGED];
    this.subscriptions = events.map((name) => grid.subscribe(name, follow));
    window.addEventListener("message", this.#hear);
    follow();
  }

  #close() {
    this.subscriptions.forEach((each) => each.unsubscribe());
    window.removeEventListener("message", this.#hear);
    this.study = this.frame = null;
    this.narrow?.();
  }

  // Make OHIF's side panel wider while it shows this one.
  #widen({ style }) {
    const { width, maxWidth } = style;
    if (!width.endsWith("px")) return;
    style.width = style.maxWidth = WIDTH;
    this.narrow = () => Object.assign(style, { width, maxWidth });
  }

  #activeStudy() {
    const { viewportGridService, displaySetService } = this.services;
    const { viewports, activeViewportId } = viewportGridService.getState();
    const [shown] = viewports.get(activeViewportId)?.displaySetInstanceUIDs ?? [];
    const opened = new URLSearchParams(location.search).get("StudyInstanceUIDs")?.split(",")[0];
    return (shown && displaySetService.getDisplaySetByUID(shown)?.StudyInstanceUID) || opened;
  }

  #show(study) {
    if (!study || study === this.study) return;
    this.study = study;
    // A new frame: another address in the old one would be one more step of the browser's "back".
    this.frame = document.createElement("iframe");
    this.frame.title = "RadFound";
    this.frame.style.cssText = "width: 100%; height: 100%; border: 0";
    this.frame.src = `/radfound/panel?embedded&image=${encodeURIComponent(study)}`;
    this.element.replaceChildren(this.frame);
  }

  // The page asks for another study, the next one to read.
  #hear = (event) => {
    const study = event.data?.radfoundStudy;
    if (event.origin !== location.origin || event.source !== this.frame?.contentWindow) return;
    if (typeof study !== "string" || !UID.test(study)) return;
    this.commands.runCommand("navigateHistory", { to: `/viewer?StudyInstanceUIDs=${study}` });
  };
}

export default {
  id: "radfound",
  getPanelModule(managers) {
    const frame = new Frame(managers);
    const style = { height: "100%", minHeight: "30rem" };
    const component = () => element("div", { style }, frame.place);
    return [{ name: "radfound", iconName: "tab-patient-info", iconLabel: "RadFound", label: "RadFound", component }];
  },
  onModeEnter({ servicesManager }) {
    const { panelService, viewportGridService } = servicesManager.services;
    panelService.addPanel("right", PANEL);
    const ready = viewportGridService.subscribe(viewportGridService.EVENTS.VIEWPORTS_READY, () => {
      ready.unsubscribe();
      panelService.activatePanel(PANEL, true);
    });
  },
};
