// Asks from the form, and shows the answers of all members side by side as they come. What a model writes is
// only ever a text node.

// So much of an answer is shown while it comes; a line of a megabyte would keep the browser busy for minutes.
const MOST = 20000;

class ChoirAsk extends HTMLElement {
  connectedCallback() {
    this.form = this.querySelector("form");
    this.form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.ask();
    });
  }

  say(text) {
    this.querySelector(".state").textContent = text;
  }

  body() {
    const fields = new FormData(this.form);
    return {
      prompt: fields.get("prompt"),
      ensemble: fields.get("ensemble") || null,
      models: fields.getAll("models"),
      strategies: fields.getAll("strategies"),
      others: fields.has("others"),
      choices: fields.get("choices").split("\n").map((line) => line.trim()).filter(Boolean),
      max_tokens: Number(fields.get("max_tokens")),
      temperature: Number(fields.get("temperature")),
      top_p: Number(fields.get("top_p")),
      seed: fields.get("seed") === "" ? null : Number(fields.get("seed")),
      summarize_with: fields.getAll("summarize_with").filter(Boolean),
    };
  }

  async ask() {
    const button = this.form.querySelector("button");
    button.disabled = true;
    this.streams = new Map();
    this.link = "";
    this.querySelector(".streams").replaceChildren();
    this.querySelector(".result").replaceChildren();
    this.say("asking");
    try {
      const reply = await fetch("/dashboard/ask/answers", {
        method: "POST",
        headers: { "content-type": "application/json", accept: "text/event-stream" },
        body: JSON.stringify(this.body()),
      });
      if (!reply.ok) {
        const page = new DOMParser().parseFromString(await reply.text(), "text/html");
        throw new Error(page.querySelector("main h1 + p")?.textContent ?? `status ${reply.status}`);
      }
      for await (const [name, fields] of events(reply.body)) this.take(name, fields);
    } catch (error) {
      this.say(`That did not work: ${error.message}`);
    } finally {
      button.disabled = false;
    }
  }

  take(name, fields) {
    if (name === "asked") {
      const link = document.createElement("a");
      link.href = fields.link;
      link.textContent = fields.id;
      this.querySelector(".state").replaceChildren("the models answer; this request: ", link);
    } else if (name === "piece") {
      const text = this.stream(fields.agent);
      if (fields.again) text.data = "";
      text.appendData(fields.text.slice(0, Math.max(0, MOST - text.length)));
    } else if (name === "result") {
      const template = document.createElement("template");
      template.innerHTML = fields.html;
      this.querySelector(".streams").replaceChildren();
      this.querySelector(".result").replaceChildren(template.content);
      this.say("decided");
    } else if (name === "failed") {
      this.say(`That did not work: ${fields.message}`);
    }
  }

  stream(agent) {
    if (!this.streams.has(agent)) {
      const card = document.createElement("article");
      const name = document.createElement("h3");
      const body = document.createElement("div");
      const text = document.createTextNode("");
      name.textContent = agent;
      body.className = "whole";
      body.tabIndex = 0;
      body.setAttribute("role", "group");
      body.setAttribute("aria-label", `What ${agent} says`);
      body.append(text);
      card.append(name, body);
      this.querySelector(".streams").append(card);
      this.streams.set(agent, text);
    }
    return this.streams.get(agent);
  }
}

async function* events(stream) {
  const reader = stream.pipeThrough(new TextDecoderStream()).getReader();
  let held = "";
  for (let part = await reader.read(); !part.done; part = await reader.read()) {
    held += part.value;
    const whole = held.split("\n\n");
    held = whole.pop();
    for (const lines of whole) {
      const name = /^event: (.*)$/m.exec(lines);
      const data = /^data: (.*)$/m.exec(lines);
      if (name && data) yield [name[1], JSON.parse(data[1])];
    }
  }
}

customElements.define("choir-ask", ChoirAsk);
