"use strict";
// What a container's command says, as it says it; the last 5,000 lines of it.
const MOST = 5000;
const log = document.getElementById("command-log");
const state = document.getElementById("command-state");
const decoders = { out: new TextDecoder(), err: new TextDecoder() };
const source = new EventSource(log.dataset.stream);

function add(event) {
  const bytes = Uint8Array.from(atob(event.data), (letter) => letter.charCodeAt(0));
  const atEnd = log.scrollHeight - log.scrollTop - log.clientHeight < 40;
  const span = document.createElement("span");
  span.className = event.type === "err" ? "said-err" : "";
  span.textContent = decoders[event.type].decode(bytes, { stream: true });
  log.append(span);
  while (log.childElementCount > MOST) log.firstChild.remove();
  if (atEnd) log.scrollTop = log.scrollHeight;
}

source.addEventListener("open", () => { state.textContent = "live"; });
source.addEventListener("out", add);
source.addEventListener("err", add);
source.addEventListener("end", (event) => {
  source.close();
  const end = JSON.parse(event.data);
  state.textContent = end.reason
    || (end.exit_code ? `ended with exit code ${end.exit_code}` : "ended");
});
source.addEventListener("error", () => {
  if (source.readyState !== EventSource.CLOSED) source.close();
  state.textContent = "The connection ended. Ask again.";
});
