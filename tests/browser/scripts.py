"""What is asked of a page by scripts in it: each answers with a list of what is wrong."""

from __future__ import annotations

# WCAG 2.2, 1.4.3: 4.5 to 1 for text, 3 to 1 where it is large. Colours are read from a canvas,
# because getComputedStyle answers oklch() and light-dark() in their own words.
CONTRAST = """
() => {
  const canvas = document.createElement("canvas").getContext("2d", {willReadFrequently: true});
  const rgba = (colour) => {
    canvas.clearRect(0, 0, 1, 1);
    canvas.fillStyle = colour;
    canvas.fillRect(0, 0, 1, 1);
    const [r, g, b, a] = canvas.getImageData(0, 0, 1, 1).data;
    return [r, g, b, a / 255];
  };
  const over = (ink, ground) => [0, 1, 2].map((i) => ink[i] * ink[3] + ground[i] * (1 - ink[3]));
  const light = (rgb) => {
    const linear = (v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    const [r, g, b] = rgb.map((v) => linear(v / 255));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ratio = (a, b) => {
    const [high, low] = [light(a), light(b)].sort((x, y) => y - x);
    return (high + 0.05) / (low + 0.05);
  };
  const behind = (element) => {
    const layers = [];
    for (let node = element; node; node = node.parentElement) {
      const box = node.tagName === "svg" && getComputedStyle(node).getPropertyValue("--c");
      if (box) layers.push(rgba(box));
      layers.push(rgba(getComputedStyle(node).backgroundColor));
      if (layers.at(-1)[3] === 1) break;
    }
    return layers.reverse().reduce((base, layer) => over(layer, base), [255, 255, 255]);
  };
  const bad = [];
  const said = [...document.querySelectorAll("input, select, textarea")]
    .filter((one) => !["hidden", "checkbox", "radio"].includes(one.type) && !one.disabled)
    .map((one) => [one, one.value]);
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) said.push([walker.currentNode.parentElement, walker.currentNode.data]);
  for (const [element, words] of said) {
    const text = words.trim();
    if (!text || !element.checkVisibility({visibilityProperty: true})) continue;
    if (element.closest(".sr, .skip, script, template, [aria-hidden]")) continue;
    const style = getComputedStyle(element);
    const ground = behind(element);
    const ink = rgba(element.tagName === "text" ? style.fill : style.color);
    for (let node = element; node; node = node.parentElement)
      ink[3] *= Number(getComputedStyle(node).opacity);
    const size = parseFloat(style.fontSize);
    const large = size >= 24 || (size >= 18.66 && Number(style.fontWeight) >= 700);
    const found = ratio(over(ink, ground), ground);
    if (found < (large ? 3 : 4.5))
      bad.push(`${found.toFixed(2)} ${element.className} ${text.slice(0, 40)}`);
  }
  return bad;
}
"""

# Text that buttons squeezed, and headings below buttons.
CROWDED = """
() => {
  const bad = [];
  const boxes = [...document.querySelectorAll("main a, main button")]
    .filter((one) => one.checkVisibility() && !one.closest("h1, .log, .timeline, .jobs"));
  for (const heading of document.querySelectorAll("h1:not(.sr), h2:not(.sr)")) {
    if (!heading.checkVisibility()) continue;
    const range = document.createRange();
    range.selectNodeContents(heading);
    const box = range.getBoundingClientRect();
    const line = parseFloat(getComputedStyle(heading).lineHeight);
    if (box.height > 3.5 * line) bad.push(`${heading.innerText} takes ${box.height} px`);
    for (const other of boxes) {
      if (heading.contains(other)) continue;
      const its = other.getBoundingClientRect();
      const apart = its.right <= box.left || its.left >= box.right
        || its.bottom <= box.top || its.top >= box.bottom;
      if (!apart) bad.push(`${heading.innerText} lies below ${other.innerText}`);
    }
  }
  return bad;
}
"""

