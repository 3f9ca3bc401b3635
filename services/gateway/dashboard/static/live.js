// Keeps a page true: fragments come as server-sent events, and take the place of what an element holds. The
// server has escaped what is in them. A page that has lost its connection says so, and tries again by itself.

import { formLike, keyOf, placeOf } from "/dashboard/static/forms.js";

const path = document.body.dataset.live;
const notice = document.querySelector(".connection");
const ahead = Date.now() / 1000 - Number(document.body.dataset.now);
const LOOK_AGAIN = 3000;
const AGAIN = 5000;

function say(text) {
  if (notice.textContent !== text) notice.textContent = text;
}

function places(element) {
  return [...element.querySelectorAll("a, button, input, select, textarea, summary, [tabindex]")];
}

function labelOf(place) {
  return place.getAttribute("aria-label") ?? place.getAttribute("href") ?? place.name;
}

// What somebody has begun to say in the forms of an element: by form, what was told of it and which fields hold
// something else than the page said.
function begun(element) {
  return [...element.querySelectorAll("form.action")].map((form) => ({
    key: keyOf(form),
    at: placeOf(form, element),
    told: form.querySelector(".state")?.textContent ?? "",
    kind: form.querySelector(".state")?.className,
    fields: [...form.elements].filter((field) => field.type !== "hidden" && field.name && changed(field)).map((field) => [labelOf(field), field.value, field.checked]),
  })).filter((form) => form.told || form.fields.length);
}

function changed(field) {
  if (field.options) return field.selectedIndex !== Math.max(0, [...field.options].findIndex((option) => option.defaultSelected));
  return field.type === "checkbox" ? field.checked !== field.defaultChecked : field.defaultValue !== undefined && field.value !== field.defaultValue;
}

function goOn(element, forms) {
  for (const { key, at, told, kind, fields } of forms) {
    const form = formLike(element, key, at);
    if (!form) {
      document.querySelector(".done").textContent = told;
      continue;
    }
    const state = form.querySelector(".state");
    if (state && told) { state.textContent = told; state.className = kind; }
    for (const [label, value, checked] of fields) {
      const field = [...form.elements].find((each) => labelOf(each) === label);
      if (!field || (field.options && ![...field.options].some((option) => option.value === value))) continue;
      if (field.type === "checkbox") field.checked = checked;
      else field.value = value;
    }
  }
}

function put({ id, html }) {
  const element = document.getElementById(id);
  if (!element) return;
  const open = [...element.querySelectorAll("details")].map((details) => details.open);
  const held = element.contains(document.activeElement) ? document.activeElement : null;
  const place = held ? places(element).indexOf(held) : -1;
  const forms = begun(element);
  const template = document.createElement("template");
  template.innerHTML = html;
  element.replaceChildren(template.content);
  element.querySelectorAll("details").forEach((details, at) => { details.open = open[at] ?? details.open; });
  goOn(element, forms);
  if (held) (places(element).find((each) => labelOf(each) && labelOf(each) === labelOf(held)) ?? places(element)[place])?.focus();
  tick(element);
}

const UNITS = [["d", 86400], ["h", 3600], ["min", 60], ["s", 1]];

function tick(root) {
  for (const element of root.querySelectorAll("time.age, time.left")) {
    const passed = Date.now() / 1000 - ahead - Number(element.dataset.at);
    const seconds = Math.max(0, element.className === "left" ? -passed : passed);
    const [unit, length] = UNITS.find(([, length]) => seconds >= length) ?? ["s", 1];
    const text = `${Math.floor(seconds / length)} ${unit}`;
    if (element.textContent !== text) element.textContent = text;
  }
}

tick(document);
setInterval(() => tick(document), 1000);

function lost() {
  const said = notice.textContent;
  if (said.includes("Not connected since")) return;
  say(`${said ? `${said}. ` : ""}Not connected since ${new Date().toLocaleTimeString()}; what stands here may be old.`);
}

// A page whose stream has been refused asks for itself, to know why. With a key that has ended it stays as it
// is: what stands there is all that somebody without one has.
async function again() {
  try {
    const reply = await fetch(location.href, { cache: "no-store" });
    if (reply.ok) location.reload();
    else if (reply.status === 401) {
      const link = document.createElement("a");
      link.href = location.pathname + location.search;
      link.textContent = "Show another one";
      notice.replaceChildren("Your API key or your login has ended; what stands here will not change any more. ", link);
      return;
    }
  } catch {
    lost();
  }
  setTimeout(again, AGAIN);
}

if (path) {
  const source = new EventSource(path);
  source.addEventListener("open", () => say(""));
  source.addEventListener("fragment", (event) => put(JSON.parse(event.data)));
  source.addEventListener("failed", (event) => say(JSON.parse(event.data).message));
  source.addEventListener("error", () => {
    lost();
    if (source.readyState === EventSource.CLOSED) setTimeout(again, AGAIN);
  });
} else {
  // A page that nothing changes asks from time to time whether its gateway is there.
  setInterval(async () => {
    if (document.hidden) return;
    try {
      await fetch("/dashboard/static/choir.svg", { cache: "no-store" });
      say("");
    } catch {
      lost();
    }
  }, LOOK_AGAIN);
}
