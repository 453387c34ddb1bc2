// The page: draws what the server says, and asks it for what a person does.

import { ask, listen, view } from "./ask.js";
import { $, element, show } from "./dom.js";
import { drawMap } from "./map.js";
import { person } from "./people.js";

const VERDICTS = { done: "done", partly: "partly done", refused: "it cannot be", unclear: "not understood" };
let now = null; // the view
let chosen = null; // where of the episode that is looked at; null for the newest
let moving = localStorage.getItem("moving") !== "no" && !matchMedia("(prefers-reduced-motion: reduce)").matches;
let sounding = false;
let stagesDone = [];
let asked = 0;
let asking = false;
const rowsOf = new WeakMap();

// One request at a time: what happens meanwhile is asked for after it, and of the past only what is not here yet.
async function refresh() {
  asked += 1;
  if (asking) return;
  asking = true;
  for (let answered = 0; answered < asked;) {
    answered = asked;
    try {
      now = await view(now);
      draw();
      connection(true);
    } catch (error) {
      connection(false, error.status === 401 ? "This session has ended. Open the address that the program printed when it started." : null);
    }
  }
  asking = false;
}

function connection(alive, words = null) {
  $("connection").textContent = words || "The connection is lost; trying again. What has happened is kept.";
  show($("connection"), !alive);
}

async function attempt(what, data) {
  show($("failure"), false);
  try { await ask(what, data); return true; } catch (error) { fail(error.message); await refresh(); return false; }
}

function fail(words) {
  $("failure").textContent = words;
  show($("failure"), true);
  $("failure").scrollIntoView({ block: "nearest" });
}

async function act(action) {
  if (!now || now.busy) return;
  chosen = null;
  now.busy = true; // nobody types into the moment before the server says so
  draw();
  if (await attempt("act", { action })) $("action").value = "";
}

// --- drawing ------------------------------------------------------------------------------------------------------------

function draw() {
  document.title = now.title;
  $("title").textContent = now.title;
  const clock = now.clock;
  show($("clock"), Boolean(clock));
  if (clock) $("clock").textContent = `Day ${clock.day}, ${String(clock.hour).padStart(2, "0")}:00, ${clock.part}, ${clock.weather}`;
  const episode = now.episodes.find((entry) => entry.where === chosen) || now.episodes.at(-1);
  drawEpisode(episode);
  drawProgress();
  drawActing();
  drawAside(episode);
  drawBranches();
  drawStages();
}

function drawEpisode(episode) {
  const key = episode ? `${now.branch}/${episode.number}/${episode.pictures.join()}/${moving}` : "";
  if ($("pictures").dataset.key !== key) {
    $("pictures").dataset.key = key;
    $("pictures").replaceChildren(...(episode ? episode.pictures.map((address, index) => picture(episode, address, index)) : []));
  }
  const parts = [];
  if (episode) {
    const { outcome, intent, description, ...others } = episode.texts;
    if (episode.action) parts.push(element("p", { class: "did" }, `> ${episode.action}`));
    if (episode.action && episode.resolution) {
      const { status, because } = episode.resolution;
      parts.push(element("p", { class: `verdict ${status}` }, [VERDICTS[status] || status, because].filter(Boolean).join(": ")));
    }
    for (const text of [outcome || intent, ...Object.values(others)]) if (text) parts.push(element("p", {}, text));
    const behind = [["The plan", outcome ? intent : null], ["In the picture", description]].filter(([, text]) => text);
    if (behind.length) parts.push(element("details", {}, element("summary", {}, "Behind this episode"),
      behind.map(([label, text]) => element("p", { class: "seen" }, element("b", {}, `${label}: `), text))));
  }
  if (!parts.length) parts.push(element("p", { class: "seen" }, now.busy ? "The world begins ..." : "Nothing has happened yet. Say what you do, or let the world begin by itself."));
  const text = parts.map((part) => part.textContent).join("\n");
  if ($("telling").dataset.text !== text) {
    const open = $("telling").querySelector("details")?.open, first = $("telling").dataset.text === undefined;
    $("telling").dataset.text = text;
    $("telling").replaceChildren(...parts);
    if (open && $("telling").querySelector("details")) $("telling").querySelector("details").open = true;
    if (!first && !now.busy && chosen === null) $("telling").scrollIntoView({ block: "nearest" });
  }
  soundOf(episode);
}

