// The pipeline page: choosing a job, the live log, earlier lines, permalinks, timestamps.
"use strict";

const run = document.getElementById("run");
const BLOCK = 1000;
const PATIENCE = 4000; // ms without a stream that nobody is told of: web processes are started again
const byId = (id) => document.getElementById(id);
let chosenByHand = new URLSearchParams(location.search).has("job") || location.hash.startsWith("#j");

// Jobs
function choose(anchor) {
  const panel = byId(anchor);
  if (!panel) return;
  run.dataset.chosen = anchor;
  for (const other of $$("#panels > .panel")) other.hidden = other !== panel;
  markTab();
  follow(panel);
}

function markTab() {
  for (const tab of $$("#jobs > .job")) {
    if (tab.dataset.job === run.dataset.chosen) tab.setAttribute("aria-current", "true");
    else tab.removeAttribute("aria-current");
  }
}

document.addEventListener("click", (event) => {
  if (event.ctrlKey || event.metaKey || event.shiftKey) return;
  const job = event.target.closest("a[data-job]");
  const step = event.target.closest("a[data-step]");
  const more = event.target.closest("a[data-more]");
  const line = event.target.closest(".l > a");
  if (job && byId(job.dataset.job)) {
    event.preventDefault();
    chosenByHand = true;
    choose(job.dataset.job);
    const target = job.getAttribute("href");
    if (target.startsWith("#") && target.length > 1) byId(target.slice(1))?.scrollIntoView({ block: "nearest" });
    else history.replaceState(null, "", target);
  } else if (step) {
    event.preventDefault();
    openStep(step.dataset.step);
  } else if (more) {
    event.preventDefault();
    earlier(more);
  } else if (line) {
    event.preventDefault();
    history.replaceState(null, "", line.getAttribute("href"));
    mark(line.parentElement);
    unfollow(line.closest(".panel"));
  }
});

function openStep(id) {
  const step = byId(id);
  if (!step) return;
  step.open = true;
  unfollow(step.closest(".panel"));
  const log = step.closest(".log");
  log.scrollTop += step.getBoundingClientRect().top - log.getBoundingClientRect().top;
  if (log.getBoundingClientRect().top < 0 || log.getBoundingClientRect().bottom > innerHeight) log.scrollIntoView({ block: "nearest" });
  $("summary", step).focus({ preventScroll: true });
}

// Permalinks: #j2-L120, or #L120 for the job that is shown.
function mark(line) {
  for (const other of $$(".l.marked")) other.classList.remove("marked");
  line.classList.add("marked");
  const step = line.closest("details");
  if (step) step.open = true;
}

