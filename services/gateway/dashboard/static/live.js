// Keeps a page true: fragments come as server-sent events, and take the place of what an element holds. The
// server has escaped what is in them. A page that has lost its connection says so, and tries again by itself.

const path = document.body.dataset.live;
const notice = document.querySelector(".connection");

function say(text) {
  notice.textContent = text;
  notice.hidden = !text;
}

function put({ id, html }) {
  const element = document.getElementById(id);
  const open = [...element.querySelectorAll("details")].map((details) => details.open);
  const template = document.createElement("template");
  template.innerHTML = html;
  element.replaceChildren(template.content);
  element.querySelectorAll("details").forEach((details, place) => { details.open = open[place] ?? details.open; });
}

if (path) {
  const source = new EventSource(path);
  source.addEventListener("open", () => say(""));
  source.addEventListener("fragment", (event) => put(JSON.parse(event.data)));
  source.addEventListener("failed", (event) => say(JSON.parse(event.data).message));
  source.addEventListener("error", () => {
    const since = new Date().toLocaleTimeString();
    if (notice.hidden) say(`Not connected since ${since}; what stands here may be old.`);
    if (source.readyState === EventSource.CLOSED) setTimeout(() => location.reload(), 5000);
  });
}
