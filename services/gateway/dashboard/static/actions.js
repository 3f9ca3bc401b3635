// Forms that change something: sent as JSON to their own address, and what came of it is told beside them.
// Fields with data-list are lists of lines, those with type number are numbers, empty ones are left out.

import { formLike, keyOf, placeOf } from "/dashboard/static/forms.js";

const ASKED = 5000;

function value(field) {
  if (field.type === "checkbox") return field.checked;
  const text = field.value.trim();
  if (text === "") return undefined;
  if ("list" in field.dataset) return text.split(/[\n,]/).map((line) => line.trim()).filter(Boolean);
  return field.type === "number" || "number" in field.dataset ? Number(text) : text;
}

function fields(form, button) {
  const found = {};
  for (const field of form.elements) {
    if (!field.name || field.type === "submit" || (field.type === "radio" && !field.checked)) continue;
    const said = value(field);
    if (said === undefined) continue;
    const [group, name] = field.name.includes(".") ? field.name.split(".") : [null, field.name];
    if (field.dataset.many !== undefined) {
      if (field.checked) (found[name] ??= []).push(field.value);
    } else if (group) (found[group] ??= {})[name] = said;
    else found[name] = said;
  }
  if (button?.name) found[button.name] = button.value;
  return found;
}

// A live page may have put a new form in the place of the one that was sent: what came of it is told there. A
// row that has gone has no place: then it is told at the head of the page.
function standsAt(form) {
  const id = form.parentElement.closest("[id]")?.id;
  const key = keyOf(form);
  const at = id ? placeOf(form, document.getElementById(id)) : 0;
  return () => (form.isConnected || !id ? form : formLike(document.getElementById(id), key, at));
}

function stateOf(form) {
  return form?.querySelector(".state") ?? form?.parentElement.querySelector(".state") ?? document.querySelector(".done");
}

// What cannot be undone is asked back, also of somebody who hears the page.
function askBack(button) {
  const name = button.getAttribute("aria-label");
  button.dataset.asked = button.textContent;
  button.textContent = button.dataset.sure;
  if (name) button.setAttribute("aria-label", `${button.dataset.sure} ${name}`);
  setTimeout(() => {
    button.textContent = button.dataset.asked;
    if (name) button.setAttribute("aria-label", name);
    delete button.dataset.asked;
  }, ASKED);
}

// A login that is too old for this: on another page, so that what is said in the form stays.
function loginElsewhere() {
  const link = document.createElement("a");
  link.href = "/dashboard/admin";
  link.target = "_blank";
  link.textContent = "show the key, and come back";
  return link;
}

async function send(form, button) {
  const present = standsAt(form);
  let state = stateOf(form);
  const buttons = [...form.querySelectorAll("button")];
  if (button?.dataset.sure && button.dataset.asked === undefined) {
    askBack(button);
    return;
  }
  buttons.forEach((each) => { each.disabled = true; });
  state.className = "state";
  state.textContent = "one moment";
  try {
    // Fields may be called as properties of the form are: only attributes are what the page said.
    const reply = await fetch(button?.getAttribute("formaction") ?? form.getAttribute("action"), {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify(fields(form, button)),
    });
    if (!reply.ok) {
      const page = new DOMParser().parseFromString(await reply.text(), "text/html");
      const error = new Error(page.querySelector("main h1 + p")?.textContent ?? `status ${reply.status}`);
      error.again = reply.status === 401;
      throw error;
    }
    const told = await reply.json();
    if (told.html) {
      const template = document.createElement("template");
      template.innerHTML = told.html;
      (present() ?? form).parentElement.querySelector(".told").replaceChildren(template.content);
    }
    if (told.put) for (const [id, html] of Object.entries(told.put)) {
      const template = document.createElement("template");
      template.innerHTML = html;
      document.getElementById(id)?.replaceChildren(template.content);
    }
    state = stateOf(present());
    state.textContent = told.words;
  } catch (error) {
    state = stateOf(present());
    state.className = "state problem";
    state.textContent = error.message;
    if (error.again) state.append(": ", loginElsewhere());
  } finally {
    buttons.forEach((each) => { each.disabled = false; });
  }
}

document.addEventListener("submit", (event) => {
  if (!event.target.matches("form.action")) return;
  event.preventDefault();
  send(event.target, event.submitter);
});