# What is wider than the window, and tables that one has to push sideways.
WIDE = """
() => {
  const bad = document.documentElement.scrollWidth > innerWidth ? ["wider than the window"] : [];
  for (const wrap of document.querySelectorAll(".table-wrap"))
    if (wrap.scrollWidth > wrap.clientWidth + 1)
      bad.push(`${wrap.getAttribute("aria-label")} is ${wrap.scrollWidth} px wide`);
  return bad;
}
"""

# Short words of headings, labels, buttons and tags that go on in the next line.
BROKEN = """
() => {
  const bad = [];
  const range = document.createRange();
  const firm = "h1, h2, h3, label, legend, button, .button, .tag";
  for (const one of document.querySelectorAll(firm)) {
    if (!one.checkVisibility() || one.closest(".sr")) continue;
    const walker = document.createTreeWalker(one, NodeFilter.SHOW_TEXT);
    while (walker.nextNode()) {
      if (walker.currentNode.parentElement.closest("code")) continue;
      for (const word of walker.currentNode.data.matchAll(/[A-Za-z]{2,20}/g)) {
        range.setStart(walker.currentNode, word.index);
        range.setEnd(walker.currentNode, word.index + word[0].length);
        const lines = new Set([...range.getClientRects()].map((box) => Math.round(box.top)));
        if (lines.size > 1) bad.push(`${word[0]} is broken in two`);
      }
    }
  }
  return bad;
}
"""

# Controls without a name, and ids that are there twice.
NAMELESS = """
() => {
  const nameless = [...document.querySelectorAll("a[href], button, input:not([type=hidden])")]
    .filter((one) => one.checkVisibility())
    .filter((one) => !(one.innerText?.trim() || one.getAttribute("aria-label")
        || one.labels?.length || one.querySelector("[aria-label], .sr, title")));
  const twice = [...document.querySelectorAll("[id]")].map((one) => one.id)
    .filter((id, index, all) => all.indexOf(id) !== index);
  return [...nameless.map((one) => one.outerHTML.slice(0, 120)), ...twice];
}
"""

# One heading, one main part, the language.
BONES = """
() => {
  const found = [document.querySelectorAll("h1").length, document.querySelectorAll("main").length,
    document.documentElement.lang];
  return found.join() === "1,1,en" ? [] : [found.join()];
}
"""

# What came from other hosts.
STRANGERS = """
() => performance.getEntriesByType("resource").map((one) => one.name)
  .filter((name) => !name.startsWith(location.origin))
"""

# How much a page is that weighs too much, in bytes, unpacked.
HEAVY = """
() => {
  const all = [...performance.getEntriesByType("navigation"),
    ...performance.getEntriesByType("resource")];
  const size = all.reduce((sum, one) => sum + one.decodedBodySize, 0);
  return size > 1000 && size <= 150000 ? [] : [`${size} bytes`];
}
"""

# Before Tab is pressed: notes what gets the focus. Answers how often to press it.
WATCH_FOCUS = """
() => {
  const CONTROLS = "a[href], button, input, select, textarea, summary, [tabindex='0']";
  window.controls = () => [...document.querySelectorAll(CONTROLS)].filter((one) =>
    !one.disabled && one.tabIndex >= 0 && one.type !== "hidden"
      && one.checkVisibility({visibilityProperty: true}));
  window.reached = new Map();
  document.addEventListener("focusin", ({target}) => {
    const style = getComputedStyle(target);
    reached.set(target, style.outlineStyle !== "none" && parseFloat(style.outlineWidth) > 0);
  });
  document.activeElement?.blur();
  return controls().length + 4;
}
"""
# And after: what was not reached, or had no outline. Of radio buttons Tab comes to one.
UNREACHED = """
() => {
  const said = (one) => one.outerHTML.slice(0, 120);
  const radios = new Set([...reached.keys()].filter((one) => one.type === "radio")
    .map((one) => one.name));
  const missed = controls().filter((one) => !reached.has(one) && !radios.has(one.name));
  document.activeElement?.blur();
  const bare = [...reached].filter(([, outlined]) => !outlined).map(([one]) => one);
  return [...missed.map((one) => `not reached: ${said(one)}`),
    ...bare.map((one) => `no outline: ${said(one)}`)];
}
"""
