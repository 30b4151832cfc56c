// Reports on their way into the archive.

const SENT = ["report", "caption"];
const LOOKS = 10;
const PAUSE_MS = 1_000;
const PATIENCE_MS = 60_000; // the server may have to read the headers of the images
const STATES = {
  waiting: "Will be sent when the archive can be reached",
  delivered: "In the archive",
  refused: "Refused by the archive",
};

// What may be sent about an answer: "draft", "reader" or null; `write`: what the server may write.
export function sendable(write, answer, verdict) {
  if (!SENT.includes(answer.task) || !answer.series?.length) return null;
  if (!verdict) return write === "draft" ? "draft" : null;
  return verdict !== "rejected" && ["reader", "draft"].includes(write) ? "reader" : null;
}

// Send the document of { answer_id } or { correction_id }, and tell its state until it is settled.
export async function send(calls, source, tell) {
  let document = await calls.post("pacs/send", source, { patience: PATIENCE_MS });
  for (let look = 0; ; look++) {
    tell(document.problem && document.state === "refused" ? `${STATES.refused}: ${document.problem}` : STATES[document.state]);
    if (document.state !== "waiting" || look === LOOKS) return;
    await new Promise((done) => setTimeout(done, PAUSE_MS));
    const { documents } = await calls.get("pacs/outbox");
    document = documents.find((each) => each.sop_instance_uid === document.sop_instance_uid) ?? document;
  }
}
