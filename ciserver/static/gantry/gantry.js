// What every page needs: theme, copying, times that go on, confirming in a dialog, keeping right.
// Pages work without it; nothing here runs what a log, a branch or a title holds.
"use strict";

const $ = (selector, root = document) => root.querySelector(selector);
const $$ = (selector, root = document) => [...root.querySelectorAll(selector)];

function announce(text) {
  $("#announce").textContent = text;
}

// Theme: follows the system until somebody chooses; the cookie lets the server draw it at once.
const toggle = $("[data-theme-toggle]");
if (toggle) {
  toggle.addEventListener("click", () => {
    const root = document.documentElement;
    const dark = root.dataset.theme
      ? root.dataset.theme === "dark"
      : matchMedia("(prefers-color-scheme: dark)").matches;
    root.dataset.theme = dark ? "light" : "dark";
    document.cookie = `gantry_theme=${root.dataset.theme}; path=/; max-age=31536000; samesite=lax`;
    announce(`Colour theme: ${root.dataset.theme}`);
  });
}

// Times. The words are those of ciserver/lib/words.py.
function ago(seconds) {
  if (seconds < 10) return "just now";
  for (const [limit, unit, name] of [[60, 1, "s"], [3600, 60, "min"], [86400, 3600, "h"], [2592000, 86400, "d"]])
    if (seconds < limit) return `${Math.floor(seconds / unit)} ${name} ago`;
  return null;
}

function duration(seconds) {
  if (seconds < 9.95) return `${seconds.toFixed(1)} s`;
  const whole = Math.round(seconds);
  const two = (number) => String(number).padStart(2, "0");
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${two(whole % 60)} s`;
  return `${Math.floor(whole / 3600)} h ${two(Math.floor((whole % 3600) / 60))} min`;
}

function setText(element, text) {
  if (text !== null && element.textContent !== text) element.textContent = text;
}

setInterval(() => {
  const now = Date.now();
  for (const time of $$("time.ago")) setText(time, ago((now - Date.parse(time.dateTime)) / 1000));
}, 10000);
setInterval(() => {
  for (const span of $$("[data-since]"))
    setText(span, duration(Math.max(0, (Date.now() - Date.parse(span.dataset.since)) / 1000)));
}, 1000);

// Copying
document.addEventListener("click", async (event) => {
  const button = event.target.closest("[data-copy]");
  if (!button) return;
  try {
    await navigator.clipboard.writeText(button.dataset.copy);
  } catch {
    getSelection().selectAllChildren($("code", button.parentElement));
    announce("Press Ctrl and C to copy");
    return;
  }
  button.classList.add("done");
  announce("Copied");
  setTimeout(() => button.classList.remove("done"), 1200);
});

// A link to a page that asks "are you sure" opens in the dialog; without this file it is a page.
const dialog = $("#dialog");
let opener = null;
document.addEventListener("click", async (event) => {
  const link = event.target.closest("a[data-dialog]");
  if (link && !event.ctrlKey && !event.metaKey && !event.shiftKey && event.button === 0) {
    event.preventDefault();
    try {
      const answer = await fetch(link.href, { credentials: "same-origin" });
      const page = new DOMParser().parseFromString(await answer.text(), "text/html");
      const form = $("form.confirm", page);
      if (!answer.ok || !form) throw new Error("no form");
      dialog.replaceChildren(document.importNode(form, true));
      opener = link.id || link.getAttribute("href");
      dialog.showModal();
      $("[autofocus]", dialog)?.focus();
    } catch {
      location.href = link.href;
    }
  } else if (event.target.closest("dialog [data-close]")) {
    event.preventDefault();
    dialog.close();
  } else if (event.target === dialog) {
    dialog.close();
  }
});
dialog.addEventListener("close", () => {
  dialog.replaceChildren();
  const back = $$("a[data-dialog]").find((link) => link.getAttribute("href") === opener);
  back?.focus();
});

// A link into what is folded opens it.
function unfold() {
  const folded = location.hash && document.getElementById(location.hash.slice(1))?.closest("details.opens");
  if (folded) folded.open = true;
}
addEventListener("hashchange", unfold);
unfold();

// Menus close like menus do.
document.addEventListener("click", (event) => {
  for (const menu of $$("details.menu[open]")) if (!menu.contains(event.target)) menu.open = false;
});
document.addEventListener("keydown", (event) => {
  if (event.key !== "Escape") return;
  for (const menu of $$("details.menu[open]")) {
    menu.open = false;
    $("summary", menu).focus();
  }
});

// The palette is fetched when it is first asked for; without it there is the search page.
const finder = $("[data-palette]");
async function openPalette() {
  try {
    const palette = await import(finder.dataset.palette);
    await palette.open(finder.getAttribute("href"), finder.dataset.css);
  } catch {
    location.href = finder.href;
  }
}
if (finder) {
  finder.addEventListener("click", (event) => {
    if (event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    openPalette();
  });
  document.addEventListener("keydown", (event) => {
    const k = (event.ctrlKey || event.metaKey) && !event.shiftKey && !event.altKey && event.key.toLowerCase() === "k";
    const slash = event.key === "/" && !event.ctrlKey && !event.metaKey && !event.altKey && !event.target.closest("input, textarea, select, [contenteditable]");
    if (dialog.open || !(k || slash)) return;
    event.preventDefault();
    const search = slash && $$("form[role=search] input").find((one) => one.checkVisibility());
    if (search) search.focus();
    else openPalette();
  });
}

// Put new markup in the place of old, touching only what differs and what is not in use.
function refresh(old, fresh) {
  if (old.isEqualNode(fresh)) return;
  const sameShape =
    old.nodeName === fresh.nodeName &&
    old.childNodes.length === fresh.childNodes.length &&
    old.children.length > 0 &&
    old.namespaceURI !== "http://www.w3.org/2000/svg";
  if (sameShape) {
    for (const { name } of [...old.attributes]) if (!fresh.hasAttribute(name)) old.removeAttribute(name);
    for (const { name, value } of fresh.attributes) if (old.getAttribute(name) !== value) old.setAttribute(name, value);
    const pairs = [...old.childNodes].map((node, index) => [node, fresh.childNodes[index]]);
    for (const [mine, theirs] of pairs) {
      if (mine.nodeType === 1 && theirs.nodeType === 1) refresh(mine, theirs);
      else if (!mine.isEqualNode(theirs)) mine.replaceWith(document.importNode(theirs, true));
    }
    return;
  }
  const active = old.contains(document.activeElement) ? document.activeElement : null;
  const key = active && (active.id ? `#${CSS.escape(active.id)}` : active.getAttribute("href") && `[href="${CSS.escape(active.getAttribute("href"))}"]`);
  const node = document.importNode(fresh, true);
  old.replaceWith(node);
  if (key) (node.matches(key) ? node : $(key, node))?.focus();
}

