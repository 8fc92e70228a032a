// The command palette: a combobox with a list box (ARIA authoring practices), in a dialog.
// What it offers comes from the search page, whose options are the server's own markup.

const WAIT = 90; // milliseconds without a key before the server is asked
let dialog, input, list, status, asking, timer;

export async function open(url, css) {
  if (!dialog) {
    await style(css);
    build(url);
  }
  if (dialog.open) return;
  input.value = "";
  list.replaceChildren();
  dialog.showModal();
  ask(url);
}

function style(href) {
  return new Promise((done) => {
    const link = Object.assign(document.createElement("link"), { rel: "stylesheet", href });
    link.onload = link.onerror = done;
    document.head.append(link);
  });
}

function element(name, attributes) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}

function build(url) {
  dialog = element("dialog", { class: "palette", "aria-label": "Find or do" });
  input = element("input", {
    type: "text", role: "combobox", "aria-expanded": "true", "aria-controls": "hits",
    "aria-autocomplete": "list", "aria-label": "Find projects, environments, pipelines, releases, actions",
    autocomplete: "off", spellcheck: "false", placeholder: "shop prod, #12, v3, promote …",
  });
  list = element("ul", { id: "hits", role: "listbox", "aria-label": "Found" });
  status = element("p", { class: "palette-status", role: "status" });
  dialog.append(input, list, status);
  document.body.append(dialog);
  input.addEventListener("input", () => {
    clearTimeout(timer);
    timer = setTimeout(() => ask(url), WAIT);
  });
  dialog.addEventListener("keydown", key);
  list.addEventListener("pointermove", (event) => choose(event.target.closest("[role=option]"), false));
  list.addEventListener("click", (event) => go(event.target.closest("[role=option]"), event));
  dialog.addEventListener("click", (event) => event.target === dialog && dialog.close());
}

async function ask(url) {
  asking?.abort();
  asking = new AbortController();
  const asked = input.value;
  try {
    const answer = await fetch(`${url}?q=${encodeURIComponent(asked)}`, {
      headers: { "X-Palette": "1" }, credentials: "same-origin", redirect: "error", signal: asking.signal,
    });
    if (!answer.ok) throw new Error(answer.statusText);
    const fresh = document.createElement("template");
    fresh.innerHTML = await answer.text();
    list.replaceChildren(...fresh.content.children);
    const count = list.childElementCount;
    status.textContent = count ? `${count} found. Enter opens, arrows choose.` : `Nothing is called “${asked}”.`;
    choose(list.firstElementChild);
  } catch (error) {
    if (error.name !== "AbortError") status.textContent = "The server does not answer. Try again.";
  }
}

function chosen() {
  return list.querySelector("[aria-selected=true]");
}

function choose(option, show = true) {
  chosen()?.setAttribute("aria-selected", "false");
  if (!option) {
    input.removeAttribute("aria-activedescendant");
    return;
  }
  option.setAttribute("aria-selected", "true");
  input.setAttribute("aria-activedescendant", option.id);
  if (show) option.scrollIntoView({ block: "nearest" });
}

function key(event) {
  const all = [...list.children];
  const at = all.indexOf(chosen());
  const to = { ArrowDown: at + 1, ArrowUp: at - 1, PageDown: Math.min(at + 8, all.length - 1), PageUp: Math.max(at - 8, 0) }[event.key];
  if (event.isComposing) return;
  if (to !== undefined && all.length) {
    event.preventDefault();
    choose(all[(to + all.length) % all.length]);
  } else if (event.key === "Enter") {
    event.preventDefault();
    go(chosen(), event);
  } else if ((event.ctrlKey || event.metaKey) && event.key.toLowerCase() === "k") {
    event.preventDefault();
    event.stopPropagation();
    dialog.close();
  }
}

function go(option, event) {
  if (!option) return;
  if (event.ctrlKey || event.metaKey) window.open(option.dataset.href, "_blank", "noopener");
  else location.href = option.dataset.href;
  dialog.close();
}