function picture(episode, address, index) {
  const still = `/api/picture/${address}`;
  const image = element("img", { src: still, alt: episode.alt || `Picture ${index + 1} of episode ${episode.number}`, width: 512, height: 512 });
  if (moving && episode.moves) {
    const loop = new Image();
    loop.onload = () => { if (image.isConnected) image.src = loop.src; };
    loop.src = `/api/motion/${address.replace(".png", ".gif")}`;
  }
  return image;
}

function soundOf(episode) {
  const player = $("sound");
  const address = sounding && episode && episode.scene ? `/api/sound/${episode.where}.wav?v=${now.branch}.${episode.number}` : "";
  if ((player.getAttribute("src") || "") === address) return;
  if (!address) { player.pause(); player.removeAttribute("src"); return; }
  player.src = address;
  player.play().catch(() => {});
}

function drawProgress() {
  const items = !now.busy ? [] : now.cycle.map((stage) => {
    const done = stagesDone.find((entry) => entry.stage === stage);
    const at = now.next === stage && !now.paused;
    return element("li", { class: at ? "now" : done ? (done.skipped ? "done skipped" : "done") : null, title: done && done.skipped ? `skipped: ${done.skipped}` : null }, stage);
  });
  $("progress").replaceChildren(...items);
  show($("paused"), Boolean(now.paused));
  if (now.paused) {
    $("paused").replaceChildren(`Waiting after ${now.paused}. Look at the slots, edit them, and `, element("button", { type: "button", onclick: () => attempt("proceed") }, "go on"), " ",
      element("button", { type: "button", onclick: () => attempt("stop") }, "stop here"));
  }
}

function drawActing() {
  for (const id of ["go", "wait", "undo"]) $(id).disabled = now.busy;
  $("undo").disabled = now.busy || !now.can.undo || now.passes < 1;
  const key = now.suggestions.join("\n") + now.busy;
  if ($("suggestions").dataset.key !== key) {
    $("suggestions").dataset.key = key;
    $("suggestions").replaceChildren(...now.suggestions.map((text, index) =>
      element("button", { type: "button", disabled: now.busy, title: `Alt+${index + 1}`, onclick: () => act(text) }, text)));
  }
  if (now.error) fail(`${now.error.message}\nAct again to try once more, undo, or edit a slot under Stages.`);
}

function drawAside(episode) {
  show($("map-box"), Boolean(now.map));
  if (now.map) $("map").replaceChildren(drawMap(now.map, act));
  show($("cast-box"), now.cast.length > 0);
  $("cast").replaceChildren(...now.cast.map(person));
  show($("carried-box"), now.carried.length > 0);
  $("carried").replaceChildren(...now.carried.map((name) => element("li", {}, name)));
  const rows = now.episodes.toReversed().map(rowOf);
  const shown = new Set(rows);
  for (const row of [...$("timeline").children]) if (!shown.has(row)) row.remove();
  rows.forEach((row, index) => { if ($("timeline").children[index] !== row) $("timeline").insertBefore(row, $("timeline").children[index] || null); });
  for (const row of rows) row.firstChild.setAttribute("aria-current", String(row === rowOf(episode)));
}

// The row of an episode in the timeline, made once: what is in focus stays so while others come.
function rowOf(entry) {
  if (!rowsOf.has(entry)) rowsOf.set(entry, element("li", {}, element("button", { type: "button", onclick: () => { chosen = entry.where === "now" ? null : entry.where; draw(); } },
    entry.pictures.length ? element("img", { src: `/api/picture/${entry.pictures[0]}`, alt: "", loading: "lazy" }) : element("div", { class: "blank" }),
    element("span", {}, element("b", {}, `${entry.number} `), entry.action ? `> ${entry.action}` : entry.texts.outcome || entry.texts.intent || Object.values(entry.texts)[0] || ""))));
  return rowsOf.get(entry);
}

