// Which form is which, also after a live page has put a new one in its place: by where it sends, and what it
// says without being filled in.

export function keyOf(form) {
  const said = [...form.querySelectorAll("input[type=hidden]")].map((field) => `${field.name}=${field.value}`);
  return [form.getAttribute("action"), ...said].join(" ");
}

// The form of that key in an element; of several the one at the same place among them.
export function formLike(element, key, at) {
  const same = [...element.querySelectorAll("form.action")].filter((form) => keyOf(form) === key);
  return same[at] ?? same[0];
}

export function placeOf(form, element) {
  const key = keyOf(form);
  return [...element.querySelectorAll("form.action")].filter((each) => keyOf(each) === key).indexOf(form);
}