async function goToHash() {
  const found = location.hash.match(/^#(?:(j\d+)-)?L(\d+)$/);
  if (!found) {
    const panel = byId(location.hash.slice(1))?.closest?.(".panel");
    if (panel) choose(panel.id);
    return;
  }
  const anchor = found[1] || run.dataset.chosen;
  const panel = byId(anchor);
  if (!panel) return;
  choose(anchor);
  unfollow(panel);
  const id = `${anchor}-L${found[2]}`;
  let more = $("a[data-more]", panel);
  if (!byId(id) && more && far(panel, Number(found[2]))) {
    location.assign(`${more.pathname}?line=${found[2]}#${id}`);
    return;
  }
  while (!byId(id) && (more = $("a[data-more]", panel))) if (!(await earlier(more))) break;
  const line = byId(id);
  if (!line) return;
  mark(line);
  line.scrollIntoView({ block: "center" });
}
addEventListener("hashchange", goToHash);

// Too far up to load all between: the page of single lines opens there at once.
function far(panel, number) {
  const first = $(".l", panel);
  return first && Number(first.id.split("-L")[1]) - number > 3 * BLOCK;
}

// Earlier lines go on top of what their step already shows; the reader stays where they are.
async function earlier(link) {
  const log = link.closest(".log");
  if (link.dataset.busy) return false;
  link.dataset.busy = "1";
  const answer = await fetch(link.dataset.more, { credentials: "same-origin" }).catch(() => null);
  if (!answer?.ok) {
    delete link.dataset.busy;
    announce("These lines could not be loaded. Try again.");
    return false;
  }
  const fresh = document.createElement("template");
  fresh.innerHTML = await answer.text();
  const height = log.scrollHeight;
  const panel = log.closest(".panel").id;
  const first = new Map();
  for (const part of $$("template", fresh.content)) {
    const step = stepBox(panel, part.dataset.step);
    const block = document.createElement("pre");
    block.className = "block far";
    block.append(part.content);
    const before = first.get(step) || $("pre", step);
    if (before) before.before(block);
    else step.append(block);
    first.set(step, block);
  }
  const next = $("a[data-more]", fresh.content);
  if (next) link.replaceWith(next);
  else link.remove();
  log.scrollTop += log.scrollHeight - height;
  return true;
}

// The place of a step's lines. Lines may come a moment before the row that names their step.
function stepBox(panel, step) {
  const id = `${panel}-s${step}`;
  const found = byId(id);
  if (found) return found;
  const box = document.createElement("details");
  box.id = id;
  box.className = "step";
  box.open = true;
  const summary = document.createElement("summary");
  const name = document.createElement("code");
  name.textContent = `Step ${step}`;
  summary.append(name);
  box.append(summary);
  addStep(byId(`${panel}-log`), box);
  return box;
}

function addStep(log, box) {
  const number = Number(box.id.split("-s")[1]);
  const later = $$(":scope > .step", log).find((other) => Number(other.id.split("-s")[1]) > number);
  log.insertBefore(box, later || $(":scope > .loose", log));
}

// Following: the log stays at its end until the reader scrolls away from it.
const followed = new WeakMap();
function isFollowing(panel) {
  return $("[data-follow]", panel)?.checked;
}
function unfollow(panel) {
  const box = panel && $("[data-follow]", panel);
  if (box) box.checked = false;
}
function follow(panel) {
  if (panel.hidden || !isFollowing(panel)) return;
  const log = $(".log", panel);
  log.scrollTop = log.scrollHeight;
  followed.set(log, log.scrollTop);
}
document.addEventListener("scroll", (event) => {
  const log = event.target;
  if (!(log instanceof Element) || !log.matches(".log")) return;
  if (log.scrollTop < (followed.get(log) ?? 0) - 40) unfollow(log.closest(".panel"));
}, { capture: true, passive: true });
document.addEventListener("change", (event) => {
  if (event.target.matches("[data-follow]")) follow(event.target.closest(".panel"));
  if (!event.target.matches("[data-timestamps]")) return;
  setTimes(event.target.checked);
  document.cookie = `gantry_times=${event.target.checked ? 1 : ""}; path=/; max-age=31536000; samesite=lax`;
});
function setTimes(on) {
  document.body.classList.toggle("show-times", on);
  for (const box of $$("[data-timestamps]")) box.checked = on;
}
setTimes(document.body.classList.contains("show-times")); // the server drew what the cookie says

// Live
function takeState(html) {
  const fresh = document.createElement("template");
  fresh.innerHTML = html;
  for (const part of [...fresh.content.children]) {
    if (part.matches("template[data-panel]")) {
      if (!byId(part.dataset.panel)) {
        const panel = part.content.firstElementChild;
        panel.hidden = true;
        byId("panels").append(panel);
      }
      continue;
    }
    const old = byId(part.id);
    if (part.matches("details.step")) takeStep(old, part);
    else if (old) refresh(old, part);
  }
  markTab();
  setTimes(document.body.classList.contains("show-times"));
  if (!chosenByHand) chooseBusiest();
  for (const panel of $$("#panels > .panel")) follow(panel);
}

// The page that waited for a pipeline is that pipeline's from now on.
function takeHead(html) {
  const fresh = document.createElement("template");
  fresh.innerHTML = html;
  const head = fresh.content.firstElementChild;
  history.replaceState(null, "", head.dataset.address);
  document.title = head.dataset.title;
  byId("run-head").replaceWith(head);
}

function takeStep(old, fresh) {
  if (old) {
    const summary = $("summary", old);
    if (summary) refresh(summary, $("summary", fresh));
    if (fresh.open) old.open = true; // opened when it runs or fails, never closed under a reader
  } else {
    const log = byId(fresh.dataset.in);
    if (log) addStep(log, fresh);
  }
}

function chooseBusiest() {
  const job = $("#jobs > .is-failed") || $("#jobs > .is-running") || $("#jobs > .job");
  if (job && job.dataset.job !== run.dataset.chosen) choose(job.dataset.job);
}

function takeLines(html) {
  const fresh = document.createElement("template");
  fresh.innerHTML = html;
  const panels = new Set();
  for (const part of [...fresh.content.children]) {
    const panel = `j${part.dataset.job}`;
    if (!byId(panel)) continue;
    const step = stepBox(panel, part.dataset.step);
    let block = step.lastElementChild;
    if (!block || block.nodeName !== "PRE" || block.childElementCount >= BLOCK) {
      if (block?.nodeName === "PRE") putAway(block);
      block = document.createElement("pre");
      block.className = "block";
      step.append(block);
    }
    block.append(part.content);
    panels.add(byId(panel));
  }
  panels.forEach(follow);
}

// A full block is not laid out again while it is out of sight; its height stays what it is.
function putAway(block) {
  block.style.containIntrinsicBlockSize = `auto ${block.offsetHeight}px`;
  block.classList.add("far");
}

// What may be done with a pipeline is another thing once it has ended.
async function actions() {
  const answer = await fetch(location.pathname, { credentials: "same-origin" }).catch(() => null);
  if (!answer?.ok) return;
  const fresh = new DOMParser().parseFromString(await answer.text(), "text/html").getElementById("run-actions");
  const old = byId("run-actions");
  if (fresh?.childElementCount && old) old.replaceWith(document.importNode(fresh, true));
}

// A worker reads what was pushed seconds after the pipeline passed: then the map is put below.
function layers(tries) {
  setTimeout(async () => {
    const answer = await fetch(location.pathname, { credentials: "same-origin" }).catch(() => null);
    const page = new DOMParser().parseFromString((await answer?.text()) ?? "", "text/html");
    const map = page.getElementById("layers");
    if (map && !byId("layers")) $("main").append(document.importNode(map, true));
    else if (!map && tries > 1) layers(tries - 1);
  }, 2000);
}

// A browser connects again by itself, but not after an answer that is no stream, such as a proxy's
// while the service is being upgraded: then it is asked again from the last place, until it answers.
function listen(from, pause = 3000) {
  const address = new URL(run.dataset.events, location.href);
  if (from) address.searchParams.set("from", from);
  const source = new EventSource(address);
  const leave = () => source.close();
  let last = from;
  source.addEventListener("open", () => {
    pause = 3000;
    connected(true);
  });
  for (const [kind, take] of Object.entries({ begin: takeHead, state: takeState, log: takeLines })) {
    source.addEventListener(kind, (event) => {
      last = event.lastEventId;
      take(event.data);
    });
  }
  source.addEventListener("restart", () => location.reload());
  source.addEventListener("error", () => {
    connected(false, PATIENCE);
    if (source.readyState !== EventSource.CLOSED) return;
    removeEventListener("pagehide", leave);
    setTimeout(() => listen(last, Math.min(2 * pause, 60000)), pause);
  });
  source.addEventListener("end", () => {
    source.close();
    byId("cancel-form")?.classList.add("gone");
    actions();
    if ($("#verdict.is-passed")) layers(10);
  });
  addEventListener("pagehide", leave);
}
if (run.dataset.events) listen(run.dataset.from);

for (const panel of $$("#panels > .panel")) follow(panel);
for (const step of $$(".panel > .panel-grid .step[open]:has(> .is-failed)")) {
  const log = step.closest(".log"); // errors are at the end
  log.scrollTop = log.scrollHeight;
}
goToHash();