// A container that has come to a cell is seen to move there, from where its row had it before.
function containers() {
  const found = new Map();
  for (const box of $$(".cell svg.box:not(.slot)"))
    found.set(box.closest(".cell").id, [box.getAttribute("aria-label"), box.getBoundingClientRect()]);
  return found;
}

function moveContainers(before) {
  if (matchMedia("(prefers-reduced-motion: reduce)").matches) return;
  for (const cell of $$(".cell")) {
    const box = $("svg.box:not(.slot)", cell);
    const label = box?.getAttribute("aria-label");
    if (!box || before.get(cell.id)?.[0] === label) continue;
    const row = cell.closest("tr, ol");
    const from = $$(".cell", row).map((other) => other !== cell && before.get(other.id)).find((known) => known && known[0] === label);
    if (!from) continue;
    const to = box.getBoundingClientRect();
    const start = `translate(${from[1].x - to.x}px, ${from[1].y - to.y}px)`;
    box.classList.add("moving");
    const lift = { transform: `${start} translateY(-14px)`, offset: 0.2 };
    const over = { transform: "translateY(-14px)", offset: 0.8 };
    box.animate([{ transform: start }, lift, over, { transform: "none" }], { duration: 1100, easing: "ease-in-out" }).finished
      .finally(() => box.classList.remove("moving"));
  }
}

// What keeps itself right says when it cannot; ``patience`` in milliseconds.
const lost = $("#connection");
let losing = 0;
function connected(yes, patience) {
  if (yes) {
    clearTimeout(losing);
    losing = 0;
    if (!lost.hidden) announce("Connected again");
    lost.hidden = true;
  } else losing ||= setTimeout(() => {
    lost.hidden = false;
    announce(lost.textContent);
  }, patience);
}

// Pages that keep themselves right ask again every few seconds and mostly hear "304".
const live = $("#live[data-live]");
if (live) {
  let etag = "", looking = false;
  const look = async () => {
    const url = live.dataset.live || location.pathname + location.search;
    const answer = await fetch(url, {
      headers: { "X-Live": "1", ...(etag && { "If-None-Match": etag }) },
      credentials: "same-origin",
      redirect: "manual",
      signal: AbortSignal.timeout(15000),
    });
    connected(answer.status < 500, 0);
    // Signed out, or not a member any more: the page itself says what to do about it.
    if (answer.type === "opaqueredirect" || answer.status === 404) location.assign(url);
    if (!answer.ok) return;
    etag = answer.headers.get("ETag") || "";
    const fresh = document.createElement("div");
    fresh.innerHTML = await answer.text();
    for (const { name, value } of live.attributes) fresh.setAttribute(name, value);
    const before = containers();
    refresh(live, fresh);
    moveContainers(before);
  };
  // One at a time: a server that is slow is not asked by everybody all the more.
  const again = async () => {
    if (looking || document.hidden || dialog.open) return;
    looking = true;
    await look().catch(() => connected(false, 1500)); // a page that is being left ends it, too
    looking = false;
  };
  setInterval(again, 3000);
  document.addEventListener("visibilitychange", again);
}
