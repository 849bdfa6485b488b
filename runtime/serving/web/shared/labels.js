// Texts for states and reasons, their icons and their order.

// Names listed for each state in the announcement for screen readers.
const MAX_NAMES = 3;

/** States with a score. */
export const SCORED = new Set(["real", "uncertain", "fake"]);

export const FACE_LABELS = {
  warming: "Warming up",
  real: "Real",
  uncertain: "Uncertain",
  fake: "Fake",
  stale: "No verdict",
  none: "No verdict",
};

export const FACE_HELP = {
  warming: "Collecting samples of this face. There is no score yet.",
  real: "No sign of a fake was found. This is not proof.",
  uncertain: "The score is between the thresholds for real and fake.",
  fake: "The score has reached the threshold for fake, and has not fallen clearly below it since. This is not proof.",
};

/** Why the image does not allow a decision, for a verdict `uncertain` with a `reason`. */
export const REASON_LABELS = {
  no_motion: "no motion in the face",
  turned: "face turned or upside down",
  turned_away: "face turned away",
  too_small: "face too small",
  dark: "face too dark",
  no_colour: "face without colour",
};

export const STREAM_LABELS = {
  connecting: "connecting to the source",
  live: "live",
  no_face: "no face in view",
  too_slow: "frame rate too low",
  stalled: "no new frames",
  overloaded: "this machine is too slow",
  offline: "source offline",
  ended: "video ended",
  removed: "no longer watched",
};

export function percent(share) {
  return `${Math.round(share * 100)} %`;
}

/** States in the order in which they matter to a viewer: fakes first. */
export const SEVERITY = ["fake", "uncertain", "real", "warming", "none"];

/** Order for `sort`, by severity. */
export function bySeverity(a, b) {
  return SEVERITY.indexOf(a.state) - SEVERITY.indexOf(b.state);
}

/** Returns one sentence for each state of `[{state, name}]`, the most severe first, for screen readers. */
export function announcement(entries) {
  return SEVERITY.flatMap((state) => {
    const names = entries.filter((entry) => entry.state === state).map((entry) => entry.name);
    if (!names.length) return [];
    const more = names.length > MAX_NAMES ? ` and ${names.length - MAX_NAMES} more` : "";
    return [`${FACE_LABELS[state]}: ${names.slice(0, MAX_NAMES).join(", ")}${more}.`];
  }).join(" ");
}
