"use strict";
// The server says which question is next; this page shows it and sends the answer. It decides nothing itself.

const at = (id) => document.getElementById(id);
const videos = [at("video1"), at("video2")];
const SIDES = [[1, "1 is better", "1"], [2, "2 is better", "2"], [0, "tie", "t"]];
const DRIFT = 0.04; // seconds apart before the second is set to the first: a frame
let state = null;
let asked = 0; // when the question was shown, in ms
let busy = false; // an answer is on its way
let shownPair = null;

function duration(seconds) {
  const minutes = Math.round(seconds / 60);
  if (seconds < 60) return `${Math.round(seconds)} s`;
  return minutes < 60 ? `${minutes} min` : `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}

function say(text) { at("said").textContent = text; }

async function ask(place, body) {
  const options = body === undefined ? {} : {
    method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body),
  };
  const reply = await fetch(place, options);
  const found = await reply.json();
  if (!reply.ok && found.questions === undefined) throw new Error(found.error);
  return found;
}

async function update(place, body, said) {
  if (busy) return; // a key pressed meanwhile would answer a question that nobody has seen
  busy = true;
  try {
    show(await ask(place, body), said);
    at("error").textContent = "";
  } catch (problem) {
    const lost = problem instanceof TypeError;
    at("error").textContent = lost
      ? "The command does not answer: start it again, and open the address that it prints. All answers are kept."
      : `Not kept: ${problem.message}`;
  } finally {
    busy = false;
  }
}

function show(found, said) {
  state = found;
  asked = performance.now();
  const left = state.seconds_left === null ? "" : `, about ${duration(state.seconds_left)} left`;
  at("annotator").textContent = state.annotator;
  at("done").max = Math.max(state.questions, 1);
  at("done").value = state.answered;
  at("progress").textContent = `${state.answered} of ${state.questions} answers${left}`;
  at("undo").disabled = !state.can_undo;
  const next = state.next;
  at("work").hidden = next === null;
  at("finished").hidden = next !== null;
  if (next === null) {
    videos.forEach((video) => video.pause());
    shownPair = null;
    at("finished").focus();
    say("All pairs are answered.");
    return;
  }
  if (next.pair !== shownPair) load(next.pair);
  drawCriteria(next);
  say(`${said ? said + " " : ""}Pair ${next.pair + 1} of ${state.pairs}: ${next.criterion}?`);
}

function drawCriteria(next) {
  const inside = at("criteria").contains(document.activeElement);
  at("criteria").replaceChildren(...state.criteria.map((criterion) => {
    const set = document.createElement("fieldset");
    const current = criterion === next.criterion;
    const legend = document.createElement("legend");
    legend.textContent = criterion;
    set.disabled = !current;
    if (current) set.setAttribute("aria-current", "step");
    set.append(legend, ...SIDES.map(([side, text, key]) => {
      const button = document.createElement("button");
      button.type = "button";
      button.dataset.side = side;
      button.textContent = text + " ";
      button.setAttribute("aria-pressed", String(next.given[criterion] === side));
      if (current) {
        const shortcut = document.createElement("kbd");
        shortcut.textContent = key;
        button.append(shortcut);
        button.setAttribute("aria-keyshortcuts", key);
        button.addEventListener("click", () => answer(side));
      }
      return button;
    }));
    return set;
  }));
  // Whoever answers by Tab and Enter stays in the row of buttons.
  if (inside) document.querySelector("fieldset[aria-current] button").focus();
}

function answer(side) {
  if (state === null || state.next === null) return;
  const seconds = (performance.now() - asked) / 1000;
  const { pair, criterion } = state.next;
  update("answer", { pair, criterion, side, seconds }, `${criterion}: ${SIDES.find(([s]) => s === side)[1]}.`);
}

function undo() {
  if (state !== null && state.can_undo) update("undo", {}, "Undone.");
}

// Playing: the first video leads, the second follows it; the sound is the first one's, for both were given the same.

function load(pair) {
  shownPair = pair;
  videos.forEach((video, side) => { video.src = `video/${pair}/${side + 1}`; });
  const ready = videos.map((video) => new Promise((resolve) => {
    video.addEventListener("canplaythrough", resolve, { once: true });
  }));
  Promise.all(ready).then(() => {
    if (shownPair === pair && !matchMedia("(prefers-reduced-motion: reduce)").matches) play();
  });
}

async function play() {
  if (videos[0].ended || videos[1].ended) videos.forEach((video) => { video.currentTime = 0; });
  videos[1].currentTime = videos[0].currentTime;
  try {
    await Promise.all(videos.map((video) => video.play()));
  } catch {
    // Sound before the first key or click is not allowed by browsers: silent then, and `m` turns it on.
    videos[0].muted = true;
    drawSound();
    await Promise.all(videos.map((video) => video.play())).catch(() => {});
  }
}

function toggle() {
  if (videos[0].paused) play(); else videos.forEach((video) => video.pause());
}

function again() {
  videos.forEach((video) => { video.currentTime = 0; });
  play();
}

function drawSound() { at("sound").setAttribute("aria-pressed", String(!videos[0].muted)); }

function sound() {
  videos[0].muted = !videos[0].muted;
  drawSound();
}

videos[0].addEventListener("timeupdate", () => {
  if (Math.abs(videos[0].currentTime - videos[1].currentTime) > DRIFT && !videos[1].ended) {
    videos[1].currentTime = videos[0].currentTime;
  }
});
videos[0].addEventListener("ended", () => { // again and again, both from the start
  if (!matchMedia("(prefers-reduced-motion: reduce)").matches) again();
});
videos.forEach((video) => video.addEventListener("error", () => {
  at("error").textContent = "A video of this pair cannot be shown: run `halign-bench prefs sample` again.";
}));

at("play").addEventListener("click", toggle);
at("again").addEventListener("click", again);
at("sound").addEventListener("click", sound);
at("undo").addEventListener("click", undo);

const KEYS = { 1: () => answer(1), 2: () => answer(2), t: () => answer(0), u: undo, r: again, m: sound, " ": toggle };
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.altKey || event.metaKey || event.repeat || !at("keys").checked) return;
  const own = event.target.closest("button, input"); // which the space bar presses
  const act = KEYS[event.key.toLowerCase()];
  if (act === undefined || (event.key === " " && own)) return;
  event.preventDefault();
  act();
});

drawSound();
update("state");