function drawBranches() {
  $("branch-list").replaceChildren(...now.branches.map((branch) => element("li", {},
    element("button", { type: "button", disabled: now.busy || branch.name === now.branch, "aria-current": branch.name === now.branch ? "true" : null, onclick: () => { chosen = null; attempt("switch", { name: branch.name }); } }, branch.name),
    element("span", {}, `${branch.passes} passes${branch.parent ? `, from ${branch.parent[0]} after ${branch.parent[1]}` : ""}${branch.name === now.branch ? ", played now" : ""}`))));
  for (const control of $("branch-form").elements) control.disabled = now.busy || !now.can.branch;
  $("open-branches").disabled = !now.can.branch;
}

function drawStages() {
  if ($("stages").hidden || $("stages").contains(document.activeElement) && document.activeElement.tagName === "TEXTAREA") return;
  $("pause-list").replaceChildren(...now.cycle.map((stage) => element("label", {},
    element("input", { type: "checkbox", value: stage, checked: now.pauses.includes(stage), onchange: pausesChanged }), ` ${stage}`)));
  const editable = !now.busy || Boolean(now.paused);
  $("slots").replaceChildren(...Object.entries(now.slots).map(([slot, text]) => {
    const id = `slot-${slot}`;
    const area = element("textarea", { id, readonly: text === null || !editable, spellcheck: "true" });
    area.value = text === null ? "(pictures or sound)" : text;
    return element("div", {}, element("label", { for: id }, slot), area,
      text === null ? null : element("button", { type: "button", disabled: !editable, onclick: () => attempt("edit", { slot, text: area.value }) }, `Keep ${slot}`));
  }));
}

function pausesChanged() {
  attempt("pauses", { stages: [...$("pause-list").querySelectorAll("input:checked")].map((box) => box.value) });
}

// --- what a person does ---------------------------------------------------------------------------------------------------

$("act").addEventListener("submit", (event) => {
  event.preventDefault();
  const text = $("action").value.trim();
  if (text) act(text);
});
$("wait").addEventListener("click", () => act(null));
$("undo").addEventListener("click", () => { chosen = null; attempt("undo", { passes: 1 }); });
$("branch-form").addEventListener("submit", async (event) => {
  event.preventDefault();
  const episode = now.episodes.find((entry) => entry.where === chosen);
  if (await attempt("fork", { name: $("branch-name").value, passes: episode && episode.step !== null ? episode.number : null })) $("branch-name").value = "";
});
for (const [button, drawer] of [["open-branches", "branches"], ["open-stages", "stages"]]) {
  $(button).addEventListener("click", () => {
    show($(drawer), $(drawer).hidden);
    $(button).setAttribute("aria-expanded", String(!$(drawer).hidden));
    if (now) draw();
  });
}
function pressed(button, value) { $(button).setAttribute("aria-pressed", String(value)); }
function toggleMotion() { moving = !moving; localStorage.setItem("moving", moving ? "yes" : "no"); pressed("moving", moving); if (now) draw(); }
function toggleSound() { sounding = !sounding; pressed("sounding", sounding); if (now) draw(); }
$("moving").addEventListener("click", toggleMotion);
$("sounding").addEventListener("click", toggleSound);
pressed("moving", moving);
document.addEventListener("keydown", (event) => {
  if (event.altKey && !event.ctrlKey && !event.metaKey) {
    const index = Number(event.code.replace("Digit", "")) - 1;
    const done = { KeyZ: () => $("undo").click(), KeyW: () => $("wait").click(), KeyM: toggleMotion, KeyS: toggleSound }[event.code]
      || (now && now.suggestions[index] ? () => act(now.suggestions[index]) : null);
    if (done) { event.preventDefault(); done(); }
  } else if (event.key === "/" && (!/^(INPUT|TEXTAREA)$/.test(document.activeElement.tagName) || document.activeElement === $("action") && !$("action").value)) {
    event.preventDefault();
    $("action").focus();
  } else if (event.key === "Escape" && chosen !== null) { chosen = null; draw(); }
});

listen((kind, data) => {
  if (kind === "begun") stagesDone = [];
  if (kind === "stage") stagesDone = [...stagesDone, data];
  if (kind === "pass") stagesDone = [];
  refresh();
}, (alive) => { connection(alive); if (alive) show($("failure"), false); });
refresh();
